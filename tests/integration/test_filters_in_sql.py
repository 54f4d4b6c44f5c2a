"""Filters and declared fields in SQL: what they keep, refuse and are answered by, beside what Python's do."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import assume, given, settings
from sqlalchemy import Connection, Engine, select

import searchapp
from searchapp import database, errors, fields
from searchapp.client import Client
from searchapp.fields import Field
from searchapp.models import Document
from searchapp.search import filters
from searchapp.spaces import Space
from tests.conftest import shared_database
from tests.made_up_filters import DECLARABLE, DOCUMENTS, EXAMPLES, NASTY, any_json, bounded, sound_filters, store

engine, db = shared_database()


@pytest.fixture(scope="module", params=["undeclared", "number", "text"])
def space(db: Client, request: pytest.FixtureRequest) -> Space:
    """A collection without declared fields, and others in which every field is a number, or a text."""
    declared = {} if request.param == "undeclared" else dict.fromkeys(DECLARABLE, request.param)
    return db.create_collection(f"things_{request.param}", fields=declared)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # few documents as there are here
        yield connection


def ask(connection: Connection, query: str, *parameters: str | None) -> Any:
    """The first value of each row, straight from the driver: a % in a statement without parameters is a %."""
    driver = database.driver_of(connection)
    with driver.transaction():
        return [row[0] for row in driver.execute(query.encode(), parameters or None)]


def condition(connection: Connection, space: Space, filter: str | None) -> str | None:
    declared = json.dumps(fields.as_mapping(space.fields))
    (found,) = ask(connection, "SELECT searchapp_data.filter_condition(%s::jsonb, %s::jsonb)", filter, declared)
    assert found is None or isinstance(found, str)
    return found


def kept_by_sql(connection: Connection, space: Space, filter: str) -> list[int]:
    """Which documents a filter, given as JSON, keeps, by their places."""
    keys = ask(
        connection,
        f"SELECT d.key FROM searchapp_data.documents d WHERE d.collection_id = {space.collection_id}"
        f" AND {condition(connection, space, filter) or 'true'}",
    )
    return sorted(map(int, keys))


def kept_by_python(connection: Connection, space: Space, filter: str) -> list[int]:
    (as_stored,) = ask(connection, "SELECT %s::jsonb", filter)  # its names in jsonb's order, its numbers as numeric
    meant = filters.compile_filter(as_stored, Document.metadata_, space.fields)
    return sorted(int(row.key) for row in connection.execute(searchapp.documents(space).where(meant)))


def outcome(kept: Callable[[], list[int]]) -> list[int] | str:
    """What is kept, or the words in which the filter is refused."""
    try:
        return kept()
    except errors.InvalidFilter as exc:
        return str(exc)
    except psycopg.errors.InvalidParameterValue as exc:
        return str(exc.diag.message_primary)


def test_sql_keeps_what_python_does(connection: Connection, space: Space) -> None:
    store(connection, space, DOCUMENTS)
    telling = 0

    @settings(bounded, max_examples=EXAMPLES)
    @given(sound_filters)
    def check(filter: dict[str, Any]) -> None:
        nonlocal telling
        text = json.dumps(filter)
        places = kept_by_sql(connection, space, text)
        assert places == kept_by_python(connection, space, text)
        telling += 0 < len(places) < len(DOCUMENTS)

    check()
    assert telling > EXAMPLES / 4


def shown_otherwise(text: str) -> bool:
    """Whether a JSON text is none to PostgreSQL, or messages show it in another way.

    Those of SQL have 0.00001 for 1e-05, and know nothing of characters that Unicode does not yet have.
    """
    unknown = any(unicodedata.category(char) == "Cn" for char in text)
    return unknown or re.search(r"NaN|Infinity|\\u0000|[0-9]e-[0-9]", text) is not None


def test_any_json_is_answered_or_refused_as_by_python(connection: Connection, space: Space) -> None:
    store(connection, space, DOCUMENTS)
    refused = 0

    @settings(bounded, max_examples=EXAMPLES)
    @given(any_json)
    def check(filter: Any) -> None:
        nonlocal refused
        text = json.dumps(filter, ensure_ascii=False)
        assume(not shown_otherwise(text))
        found = outcome(lambda: kept_by_sql(connection, space, text))
        assert found == outcome(lambda: kept_by_python(connection, space, text))
        refused += isinstance(found, str)

    check()
    assert EXAMPLES / 10 < refused < EXAMPLES * 9 / 10


def nested(levels: int, name: str, value: Any) -> Any:
    for _ in range(levels):
        value = {name: value}
    return value


REFUSED: list[Any] = [
    None,
    [],
    {"$and": [3]},
    {"$nor": [{"a": 1}]},
    {"$it's": 1},
    {'$"it\'s"': 1},
    {"$\\\u202e\n\x01\U0010ffff": 1},
    {"a": {"$gt": 1, "b": 2}},
    {"$and": {"a": 1}},
    {"$or": []},
    {"it's": {"$in": "en"}},
    {"a": {"$nin": {"b": None}}},
    {"a": {"$exists": "\x7f\u202e\t"}},
    {"a": {"$lte": {}}},
    {"a": {"$gt": 1, "$in": 2, "$lt": None}},
    {"a": {"$not": {"b": 1}}},
    {"a": {"$not": 5}},
    {"a": {"$in": "x\n" * 1000}},
    {"a": {"$eq": 10**1000}},
    {"a": [{"b": -(10**1000)}]},
    nested(41, "$not", {}),
    {"a": nested(40, "b", [])},
    {"a": {"$in": list(range(1001))}},
    {"$or": [{"a": {"$not": {"$nin": [n, [n]]}}} for n in range(501)]},
    {"$or": [{"a": {"$gt": n, "$lt": n}} for n in range(501)]},
    {"$and": [{"a": {"$contains": []}}] * 1001},
    {"$and": [{"a": {"$exists": True}}] * 1001},
]


@pytest.mark.parametrize("filter", REFUSED, ids=lambda filter: json.dumps(filter)[:40])
def test_what_python_refuses_sql_does_in_the_same_words(connection: Connection, space: Space, filter: Any) -> None:
    text = json.dumps(filter)
    refusal = outcome(lambda: kept_by_sql(connection, space, text))
    assert isinstance(refusal, str)
    assert refusal == outcome(lambda: kept_by_python(connection, space, text))


LARGE: list[Any] = [
    nested(40, "$not", {}),
    {"$not": {"a": nested(38, "b", [])}},
    {"a": {"$in": list(range(1000))}},
    {"$or": [{"a": n} for n in range(1000)]},
    {"$or": [{"a": {"$in": []}}] * 1001 + [{"a": 1}]},
    {"a": {"$in": [[n] for n in range(200)]}},
    {"a": {"$lt": 10**1000 - 1}},
]


@pytest.mark.parametrize("filter", LARGE, ids=lambda filter: json.dumps(filter)[:40])
def test_the_largest_filters_are_answered(connection: Connection, space: Space, filter: Any) -> None:
    store(connection, space, [{"a": 1}, {"a": [[7]]}, {"a": 10**1000 - 1}, {}])
    text = json.dumps(filter)
    assert kept_by_sql(connection, space, text) == kept_by_python(connection, space, text) != []


@pytest.mark.parametrize("number", ["1", "1.0", "1e0", "10e-1", "0.1e1"])
def test_a_number_is_the_same_however_it_is_written(connection: Connection, space: Space, number: str) -> None:
    store(connection, space, [{"a": 1}, {"a": 1.0}, {"a": 1.5}, {"a": [1, {"b": 1}]}, {"a": "1"}, {"a": True}])
    assert kept_by_sql(connection, space, f'{{"a": {number}}}') == [0, 1, 3]
    assert kept_by_sql(connection, space, f'{{"a": {{"$gte": {number}}}}}') == [0, 1, 2, 3]
    assert kept_by_sql(connection, space, f'{{"a": {{"b": {number}}}}}') == [3]


def test_a_text_may_be_longer_than_what_an_index_has_of_it(connection: Connection, space: Space) -> None:
    texts = ["x" * length + end for length in (499, 500, 501) for end in ("", "\U0010ffff")] + ["\U0010ffff", "x", "y"]
    store(connection, space, [{"a": text} for text in texts])
    for place, text in enumerate(texts):
        for operator in ("$lt", "$lte", "$gt", "$gte", "$eq", "$ne"):
            filter = json.dumps({"a": {operator: text}})
            assert kept_by_sql(connection, space, filter) == kept_by_python(connection, space, filter)
        assert kept_by_sql(connection, space, json.dumps({"a": text})) == [place]


def test_no_filter_is_no_condition(connection: Connection, space: Space) -> None:
    assert condition(connection, space, None) is None
    assert condition(connection, space, "{}") is None


@pytest.mark.parametrize("strings", ["on", "off"])
def test_nasty_names_and_texts_are_only_names_and_texts(connection: Connection, space: Space, strings: str) -> None:
    store(connection, space, [{name: [name, {name: name}]} for name in NASTY])
    connection.exec_driver_sql(f"SET LOCAL standard_conforming_strings = {strings}")
    connection.exec_driver_sql("SET LOCAL escape_string_warning = off")
    for place, name in enumerate(NASTY):
        for value in (name, {"$in": ["-", name]}, {"$gte": name}, {name: name}, [name, {name: name}]):
            assert kept_by_sql(connection, space, json.dumps({name: value})) == [place]


# Declared fields, whose indexes either side makes

COMPARED = {"number": 7, "text": "it's \\ 7", "date": "2026-01-31"}


def check_indexed(plan: list[str], space: Space, name: str) -> None:
    """Check that both what is certain and what is in doubt come from a field's index."""
    assert "\n".join(plan).count(f"Index Scan on {fields.index_name(space.collection_id, name)}") == 2, name


