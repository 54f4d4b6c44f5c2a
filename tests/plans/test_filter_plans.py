"""A filter that tests for equality is answered from the GIN index on metadata."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

import searchapp
from searchapp import database, fields, spaces
from searchapp.client import Client
from searchapp.spaces import Space


@pytest.fixture
def space(db: Client) -> Space:
    return db.create_collection("things")


@pytest.fixture
def connection(engine: Engine, space: Space) -> Iterator[Connection]:
    """A connection that sees 5,000 documents of 100 tenants, in three languages, in a collection that is analysed."""
    with engine.connect() as connection:
        connection.execute(
            text(
                "INSERT INTO searchapp_data.documents (collection_id, id, key, text, metadata, content_hash)"
                " SELECT :collection_id, gen_random_uuid(), n::text, repeat('words ', 50), jsonb_build_object("
                "   'tenant', n % 100, 'lang', (ARRAY['en', 'de', '100 % '' nl'])[n % 3 + 1], 'year', 1990 + n % 35,"
                "   'tags', jsonb_build_array('t' || n % 50, 'u' || n % 70), 'number', n,"
                "   'shop', jsonb_build_object('city', n % 100)), ''"
                " FROM generate_series(1, 5000) AS n"
            ),
            {"collection_id": space.collection_id},
        )
        spaces.refresh_statistics(connection, space, written=5000)
        yield connection


def plan(connection: Connection, space: Space, filter: dict[str, Any]) -> str:
    statement = searchapp.documents(space, filter=filter)
    compiled = statement.compile(connection, compile_kwargs={"literal_binds": True})
    return "\n".join(connection.exec_driver_sql(f"EXPLAIN {compiled}").scalars())


def check_planned_alike(connection: Connection, space: Space, filter: dict[str, Any]) -> None:
    """Check that the condition that SQL makes of a filter is planned as Python's: nodes, indexes, costs and rows."""
    driver = database.driver_of(connection)
    asked = [json.dumps(filter, default=lambda value: value.isoformat()), json.dumps(fields.as_mapping(space.fields))]
    ((condition,),) = driver.execute("SELECT searchapp_data.filter_condition(%s, %s)", asked)
    query = (
        "EXPLAIN SELECT d.id, d.key, d.title, d.text, d.metadata FROM searchapp_data.documents d"
        f" WHERE d.collection_id = {space.collection_id} AND {condition}"
    )
    shown = "\n".join(row[0] for row in driver.execute(query.encode()))
    assert nodes(shown) == nodes(plan(connection, space, filter)), filter


def nodes(plan: str) -> list[str]:
    """The lines of a plan that have costs, without the names that tables and functions bear in the statement."""
    return re.findall(r"(\w.*?)(?: \w+)?  (\(cost=.*\))", plan)


INDEXED: list[dict[str, Any]] = [
    {"tenant": 7},
    {"tenant": {"$eq": 7.0}},
    {"tags": "t3"},
    {"tenant": {"$in": [1, 2, 3]}},
    {"tags": {"$in": ["t3", "u9"]}},
    {"tenant": 7, "lang": "100 % ' nl"},
    {"tenant": 7, "year": {"$gte": 2000, "$lt": 2010}, "lang": {"$ne": "en"}},
    {"$or": [{"number": 1}, {"tenant": 7}]},
    {"shop.city": 7},
    {"tags": {"$contains": "t3"}},
    {"tags": {"$contains": ["t3", "u3"]}},
]


def test_equality_uses_the_index_on_metadata(connection: Connection, space: Space) -> None:
    scan = f"Bitmap Index Scan on documents_{space.collection_id}_metadata_idx"
    assert [filter for filter in INDEXED if scan not in plan(connection, space, filter)] == []


ALIKE: list[dict[str, Any]] = [
    *INDEXED,
    {"lang": {"$in": ["en", "de"]}},
    {"tenant": {"$nin": [1, 2]}, "year": None},
    {"$not": {"tenant": 7, "lang": "en"}},
    {"$and": [{"$or": [{"tenant": 7}, {"shop.city": {"$gt": 90}}]}, {"tags": {"$exists": True}}]},
    {"shop": {"city": 7}},
    {"tags": ["t1", "u1"]},
]


def test_sql_plans_as_python_does(connection: Connection, space: Space) -> None:
    for filter in ALIKE:
        check_planned_alike(connection, space, filter)


def test_a_filter_that_keeps_most_documents_is_answered_by_a_scan(connection: Connection, space: Space) -> None:
    assert "Seq Scan" in plan(connection, space, {"lang": {"$in": ["en", "de"]}})


DECLARED = {"number": "number", "name": "text", "day": "date", "shop.city": "number", "tags": "text"}
BY_FIELD: list[tuple[str, dict[str, Any]]] = [
    ("number", {"number": {"$gte": 4900}}),
    ("number", {"number": {"$lt": 100}}),
    ("number", {"number": {"$gt": 1000, "$lte": 1100.5}}),
    ("number", {"number": {"$in": [1, 2, 10**20]}}),
    ("name", {"name": {"$gte": "name 49"}}),
    ("name", {"name": "name 7"}),
    ("day", {"day": {"$gte": dt.date(2026, 1, 31), "$lt": dt.datetime(2026, 2, 3, 12, tzinfo=dt.UTC)}}),
    ("shop.city", {"shop.city": {"$lte": 3}}),
    ("tags", {"tags": "t3"}),  # in all documents an array: a closer look at each
]


@pytest.mark.parametrize("later", [False, True])
def test_a_declared_field_is_compared_by_its_index(db: Client, engine: Engine, later: bool) -> None:
    space = db.create_collection("declared", fields={} if later else DECLARED)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO searchapp_data.documents (collection_id, id, key, text, metadata, content_hash)"
                " SELECT :collection_id, gen_random_uuid(), n::text, repeat('words ', 50), jsonb_build_object("
                "   'number', n, 'name', 'name ' || n, 'day', date '2025-12-01' + n % 100,"
                "   'tags', jsonb_build_array('t' || n % 50), 'shop', jsonb_build_object('city', n % 100)), ''"
                " FROM generate_series(1, 5000) AS n"
            ),
            {"collection_id": space.collection_id},
        )
        spaces.refresh_statistics(connection, space, written=5000)
    if later:
        for name, type_ in DECLARED.items():
            db.add_field("declared", name, type_)
        space = db.space("declared")
    with engine.connect() as connection:
        for name, filter in BY_FIELD:
            shown = plan(connection, space, filter)
            check_planned_alike(connection, space, filter)
            count = db.count(collection="declared", filter=filter)
            estimated = int(re.findall(r"rows=(\d+)", shown)[0])
            assert f"Bitmap Index Scan on {fields.index_name(space.collection_id, name)}" in shown or name == "tags"
            assert count * 0.8 - 5 <= estimated <= count * 1.25 + 5 or name == "tags", (filter, count, estimated)
