"""Filters on the real server: what they keep, beside a second and plainer reading of MongoDB's rules."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import nullcontext
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given, settings
from sqlalchemy import Connection, Engine, insert

import searchapp
from searchapp import database, errors, spaces
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.models import Chunk, Document
from searchapp.search import filters
from searchapp.spaces import Space
from tests.made_up_filters import DECLARABLE, DOCUMENTS, EXAMPLES, NASTY, any_json, bounded, sound_filters, store


@pytest.fixture(scope="module")
def engine(server: database.Parameters, template: str) -> Iterator[Engine]:
    """One database for all tests here; what they store is never committed."""
    with psycopg.connect(**server, autocommit=True) as administrator:
        administrator.execute(f"CREATE DATABASE test_filters TEMPLATE {template}".encode())
        engine = database.create_engine({**server, "dbname": "test_filters"})
        yield engine
        engine.dispose()
        administrator.execute("DROP DATABASE test_filters")


@pytest.fixture(scope="module", params=["undeclared", "number", "text"])
def space(engine: Engine, registry: Registry, request: pytest.FixtureRequest) -> Space:
    """A collection without declared fields, and others in which every field is a number, or a text."""
    declared = {} if request.param == "undeclared" else dict.fromkeys(DECLARABLE, request.param)
    return Client(engine, registry=registry).create_collection(f"things_{request.param}", fields=declared)


@pytest.fixture
def connection(engine: Engine, space: Space) -> Iterator[Connection]:
    with engine.connect() as connection:
        if space.fields:  # few documents as there are here, they would be scanned
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        yield connection


def kept(connection: Connection, space: Space, filter: Any) -> list[int]:
    """Which documents a filter keeps, by their places."""
    return sorted(int(row.key) for row in connection.execute(searchapp.documents(space, filter=filter)))


# Rule by rule


@pytest.mark.parametrize(
    ("filter", "keeps", "leaves"),
    [
        pytest.param(
            {"a": 1},
            [{"a": 1}, {"a": 1.0}, {"a": [2, 1]}, {"a": 1, "b": 2}],
            [{"a": 2}, {"a": "1"}, {"a": True}, {"a": None}, {"a": {"a": 1}}, {"a": [[1]]}, {"b": 1}, {}],
            id="a scalar equals itself and an array that has it",
        ),
        pytest.param({"a": True}, [{"a": True}, {"a": [True]}], [{"a": 1}, {"a": "true"}], id="true is not 1"),
        pytest.param(
            {"a": None},
            [{"a": None}, {"a": [None]}, {"b": 1}, {}],
            [{"a": 0}, {"a": ""}, {"a": []}, {"a": [[None]]}, {"a": "null"}],
            id="null equals null and what is missing",
        ),
        pytest.param(
            {"a": {"b": 1, "c": 2}},
            [{"a": {"c": 2.0, "b": 1}}, {"a": [0, {"b": 1, "c": 2}]}],
            [{"a": {"b": 1}}, {"a": {"b": 1, "c": 2, "d": 3}}, {"a": [[{"b": 1, "c": 2}]]}, {}],
            id="an object equals only the same object, whatever the order of its fields",
        ),
        pytest.param(
            {"a": [1, 2]},
            [{"a": [1, 2]}, {"a": [[1, 2], 3]}],
            [{"a": [2, 1]}, {"a": [1, 2, 3]}, {"a": [1]}, {"a": [[[1, 2]]]}, {"a": 1}, {}],
            id="an array equals the same array and an array that has it",
        ),
        pytest.param({"a": []}, [{"a": []}, {"a": [[]]}], [{"a": None}, {"a": {}}, {}], id="an empty array"),
        pytest.param({"a": {}}, [{"a": {}}, {"a": [{}]}], [{"a": None}, {"a": []}, {}], id="an empty object"),
        pytest.param(
            {"a": {"$eq": {"$gt": 1}}}, [{"a": {"$gt": 1}}], [{"a": 2}], id="under $eq an operator is a name like any"
        ),
        pytest.param({"a": {"$ne": 1}}, [{"a": 2}, {"a": "1"}, {"a": None}, {}], [{"a": 1}, {"a": [1, 2]}], id="$ne"),
        pytest.param({"a": {"$ne": None}}, [{"a": 0}, {"a": []}], [{"a": None}, {"a": [None]}, {}], id="$ne null"),
        pytest.param(
            {"a": {"$gt": 5}},
            [{"a": 6}, {"a": 5.5}, {"a": [1, 6]}, {"a": ["x", 6]}],
            [{"a": 5}, {"a": "6"}, {"a": True}, {"a": None}, {"a": {"b": 6}}, {"a": [[6]]}, {"a": []}, {}],
            id="numbers compare with numbers",
        ),
        pytest.param(
            {"a": {"$lte": "b"}},
            [{"a": ""}, {"a": "B"}, {"a": "b"}, {"a": "a\U0001f418"}, {"a": "2026-01-01"}],
            [{"a": "ba"}, {"a": "\xe9"}, {"a": 1}, {"a": False}, {"a": None}, {}],
            id="texts compare with texts, by code points",
        ),
        pytest.param(
            {"a": {"$gt": 2, "$lt": 5}},
            [{"a": 3}, {"a": [1, 9]}],
            [{"a": 2}, {"a": 5}, {"a": [1, 2]}],
            id="several operators may be met by several elements",
        ),
        pytest.param(
            {"a": {"$in": [1, "x", None, [2], {"b": 3}]}},
            [{"a": 1}, {"a": ["y", "x"]}, {"a": None}, {}, {"a": [2]}, {"a": [[2]]}, {"a": {"b": 3}}],
            [{"a": 2}, {"a": "1"}, {"a": [3]}, {"a": [[1]]}, {"a": {"b": 4}}],
            id="$in",
        ),
        pytest.param({"a": {"$in": []}}, [], [{"a": 1}, {"a": None}, {"a": []}, {}], id="$in of nothing"),
        pytest.param({"a": {"$nin": [1, [2]]}}, [{"a": 2}, {}], [{"a": 1}, {"a": [0, 1]}, {"a": [2]}], id="$nin"),
        pytest.param({"a": {"$nin": []}}, [{"a": 1}, {"a": None}, {"a": []}, {}], [], id="$nin of nothing"),
        pytest.param(
            {"a": {"$exists": True}}, [{"a": None}, {"a": []}, {"a": 0}], [{"b": {"a": 1}}, {}], id="$exists true"
        ),
        pytest.param({"a": {"$exists": False}}, [{"b": {"a": 1}}, {}], [{"a": None}, {"a": []}], id="$exists false"),
        pytest.param(
            {"a": {"$not": {"$gt": 5}}}, [{"a": 5}, {"a": "6"}, {"a": None}, {}], [{"a": 6}, {"a": [1, 6]}], id="$not"
        ),
        pytest.param(
            {"$not": {"a": 1, "b": 2}},
            [{"a": 1}, {"a": 2, "b": 2}, {}],
            [{"a": 1, "b": 2}],
            id="$not of a filter, which MongoDB lacks",
        ),
        pytest.param(
            {"$or": [{"a": 1}, {"$and": [{"b": {"$gt": 1}}, {"b": {"$lt": 3}}]}], "c": 0},
            [{"a": 1, "c": 0}, {"b": 2, "c": 0}],
            [{"a": 1}, {"b": 2}, {"b": 3, "c": 0}, {"c": 0}],
            id="$and, $or and a field",
        ),
        pytest.param({}, [{"a": 1}, {}], [], id="the empty filter"),
        pytest.param({"$or": [{"a": 1}, {}]}, [{"a": 1}, {"a": 2}, {}], [], id="an empty filter in another"),
        pytest.param(
            {"a.b": 1},
            [{"a": {"b": 1}}, {"a": {"b": [1, 2]}}, {"a": [{"b": 1}, {"b": 2}]}, {"a.b": 1}],
            [{"a": 1, "b": 1}, {"a": {"b": 2}}, {"a": [[{"b": 1}]]}, {"a": {"c": {"b": 1}}}, {"a": {}}, {}],
            id="a dot leads into objects, or is a part of the field's name",
        ),
        pytest.param(
            {"a.b.c": {"$gte": 2, "$ne": 5}},
            [{"a": {"b": {"c": 2}}}, {"a": {"b": [{"c": 1}, {"c": 3}]}}, {"a.b.c": 2}],
            [{"a": {"b": {"c": 5}}}, {"a": {"b": {"c": [5, 2]}}}, {"a": {"b.c": 2}}, {}],
            id="dots lead on",
        ),
        pytest.param({"a.b": {"$exists": False}}, [{"a": 1}, {}], [{"a": {"b": None}}, {"a.b": 0}], id="nothing there"),
        pytest.param(
            {"a.b": [1, 2]}, [{"a": {"b": [1, 2]}}, {"a": {"b": [[1, 2]]}}], [{"a": {"b": [1]}}], id="an array"
        ),
        pytest.param(
            {"a": {"$eq": None, "$exists": True}}, [{"a": None}, {"a": [None]}], [{"a": 0}, {}], id="null, not missing"
        ),
        pytest.param(
            {"a": {"$contains": "x"}},
            [{"a": ["x"]}, {"a": [1, "x"]}],
            [{"a": "x"}, {"a": [["x"]]}, {"a": []}, {"a": {"x": "x"}}, {"a": None}, {}],
            id="$contains",
        ),
        pytest.param(
            {"a.b": {"$contains": [1, {"c": 2}]}},
            [{"a": {"b": [{"c": 2}, 1.0]}}, {"a.b": [0, 1, {"c": 2}]}],
            [{"a": {"b": [1]}}, {"a": {"b": [{"c": 2}]}}, {"a": {"b": [1, {"c": 2, "d": 3}]}}],
            id="$contains all of several",
        ),
        pytest.param(
            {"a": {"$contains": []}}, [{"a": []}, {"a": [1]}], [{"a": 1}, {}], id="$contains nothing: an array"
        ),
        pytest.param(
            {"a": {"$gte": dt.date(2026, 1, 1), "$lt": dt.datetime(2026, 2, 1, tzinfo=dt.UTC)}},
            [{"a": "2026-01-01"}, {"a": "2026-01-31T23:59:59+00:00"}],
            [{"a": "2025-12-31"}, {"a": "2026-02-01T00:00:00+00:00"}, {"a": 2026}, {}],
            id="dates are ISO 8601 texts",
        ),
    ],
)
def test_filter_keeps_what_mongodb_would(
    connection: Connection, space: Space, filter: dict[str, Any], keeps: list[Any], leaves: list[Any]
) -> None:
    documents = keeps + leaves
    store(connection, space, documents)
    assert [documents[place] for place in kept(connection, space, filter)] == keeps


def test_documents_are_those_of_one_collection(connection: Connection, space: Space, db: Client) -> None:
    others = db.create_collection(f"other_{space.collection}")
    store(connection, space, [{"a": 1}, {"a": 2}])
    assert kept(connection, others, {"a": 1}) == []
    assert kept(connection, space, {"a": 1}) == [0]
    assert kept(connection, space, None) == [0, 1]


NEAREST_FILTERS: list[dict[str, Any]] = [
    {"a": 1},
    {"a": [1, [2]]},
    {"a": {"$in": [[2], {"b": 3}]}},
    {"a": {"$nin": [None, 1]}},
    {"$not": {}},
    {"$or": [{}]},
]


@pytest.mark.parametrize("indexed", [False, True])
def test_nearest_keeps_what_the_filter_does(connection: Connection, space: Space, indexed: bool) -> None:
    documents: list[dict[str, Any]] = [{"a": 1}, {"a": [1, [2]]}, {"a": {"b": 3}}, {"a": None}, {}]
    vectors = np.eye(len(documents), space.dimensions, dtype=np.float32)
    chunks = [
        {"space_id": space.id, "document_id": document, "embedding": vector}
        for document, vector in zip(store(connection, space, documents), vectors, strict=True)
    ]
    connection.execute(insert(Chunk).values(position=0, start=0, length=1), chunks)
    if indexed:
        spaces.build_index(lambda: nullcontext(connection), space)
        space = spaces.find(connection, space.collection, space.vector_schema)
    assert space.indexed is indexed
    for filter in NEAREST_FILTERS:
        found = connection.execute(searchapp.nearest(space, vectors[0], limit=5, filter=filter))
        assert sorted(int(row.key) for row in found) == kept(connection, space, filter)


# Names and texts that could be taken for something else


def check_nasty(connection: Connection, space: Space) -> None:
    store(connection, space, [{name: [name, {name: name}]} for name in NASTY])
    for place, name in enumerate(NASTY):
        for condition in (name, {"$in": ["-", name]}, {"$gte": name}, {name: name}, [name, {name: name}]):
            assert kept(connection, space, {name: condition}) == [place]


def test_nasty_names_and_texts_are_only_names_and_texts(connection: Connection, space: Space) -> None:
    check_nasty(connection, space)


def test_backslashes_are_quoted_where_the_server_takes_them_for_escapes(url: str, registry: Registry) -> None:
    old = {"options": "-c standard_conforming_strings=off -c escape_string_warning=off"}
    engine = database.create_engine({**database.parse_url(url), **old})
    space = Client(engine, registry=registry).create_collection("things")
    with engine.connect() as connection:
        check_nasty(connection, space)
    engine.dispose()


# As large as they may be


def test_the_largest_filters_are_answered(connection: Connection, space: Space) -> None:
    store(connection, space, [{"a": 1}, {"a": [[7]]}, {"a": 10**1000 - 1}])
    places = range(1000)
    assert kept(connection, space, {"a": {"$in": [*places]}}) == [0]
    assert kept(connection, space, {"$or": [{"a": place} for place in places]}) == [0]
    assert kept(connection, space, {"a": {"$in": [[place] for place in range(200)]}}) == [1]
    assert kept(connection, space, {"a": 10**1000 - 1}) == [2]


def test_the_deepest_filters_are_answered(connection: Connection, space: Space) -> None:
    deep: Any = {"a": 1}
    deep_value: Any = []
    for level in range(19):
        deep = {"$or" if level % 2 else "$and": [deep, {"b": level}, {"$not": {}}][: 3 if level % 2 else 1]}
        deep_value = [{"b": deep_value}]
    store(connection, space, [{"a": 1}, {"a": deep_value}])
    assert kept(connection, space, deep) == [0]
    assert kept(connection, space, {"a": deep_value}) == [1]


# MongoDB's rules, read again


def matches(filter: dict[str, Any], metadata: dict[str, Any]) -> bool:
    return all(entry_matches(name, value, metadata) for name, value in filter.items())


def entry_matches(name: str, value: Any, metadata: dict[str, Any]) -> bool:
    match name:
        case "$and":
            return all(matches(part, metadata) for part in value)
        case "$or":
            return any(matches(part, metadata) for part in value)
        case "$not":
            return not matches(value, metadata)
    assert not name.startswith("$")
    return field_matches(standing_at(name, metadata), value)


def standing_at(name: str, metadata: dict[str, Any]) -> list[Any]:
    """What stands under a field's name, and where its dots lead."""
    led: list[Any] = [metadata]
    for step in name.split("."):
        objects = [each for value in led for each in (value if isinstance(value, list) else [value])]
        led = [each[step] for each in objects if isinstance(each, dict) and step in each]
    return led + ([metadata[name]] if "." in name and name in metadata else [])


