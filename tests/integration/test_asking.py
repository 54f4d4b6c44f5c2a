"""The plain calls that ask by vectors: one or many, by the index or exactly, while collections change."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Engine

import searchapp
from searchapp import database, errors
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.search import asking
from searchapp.search.hits import Hits
from searchapp.search.question import Question
from searchapp.search.request import Request
from searchapp.search.statements import statement_of
from searchapp.spaces import Space
from searchapp.vectors import Array
from searchapp.wire import Parameter
from tests import conftest
from tests.made_up import DIMENSIONS, driver_of, fill, random_vectors, unit

DOCUMENTS = 1000
QUERIES = random_vectors(20)


engine, db = conftest.shared_database()


@pytest.fixture(scope="module")
def chunks() -> list[Array]:
    """Of 1,000 documents: one to three chunks each; the first 30 are equal, and near to the first query."""
    near = unit(QUERIES[0] + 0.1 * random_vectors(1))
    return [near if number < 30 else random_vectors(1 + number % 3) for number in range(DOCUMENTS)]


@pytest.fixture(scope="module")
def space(db: Client, chunks: list[Array]) -> Space:
    return fill(db, "things", chunks, lambda number: {"third": number % 3})


def told(hits: Hits) -> list[tuple[str, str, float | None]]:
    return [(hit.key, hit.passage, hit.distance) for hit in hits]


def by_numpy(chunks: list[Array], query: Array, limit: int, third: int | None = None) -> list[str]:
    distances = [
        (1 - float((each @ unit(query)).max()), f"{number:04}")
        for number, each in enumerate(chunks)
        if third is None or number % 3 == third
    ]
    return [key for _, key in sorted(distances)[:limit]]


@pytest.mark.parametrize("exact", [False, True])
def test_one_vector_is_answered_as_the_builder_answers(db: Client, engine: Engine, space: Space, exact: bool) -> None:
    hits = db.search_by_vector(QUERIES[1], collection="things", limit=25, exact=exact)
    statement = searchapp.nearest(space, QUERIES[1], limit=25, exact=exact)
    with engine.connect() as connection:
        rows = connection.execute(statement).all()
    assert told(hits) == [(row.key, row.passage, row.distance) for row in rows]
    assert hits.exact == exact
    assert hits[0].metadata == rows[0].metadata


@pytest.mark.parametrize("filter", [None, {"third": {"$in": [0, 2]}}, {"$or": [{"third": 0}, {"third": 2}]}])
@pytest.mark.parametrize("limit", [1, 150])
@pytest.mark.parametrize("count", [2, len(QUERIES)])
@pytest.mark.parametrize("exact", [False, True])
def test_many_vectors_are_answered_as_one_by_one(
    db: Client, space: Space, count: int, limit: int, filter: dict[str, object] | None, exact: bool
) -> None:
    options = {"collection": space.collection, "limit": limit, "filter": filter, "exact": exact}
    many = db.search_many_by_vector(QUERIES[:count], **options)  # type: ignore[arg-type]
    single = [db.search_by_vector(query, **options) for query in QUERIES[:count]]  # type: ignore[arg-type]
    assert [told(hits) for hits in many] == [told(hits) for hits in single]
    assert [hits.exact for hits in many] == [hits.exact for hits in single]
    assert {len({hit.key for hit in hits}) for hits in many} == {limit}
    assert {hit.metadata["third"] for hits in many for hit in hits} <= ({0, 1, 2} if filter is None else {0, 2})


@pytest.mark.parametrize("third", [None, 2])
def test_many_exact_answers_are_those_of_numpy(
    db: Client, space: Space, chunks: list[Array], third: int | None
) -> None:
    filter = None if third is None else {"third": third}
    answers = db.search_many_by_vector(3 * QUERIES, collection=space.collection, filter=filter, exact=True)
    assert len(QUERIES) >= asking.MATRIX_FROM
    for query, hits in zip(QUERIES, answers, strict=True):
        assert [hit.key for hit in hits] == by_numpy(chunks, query, 10, third)


def test_equal_vectors_are_cut_by_key_in_every_way(db: Client, space: Space) -> None:
    first = [f"{number:04}" for number in range(10)]
    for exact in (False, True):
        assert [hit.key for hit in db.search_by_vector(QUERIES[0], collection="things", exact=exact)] == first
        many = db.search_many_by_vector(QUERIES, collection=space.collection, exact=exact)
        assert [hit.key for hit in many[0]] == first


def test_no_vector_and_no_match_give_no_hits(db: Client, space: Space) -> None:
    assert db.search_many_by_vector([], collection=space.collection) == []
    nothing = {"third": 9}
    for exact in (False, True):
        assert list(db.search_by_vector(QUERIES[0], collection="things", filter=nothing, exact=exact)) == []
        many = db.search_many_by_vector(QUERIES, collection="things", filter=nothing, exact=exact)
        assert [list(hits) for hits in many] == [[]] * len(QUERIES)


def test_more_is_asked_than_there_is(db: Client, space: Space) -> None:
    many = db.search_many_by_vector(QUERIES[:20], collection=space.collection, limit=5000, exact=True)
    assert {len(hits) for hits in many} == {DOCUMENTS}


@pytest.mark.parametrize(
    ("vectors", "reason"),
    [
        (np.ones((2, 3)), r"shape is \(2, 3\); the collection things has \(n, 384\)"),
        (np.ones(DIMENSIONS), r"shape is \(384,\)"),
        ([np.ones(DIMENSIONS), np.zeros(DIMENSIONS)], "vector 1: the vector is zero"),
        ([np.full(DIMENSIONS, np.nan)], "vector 0: the vector has NaN"),
        ([[1.0, 2.0], [1.0]], "not equally long"),
    ],
)
def test_faulty_vectors_are_named(db: Client, space: Space, vectors: object, reason: str) -> None:
    with pytest.raises(errors.SearchAppError, match=reason):
        db.search_many_by_vector(vectors, collection=space.collection)  # type: ignore[arg-type]


def test_many_queries_are_answered_as_one_by_one(db: Client) -> None:
    texts = ["red shoes", "a blue whale", "how to bake bread", "red wine"]
    db.ingest(({"key": text, "text": text} for text in texts), collection="texts")
    many = db.search_many([*texts, "red"], collection="texts", limit=2)
    single = [db.search(text, collection="texts", limit=2) for text in [*texts, "red"]]
    assert [[hit.key for hit in hits] for hits in many] == [[hit.key for hit in hits] for hits in single]
    assert [hits[0].key for hits in many[:4]] == texts
    with pytest.raises(errors.InvalidInput, match="list of queries"):
        db.search_many("red", collection="texts")
    with pytest.raises(errors.InvalidInput, match="empty"):
        db.search_many(["red", " "], collection="texts")


def test_a_collection_made_anew_elsewhere_is_looked_up_again(db: Client, engine: Engine, registry: Registry) -> None:
    elsewhere = Client(engine, registry=registry)
    fill(db, "anew", [each[None] for each in random_vectors(50)])
    assert len(db.search_by_vector(QUERIES[0], collection="anew", limit=50)) == 50
    for exact in (False, True):
        elsewhere.drop_collection("anew")
        fill(elsewhere, "anew", [each[None] for each in random_vectors(30)])
        assert len(db.search_by_vector(QUERIES[0], collection="anew", limit=50, exact=exact)) == 30
        elsewhere.drop_collection("anew")
        fill(elsewhere, "anew", [each[None] for each in random_vectors(20)])
        many = db.search_many_by_vector(QUERIES, collection="anew", limit=50, exact=exact)
        assert {len(hits) for hits in many} == {20}
    elsewhere.drop_collection("anew")
    with pytest.raises(errors.CollectionMissing):
        db.search_by_vector(QUERIES[0], collection="anew")


def test_a_search_is_one_round_trip_that_is_prepared(
    db: Client, engine: Engine, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[bytes] = []
    execute = psycopg.RawCursor.execute

    def noting(self: object, query: bytes, *rest: object, **options: object) -> object:
        run.append(query)
        return execute(self, query, *rest, **options)  # type: ignore[call-overload]

    db.search_by_vector(QUERIES[0], collection="things")
    monkeypatch.setattr(psycopg.RawCursor, "execute", noting)
    for query in QUERIES:
        db.search_by_vector(query, collection="things")
    assert run == [statement_of(space, Question(Request(limit=10))).text] * len(QUERIES)
    with driver_of(engine) as driver:
        prepared = driver.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%hnsw%'")
        assert prepared.fetchone() == (1,)


def test_an_ended_connection_is_replaced(db: Client, engine: Engine, space: Space) -> None:
    db.search_by_vector(QUERIES[0], collection=space.collection)
    with driver_of(engine) as driver:  # the one used last
        pid, address = driver.info.backend_pid, driver.info.dsn
    with psycopg.connect(address) as outside:
        outside.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    assert len(db.search_by_vector(QUERIES[0], collection=space.collection)) == 10


def test_a_callers_transaction_is_searched_too(engine: Engine, registry: Registry, space: Space) -> None:
    with engine.connect() as connection:
        mine = Client(connection=connection, registry=registry)
        assert len(mine.search_by_vector(QUERIES[0], collection=space.collection)) == 10
        assert len(mine.search_many_by_vector(QUERIES, collection=space.collection, exact=True)) == len(QUERIES)
        assert connection.in_transaction()
        connection.rollback()


def test_settings_do_not_outlive_a_search(db: Client, engine: Engine, space: Space) -> None:
    db.search_by_vector(QUERIES[0], collection=space.collection, limit=150)
    with driver_of(engine) as driver:
        shown = driver.execute("SELECT current_setting('hnsw.ef_search'), current_setting('jit')").fetchone()
    assert shown == ("40", "off")


def test_the_vector_is_sent_in_binary(db: Client, engine: Engine, space: Space) -> None:
    text = statement_of(space, Question(Request(limit=10))).text
    assert b"$1" in text
    assert b"$2" not in text
    rows = database.Reader(engine).fetch(text, [Parameter(QUERIES[0])])
    assert [row[0] for row in rows] == [hit.key for hit in db.search_by_vector(QUERIES[0], collection="things")]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("count", [1, 3, len(QUERIES)])
def test_offset_and_thresholds_cut_what_comes_back(db: Client, space: Space, exact: bool, count: int) -> None:
    assert space.indexed

    def ask(**options: Any) -> list[list[tuple[str, str, float | None]]]:
        if count == 1:
            return [told(db.search_by_vector(QUERIES[1], collection="things", exact=exact, **options))]
        answers = db.search_many_by_vector(QUERIES[1 : count + 1], collection="things", exact=exact, **options)
        return [told(hits) for hits in answers]

    whole = ask(limit=30)
    assert ask(limit=20, offset=10) == [hits[10:] for hits in whole]
    middle = whole[0][15][2]
    assert middle is not None
    below = [[hit for hit in hits if hit[2] is not None and hit[2] <= middle] for hits in whole]
    assert ask(limit=30, max_distance=middle) == below
    assert ask(limit=10, offset=5, max_distance=middle) == [hits[5:15] for hits in below]
    assert ask(limit=30, min_score=2) == [[] for _ in whole]


@pytest.mark.parametrize("count", [1, 3, len(QUERIES)])
@pytest.mark.parametrize("own", [True, False], ids=["connections", "connection"])
def test_what_runs_over_its_time_is_ended(
    db: Client, engine: Engine, registry: Registry, space: Space, count: int, own: bool
) -> None:
    with engine.connect() as connection, engine.connect() as other:
        connection.exec_driver_sql(f"LOCK TABLE searchapp_data.chunks_{space.id} IN ACCESS EXCLUSIVE MODE")
        client = db if own else Client(connection=other, registry=registry)
        vectors = QUERIES[:count]

        def ask(timeout: float | None) -> Any:
            return client.search_many_by_vector(vectors, collection="things", exact=True, timeout=timeout)

        client.space("things")
        with pytest.raises(errors.QueryCanceled, match="statement timeout; give it more time, or ask for less"):
            ask(0.1)
        connection.rollback()
        assert [told(each) for each in ask(5)] == [told(each) for each in ask(None)]
        assert other.exec_driver_sql("SHOW statement_timeout").scalar() == "0"


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1", True, 86_401])
def test_a_timeout_that_cannot_be_is_refused(db: Client, space: Space, timeout: Any) -> None:
    with pytest.raises(errors.InvalidInput, match="timeout is"):
        db.search_by_vector(QUERIES[0], collection=space.collection, timeout=timeout)


# Pages by cursor


def pages(db: Client, **options: Any) -> list[Hits]:
    found = [db.search_by_vector(QUERIES[0], collection="things", exact=True, **options)]
    while found[-1].cursor is not None:
        found.append(db.search_by_vector(QUERIES[0], collection="things", cursor=found[-1].cursor, **options))
    return found


@pytest.mark.parametrize(
    ("limit", "options"), [(7, {}), (250, {}), (7, {"filter": {"third": 1}}), (7, {"max_distance": 0.95})]
)
def test_pages_by_cursor_are_pieces_of_one_order(db: Client, space: Space, limit: int, options: dict[str, Any]) -> None:
    assert space.indexed
    whole = db.search_by_vector(QUERIES[0], collection="things", limit=DOCUMENTS, exact=True, **options)
    found = pages(db, limit=limit, **options)
    assert [hit for page in found for hit in told(page)] == told(whole)  # 30 equal ones over five pages of seven
    assert all(page.exact for page in found)
    assert len(found) == len(whole) // limit + 1


def test_pages_may_be_of_any_length(db: Client, space: Space) -> None:
    whole = told(db.search_by_vector(QUERIES[0], collection=space.collection, limit=100, exact=True))
    first = db.search_by_vector(QUERIES[0], collection=space.collection, limit=3, exact=True)
    second = db.search_by_vector(QUERIES[0], collection=space.collection, limit=50, cursor=first.cursor)
    assert told(first) + told(second) == whole[:53]


def test_a_cursor_is_for_its_own_search_alone(db: Client, space: Space) -> None:
    def ask(query: Array = QUERIES[0], **options: Any) -> Hits:
        return db.search_by_vector(
            query, collection=space.collection, **{"limit": 5, "filter": {"third": 1}, **options}
        )

    cursor = ask(exact=True).cursor
    assert cursor is not None
    assert ask().cursor is None  # the index may have missed some
    assert told(ask(cursor=cursor)) == told(ask(exact=True, limit=10))[5:]
    others: list[dict[str, Any]] = [
        {"query": QUERIES[1]},
        {"filter": {"third": 2}},
        {"filter": None},
        {"max_distance": 0.5},
        {"cursor": cursor[:-1]},
        {"cursor": cursor + "A"},
        {"cursor": ("y" if cursor[0] == "x" else "x") + cursor[1:]},
        {"cursor": ""},
        {"cursor": "\u00e9"},
    ]
    for other in others:
        with pytest.raises(errors.InvalidCursor, match="not of this search"):
            ask(**{"cursor": cursor, **other})
    with pytest.raises(errors.InvalidInput, match="an offset or a cursor"):
        ask(cursor=cursor, offset=1)


def test_a_cursor_of_a_former_space_is_refused(db: Client) -> None:
    vectors = random_vectors(50)
    fill(db, "replaced", [each[None] for each in vectors])
    cursor = db.search_by_vector(QUERIES[0], collection="replaced", limit=5, exact=True).cursor
    db.drop_collection("replaced")
    fill(db, "replaced", [each[None] for each in vectors])
    with pytest.raises(errors.InvalidCursor, match="a former space of replaced; begin again"):
        db.search_by_vector(QUERIES[0], collection="replaced", limit=5, cursor=cursor)
    db.drop_collection("replaced")


def test_a_cursor_of_another_embedding_of_the_query_is_refused(db: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another machine's, that differs in its last bits: its distances would repeat or skip a hit."""
    db.ingest([{"key": str(number), "text": f"number {number}"} for number in range(20)], collection="texts")
    first = db.search("a number", collection="texts", limit=5, exact=True)
    assert len(db.search("a number", collection="texts", limit=5, cursor=first.cursor)) == 5
    encode = db._registry.encode_query
    monkeypatch.setattr(db._registry, "encode_query", lambda *asked: np.nextafter(encode(*asked), np.float32(1)))
    with pytest.raises(errors.InvalidCursor, match="encoded otherwise here; begin again"):
        db.search("a number", collection="texts", limit=5, cursor=first.cursor)
    db.drop_collection("texts")


def test_a_small_collection_is_answered_exactly_until_it_has_grown(db: Client) -> None:
    def load(first: int, count: int) -> None:
        documents = ({"key": f"{number}", "text": "x"} for number in range(first, first + count))
        db.load_vectors(documents, random_vectors(count), collection="growing", model="all-MiniLM-L6-v2")

    load(0, 200)
    assert db.search_by_vector(QUERIES[0], collection="growing").exact
    load(200, 1000)
    assert not db.search_by_vector(QUERIES[0], collection="growing").exact
    assert db.search_by_vector(QUERIES[0], collection="growing", limit=100).exact
    assert len(db.search_by_vector(QUERIES[0], collection="growing", limit=1100)) == 1100
    db.drop_collection("growing")
