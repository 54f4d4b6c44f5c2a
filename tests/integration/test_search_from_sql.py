"""Searches from SQL find what the Python calls find, in the same order."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

from searchapp import link
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.encoders.weights import DEFAULT
from searchapp.search.hits import Hits
from tests.conftest import engine_on, shared_address
from tests.made_up import DIMENSIONS, fill, random_vectors
from tests.workers import working

url, db = shared_address()

ROWS = 5000
LIMITS = (1, 10, 500)
WORDS = "river bridge mountain valley harbour ship engine garden seed bread oven straße 東京 naïve Ωmega".split()  # noqa: SIM905  # shorter so
FILTERS: tuple[dict[str, Any] | None, ...] = (
    None,
    {},
    {"half": 0},
    {"number": {"$gte": 100, "$lt": 130}},
    {"lang": {"$in": ["de", "ελ"]}, "$not": {"half": 1}},
    {"tags": "o'clock"},
    {"number": -1},
)


@pytest.fixture(scope="module", autouse=True)
def collections(db: Client) -> None:
    """Short texts, with vectors of which some are equal; documents of many chunks; many equal vectors."""
    random = np.random.default_rng(9)
    vectors = random_vectors(ROWS)
    vectors[100:140] = vectors[100]
    documents = [
        {
            "key": f"k{number}",
            "title": None if number % 3 else f"Title {number}",
            "text": " ".join(random.choice(WORDS, size=1 + number % 40)),
            "metadata": {
                "number": number,
                "half": number % 2,
                "lang": ("de", "en", "ελ")[number % 3],
                "tags": ["o'clock", "\\"] if number % 50 == 0 else [],
            },
        }
        for number in range(ROWS)
    ]
    db.load_vectors(documents, vectors, collection="articles", model="all-MiniLM-L6-v2")
    fill(db, "long", [random_vectors(1 + number % 5) for number in range(600)], lambda number: {"half": number % 2})
    db.load_vectors(documents[:1], vectors[:1], collection="silent", model="all-MiniLM-L6-v2", words=False)
    fill(db, "same", [random_vectors(1)] * 40 + [random_vectors(1) for _ in range(2000)])


@pytest.fixture(scope="module")
def sql(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection as any other client's."""
    with psycopg.connect(url, autocommit=True, options="-c searchapp.timeout=60s") as connection:
        yield connection


@pytest.fixture(scope="module")
def worker(url: str, registry: Registry) -> Iterator[None]:
    registry.encoder(DEFAULT)  # loaded before anybody waits for it
    with engine_on(url) as engine:
        link.make(engine)
    with working(url, registry):
        yield


def ask(sql: psycopg.Connection[Any], call: str, *values: Any) -> list[Any]:
    with sql.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute(f"SELECT * FROM searchapp.{call}".encode(), values).fetchall()


def check_same(rows: list[Any], hits: Hits) -> None:
    assert [row.key for row in rows] == [hit.key for hit in hits]
    for row, hit in zip(rows, hits, strict=True):
        assert (row.title, row.passage, row.metadata) == (hit.title, hit.passage, hit.metadata)
        found = (row.score, row.distance, row.vector_score, row.text_score)
        assert found == pytest.approx((hit.score, hit.distance, hit.vector_score, hit.text_score), abs=1e-6)


def as_json(filter: dict[str, Any] | None) -> Jsonb | None:
    return None if filter is None else Jsonb(filter)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("filter", FILTERS, ids=str)
def test_by_vector(db: Client, sql: psycopg.Connection[Any], filter: dict[str, Any] | None, limit: int) -> None:
    for vector in random_vectors(3):
        rows = ask(
            sql, "search_by_vector(%s::vector, 'articles', %s, %s)", str(vector.tolist()), limit, as_json(filter)
        )
        check_same(rows, db.search_by_vector(vector, collection="articles", limit=limit, filter=filter))


@pytest.mark.parametrize("limit", [*LIMITS, 2000])
@pytest.mark.parametrize("name", ["long", "same"])
def test_by_vector_of_several_chunks_and_among_equals(
    db: Client, sql: psycopg.Connection[Any], name: str, limit: int
) -> None:
    for vector in random_vectors(3):
        rows = ask(sql, "search_by_vector(%s::vector, %s, %s)", str(vector.tolist()), name, limit)
        check_same(rows, db.search_by_vector(vector, collection=name, limit=limit))
    (equal,) = sql.execute("SELECT embedding::text FROM searchapp.same WHERE key = '0000'").fetchall()[0]
    rows = ask(sql, "search_by_vector(%s::vector, %s, %s)", equal, name, limit)
    check_same(rows, db.search_by_vector(json.loads(equal), collection=name, limit=limit))


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("filter", FILTERS, ids=str)
@pytest.mark.parametrize(
    "query",
    [
        "ship",
        "Bridge over the river",
        "straße 東京",
        'ship "bread oven"',
        "garden -seed",
        "nothing of that",
        '"Ωmega" -"o ven"',
    ],
)
def test_by_words(
    db: Client, sql: psycopg.Connection[Any], query: str, filter: dict[str, Any] | None, limit: int
) -> None:
    rows = ask(sql, "search(%s, 'articles', %s, %s, 'text')", query, limit, as_json(filter))
    check_same(rows, db.search(query, collection="articles", limit=limit, filter=filter, mode="text"))


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("mode", ["vector", "hybrid", None])
@pytest.mark.parametrize("filter", FILTERS, ids=str)
def test_by_text(db: Client, sql: psycopg.Connection[Any], filter: dict[str, Any] | None, mode: str | None) -> None:
    for query in ("a ship in the harbour", "straße 東京", 'bread "oven garden" -seed'):
        for limit in LIMITS:
            rows = ask(sql, "search(%s, 'articles', %s, %s, %s)", query, limit, as_json(filter), mode)
            check_same(rows, db.search(query, collection="articles", limit=limit, filter=filter, mode=mode))