def field_matches(found: list[Any], value: Any) -> bool:
    if isinstance(value, dict) and any(name.startswith("$") for name in value):
        return all(operator_matches(found, name, operand) for name, operand in value.items())
    return equals(found, value)


def operator_matches(found: list[Any], name: str, operand: Any) -> bool:
    match name:
        case "$eq":
            return equals(found, operand)
        case "$ne":
            return not equals(found, operand)
        case "$in":
            return any(equals(found, each) for each in operand)
        case "$nin":
            return not any(equals(found, each) for each in operand)
        case "$contains":
            wanted = operand if isinstance(operand, list) else [operand]
            elements = [canonical(each) for value in found for each in elements_of(value)]
            return any(isinstance(value, list) for value in found) and all(
                canonical(each) in elements for each in wanted
            )
        case "$exists":
            return bool(found) is operand
        case "$not":
            return not field_matches(found, operand)
    return any(compares(each, name, operand) for value in found for each in elements_of(value))


def equals(found: list[Any], value: Any) -> bool:
    if not found:
        return value is None
    return any(canonical(each) == canonical(value) for one in found for each in (one, *elements_of(one)))


def elements_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def compares(found: Any, name: str, operand: Any) -> bool:
    (kind, left), (other, right) = canonical(found), canonical(operand)
    if kind != other:
        return False
    return bool({"$lt": left < right, "$lte": left <= right, "$gt": left > right, "$gte": left >= right}[name])