@pytest.mark.parametrize("type_", COMPARED)
def test_sql_compares_by_the_indexes_that_python_makes(connection: Connection, db: Client, type_: str) -> None:
    space = db.create_collection(f"python_{type_}", fields=dict.fromkeys(DECLARABLE, type_))
    for name in DECLARABLE:
        for operator in ("$eq", "$gt", "$lte"):
            filter = json.dumps({name: {operator: COMPARED[type_]}})
            meant = condition(connection, space, filter)
            plan = ask(connection, f"EXPLAIN SELECT FROM searchapp_data.documents d WHERE {meant}")
            check_indexed(plan, space, name)


@pytest.mark.parametrize("type_", COMPARED)
def test_python_compares_by_the_indexes_that_sql_makes(connection: Connection, db: Client, type_: str) -> None:
    space = db.create_collection(f"sql_{type_}")
    for name in DECLARABLE:
        (expression,) = ask(connection, "SELECT searchapp_data.field_expression(%s, %s)", name, type_)
        connection.exec_driver_sql(
            f"CREATE INDEX {fields.index_name(space.collection_id, name)}"
            f" ON searchapp_data.documents_{space.collection_id} (({expression.replace('%', '%%')}))"
        )
    declared = [Field(name, type_) for name in DECLARABLE]
    for name in DECLARABLE:
        for operator in ("$eq", "$gt", "$lte"):
            meant = filters.compile_filter({name: {operator: COMPARED[type_]}}, Document.metadata_, declared)
            compiled = select(Document.id).where(meant).compile(connection, compile_kwargs={"literal_binds": True})
            check_indexed(list(connection.exec_driver_sql(f"EXPLAIN {compiled}").scalars()), space, name)