@pytest.mark.usefixtures("worker")
def test_by_text_of_several_chunks_and_without_words(db: Client, sql: psycopg.Connection[Any]) -> None:
    for name in ("long", "same", "silent"):
        for mode in ("vector", None):
            for limit in LIMITS:
                rows = ask(sql, "search('text 7', %s, %s, mode => %s)", name, limit, mode)
                check_same(rows, db.search("text 7", collection=name, limit=limit, mode=mode))


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("filter", FILTERS, ids=str)
def test_like_a_document(db: Client, sql: psycopg.Connection[Any], filter: dict[str, Any] | None, limit: int) -> None:
    for key in ("k0", "k100", "k4999"):
        rows = ask(sql, "similar('articles', %s, %s, %s)", key, limit, as_json(filter))
        check_same(rows, db.similar(key, collection="articles", limit=limit, filter=filter))
    rows = ask(sql, "similar('long', '0003', %s)", limit)
    check_same(rows, db.similar("0003", collection="long", limit=limit))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("search_by_vector('[1,2,3]', 'articles')", "the vector has 3 dimensions; the collection articles has 384"),
        ("search_by_vector(NULL, 'articles')", "the vector is null; expected one of 384 dimensions"),
        (f"search_by_vector('{[0] * DIMENSIONS}', 'articles')", "the vector has the length 0; it has no direction"),
        (
            f"search_by_vector('{[1] * DIMENSIONS}', 'articles', model => 'BGE-M3')",
            "the vector is of BGE-M3; the collection articles has all-MiniLM-L6-v2",
        ),
        ("search('ship', 'artikles')", "no collection 'artikles'; did you mean articles?"),
        ("search('ship', 'zzz')", "no collection 'zzz'; there are: articles, long, same, silent"),
        ("search('ship', NULL)", "the collection is null"),
        ("search(NULL, 'articles')", "the query is null; say what to look for"),
        ("search(' \t', 'articles')", "the query is empty; say what to look for"),
        ("search('-ship', 'articles', mode => 'text')", "the query has nothing to look for"),
        ("search('ship', 'articles', 0)", "limit is 0; expected 1 to 100,000"),
        ("search('ship', 'articles', 100001)", "limit is 100001; expected 1 to 100,000"),
        ("search('ship', 'articles', NULL)", "limit is null; expected 1 to 100,000"),
        ("search('ship', 'articles', mode => 'best')", "mode is 'best'; expected one of: vector, text, hybrid"),
        (
            "search('ship', 'silent', mode => 'text')",
            "the collection silent has no words; make them: ",
        ),
        (
            "search('ship', 'articles', 5, '{\"a\": {\"$near\": 1}}', 'text')",
            "unknown operator '\\$near'",
        ),
        ("similar('articles', 'k50000')", "the collection articles has no document 'k50000'; did you mean k"),
        ("similar('articles', NULL)", "the key is null; expected the key of a document"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(sql: psycopg.Connection[Any], call: str, said: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        ask(sql, call)
    message = caught.value.diag.message_primary or ""
    assert "\n" not in message
    assert re.search(said, message)


def test_settings_of_the_session_are_as_before(sql: psycopg.Connection[Any]) -> None:
    names = "current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan'), current_setting('search_path')"
    vector = str(random_vectors(1)[0].tolist())
    with sql.transaction():
        sql.execute("SET LOCAL hnsw.ef_search = 77; SET LOCAL hnsw.iterative_scan = 'relaxed_order'")
        before = sql.execute(f"SELECT {names}".encode()).fetchone()
        assert len(ask(sql, "search_by_vector(%s::vector, 'articles', 700, '{\"half\": 1}')", vector)) == 700
        assert sql.execute(f"SELECT {names}".encode()).fetchone() == before


ODD = st.text(alphabet=st.sampled_from("'\"\\$%{}[]();:-_ aé漢\n\t"), max_size=12)


# By our own checks, not by the parser.
REFUSED = (
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.NullValueNotAllowed,
    psycopg.errors.UndefinedObject,
    psycopg.errors.NoDataFound,
    psycopg.errors.NoData,
)


@pytest.mark.usefixtures("worker")
@given(texts=st.lists(ODD, min_size=5, max_size=5), value=ODD)
def test_texts_are_values_whatever_stands_in_them(sql: psycopg.Connection[Any], texts: list[str], value: str) -> None:
    query, collection, key, name, mode = texts
    vector = str([1] * DIMENSIONS)
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("search(%s, %s, 3, NULL, %s)", (query, collection, mode)),
        ("search(%s, 'articles', 3, %s, 'text')", (query, Jsonb({name: value}))),
        ("search(%s, 'articles', 3)", (query,)),
        ("embed(%s, %s)", (query, collection)),
        ("embed(%s, 'articles')", (query,)),
        ("embed_with(%s, %s)", (query, mode)),
        ("similar(%s, %s)", (collection, key)),
        ("similar('articles', %s)", (key,)),
        ("search_by_vector(%s::vector, %s, 3, NULL, %s)", (vector, collection, name)),
        ("search_by_vector(%s::vector, 'articles', 3, %s)", (vector, Jsonb({name: {"$in": [value, key]}}))),
    ]
    for call, values in calls:
        with suppress(*REFUSED):
            ask(sql, call, *values)
    assert sql.execute("SELECT count(*) FROM searchapp.articles").fetchone() == (ROWS,)


def test_a_reader_searches_and_looks(sql: psycopg.Connection[Any]) -> None:
    vector = str(random_vectors(1)[0].tolist())
    with sql.transaction():
        sql.execute("SET LOCAL ROLE searchapp_reader")
        assert len(ask(sql, "search_by_vector(%s::vector, 'articles', 3, '{\"half\": 1}')", vector)) == 3
        assert len(ask(sql, "search('\"Ωmega\" ship -seed', 'articles', mode => 'text')")) == 10
        assert len(ask(sql, "similar('articles', 'k7')")) == 10
        counts = {row.name: row.documents for row in ask(sql, "collections")}
        assert counts == {"articles": ROWS, "long": 600, "same": 2040, "silent": 1}
        assert [row.collections for row in ask(sql, "models")] == [4]
        assert {row.chunks for row in ask(sql, "spaces")} == {ROWS, 1800, 2040, 1}


def test_the_view_of_a_dropped_collection_goes_and_another_may_take_its_name(
    db: Client, sql: psycopg.Connection[Any]
) -> None:
    def there() -> bool:
        return sql.execute("SELECT to_regclass('searchapp.passing') IS NOT NULL").fetchone() == (True,)

    db.create_collection("passing")
    assert there()
    db.drop_collection("passing")
    assert not there()
    db.create_collection("passing")
    sql.execute("CREATE VIEW used AS SELECT key FROM searchapp.passing")
    db.drop_collection("passing")
    assert sql.execute("SELECT * FROM used").fetchall() == []
    db.load_vectors([{"key": "1", "text": "a"}], random_vectors(1), collection="passing", model="other")
    assert sql.execute("SELECT * FROM used").fetchall() == [("1",)]
    sql.execute("DROP VIEW used")
    db.drop_collection("passing")
    assert not there()


def test_shadows_on_the_search_path_change_nothing(sql: psycopg.Connection[Any]) -> None:
    vector = str(random_vectors(1)[0].tolist())
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ('search_by_vector(%s::public.vector, \'articles\', 5, \'{"half": 1, "number": {"$lt": 900}}\')', (vector,)),
        ("search('\"Ωmega\" ship -seed', 'articles', mode => 'text')", ()),
        ("similar('articles', 'k7')", ()),
        ("articles ORDER BY embedding OPERATOR(public.<=>) %s::public.vector LIMIT 5", (vector,)),
    ]
    expected = [ask(sql, call, *values) for call, values in calls]
    with sql.transaction():
        sql.execute(
            """
            CREATE SCHEMA evil;
            SET LOCAL search_path = evil, pg_temp, pg_catalog, public;
            CREATE FUNCTION evil.nothing(public.vector, public.vector) RETURNS float8 LANGUAGE sql
              AS 'SELECT 0.0::float8';
            CREATE OPERATOR evil.<=> (FUNCTION = evil.nothing, LEFTARG = public.vector, RIGHTARG = public.vector);
            CREATE FUNCTION evil.never(uuid, uuid) RETURNS boolean LANGUAGE sql AS 'SELECT false';
            CREATE OPERATOR evil.= (FUNCTION = evil.never, LEFTARG = uuid, RIGHTARG = uuid);
            CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
            CREATE FUNCTION evil.substring(text, int, int) RETURNS text LANGUAGE sql AS 'SELECT ''evil''::text';
            CREATE TEMPORARY TABLE documents (id uuid, key text);
            CREATE TEMPORARY TABLE chunks (document_id uuid);
            CREATE TYPE pg_temp.near_document AS (document_id text)
            """
        )
        assert [ask(sql, call, *values) for call, values in calls] == expected
        sql.execute("DROP SCHEMA evil CASCADE")
