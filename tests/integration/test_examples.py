"""Search by documents that are there, on the real server: against plain NumPy, with several chunks a document."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

import searchapp
from searchapp import errors
from searchapp.client import Client
from searchapp.spaces import Space
from searchapp.vectors import Array
from tests import conftest
from tests.made_up import fill, random_vectors, unit

engine, db = conftest.shared_database()

SINGLE = [random_vectors(1) for _ in range(600)]
SEVERAL = [unit(random_vectors(1) + 0.7 * random_vectors(1 + number % 4)) for number in range(400)]


@pytest.fixture(scope="module", params=["single", "several"])
def stored(request: pytest.FixtureRequest, db: Client) -> tuple[Space, list[Array]]:
    """A collection of documents of one chunk, or of one to four."""
    chunks = {"single": SINGLE, "several": SEVERAL}[request.param]
    space = fill(db, request.param, list(chunks), lambda number: {"third": number % 3})
    with db._transaction() as connection:
        searchapp.spaces.refresh_statistics(connection, space, len(chunks))
    return db.space(request.param), chunks


def keys(hits: Iterable[Any]) -> list[str]:
    return [hit.key for hit in hits]


def nearest_by_numpy(chunks: list[Array], number: int) -> list[tuple[str, float]]:
    """All others by their nearest chunk's distance to what a document's chunks are on average."""
    average = unit(np.mean(chunks[number].astype(np.float64), axis=0))
    distances = {
        f"{other:04}": 1 - float(np.max(each.astype(np.float64) @ average))
        for other, each in enumerate(chunks)
        if other != number
    }
    return sorted(distances.items(), key=lambda item: item[1])


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("number", [0, 3, 77])
def test_similar_ones_are_the_nearest_but_the_document(
    db: Client, stored: tuple[Space, list[Array]], number: int, exact: bool
) -> None:
    space, chunks = stored
    hits = db.similar(f"{number:04}", collection=space.collection, limit=10, exact=exact)
    expected = nearest_by_numpy(chunks, number)[:10]
    assert keys(hits) == [key for key, _ in expected]
    assert [hit.distance for hit in hits] == pytest.approx([distance for _, distance in expected], abs=1e-6)
    assert (hits.mode, hits.exact, hits.complete) == ("vector", exact, True)


def test_all_others_are_similar_and_none_comes_twice(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, chunks = stored
    hits = db.similar("0007", collection=space.collection, limit=5000)
    assert keys(hits) == [key for key, _ in nearest_by_numpy(chunks, 7)]


def test_filters_thresholds_and_pages_hold(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, chunks = stored
    everything = [(key, distance) for key, distance in nearest_by_numpy(chunks, 9) if int(key) % 3 == 1]
    asked: dict[str, Any] = {"collection": space.collection, "filter": {"third": 1}}
    assert keys(db.similar("0009", limit=20, **asked)) == [key for key, _ in everything[:20]]
    assert keys(db.similar("0009", limit=5, offset=5, **asked)) == [key for key, _ in everything[5:10]]
    far = (everything[6][1] + everything[7][1]) / 2
    assert keys(db.similar("0009", limit=20, max_distance=far, **asked)) == [key for key, _ in everything[:7]]
    found, cursor = [], None
    while True:
        page = db.similar("0009", limit=30, exact=True, cursor=cursor, **asked)
        found += keys(page)
        if (cursor := page.cursor) is None:
            break
    assert found == [key for key, _ in everything]


def test_a_cursor_is_of_its_document(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, _ = stored
    page = db.similar("0001", collection=space.collection, limit=3, exact=True)
    with pytest.raises(errors.InvalidCursor):
        db.similar("0002", collection=space.collection, limit=3, exact=True, cursor=page.cursor)


def test_the_builder_gives_the_same(engine: Engine, stored: tuple[Space, list[Array]]) -> None:
    space, chunks = stored
    with engine.connect() as connection:
        rows = connection.execute(searchapp.nearest_to_document(space, "0004", limit=10)).all()
        assert [row.key for row in rows] == [key for key, _ in nearest_by_numpy(chunks, 4)[:10]]
        assert connection.execute(searchapp.nearest_to_document(space, "none", limit=10)).all() == []


def test_a_document_that_is_not_there_is_told_with_the_near_ones(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, _ = stored
    with pytest.raises(errors.DocumentMissing, match=r"has no document '00077'; did you mean .*0007"):
        db.similar("00077", collection=space.collection)
    for key in ("", "zebra", "x" * 5000):
        with pytest.raises(errors.DocumentMissing, match="there are: "):
            db.similar(key, collection=space.collection)
    with pytest.raises(errors.InvalidInput, match="expected the key of a document"):
        db.similar("a\0b", collection=space.collection)
    with pytest.raises(errors.CollectionMissing):
        db.similar("0001", collection="none")


def test_the_only_document_has_nothing_similar(db: Client) -> None:
    fill(db, "alone", [random_vectors(3)])
    assert list(db.similar("0000", collection="alone")) == []


def test_a_document_of_many_chunks_leaves_room_for_others(db: Client) -> None:
    """They are nearer than all others, and more than the index keeps of candidates."""
    own = unit(random_vectors(1) + 0.05 * random_vectors(700))
    chunks = [own, *(random_vectors(1) for _ in range(2000))]
    space = fill(db, "long", chunks)
    hits = db.similar("0000", collection=space.collection, limit=10)
    assert keys(hits) == [key for key, _ in nearest_by_numpy(chunks, 0)[:10]]


def test_a_document_without_a_chunk_has_nothing_similar(db: Client, engine: Engine) -> None:
    space = fill(db, "bare", [random_vectors(1) for _ in range(3)])
    statement = "DELETE FROM searchapp_data.chunks WHERE space_id = :space AND document_id = :id"
    with engine.begin() as connection:
        of_it = text("SELECT id FROM searchapp_data.documents WHERE collection_id = :collection AND key = '0001'")
        id_ = connection.scalar(of_it, {"collection": space.collection_id})
        assert isinstance(id_, uuid.UUID)
        connection.execute(text(statement), {"space": space.id, "id": id_})
    assert list(db.similar("0001", collection="bare")) == []


# By examples

RANDOM = np.random.default_rng(5)
VECTORS = unit(RANDOM.standard_normal((4, 384)).astype(np.float32))
# What hits are to be like, and unlike.
SIDES: list[tuple[list[Any], list[Any]]] = [
    (["0005"], []),
    (["0005", "0011", "0005"], []),
    ([VECTORS[0]], [VECTORS[1]]),
    (["0007", VECTORS[0] * 3], ["0100"]),
    (["0001", "0002", "0003", VECTORS[2]], ["0004", VECTORS[3].tolist(), "0006"]),
]


def embedding_of(chunks: list[Array], example: Any) -> Array:
    array = np.asarray(chunks[int(example)] if isinstance(example, str) else [example], np.float64)
    return unit(array.mean(axis=0))


def embeddings_of(chunks: list[Array], examples: list[Any]) -> Array:
    """Of a document that is named twice once."""
    keys = dict.fromkeys(each for each in examples if isinstance(each, str))
    kept = [*keys, *(each for each in examples if not isinstance(each, str))]
    return np.array([embedding_of(chunks, each) for each in kept]).reshape(len(kept), 384)


def average_by_numpy(chunks: list[Array], like: list[Any], unlike: list[Any]) -> dict[str, float]:
    """The distances."""
    sought = embeddings_of(chunks, like).mean(axis=0)
    if unlike:
        sought = sought + (sought - embeddings_of(chunks, unlike).mean(axis=0))
    sought = unit(sought)
    return {f"{number:04}": 1 - float((each @ sought).max()) for number, each in enumerate(chunks)}


def sigmoid(cosine: Any) -> Any:
    return 0.5 * (1 + cosine / (1 + np.abs(cosine)))


def best_by_numpy(chunks: list[Array], like: list[Any], unlike: list[Any]) -> dict[str, tuple[float, float]]:
    """The scores, and distances of the chunks that have them."""
    liked, unliked = embeddings_of(chunks, like), embeddings_of(chunks, unlike)
    scores = {}
    for number, each in enumerate(chunks):
        near = (each @ liked.T).max(axis=1)
        far = (each @ unliked.T).max(axis=1) if unlike else np.full(len(each), -np.inf)
        of_chunks = np.where(near > far, sigmoid(near), -sigmoid(np.maximum(far, -1)))
        best = int(np.argmax(of_chunks))
        scores[f"{number:04}"] = float(of_chunks[best]), 1 - float(near[best])
    return scores


def expected_of(
    chunks: list[Array], like: list[Any], unlike: list[Any], strategy: str
) -> list[tuple[str, float, float]]:
    """Key, score and distance of all that are no examples, best first."""
    if strategy == "average":
        rows = [(key, 1 - each, each) for key, each in average_by_numpy(chunks, like, unlike).items()]
    else:
        rows = [(key, *each) for key, each in best_by_numpy(chunks, like, unlike).items()]
    examples = {each for each in like + unlike if isinstance(each, str)}
    return sorted((row for row in rows if row[0] not in examples), key=lambda row: -row[1])


def check(hits: Iterable[Any], expected: list[tuple[str, float, float]]) -> None:
    found = list(hits)
    assert [hit.score for hit in found] == pytest.approx([score for _, score, _ in expected], abs=1e-5)
    assert keys(found) == [key for key, _, _ in expected]
    assert [hit.distance for hit in found] == pytest.approx([distance for _, _, distance in expected], abs=1e-5)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("strategy", ["average", "best_score"])
@pytest.mark.parametrize("sides", range(len(SIDES)))
def test_hits_are_like_some_and_unlike_others(
    db: Client, stored: tuple[Space, list[Array]], sides: int, strategy: str, exact: bool
) -> None:
    space, chunks = stored
    like, unlike = SIDES[sides]
    whole = expected_of(chunks, like, unlike, strategy)

    def ask(**options: Any) -> Any:
        return db.search_by_examples(
            like, unlike, collection=space.collection, strategy=strategy, exact=exact, **options
        )

    hits = ask(limit=10)
    check(hits, whole[:10])
    assert (hits.mode, hits.complete, hits.cursor) == ("vector", True, None)
    assert hits.exact or not exact
    check(ask(limit=7, offset=5), whole[5:12])
    check(ask(limit=5000), whole)
    check(ask(limit=20, filter={"third": 1}), [row for row in whole if int(row[0]) % 3 == 1][:20])
    assert list(ask(filter={"third": 9})) == []
    middle = (whole[6][1] + whole[7][1]) / 2
    check(ask(limit=20, min_score=middle), whole[:7])
    check(ask(limit=3, offset=2, min_score=middle), whole[2:5])
    far = sorted(distance for _, _, distance in whole)[5] + 1e-6
    check(ask(limit=20, max_distance=far), [row for row in whole if row[2] <= far])
    check(ask(limit=20, min_score=middle, max_distance=far), [row for row in whole[:7] if row[2] <= far])


@pytest.mark.parametrize("strategy", ["average", "best_score"])
@pytest.mark.parametrize("sides", range(len(SIDES)))
def test_the_builder_by_examples_gives_the_same(
    db: Client, engine: Engine, stored: tuple[Space, list[Array]], sides: int, strategy: str
) -> None:
    space, chunks = stored
    like, unlike = SIDES[sides]
    whole = expected_of(chunks, like, unlike, strategy)
    middle, far = (whole[12][1] + whole[13][1]) / 2, whole[30][2]
    cases: list[dict[str, Any]] = [
        {"limit": 10},
        {"limit": 10, "offset": 4, "exact": True},
        {"limit": 10, "filter": {"third": 2}},
        {"limit": 40, "min_score": middle},
        {"limit": 40, "max_distance": far},
        {"limit": 40, "min_score": middle, "max_distance": far},
    ]
    for options in cases:
        statement = searchapp.nearest_to_examples(space, like, unlike, strategy=strategy, **options)
        with engine.connect() as connection:
            rows = connection.execute(statement).all()
        hits = db.search_by_examples(like, unlike, collection=space.collection, strategy=strategy, **options)
        told = [(row.key, row.passage, row.metadata, row.distance) for row in rows]
        assert told == [(hit.key, hit.passage, hit.metadata, hit.distance) for hit in hits], options
        assert len(rows) == min(options["limit"], 13 if "min_score" in options else 40) or "max_distance" in options
        if strategy == "best_score":
            assert [row.score for row in rows] == [hit.score for hit in hits]


def test_the_best_score_by_hand(db: Client) -> None:
    """Along the first axes: a is what hits are to be like, b another such, c what they are to be unlike."""

    def vector(*coordinates: float) -> Array:
        return np.array([[*coordinates, *[0.0] * (384 - len(coordinates))]], np.float32)

    a, b, c = vector(1), vector(0, 1), vector(0, 0, 1)
    documents = {
        "0000": vector(3, 4),  # 0.6 and 0.8 like: 0.5 * (1 + 0.8 / 1.8)
        "0001": vector(0.6, 0, 0.8),  # nearer to what it is not to be: -0.5 * (1 + 0.8 / 1.8)
        "0002": vector(0.8, 0, 0.6),  # as good as the first
        "0003": vector(-1, -1),  # at right angles to it, so less like the others: -0.5
        "0004": vector(0, 0, 0, 1),  # equally like both, which is not more: -0.5
        "0005": np.vstack([vector(0, 0, 1), vector(1)]),  # its second chunk is the best there is: 0.75
        "0006": vector(0, 0, -1),  # as unlike as can be: 0.5
    }
    space = fill(db, "by_hand", list(documents.values()))
    hits = db.search_by_examples(
        [a[0], b[0].tolist()], c[0], collection=space.collection, strategy="best_score", limit=9
    )
    scores = {hit.key: hit.score for hit in hits}
    best = 0.5 * (1 + 0.8 / 1.8)
    assert scores == pytest.approx(
        {"0005": 0.75, "0000": best, "0002": best, "0006": 0.5, "0003": -0.5, "0004": -0.5, "0001": -best}, abs=1e-6
    )
    assert keys(hits)[0] == "0005"
    assert keys(hits)[-1] == "0001"
    assert {hit.key: hit.distance for hit in hits} == pytest.approx(
        {"0005": 0, "0000": 0.2, "0002": 0.2, "0006": 1, "0003": 1 + 0.5**0.5, "0004": 1, "0001": 0.4}, abs=1e-6
    )
    average = db.search_by_examples([a[0], b[0]], collection=space.collection, limit=2)
    assert keys(average) == ["0000", "0005"]  # 0.99 and 0.71 of the diagonal


def test_a_single_example_needs_no_list(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, _ = stored
    for strategy in ("average", "best_score"):
        asked: dict[str, Any] = {"collection": space.collection, "strategy": strategy}
        for one, other in (("0005", VECTORS[0]), (VECTORS[0], "0005"), (VECTORS[0].tolist(), VECTORS[1].tolist())):
            expected = keys(db.search_by_examples([one], [other], **asked))
            assert keys(db.search_by_examples(one, other, **asked)) == expected
            listed_once: Any = iter([other])
            assert keys(db.search_by_examples((one,), listed_once, **asked)) == expected
    assert keys(db.search_by_examples("0005", collection=space.collection)) == keys(
        db.similar("0005", collection=space.collection)
    )
    both = db.search_by_examples(VECTORS[:2], collection=space.collection)
    assert keys(both) == keys(db.search_by_examples([VECTORS[0], VECTORS[1]], collection=space.collection))


def test_nothing_is_like_what_has_no_direction(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, _ = stored
    asked: dict[str, Any] = {"collection": space.collection, "limit": 3}
    assert list(db.search_by_examples([VECTORS[0], -VECTORS[0]], **asked)) == []
    assert len(db.search_by_examples([VECTORS[0], -VECTORS[0]], strategy="best_score", **asked)) == 3


@pytest.mark.parametrize("strategy", ["average", "best_score"])
@pytest.mark.parametrize(
    ("like", "unlike", "error", "reason"),
    [
        ([], ["0001"], errors.InvalidInput, "nothing that hits are to be like"),
        (np.empty((0, 384)), [], errors.InvalidInput, "nothing that hits are to be like"),
        (None, [], errors.InvalidInput, "expected"),
        (5, [], errors.InvalidInput, "expected"),
        (["0001"], 5.5, errors.InvalidInput, "expected"),
        (["00077"], [], errors.DocumentMissing, "has no document '00077'; did you mean .*0007"),
        (["0001"], ["0002", "zebra"], errors.DocumentMissing, "has no document 'zebra'"),
        (["a\0b"], [], errors.InvalidInput, "expected the key of a document"),
        ([np.ones(3)], [], errors.ModelMismatch, r"\(3,\).*has \(384,\)"),
        (["0001"], [[1.0, 2.0]], errors.ModelMismatch, r"\(2,\)"),
        ([np.zeros(384)], [], errors.InvalidInput, "zero"),
        (["0001"], np.full(384, np.nan), errors.InvalidInput, "NaN"),
        ([np.full(384, np.inf)], [], errors.InvalidInput, "infinity"),
        ([["a"] * 384], [], errors.InvalidInput, "not a list of numbers"),
        ([b"0001"], [], errors.SearchAppError, "the vector"),
        ([None], [], errors.SearchAppError, "the vector"),
    ],
)
def test_examples_that_cannot_be_are_refused(
    db: Client,
    stored: tuple[Space, list[Array]],
    strategy: str,
    like: Any,
    unlike: Any,
    error: type[Exception],
    reason: str,
) -> None:
    space, _ = stored
    with pytest.raises(error, match=reason) as caught:
        db.search_by_examples(like, unlike, collection=space.collection, strategy=strategy)
    assert "\n" not in str(caught.value)
    if error is not errors.DocumentMissing:
        with pytest.raises(error, match=reason):
            searchapp.nearest_to_examples(space, like, unlike, strategy=strategy, limit=10)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"strategy": "best"}, "strategy is 'best'; expected one of: average, best_score"),
        ({"strategy": None}, "strategy is None"),
        ({"strategy": "best_score", "group_by": "third"}, "groups and boosts go with the strategy average"),
        ({"strategy": "best_score", "boost": searchapp.Boost("third", 0.1, 1)}, "go with the strategy average"),
        ({"min_score": float("nan")}, "min_score is nan"),
        ({"strategy": "best_score", "max_distance": float("inf")}, "max_distance is inf"),
        ({"limit": 0}, "limit is 0"),
    ],
)
def test_what_examples_do_not_go_with_is_refused(
    db: Client, stored: tuple[Space, list[Array]], options: dict[str, Any], reason: str
) -> None:
    space, _ = stored
    with pytest.raises(errors.InvalidInput, match=reason):
        db.search_by_examples("0001", collection=space.collection, **options)
    if not {"group_by", "boost"} & set(options):
        with pytest.raises(errors.InvalidInput, match=reason):
            searchapp.nearest_to_examples(space, "0001", **{"limit": 10, **options})


def test_examples_of_a_missing_collection_are_refused(db: Client) -> None:
    for like in ("0001", VECTORS[0]):
        with pytest.raises(errors.CollectionMissing):
            db.search_by_examples(like, collection="none")


def test_a_builder_without_a_known_document_has_no_hits(engine: Engine, stored: tuple[Space, list[Array]]) -> None:
    space, _ = stored
    for strategy in ("average", "best_score"):
        with engine.connect() as connection:
            statement = searchapp.nearest_to_examples(space, "none", strategy=strategy, limit=10)
            assert connection.execute(statement).all() == []


examples_of = st.lists(st.integers(0, 499).map(lambda number: f"{number:04}") | st.integers(0, 3), max_size=4)


def test_whatever_the_examples_the_best_come_first(db: Client) -> None:
    """On clustered vectors, where what hits are to be unlike is near to what they are to be like."""
    turn = RANDOM.standard_normal((12, 384)).astype(np.float32)

    def clustered(count: int) -> Array:
        return unit(RANDOM.standard_normal((count, 12)).astype(np.float32) @ turn)

    chunks = [clustered(1 + number % 3) for number in range(2500)]
    vectors = clustered(4)
    space = fill(db, "clustered", chunks, lambda number: {"third": number % 3})
    assert space.indexed
    found = wanted = approximate = 0

    @settings(max_examples=40, derandomize=True, database=None, deadline=None)
    @given(examples_of.filter(bool), examples_of, st.sampled_from([1, 5, 10]), st.booleans(), st.booleans())
    def check_one(like: list[Any], unlike: list[Any], limit: int, filtered: bool, average: bool) -> None:
        nonlocal found, wanted, approximate
        unlike = [each for each in unlike if each not in like]  # else rounding says what is nearer
        sides = tuple([each if isinstance(each, str) else vectors[each] for each in side] for side in (like, unlike))
        strategy = "average" if average else "best_score"
        asked: dict[str, Any] = {"collection": "clustered", "strategy": strategy, "limit": limit}
        asked["filter"] = {"third": 1} if filtered else None
        whole = expected_of(chunks, sides[0], sides[1], strategy)
        whole = [row for row in whole if not filtered or int(row[0]) % 3 == 1]
        exact = db.search_by_examples(*sides, exact=True, **asked)
        if len(exact):
            assert [hit.score for hit in exact] == pytest.approx([row[1] for row in whole[:limit]], abs=1e-5)
        hits = db.search_by_examples(*sides, **asked)
        assert len(set(keys(hits))) == len(hits) == len(exact)
        scores = {row[0]: row[1] for row in whole}
        assert all(hit.score <= scores[hit.key] + 1e-5 for hit in hits)
        if hits.exact:
            assert keys(hits) == keys(exact)
        approximate += not hits.exact
        found += len(set(keys(hits)) & set(keys(exact)))
        wanted += len(exact)

    check_one()
    assert approximate >= 10
    assert found >= 0.97 * wanted
