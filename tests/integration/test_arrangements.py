"""Answers that are arranged: several passages a hit, diversity, boosts and groups, on the real server against NumPy."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text

import searchapp
from searchapp import errors
from searchapp.async_client import AsyncClient
from searchapp.client import Client
from searchapp.models import document_id
from searchapp.search.diversity import most_marginal
from searchapp.search.hits import Group, Hits
from searchapp.spaces import Space
from searchapp.vectors import Array
from tests import conftest
from tests.integration.test_words import load, of_texts
from tests.made_up import fill, random_vectors, unit

engine, db = conftest.shared_database()

RANDOM = np.random.default_rng(13)


def near(centre: Array, spread: float, count: int) -> Array:
    """Directions around one."""
    return unit(centre + spread * RANDOM.standard_normal((count, 384)).astype(np.float32) / 384**0.5)


TOPICS = unit(RANDOM.standard_normal((8, 384)).astype(np.float32))
SINGLE = [near(TOPICS[number % 8], 1.0, 1) for number in range(600)]
SEVERAL = [near(TOPICS[number % 8], 1.0, 1 + number % 4) for number in range(400)]
QUERY = unit(TOPICS[0] + 0.8 * TOPICS[1] + 0.6 * TOPICS[2])
START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def metadata_of(number: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "third": number % 3,
        "lang": ("en", "de", "fr", "it", "es")[number % 5],
        "tags": [f"t{number % 4}", f"t{number % 7}", "t0"],
        "flag": number % 3 == 0,
        "author": {"name": f"a{number % 6}"},
        "views": number % 50,
        "when": (START - dt.timedelta(days=number % 90)).isoformat(),
        "topic": number % 8,
    }
    if number % 2:
        metadata["half"] = number % 10
        metadata["author.name"] = f"b{number % 4}"
    return metadata


@pytest.fixture(scope="module", params=["single", "several"])
def stored(request: pytest.FixtureRequest, db: Client) -> tuple[Space, list[Array]]:
    """A collection of documents of one chunk, or of one to four."""
    chunks = {"single": SINGLE, "several": SEVERAL}[request.param]
    return fill(db, request.param, list(chunks), metadata_of), chunks


@pytest.fixture(scope="module")
def large(db: Client) -> Space:
    """So many that the index answers."""
    return fill(db, "large", LARGE, metadata_of)


LARGE = [near(TOPICS[number % 8], 1.0, 1 + number % 2) for number in range(3000)]


def keys(hits: Iterable[Any]) -> list[str]:
    return [hit.key for hit in hits]


def ask(db: Client, space: Space, **options: Any) -> Hits:
    return db.search_by_vector(QUERY, collection=space.collection, **options)


def rows_of(engine: Engine, statement: Any) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(statement).all())


def distances_of(chunks: list[Array], query: Array = QUERY) -> dict[str, float]:
    """How far each document is, by its nearest chunk."""
    wide = query.astype(np.float64)
    return {f"{number:04}": 1 - float((each.astype(np.float64) @ wide).max()) for number, each in enumerate(chunks)}


def by_distance(chunks: list[Array], keeps: Callable[[int], bool] = lambda _: True) -> list[tuple[str, float]]:
    kept = ((key, distance) for key, distance in distances_of(chunks).items() if keeps(int(key)))
    return sorted(kept, key=lambda row: row[1])


# Passages


def passages_of(chunks: Array, number: int, count: int) -> list[tuple[int, int, str, float]]:
    """The nearest chunks of a document, of one character each."""
    far = 1 - chunks.astype(np.float64) @ QUERY
    order = sorted(range(len(chunks)), key=lambda place: (far[place], place))
    return [
        (place, place, f"text {number}"[place], pytest.approx(far[place], abs=1e-6))  # type: ignore[misc]
        for place in order[:count]
    ]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("count", [2, 3, 100])
def test_a_hit_shows_its_nearest_passages(
    db: Client, engine: Engine, stored: tuple[Space, list[Array]], count: int, exact: bool
) -> None:
    space, chunks = stored
    hits = ask(db, space, limit=20, offset=3, passages=count, exact=exact, filter={"third": 1})
    plain = ask(db, space, limit=20, offset=3, exact=exact, filter={"third": 1})
    assert [hit._replace(passages=()) for hit in hits] == list(plain)
    for hit in hits:
        assert list(hit.passages) == passages_of(chunks[int(hit.key)], int(hit.key), count)
        assert hit.passages[0].text == hit.passage
        assert hit.passages[0].distance == hit.distance
    asked: dict[str, Any] = {"limit": 20, "offset": 3, "exact": exact, "filter": {"third": 1}}
    rows = rows_of(engine, searchapp.nearest(space, QUERY, passages=count, **asked))
    assert [(row.key, [tuple(each) for each in row.passages]) for row in rows] == [
        (hit.key, [tuple(each) for each in hit.passages]) for hit in hits
    ]


def test_passages_go_with_all_that_has_a_distance(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, chunks = stored
    boost = searchapp.Boost("views", 0.1, 5)
    for options in ({"boost": boost}, {"boost": boost, "exact": True}, {"diversity": 0.4}, {"max_distance": 0.9}):
        hits = ask(db, space, passages=2, limit=5, **options)
        assert len(hits) == 5
        for hit in hits:
            assert list(hit.passages) == passages_of(chunks[int(hit.key)], int(hit.key), 2)
        assert keys(hits) == keys(ask(db, space, limit=5, **options))
    for strategy in ("average", "best_score"):
        hits = db.search_by_examples([QUERY], collection=space.collection, strategy=strategy, passages=2, limit=5)
        for hit in hits:
            assert list(hit.passages) == passages_of(chunks[int(hit.key)], int(hit.key), 2)
    hits = db.similar("0003", collection=space.collection, passages=3, limit=5)
    assert [len(hit.passages) for hit in hits] == [min(3, len(chunks[int(hit.key)])) for hit in hits]
    assert all(hit.passages == () for hit in ask(db, space, limit=5))


def test_pages_by_cursor_show_passages(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, _ = stored
    whole = ask(db, space, limit=10, exact=True, passages=2)
    first = ask(db, space, limit=4, exact=True, passages=2)
    second = ask(db, space, limit=6, passages=2, cursor=first.cursor)
    assert [*first, *second] == list(whole)


@pytest.fixture(scope="module")
def texts(db: Client) -> Space:
    """Documents of several passages, with words."""
    words = ["ant bee", "lark", "cat dog", "elk fox", "hen ibis"]
    documents = [
        {"key": str(number), "text": " ".join(f"{words[(number + place) % 5]}." for place in range(60 * number + 3))}
        for number in range(6)
    ]
    db.ingest(documents, collection="texts", chunk_tokens=32)
    return db.space("texts")


@pytest.mark.parametrize("mode", ["vector", "hybrid", None])
def test_passages_are_shown_where_words_count_too(db: Client, texts: Space, mode: str | None) -> None:
    hits = db.search("ant bee", collection=texts.collection, mode=mode, passages=4, limit=6)
    by_vector = db.search_by_vector(db._encode(texts, ["ant bee"])[0], collection="texts", passages=100, limit=6)
    expected = {hit.key: hit.passages for hit in by_vector}
    assert len(expected["0"]) == 1
    assert max(map(len, expected.values())) > 4
    for hit in hits:
        assert [each[:3] for each in hit.passages] == [each[:3] for each in expected[hit.key][:4]]
        assert [each.distance for each in hit.passages] == sorted(each.distance for each in hit.passages)
    assert keys(hits) == keys(db.search("ant bee", collection="texts", mode=mode, limit=6))


@pytest.mark.parametrize("options", [{"passages": 2}, {"diversity": 0.5}])
def test_words_alone_know_neither_passages_nor_diversity(db: Client, texts: Space, options: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidInput, match="in the mode text there are neither"):
        db.search("ant", collection=texts.collection, mode="text", **options)
    assert len(db.search("ant", collection="texts", mode="text", passages=1, group_size=5)) > 0


@pytest.mark.parametrize("mode", ["text", "hybrid"])
def test_boosts_and_groups_are_of_the_mode_vector(db: Client, texts: Space, mode: str) -> None:
    for options, what in (({"boost": searchapp.Boost("x", 0.5, 1)}, "boosts are"), ({"group_by": "x"}, "groups are")):
        with pytest.raises(errors.InvalidInput, match=f"{what} of the mode vector.* instead of {mode}"):
            db.search("ant", collection=texts.collection, mode=mode, **options)
        assert db.search("ant", collection="texts", **options).mode == "vector"


# Diversity


def diverse(
    chunks: list[Array], rows: list[tuple[str, float]], diversity: float, limit: int, offset: int = 0
) -> list[str]:
    """MMR over the 100 nearest, or as many as are asked for; a document is its nearest chunk."""
    candidates = rows[: max(100, limit + offset)]
    embeddings = np.array([chunks[int(key)][np.argmax(chunks[int(key)] @ QUERY)] for key, _ in candidates])
    relevance = np.array([1 - distance for _, distance in candidates])
    return [candidates[each][0] for each in most_marginal(relevance, embeddings, diversity, limit + offset)][offset:]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("diversity", [0, 0.2, 0.5, 0.8, 1])
def test_hits_differ_as_by_numpy(db: Client, stored: tuple[Space, list[Array]], diversity: float, exact: bool) -> None:
    space, chunks = stored
    rows = by_distance(chunks)

    def ask_diverse(**options: Any) -> list[str]:
        hits = ask(db, space, diversity=diversity, exact=exact, **options)
        assert {hit.key: hit.distance for hit in hits} == pytest.approx({key: dict(rows)[key] for key in keys(hits)})
        assert all(hit.score == pytest.approx(1 - (hit.distance or 0)) for hit in hits)
        return keys(hits)

    assert ask_diverse(limit=10) == diverse(chunks, rows, diversity, 10)
    assert ask_diverse(limit=10, offset=7) == diverse(chunks, rows, diversity, 10, 7)
    assert ask_diverse(limit=150) == diverse(chunks, rows, diversity, 150)
    third = by_distance(chunks, lambda number: number % 3 == 1)
    assert ask_diverse(limit=10, filter={"third": 1}) == diverse(chunks, third, diversity, 10)
    far = (rows[29][1] + rows[30][1]) / 2
    assert ask_diverse(limit=50, max_distance=far) == diverse(chunks, rows[:30], diversity, 50)
    assert ask_diverse(limit=10, min_score=1 - far) == diverse(chunks, rows[:30], diversity, 10)
    assert ask_diverse(limit=10, max_distance=0) == []
    if diversity == 0:
        assert ask_diverse(limit=25) == [key for key, _ in rows[:25]]


def test_diverse_hits_are_less_like_each_other(db: Client, large: Space) -> None:
    alike = []
    for diversity in (0.0, 0.5, 0.9):
        hits = ask(db, large, limit=8, diversity=diversity)
        embeddings = np.vstack([LARGE[int(key)][:1] for key in keys(hits)])
        alike.append(float((embeddings @ embeddings.T).mean()))
        assert (hits.exact, hits.cursor) == (False, None)
    assert alike[0] > alike[1] + 0.02 > alike[2] + 0.02


def test_diversity_of_a_hybrid(db: Client, texts: Space) -> None:
    plain = db.search("ant bee", collection=texts.collection, mode="hybrid", limit=6)
    for fusion in ("convex", "rrf"):
        asked: dict[str, Any] = {"collection": "texts", "mode": "hybrid", "fusion": fusion}
        hits = db.search("ant bee", limit=6, diversity=0, **asked)
        assert keys(hits) == keys(db.search("ant bee", limit=6, **asked))
        whole = db.search("ant bee", limit=6, diversity=0.9, **asked)
        assert set(keys(whole)) == set(keys(plain))
        assert keys(db.search("ant bee", limit=2, offset=2, diversity=0.9, **asked)) == keys(whole)[2:4]


@pytest.mark.parametrize("fusion", ["convex", "rrf"])
def test_a_document_without_chunks_is_among_diverse_hits(db: Client, engine: Engine, fusion: str) -> None:
    """Found by its words alone; it is like nothing."""
    name = f"bare_{fusion}"
    space = load(db, name, of_texts({"bare": "ant", "other": "ant", "third": "ant bee", "fourth": "bee"}))
    with engine.begin() as connection:
        connection.execute(
            text("DELETE FROM searchapp_data.chunks WHERE space_id = :space AND document_id = :id"),
            {"space": space.id, "id": document_id(space.collection_id, "bare")},
        )
    asked: dict[str, Any] = {"collection": name, "mode": "hybrid", "fusion": fusion, "passages": 2}
    for diversity in (0, 0.5, 1):
        hits = {hit.key: hit for hit in db.search("ant", diversity=diversity, **asked)}
        assert set(hits) == {"bare", "other", "third", "fourth"}
        assert hits["bare"].passages == ()


# Boosts

ORIGIN = dt.datetime(2024, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=1)))
BOOSTS: list[tuple[list[Any], Callable[[dict[str, Any]], float]]] = [
    ([searchapp.Boost("views", 0.3, 10)], lambda m: 0.3 * m["views"] / (m["views"] + 10)),
    ([searchapp.Boost("half", 0.6, 0.5)], lambda m: 0.6 * m.get("half", 0) / (m.get("half", 0) + 0.5)),
    ([searchapp.Boost("lang", 0.3, 10)], lambda _: 0),
    (
        [searchapp.Decay("when", 0.4, dt.timedelta(days=30), ORIGIN)],
        lambda m: 0.4 * 0.5 ** (abs(ORIGIN - dt.datetime.fromisoformat(m["when"])) / dt.timedelta(days=30)),
    ),
    ([searchapp.Decay("views", 0.4, 7, 20)], lambda m: 0.4 * 0.5 ** (abs(m["views"] - 20) / 7)),
    ([searchapp.Decay("half", 0.4, 7, 5.5)], lambda m: 0.4 * 0.5 ** (abs(m["half"] - 5.5) / 7) if "half" in m else 0),
    (
        [searchapp.Boost("views", 0.2, 3), searchapp.Decay("topic", 0.5, 2, 0), searchapp.Boost("none", 0.1, 1)],
        lambda m: 0.2 * m["views"] / (m["views"] + 3) + 0.5 * 0.5 ** (m["topic"] / 2),
    ),
]


def boosted_by_numpy(
    rows: list[tuple[str, float]], boosts: list[Any], value: Callable[[dict[str, Any]], float]
) -> list[tuple[str, float, float]]:
    """Key, score and distance, best first."""
    rest = 1 - sum(each.weight for each in boosts)
    scored = [(key, rest * (1 - distance) + value(metadata_of(int(key))), distance) for key, distance in rows]
    return sorted(scored, key=lambda row: -row[1])


@pytest.mark.parametrize("case", range(len(BOOSTS)))
@pytest.mark.parametrize("exact", [False, True])
def test_boosts_count_as_by_numpy(
    db: Client, engine: Engine, stored: tuple[Space, list[Array]], case: int, exact: bool
) -> None:
    space, chunks = stored
    boosts, value = BOOSTS[case]

    def check(expected: list[tuple[str, float, float]], **options: Any) -> None:
        hits = ask(db, space, boost=boosts, exact=exact, **options)
        assert keys(hits) == [key for key, _, _ in expected]
        assert [hit.score for hit in hits] == pytest.approx([score for _, score, _ in expected], abs=1e-6)
        assert [hit.distance for hit in hits] == pytest.approx([distance for _, _, distance in expected], abs=1e-6)
        assert [hit.vector_score for hit in hits] == pytest.approx([1 - row[2] for row in expected], abs=1e-6)
        rows = rows_of(engine, searchapp.boosted(space, QUERY, boosts, exact=exact, **options))
        told = [(row.key, row.passage, row.metadata, row.score, row.distance) for row in rows]
        assert told == [(hit.key, hit.passage, hit.metadata, hit.score, hit.distance) for hit in hits]

    nearest = by_distance(chunks)
    most = len(nearest) if exact else 100
    whole = boosted_by_numpy(nearest[:most], boosts, value)
    check(whole[:10], limit=10)
    check(whole[4:14], limit=10, offset=4)
    every = boosted_by_numpy(nearest[: max(most, 150)], boosts, value)
    check(every[:150], limit=150)
    third = by_distance(chunks, lambda number: number % 3 == 2)
    check(boosted_by_numpy(third[:most], boosts, value)[:10], limit=10, filter={"third": 2})
    middle, far = (whole[14][1] + whole[15][1]) / 2, (nearest[39][1] + nearest[40][1]) / 2
    check(whole[:15], limit=50, min_score=middle)
    near_enough = [row for row in whole if row[2] <= far]
    check(near_enough, limit=50, max_distance=far)
    check([row for row in near_enough if row[1] >= middle], limit=50, max_distance=far, min_score=middle)


def test_one_boost_needs_no_list_and_none_changes_nothing(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, _ = stored
    boost = searchapp.Boost("views", 0.3, 10)
    assert list(ask(db, space, boost=boost)) == list(ask(db, space, boost=[boost]))
    assert list(ask(db, space, boost=[])) == list(ask(db, space, boost=None)) == list(ask(db, space))


def test_boosts_are_had_by_document_and_by_examples(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, chunks = stored
    boosts, value = BOOSTS[0]
    query = unit(chunks[9].astype(np.float64).mean(axis=0))
    rows = sorted(distances_of(chunks, query).items(), key=lambda row: row[1])
    expected = boosted_by_numpy([row for row in rows if row[0] != "0009"], boosts, value)[:10]
    asked: dict[str, Any] = {"collection": space.collection, "boost": boosts, "exact": True}
    assert keys(db.similar("0009", **asked)) == [row[0] for row in expected]
    assert keys(db.search_by_examples("0009", **asked)) == [row[0] for row in expected]
    diverse_ones = db.search_by_examples("0009", diversity=0.0, **asked)
    assert keys(diverse_ones) == [row[0] for row in expected]


def test_age_counts_from_now(db: Client) -> None:
    ages = [0, 1, 2, 30, -1]
    now = dt.datetime.now(dt.UTC)
    vectors = random_vectors(1)
    fill(db, "ages", [vectors] * 5, lambda number: {"when": (now - dt.timedelta(days=ages[number])).isoformat()})
    boost = searchapp.Decay("when", 0.5, dt.timedelta(days=1))
    hits = db.search_by_vector(vectors[0], collection="ages", boost=boost)
    expected = {f"{number:04}": 0.5 + 0.5 * 0.5 ** abs(age) for number, age in enumerate(ages)}
    assert {hit.key: hit.score for hit in hits} == pytest.approx(expected, abs=1e-3)


# A field's value as JSON, and what Boost(pivot=10) and Decay(half_life=10, origin=5) give it.
NUMBERS = {
    "5": (1 / 3, 1),
    "15.5": (15.5 / 25.5, 0.5**1.05),
    "-5": (0, 0.5),
    "0": (0, 0.5**0.5),
    "1e400": (1, 0),
    "-1e400": (0, 0),
    "1e308": (1, 0),
    "1e-400": (0, 0.5**0.5),
    "123456789012345678901234567890": (1, 0),
    "[5, 100]": (1 / 3, 1),  # of an array the first
    "[]": (0, 0),
    "[[5]]": (0, 0),
    '{"a": 5}': (0, 0),
    '"5"': (0, 0),
    '"2024-01-01"': (0, 0),
    '"nan"': (0, 0),
    "true": (0, 0),
    "null": (0, 0),
}
# What Decay(half_life=ten days, origin=2024-01-11, 0 h UTC) gives it.
DATES = {
    '"2024-01-01"': 0.5,
    '"2024-01-01T00:00:00"': 0.5,
    '"2024-01-01 00:00"': 0.5,
    '"2024-01-01T00:00:00.000000"': 0.5,
    '"2024-01-01T00:00:00Z"': 0.5,
    '"2024-01-01T00:00:00+00:00"': 0.5,
    '"2024-01-01T12:00:00+12:00"': 0.5,
    '"2023-12-31T19:30:00.5-0430"': 0.5 ** (1 - 0.5 / 864_000),
    '"2024-01-06T00:00:00-02"': 0.5 ** ((5 * 24 - 2) / 240),
    '"2024-01-31"': 0.25,
    '"0001-01-01"': 0,
    '"9999-12-31T23:59:59Z"': 0,
    '["2024-01-01", "2024-01-11"]': 0.5,
    '"2020-13-45"': 0,
    '"2024-02-30"': 0,
    '"2024-01-01T25:00:00"': 0,
    '"2024-01-01T00:00:00+99:00"': 0,
    '"2024-01-01 00:00 Europe/Berlin"': 0,
    '"2024-01-01 BC"': 0,
    '"infinity"': 0,
    '"-infinity"': 0,
    '"now"': 0,
    '"epoch"': 0,
    '"2024"': 0,
    '"20240101"': 0,
    '"2024-"': 0,
    '"x 2024-01-01"': 0,
    '"2024-01-01\\nx"': 0,
    '""': 0,
    "20240101": 0,
    "null": 0,
    "true": 0,
    "{}": 0,
    "[]": 0,
}


def of_values(db: Client, engine: Engine, name: str, values: Iterable[str]) -> tuple[Array, dict[str, str]]:
    """A collection of equal vectors with values of the field x as JSON, and one without; and whose value it is."""
    named = {f"{number:04}": value for number, value in enumerate(values)}
    vector = random_vectors(1)
    space = fill(db, name, [vector] * (len(named) + 1))
    change = text(
        "UPDATE searchapp_data.documents SET metadata = CAST(:metadata AS jsonb)"
        " WHERE collection_id = :collection AND key = :key"
    )
    with engine.begin() as connection:
        for key, value in named.items():
            connection.execute(change, {"metadata": f'{{"x": {value}}}', "collection": space.collection_id, "key": key})
    return vector[0], named


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_whatever_stands_in_a_field_is_no_error(db: Client, engine: Engine, zone: str) -> None:
    vector, named = of_values(db, engine, f"numbers_{zone[:3].lower()}", NUMBERS)
    asked: dict[str, Any] = {"collection": f"numbers_{zone[:3].lower()}", "limit": 100}
    boosts: list[Any] = [searchapp.Boost("x", 0.5, 10), searchapp.Decay("x", 0.5, 10, 5)]
    for place, boost in enumerate(boosts):
        hits = db.search_by_vector(vector, boost=boost, **asked)
        scores = {named.get(hit.key): hit.score - 0.5 for hit in hits}
        assert scores == pytest.approx({None: 0, **{key: each[place] / 2 for key, each in NUMBERS.items()}}, abs=1e-6)
    vector, named = of_values(db, engine, f"dates_{zone[:3].lower()}", DATES)
    space = db.space(f"dates_{zone[:3].lower()}")
    boost = searchapp.Decay("x", 0.5, dt.timedelta(days=10), dt.datetime(2024, 1, 11, tzinfo=dt.UTC))
    with engine.connect() as connection:
        connection.execute(text(f"SET TimeZone = '{zone}'"))
        rows = connection.execute(searchapp.boosted(space, vector, boost, limit=100)).all()
        connection.rollback()
    scores = {named.get(row.key): 2 * (row.score - 0.5) for row in rows}
    assert scores == pytest.approx({None: 0, **DATES}, abs=1e-6)


@pytest.mark.parametrize(
    "boost",
    [
        searchapp.Boost("x", 1e-50, 1e-50),
        searchapp.Boost("x", 1e-50, 1e50),
        searchapp.Boost("x", 0.999999999999, 1e50),
        searchapp.Decay("x", 1e-50, 1e-50, -1e50),
        searchapp.Decay("x", 1e-50, 1e50, 1e50),
        searchapp.Decay("x", 0.5, 1e-50, 1e-50),
        searchapp.Decay("x", 1e-50, dt.timedelta(microseconds=1)),
        searchapp.Decay("x", 0.5, dt.timedelta.max, dt.datetime.max.replace(tzinfo=dt.UTC)),
        searchapp.Decay("x", 0.5, dt.timedelta.max, dt.datetime.min.replace(tzinfo=dt.UTC)),
        searchapp.Decay("x", 0.5, dt.timedelta(1), dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=14)))),
    ],
)
def test_no_boost_runs_over(db: Client, engine: Engine, boost: Any) -> None:
    name = "extremes"
    if name not in [each.name for each in db.collections()]:
        of_values(db, engine, name, [*NUMBERS, *DATES, "1e-99", "1e99", "-1e99", "5e-324", "1.7e308"])
    hits = db.search_by_vector(random_vectors(1)[0], collection=name, boost=boost, limit=100)
    assert len(hits) > len(NUMBERS) + len(DATES)
    assert all(-1 <= hit.score <= 1 for hit in hits)


@pytest.mark.parametrize(
    "field",
    ["views", "a b", "100%", ":x", "%s", "$1", "{}", "it's", 'say "x"', "back\\slash", "ключ", "a?b", "\n"],
)
def test_a_field_may_have_any_name(db: Client, engine: Engine, field: str) -> None:
    name = "fields"
    if name not in [each.name for each in db.collections()]:
        fill(db, name, [random_vectors(1) for _ in range(6)])
    space = db.space(name)
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE searchapp_data.documents SET metadata = jsonb_build_object(CAST(:field AS text),"
                " CAST(key AS integer) % 2) WHERE collection_id = :id"
            ),
            {"field": field, "id": space.collection_id},
        )
    boost = searchapp.Boost(field, 0.9, 0.01)
    hits = db.search_by_vector(QUERY, collection=name, boost=boost)
    assert [hit.metadata[field] for hit in hits] == [1, 1, 1, 0, 0, 0]
    assert keys(rows_of(engine, searchapp.boosted(space, QUERY, boost, limit=10))) == keys(hits)
    groups = db.search_by_vector(QUERY, collection=name, group_by=field).groups
    assert {group.value for group in groups} == {0, 1}
    rows = rows_of(engine, searchapp.grouped(space, QUERY, field, limit=10))
    assert keys(rows) == [hit.key for group in groups for hit in group.hits]


# Groups


def values_of(metadata: dict[str, Any], field: str) -> list[str]:
    """The values that a document has in a field, as JSON, each once; those of an array one by one."""
    found: Any = metadata
    if field in metadata:
        found = metadata[field]
    else:
        for step in field.split("."):
            found = found.get(step) if isinstance(found, dict) else None
    listed = found if isinstance(found, list) else [found]
    return [each for each in dict.fromkeys(map(json.dumps, listed)) if each[0] not in "n{["]


def grouped_by_numpy(
    rows: list[tuple[str, float]], field: str, limit: int, size: int, offset: int = 0
) -> list[tuple[Any, list[str]]]:
    """The nearest groups with their nearest documents."""
    groups: dict[str, list[str]] = {}
    for key, _ in rows:
        for value in values_of(metadata_of(int(key)), field):
            groups.setdefault(value, []).append(key)
    return [(json.loads(value), members[:size]) for value, members in groups.items()][offset : offset + limit]


def shown(groups: Iterable[Group]) -> list[tuple[Any, list[str]]]:
    return [(group.value, keys(group.hits)) for group in groups]


FIELDS = ["lang", "half", "tags", "flag", "third", "author.name", "author", "none", "when"]


def unequal(groups: list[tuple[Any, list[str]]]) -> list[tuple[Any, list[str]]]:
    """Groups whose nearest document is the same stand in the order of their values."""
    return sorted(groups, key=lambda group: (group[1][0], str(group[0])))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("field", FIELDS)
def test_groups_are_as_by_numpy(
    db: Client, engine: Engine, stored: tuple[Space, list[Array]], field: str, exact: bool
) -> None:
    space, chunks = stored

    def check(rows: list[tuple[str, float]], limit: int, size: int, offset: int = 0, **options: Any) -> None:
        asked: dict[str, Any] = {"limit": limit, "exact": exact, **options}
        hits = ask(db, space, group_by=field, group_size=size, offset=offset, **asked)
        expected = grouped_by_numpy(rows, field, limit, size, offset)
        if field != "tags":
            assert shown(hits.groups) == expected
        else:
            assert [key for _, members in shown(hits.groups) for key in members[:1]] == [row[1][0] for row in expected]
            assert limit < 7 or unequal(shown(hits.groups)) == unequal(expected)
        assert tuple(hit for group in hits.groups for hit in group.hits) == hits.hits
        assert all(hit.metadata == metadata_of(int(hit.key)) for hit in hits)
        assert {hit.key: hit.distance for hit in hits} == pytest.approx({key: dict(rows)[key] for key in keys(hits)})
        assert (hits.mode, hits.complete, hits.cursor) == ("vector", True, None)
        assert hits.exact or not exact
        if not offset:
            found = rows_of(engine, searchapp.grouped(space, QUERY, field, size=size, **asked))
            told = [(row.key, row.passage, row.distance) for row in found]
            assert told == [(hit.key, hit.passage, hit.distance) for hit in hits]
            assert [row.group for row in found] == [group.value for group in hits.groups for _ in group.hits]

    rows = by_distance(chunks)
    check(rows, 10, 3)
    check(rows, 2, 1)
    check(rows, 3, 1000)
    check(rows, 2, 2, offset=2)
    check(rows, 5, 3, offset=100)
    check([row for row in rows if int(row[0]) % 3 == 1], 4, 3, filter={"third": 1})
    far = (rows[24][1] + rows[25][1]) / 2
    check(rows[:25], 10, 20, max_distance=far)
    check(rows[:25], 10, 4, min_score=1 - far)


def test_a_filter_leaves_fewer_groups_than_asked_for(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, chunks = stored
    hits = ask(db, space, group_by="lang", limit=10, group_size=2, filter={"lang": {"$in": ["de", "it"]}})
    rows = by_distance(chunks, lambda number: number % 5 in {1, 3})
    assert shown(hits.groups) == grouped_by_numpy(rows, "lang", 10, 2)
    assert len(hits.groups) == 2
    none = ask(db, space, group_by="lang", filter={"lang": "xx"})
    assert (none.hits, none.groups) == ((), ())


def test_groups_of_what_is_like_a_document_or_examples(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, chunks = stored
    query = unit(chunks[11].astype(np.float64).mean(axis=0))
    rows = sorted(distances_of(chunks, query).items(), key=lambda row: row[1])
    expected = grouped_by_numpy([row for row in rows if row[0] != "0011"], "lang", 3, 2)
    asked: dict[str, Any] = {"collection": space.collection, "group_by": "lang", "limit": 3, "group_size": 2}
    assert shown(db.similar("0011", **asked).groups) == expected
    assert shown(db.search_by_examples("0011", **asked).groups) == expected


@pytest.mark.parametrize("filter", [None, {"third": 1}, {"views": {"$lt": 4}}])
def test_groups_of_many_are_nearly_right(db: Client, large: Space, filter: dict[str, Any] | None) -> None:
    """By the index, and where its candidates do not fill the groups by a wider scan, or by all."""
    found = wanted = approximate = 0
    assert large.indexed
    for query in near(QUERY, 1.0, 12):
        for field, limit, size in (("lang", 3, 3), ("topic", 2, 5), ("author.name", 8, 1), ("when", 5, 2)):
            asked: dict[str, Any] = {"collection": "large", "group_by": field, "limit": limit, "group_size": size}
            hits = db.search_by_vector(query, filter=filter, **asked)
            exact = db.search_by_vector(query, filter=filter, exact=True, **asked)
            assert len(hits) == len(exact)
            assert len(hits.groups) == len(exact.groups)
            if hits.exact:
                assert shown(hits.groups) == shown(exact.groups)
            approximate += not hits.exact
            found += len(set(keys(hits)) & set(keys(exact)))
            wanted += len(set(keys(exact)))
    assert approximate or filter
    assert found >= 0.97 * wanted


def test_a_group_has_one_value_however_it_is_written(db: Client, engine: Engine) -> None:
    values = ["1", "1.0", "true", '"1"', "1.00", "false", "0", '"true"', "[1, true]", "null", "{}", '["a", ["b"]]']
    vector, named = of_values(db, engine, "written", values)
    hits = db.search_by_vector(vector, collection="written", group_by="x", group_size=10, limit=20)
    groups = {json.dumps(group.value): {named[key] for key in keys(group.hits)} for group in hits.groups}
    assert len(hits.groups) == len(groups)
    one = groups.pop(next(key for key in groups if key in {"1", "1.0", "1.00"}))
    assert one == {"1", "1.0", "1.00", "[1, true]"}
    assert groups == {
        "true": {"true", "[1, true]"},
        '"1"': {'"1"'},
        "false": {"false"},
        "0": {"0"},
        '"true"': {'"true"'},
        '"a"': {'["a", ["b"]]'},
    }


# What is told, and what is refused


def test_reordered_hits_have_no_pages(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, _ = stored
    cursor = ask(db, space, limit=3, exact=True).cursor
    for options in ({"diversity": 0.5}, {"boost": searchapp.Boost("views", 0.5, 1)}, {"group_by": "lang"}):
        assert ask(db, space, limit=3, exact=True, **options).cursor is None
        with pytest.raises(errors.InvalidInput, match="groups, boosts and diversity have no pages"):
            ask(db, space, limit=3, cursor=cursor, **options)


def test_answers_say_whether_they_are_exact(db: Client, large: Space) -> None:
    for options in ({"passages": 2}, {"diversity": 0.5}, {"boost": searchapp.Boost("views", 0.5, 1)}):
        assert not ask(db, large, **options).exact
        assert ask(db, large, exact=True, **options).exact
    assert ask(db, large, group_by="lang", exact=True).exact
    assert not ask(db, large, group_by="lang", limit=2).exact


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"passages": 0}, "passages is 0; expected 1 to 100"),
        ({"passages": "2"}, "passages is '2'"),
        ({"passages": True}, "passages is True"),
        ({"passages": 101}, "passages is 101"),
        ({"passages": 2.0}, "passages is 2.0"),
        ({"diversity": 1.1}, "diversity is 1.1; expected 0"),
        ({"diversity": -0.1}, "diversity is -0.1"),
        ({"diversity": NAN}, "diversity is nan"),
        ({"diversity": True}, "diversity is True"),
        ({"diversity": "1"}, "diversity is '1'"),
        ({"diversity": 10**400}, "diversity is 1000"),
        ({"group_by": ""}, "the field is ''"),
        ({"group_by": "a..b"}, r"the field is 'a\.\.b'"),
        ({"group_by": ".a"}, "the field is '.a'"),
        ({"group_by": "a."}, "the field is 'a.'"),
        ({"group_by": "a\0b"}, "the field is 'a"),
        ({"group_by": "\ud800"}, "the field is '"),
        ({"group_by": 5}, "the field is 5"),
        ({"group_by": "lang", "group_size": 0}, "group_size is 0; expected 1 to 1,000"),
        ({"group_by": "lang", "group_size": 1001}, "group_size is 1001"),
        ({"group_by": "lang", "group_size": "3"}, "group_size is '3'"),
        ({"group_by": "lang", "diversity": 0.5}, "groups take neither"),
        ({"group_by": "lang", "passages": 2}, "groups take neither"),
        ({"group_by": "lang", "boost": searchapp.Boost("x", 0.5, 1)}, "groups take neither"),
        ({"boost": "views"}, "boost is 'v'; expected searchapp.Boost"),
        ({"boost": 0.5}, "boost is 0.5; expected searchapp.Boost"),
        ({"boost": [None]}, "boost is None; expected"),
        ({"boost": [searchapp.Boost("x", 0.5, 1), searchapp.Decay("x", 0.5, 1, 0)]}, "add up to 1 or more"),
        ({"min_score": 10**400, "diversity": 0.5}, "min_score is 1000"),
    ],
)
def test_what_cannot_be_arranged_is_refused(
    db: Client, stored: tuple[Space, list[Array]], options: dict[str, Any], reason: str
) -> None:
    space, _ = stored
    calls: list[Callable[[], Any]] = [
        lambda: ask(db, space, **options),
        lambda: db.search("x", collection=space.collection, **options),
        lambda: db.similar("0001", collection=space.collection, **options),
        lambda: db.search_by_examples("0001", collection=space.collection, **options),
    ]
    for call in calls:
        with pytest.raises(errors.InvalidInput, match=reason) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("weight", [0, 1, 1.5, -0.5, NAN, INF, "0.5", None, True, 10**400, 5e-324])
def test_a_weight_is_a_share(weight: Any) -> None:
    for make in (lambda: searchapp.Boost("x", weight, 1), lambda: searchapp.Decay("x", weight, 1, 0)):
        with pytest.raises(errors.InvalidInput, match=r"the weight is .*; expected a share of the score") as caught:
            make()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pivot", [0, -1, NAN, INF, "1", None, True, 10**400, 5e-324])
def test_a_pivot_is_over_zero(pivot: Any) -> None:
    with pytest.raises(errors.InvalidInput, match=r"the pivot of a boost is .*; expected a number over 0"):
        searchapp.Boost("x", 0.5, pivot)


@pytest.mark.parametrize(
    "half_life", [0, -1, NAN, INF, "1", None, True, 10**400, 5e-324, dt.timedelta(0), dt.timedelta(days=-1)]
)
def test_a_half_life_is_over_zero(half_life: Any) -> None:
    origin = dt.datetime.now(dt.UTC) if isinstance(half_life, dt.timedelta) else 0
    with pytest.raises(errors.InvalidInput, match=r"the half-life of a decay is .*; expected a number over 0"):
        searchapp.Decay("x", 0.5, half_life, origin)


@pytest.mark.parametrize(
    ("half_life", "origin", "reason"),
    [
        (dt.timedelta(1), dt.datetime(2024, 1, 1), "give it a time zone"),
        (dt.timedelta(1), 5, "asks for a datetime"),
        (dt.timedelta(1), "2024-01-01", "asks for a datetime"),
        (dt.timedelta(1), dt.date(2024, 1, 1), "asks for a datetime"),
        (1, None, "expected a number, or a half-life that is a timedelta"),
        (1, START, "expected a number"),
        (1, NAN, "expected a number"),
        (1, INF, "expected a number"),
        (1, "5", "expected a number"),
        (1, True, "expected a number"),
        (1, 10**400, "expected a number"),
    ],
)
def test_an_origin_is_of_the_half_lifes_kind(half_life: Any, origin: Any, reason: str) -> None:
    with pytest.raises(errors.InvalidInput, match=reason):
        searchapp.Decay("x", 0.5, half_life, origin)


@pytest.mark.parametrize("field", ["", "a..b", "a\0b", None, 5])
def test_a_boost_is_of_a_field_that_can_be(field: Any) -> None:
    for make in (lambda: searchapp.Boost(field, 0.5, 1), lambda: searchapp.Decay(field, 0.5, 1, 0)):
        with pytest.raises(errors.InvalidInput, match="the field is"):
            make()


def test_builders_refuse_what_cannot_be(stored: tuple[Space, list[Array]]) -> None:
    space, _ = stored
    boost = searchapp.Boost("views", 0.5, 1)
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: searchapp.nearest(space, QUERY, limit=5, passages=0), "passages is 0"),
        (lambda: searchapp.boosted(space, QUERY, 5, limit=5), "boost is 5"),  # type: ignore[arg-type]
        (lambda: searchapp.boosted(space, QUERY, boost, limit=0), "limit is 0"),
        (lambda: searchapp.boosted(space, QUERY, boost, limit=5, min_score=NAN), "min_score is nan"),
        (lambda: searchapp.boosted(space, QUERY, boost, limit=5, max_distance=INF), "max_distance is inf"),
        (lambda: searchapp.grouped(space, QUERY, "a..b", limit=5), "the field is"),
        (lambda: searchapp.grouped(space, QUERY, "lang", limit=5, size=0), "group_size is 0"),
        (lambda: searchapp.grouped(space, QUERY, "lang", limit=5, min_score=NAN), "min_score is nan"),
        (lambda: searchapp.grouped(space, np.zeros(384), "lang", limit=5), "zero"),
    ]
    for call, reason in calls:
        with pytest.raises(errors.InvalidInput, match=reason):
            call()


async def test_the_handle_for_asyncio_gives_the_same(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, _ = stored
    other = AsyncClient(lambda: db)
    for options in (
        {"passages": 2},
        {"diversity": 0.5},
        {"boost": searchapp.Boost("views", 0.5, 1)},
        {"group_by": "lang"},
    ):
        asked: dict[str, Any] = {"collection": space.collection, "limit": 4, **options}
        hits = await other.search_by_vector(QUERY, **asked)
        assert (hits.hits, hits.groups) == (ask(db, space, limit=4, **options).hits, hits.groups)
        assert (await other.similar("0001", **asked)).hits == db.similar("0001", **asked).hits
        examples = await other.search_by_examples("0001", QUERY, **asked)
        assert examples.hits == db.search_by_examples("0001", QUERY, **asked).hits
