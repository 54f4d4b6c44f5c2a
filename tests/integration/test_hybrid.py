"""Search by meaning and by words at once, on the real server with the real model."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text

import searchapp
from searchapp import errors
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.models import document_id
from searchapp.search.hits import Hit, Hits
from searchapp.search.hybrid import CANDIDATES_OF_PAGES
from searchapp.spaces import Space
from tests import conftest
from tests.integration.test_words import MODEL, keys, load, made_up, of_texts
from tests.made_up import random_vectors

engine, db = conftest.shared_database()

SMALL = made_up(random.Random(1), range(60))
LARGE = 800
QUERY = "ant bee"


@pytest.fixture(scope="module")
def small(db: Client) -> Space:
    """Every document of it is a candidate."""
    return load(db, "small", SMALL, language="simple")


@pytest.fixture(scope="module")
def large(db: Client) -> Space:
    return load(db, "large", made_up(random.Random(2), range(LARGE)), language="simple")


def ask(db: Client, space: Space, query: str = QUERY, **options: Any) -> Hits:
    return db.search(query, collection=space.collection, mode="hybrid", **options)


def everything(db: Client, space: Space, query: str = QUERY, **options: Any) -> Hits:
    return ask(db, space, query, limit=db.count(collection=space.collection), **options)


def ranks(scores: dict[str, float]) -> dict[str, int]:
    """1 for the largest; equal ones have the same."""
    return {key: 1 + sum(other > score for other in scores.values()) for key, score in scores.items()}


def fused(
    distances: dict[str, float], text_scores: dict[str, float], method: str, weights: Sequence[float]
) -> dict[str, float]:
    """The scores of all documents, by plain Python."""
    if method == "rrf":
        nearer = ranks({key: -distance for key, distance in distances.items()})
        better = ranks(text_scores)
        return {
            key: weights[0] / (60 + nearer[key]) + (weights[1] / (60 + better[key]) if key in better else 0)
            for key in distances
        }
    most, best = max(2 - distance for distance in distances.values()), max(text_scores.values(), default=1)
    return {
        key: weights[0] * (2 - distance) / most + weights[1] * text_scores.get(key, 0) / best
        for key, distance in distances.items()
    }


def described(hits: Iterable[Hit]) -> list[Any]:
    return [(hit.key, pytest.approx(hit.score, abs=1e-9)) for hit in hits]


# Fusion


@pytest.mark.parametrize("query", ["ant bee", "lark", "ant bee cat dog elk", "zebra"])
@pytest.mark.parametrize(
    ("options", "method", "weights"),
    [
        ({}, "convex", (0.8, 0.2)),
        ({"fusion": "convex", "weights": (1, 3)}, "convex", (1, 3)),
        ({"weights": (0, 1)}, "convex", (0, 1)),
        ({"weights": [0.5, 0]}, "convex", (0.5, 0)),
        ({"fusion": "rrf"}, "rrf", (1, 1)),
        ({"fusion": "rrf", "weights": (0.3, 2)}, "rrf", (0.3, 2)),
    ],
)
def test_scores_are_fused_as_by_plain_python(
    db: Client, small: Space, query: str, options: dict[str, Any], method: str, weights: tuple[float, float]
) -> None:
    by_vector = db.search(query, collection=small.collection, mode="vector", limit=60, exact=True)
    by_words = db.search(query, collection=small.collection, mode="text", limit=60)
    distances = {hit.key: hit.distance for hit in by_vector if hit.distance is not None}
    text_scores = {hit.key: hit.score for hit in by_words}
    expected = fused(distances, text_scores, method, weights)
    for exact in (False, True):
        hits = everything(db, small, query, exact=exact, **options)
        assert {hit.key: hit.score for hit in hits} == pytest.approx(expected, abs=1e-9)
        assert {hit.key: hit.distance for hit in hits} == pytest.approx(distances, abs=1e-9)
        assert {hit.key: hit.text_score for hit in hits if hit.text_score} == pytest.approx(text_scores, abs=1e-9)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert (hits.mode, hits.complete, len(hits)) == ("hybrid", True, 60)


def test_a_hit_has_both_scores(db: Client, small: Space) -> None:
    for hit in everything(db, small):
        assert hit.distance is not None
        assert hit.vector_score == pytest.approx(1 - hit.distance)
        assert hit.text_score is not None
        assert (hit.text_score > 0) == bool({"ant", "bee"} & set(f"{hit.title or ''} {hit.passage}".split()))


def test_equal_scores_are_in_one_order(db: Client) -> None:
    documents = of_texts({f"{number:02}": "ant" for number in range(30)})
    db.load_vectors(documents, np.repeat(random_vectors(1), 30, axis=0), collection="alike", model=MODEL)
    space = db.space("alike")
    expected = sorted((each["key"] for each in documents), key=lambda key: document_id(space.collection_id, key))
    for method in ("convex", "rrf"):
        assert keys(ask(db, space, "ant", limit=30, fusion=method)) == expected
        assert keys(ask(db, space, "ant", limit=10, offset=5, fusion=method)) == expected[5:15]


@pytest.mark.parametrize("fusion", ["convex", "rrf"])
def test_a_document_without_chunks_is_found_by_its_words(db: Client, engine: Engine, fusion: str) -> None:
    name = f"bare_{fusion}"
    long = "elk fox " * 200
    space = load(db, name, of_texts({"bare": f"{long}ant", "other": "bee", "third": "ant bee"}), language="simple")
    with engine.begin() as connection:
        connection.execute(
            text("DELETE FROM searchapp_data.chunks WHERE space_id = :space AND document_id = :id"),
            {"space": space.id, "id": document_id(space.collection_id, "bare")},
        )
    for exact in (False, True):
        hits = {hit.key: hit for hit in ask(db, space, "ant", exact=exact, fusion=fusion)}
        bare = hits["bare"]
        assert (bare.distance, bare.vector_score, bare.passage) == (None, None, long[:1000])
        assert bare.text_score is not None
        assert bare.text_score > 0
        assert bare.score > 0
        assert set(hits) == {"bare", "other", "third"}
        assert set(keys(ask(db, space, "bee", exact=exact, fusion=fusion))) == {"other", "third"}
        assert "bare" not in keys(ask(db, space, "ant", exact=exact, fusion=fusion, max_distance=2))
    [hit] = db.search('"fox ant"', collection=name, mode="text")
    assert (hit.key, hit.passage[-7:]) == ("bare", "fox ant")
    assert len(hit.passage) <= 1000


# Limits, filters, thresholds


@pytest.mark.parametrize("limit", [1, 100, 101, 500, LARGE, 5000])
@pytest.mark.parametrize("exact", [False, True])
def test_as_many_as_asked_for_come_back(db: Client, large: Space, limit: int, exact: bool) -> None:
    hits = ask(db, large, limit=limit, exact=exact)
    assert len(set(keys(hits))) == len(hits) == min(limit, LARGE)
    few = ask(db, large, limit=limit, exact=exact, filter={"number": {"$lt": 150}})
    assert len(few) == min(limit, 150)
    assert all(hit.metadata["number"] < 150 for hit in few)
    assert len(ask(db, large, "zebra", limit=limit, exact=exact)) == min(limit, LARGE)
    phrase = db.search('"lark lark"', collection="large", mode="text", limit=LARGE)
    assert len(ask(db, large, '"lark lark"', limit=limit, exact=exact)) == min(limit, len(phrase))


def test_a_filter_and_the_thresholds_keep_what_matches(db: Client, small: Space) -> None:
    whole = list(everything(db, small))
    middle, far = whole[20].score, sorted(hit.distance or 0 for hit in whole)[20]
    assert described(everything(db, small, min_score=middle)) == described(hit for hit in whole if hit.score >= middle)
    near = [hit for hit in whole if hit.distance is not None and hit.distance <= far]
    assert described(everything(db, small, max_distance=far)) == described(near)
    assert described(ask(db, small, max_distance=far, limit=5)) == described(near[:5])
    assert described(ask(db, small, max_distance=far, limit=5, offset=3)) == described(near[3:8])
    both = [hit for hit in near if hit.score >= middle]
    assert described(everything(db, small, max_distance=far, min_score=middle)) == described(both)
    assert list(ask(db, small, min_score=10)) == []
    assert list(ask(db, small, max_distance=-1)) == []
    third = everything(db, small, filter={"third": 1}, fusion="rrf")
    assert set(keys(third)) == {hit.key for hit in whole if hit.metadata["third"] == 1}
    assert list(ask(db, small, filter={"third": 9})) == []


def test_an_offset_leaves_out_the_best(db: Client, small: Space, large: Space) -> None:
    for space in (small, large):
        whole = keys(ask(db, space, limit=60))
        assert keys(ask(db, space, limit=20, offset=40)) == whole[40:]
        assert keys(ask(db, space, limit=5, offset=3)) == whole[3:8]
    assert len(ask(db, large, limit=50, offset=50)) == 50
    assert len(ask(db, large, limit=50, offset=250, exact=True)) == 50
    for limit, offset in ((50, 51), (10, 100_000), (200, 1)):
        with pytest.raises(errors.InvalidInput, match="ask for more at once by a larger limit"):
            ask(db, large, limit=limit, offset=offset)
    with pytest.raises(errors.InvalidInput, match="has pages of its best 300 alone"):
        ask(db, large, limit=51, offset=250, exact=True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fusion": "sum"}, "fusion is 'sum'; expected one of: convex, rrf"),
        ({"weights": (0, 0)}, "one over it"),
        ({"weights": (-1, 2)}, "none below 0"),
        ({"weights": (1,)}, "expected two numbers"),
        ({"weights": (1, 2, 3)}, "expected two numbers"),
        ({"weights": ("a", "b")}, "expected two numbers"),
        ({"weights": (float("nan"), 1)}, "none below 0"),
        ({"weights": (float("inf"), 1)}, "none below 0"),
        ({"weights": 1}, "expected two numbers"),
        ({"weights": (None, 1)}, "expected two numbers"),
        ({"mode": "both"}, "mode is 'both'"),
        ({"min_score": float("nan")}, "min_score is nan"),
    ],
)
def test_what_cannot_be_fused_is_refused(db: Client, small: Space, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(errors.InvalidInput, match=reason) as caught:
        db.search(QUERY, collection=small.collection, **options)
    assert "\n" not in str(caught.value)
    with pytest.raises(errors.InvalidInput, match=reason):
        db.search_many([QUERY], collection=small.collection, **options)


# Pages


def pages(db: Client, space: Space, **options: Any) -> list[Hits]:
    found = [ask(db, space, **options)]
    options.pop("exact", None)
    while found[-1].cursor is not None:
        found.append(ask(db, space, cursor=found[-1].cursor, **options))
    return found


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("limit", [7, 60])
@pytest.mark.parametrize(
    "options", [{}, {"fusion": "rrf"}, {"filter": {"third": 1}}, {"min_score": 0.5}, {"max_distance": 1.02}]
)
def test_pages_where_everything_is_a_candidate_are_one_list(
    db: Client, small: Space, limit: int, exact: bool, options: dict[str, Any]
) -> None:
    whole = everything(db, small, exact=exact, **options)
    found = pages(db, small, limit=limit, exact=exact, **options)
    assert keys(itertools.chain(*found)) == keys(whole)
    assert len(found) == len(whole) // limit + 1
    assert len(whole) > 10


@pytest.mark.parametrize(("exact", "candidates"), [(False, 100), (True, CANDIDATES_OF_PAGES)])
def test_pages_end_behind_the_candidates(db: Client, large: Space, exact: bool, candidates: int) -> None:
    page = ask(db, large, limit=40, exact=exact)
    found = list(page)
    with pytest.raises(errors.InvalidCursor, match=f"end here, with the best {candidates}"):  # noqa: PT012
        while page.cursor is not None:
            page = ask(db, large, limit=40, cursor=page.cursor)
            found += page
    assert len(set(keys(found))) == len(found)
    assert candidates <= len(found) <= 2 * candidates
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    assert keys(found[:candidates]) == keys(ask(db, large, limit=candidates, exact=exact)) or not exact


def test_a_cursor_is_for_its_own_search_alone(db: Client, small: Space) -> None:
    cursor = ask(db, small, limit=5).cursor
    assert cursor is not None
    assert keys(ask(db, small, limit=20, cursor=cursor)) == keys(ask(db, small, limit=25))[5:]
    assert keys(db.search(QUERY, collection="small", cursor=cursor)) == keys(ask(db, small, limit=15))[5:]
    others: list[dict[str, Any]] = [
        {"query": "bee ant"},
        {"fusion": "rrf"},
        {"weights": (0.5, 0.5)},
        {"mode": "text"},
        {"mode": "vector"},
        {"filter": {"third": 1}},
        {"min_score": 0.1},
        {"max_distance": 1},
        {"cursor": cursor[:-1]},
    ]
    for other in others:
        with pytest.raises(errors.InvalidCursor, match="not of this search"):
            db.search(**{"query": QUERY, "mode": "hybrid", "collection": "small", "cursor": cursor, **other})
    with pytest.raises(errors.InvalidInput, match="an offset or a cursor"):
        ask(db, small, cursor=cursor, offset=1)


# Many at once, and in a caller's transaction


QUERIES = ["ant bee", "lark -ant", '"lark lark"', "zebra", "ant bee", "hen"]


@pytest.mark.parametrize("mode", ["text", "hybrid", "vector", None])
@pytest.mark.parametrize("own", [True, False], ids=["connections", "connection"])
def test_many_are_answered_as_one_by_one(
    db: Client, engine: Engine, registry: Registry, small: Space, mode: str | None, own: bool
) -> None:
    with engine.connect() as connection:
        client = db if own else Client(connection=connection, registry=registry)
        options: dict[str, Any] = {"collection": small.collection, "mode": mode, "limit": 20, "filter": {"third": 1}}
        many = client.search_many(QUERIES, **options)
        single = [client.search(query, **options) for query in QUERIES]
        assert [hits.mode for hits in many] == [hits.mode for hits in single]
        assert [keys(hits) for hits in many] == [keys(hits) for hits in single]
        for one, other in zip(many, single, strict=True):
            assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other], abs=1e-5)
        assert client.search_many([], **options) == []
        assert [keys(hits) for hits in client.search_many(QUERIES[:1], **options)] == [keys(single[0])]
        with pytest.raises(errors.InvalidInput, match="empty"):
            client.search_many(["ant", ""], **options)
        if mode != "vector":
            with pytest.raises(errors.InvalidInput, match="nothing to look for"):
                client.search_many(["ant", "-ant"], **options)


def test_many_of_a_missing_collection_are_refused(db: Client) -> None:
    for mode in ("text", "hybrid"):
        with pytest.raises(errors.CollectionMissing):
            db.search_many([], collection="nowhere", mode=mode)


def test_a_callers_transaction_is_searched_too(engine: Engine, small: Space) -> None:
    with engine.connect() as connection, searchapp.connect(connection=connection) as mine:
        load(mine, small.collection, of_texts({"mine": "zebra"}))
        for mode in ("text", "hybrid"):
            hits = mine.search("zebra", collection="small", mode=mode, highlight=True)
            assert hits[0].key == "mine"
            assert hits[0].highlights == ((0, 5),)
            assert [hits[0].key for hits in mine.search_many(["zebra"], collection="small", mode=mode)] == ["mine"]
        assert connection.in_transaction()
        connection.rollback()


# Highlights


def marked(hit: Hit) -> list[str]:
    return [hit.passage[start:end] for start, end in hit.highlights]


HIGHLIGHTED = {
    "runs": "He runs, she ran and they are running: Running!",
    "markup": "<b class=\"run\">run</b> &amp; <i>x</i> <run> StartSel=[ run ] <script>alert('run')</script>",
    "control": "\x01run\x02 \u2028run\ttab\r\nrun\x7f \u200drun",
    "umlauts": "\U0001f3c3 Läufer run 跑 run\u0301 Ünrun",
    "hyphens": "run-of-the-mill dry-run http://example.com/run run@example.com",
    "nothing": "sits still",
}


@pytest.fixture(scope="module")
def highlighted(db: Client) -> Space:
    return load(db, "highlighted", of_texts(HIGHLIGHTED), language="english")


@pytest.mark.parametrize("mode", ["text", "hybrid"])
def test_highlights_are_where_the_words_stand(db: Client, highlighted: Space, mode: str) -> None:
    hits = {
        hit.key: hit
        for hit in db.search("she runs", collection=highlighted.collection, mode=mode, highlight=True, limit=50)
    }
    assert marked(hits["runs"]) == ["runs", "running", "Running"]
    assert {hit.key: hit.passage for hit in hits.values()} == {key: HIGHLIGHTED[key] for key in hits}
    for key, hit in hits.items():
        assert {each.lower() for each in marked(hit)} <= {"run", "runs", "running"}, key
        assert list(hit.highlights) == sorted(hit.highlights)
        assert bool(hit.highlights) == (key != "nothing")
    assert len(hits) == (5 if mode == "text" else 6)


@pytest.mark.parametrize("long", ["x" * 3000, f"<a {'b ' * 1500}>", f"http://example.com/{'x' * 3000}"])
def test_what_is_too_long_for_a_word_does_not_shift_highlights(db: Client, long: str) -> None:
    """PostgreSQL leaves it out of what it marks."""
    load(db, "long_marks", of_texts({"it": f"run {long} run"}))
    [hit] = db.search("run", collection="long_marks", mode="text", highlight=True)
    assert hit.highlights == ((0, 3), (len(long) + 5, len(long) + 8))


def test_highlights_are_given_where_asked_for_alone(db: Client, highlighted: Space) -> None:
    for mode in ("text", "hybrid", "vector"):
        hits = db.search("run", collection=highlighted.collection, mode=mode)
        assert all(hit.highlights == () for hit in hits)
    hits = db.search("the of", collection="highlighted", highlight=True)
    assert all(hit.highlights == () for hit in hits)
    [hit] = db.search('"she ran" -still', collection="highlighted", mode="text", highlight=True)
    assert marked(hit) == ["ran"]


@pytest.mark.parametrize("query", ["-still", "sits -still", '"sits" still'])
def test_marks_are_plain_text_to_vectors_in_highlights_too(db: Client, highlighted: Space, query: str) -> None:
    hits = db.search(query, collection=highlighted.collection, mode="vector", highlight=True, limit=50)
    assert ["still"] in [marked(hit)[-1:] for hit in hits if hit.key == "nothing"]