def canonical(value: Any) -> tuple[str, Any]:
    """A value with its type, so that 1 is 1.0 but not true."""
    match value:
        case bool():
            return ("boolean", value)
        case int() | float():
            return ("number", Decimal(repr(value)))
        case str():
            return ("text", value)
        case list():
            return ("array", [canonical(each) for each in value])
        case dict():
            return ("object", {name: canonical(each) for name, each in value.items()})
    return ("null", None)


def expected(filter: dict[str, Any]) -> list[int]:
    return [place for place, metadata in enumerate(DOCUMENTS) if matches(filter, metadata)]


def test_filters_keep_what_mongodb_would(connection: Connection, space: Space) -> None:
    store(connection, space, DOCUMENTS)
    telling = 0

    @settings(bounded, max_examples=200)
    @given(sound_filters)
    def check(filter: dict[str, Any]) -> None:
        nonlocal telling
        places = kept(connection, space, filter)
        assert places == expected(filter)
        telling += 0 < len(places) < len(DOCUMENTS)
        print(len(places), filter)

    check()
    assert telling > 60


def test_any_json_is_refused_as_a_filter_or_answered(connection: Connection, space: Space) -> None:
    store(connection, space, DOCUMENTS)
    answered, refusals = 0, set[str]()

    @settings(bounded, max_examples=EXAMPLES)
    @given(any_json)
    def check(filter: Any) -> None:
        nonlocal answered
        try:
            filters.compile_filter(filter, Document.metadata_)
        except errors.InvalidFilter as exc:
            refusals.add(str(exc))
            return
        assert kept(connection, space, filter) == expected(filter)
        answered += 1

    check()
    assert EXAMPLES / 10 < answered < EXAMPLES * 9 / 10
    assert all(refusal.isprintable() for refusal in refusals)
