"""Declared fields: declared and dropped, interrupted, filled with anything, and learnt of by others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Engine, text

import searchapp
from searchapp import errors, fields, maintenance, partitions, schema
from searchapp.async_client import AsyncClient
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.fields import Field
from tests.made_up import random_vectors

DOCUMENTS = [{"key": str(year), "text": "a year", "metadata": {"year": year}} for year in range(2000, 2020)]


@pytest.fixture
def years(db: Client) -> Client:
    db.load_vectors(DOCUMENTS, random_vectors(len(DOCUMENTS)), collection="years", model="all-MiniLM-L6-v2")
    return db


def indexes(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return partitions.field_indexes(connection)


def found(db: Client, filter: dict[str, Any]) -> set[str]:
    vector = random_vectors(1)[0]
    return {hit.key for hit in db.search_by_vector(vector, collection="years", limit=100, filter=filter)}


def test_a_field_is_declared_and_dropped_later(years: Client, engine: Engine) -> None:
    late = {str(year) for year in range(2015, 2020)}
    assert found(years, {"year": {"$gte": 2015}}) == late
    years.add_field("years", "year", "number")
    space = years.space("years")
    assert space.fields == (Field("year", "number"),)
    assert indexes(engine) == [fields.index_name(space.collection_id, "year")]
    assert found(years, {"year": {"$gte": 2015}}) == late
    years.drop_field("years", "year")
    assert years.space("years").fields == ()
    assert indexes(engine) == []
    assert found(years, {"year": {"$gte": 2015}}) == late


def test_a_client_learns_of_a_field_that_another_declared(years: Client, url: str) -> None:
    assert len(found(years, {"year": {"$lt": 2005}})) == 5
    with searchapp.connect(url) as another:
        another.add_field("years", "year", "number")
    assert len(found(years, {"year": {"$lt": 2005}})) == 5
    assert years._spaces["years"].fields == (Field("year", "number"),)


def test_what_an_interrupted_declaration_left_is_taken_away(years: Client, engine: Engine) -> None:
    space = years.space("years")
    left = [fields.index_name(space.collection_id, name) for name in ("year", "other")]
    with engine.begin() as connection:
        for index in left:
            connection.execute(text(f"CREATE INDEX {index} ON searchapp_data.documents_{space.collection_id} (key)"))
    years.add_field("years", "year", "number")
    assert set(indexes(engine)) == set(left)
    with engine.connect() as connection:
        definition = connection.scalar(
            text("SELECT pg_get_indexdef(to_regclass(:n))"), {"n": f"searchapp_data.{left[0]}"}
        )
    assert "jsonb_typeof" in definition
    years.maintain()
    assert indexes(engine) == left[:1]


def test_metadata_of_any_shape_is_taken_by_a_declared_field(db: Client) -> None:
    """No value makes the index's expression fail, none is too long for it."""
    declared = {"n": "number", "t": "text", "o.n": "number", "o.t": "text"}
    db.create_collection("shapes", fields=declared)
    values = [1e-320, 1e300, "x" * 100_000, "\U0010ffff" * 3000, "", None, True, [], {}, [[1]], [{"n": 1}]]
    documents = [
        {
            "key": f"{place}",
            "text": "x",
            "metadata": {"n": value, "t": value, "o": {"n": value, "t": value}, "p": place},
        }
        for place, value in enumerate(values)
    ] + [{"key": "objects", "text": "x", "metadata": {"o": [{"n": 5}, {"t": "y"}], "n": 9007199254740993}}]
    db.load_vectors(documents, random_vectors(len(documents)), collection="shapes", model="all-MiniLM-L6-v2")
    assert db.count(collection="shapes") == len(documents)
    assert db.count(collection="shapes", filter={"t": "x" * 100_000}) == 1
    assert db.count(collection="shapes", filter={"t": {"$gte": "x" * 600, "$lt": "y"}}) == 1
    assert db.count(collection="shapes", filter={"t": {"$gt": "\U0010ffff"}}) == 1
    assert db.count(collection="shapes", filter={"o.n": {"$gte": 5}, "o.t": "y"}) == 1
    assert db.count(collection="shapes", filter={"n": 9007199254740993}) == 1
    assert db.count(collection="shapes", filter={"n": 9007199254740992}) == 0


def test_a_field_is_not_declared_beside_a_transaction_that_stays_open(
    years: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("searchapp.maintenance.INDEX_LOCK_TIMEOUT", "100ms")
    with engine.connect() as connection:
        connection.execute(text("UPDATE searchapp_data.documents SET title = title"))
        with pytest.raises(errors.LockNotAvailable):
            years.add_field("years", "year", "number")
    assert years.space("years").fields == ()
    years.add_field("years", "year", "number")
    assert years.space("years").fields == (Field("year", "number"),)


def test_nothing_is_declared_beside_other_maintenance(years: Client, engine: Engine) -> None:
    with engine.connect() as other:
        other.execute(text(f"SELECT pg_advisory_xact_lock({maintenance.MAINTENANCE_LOCK})"))
        with pytest.raises(errors.LockNotAvailable, match="another process declares a field or drops"):
            years.add_field("years", "year", "number")
    years.add_field("years", "year", "number")
    with engine.connect() as other:
        other.execute(text(f"SELECT pg_advisory_xact_lock({maintenance.MAINTENANCE_LOCK})"))
        with pytest.raises(errors.LockNotAvailable):
            years.drop_field("years", "year")
    assert years.space("years").fields == (Field("year", "number"),)


async def test_a_declaration_that_is_cancelled_ends_at_once(years: Client, engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("UPDATE searchapp_data.documents SET title = title"))  # which the index waits for
        async with AsyncClient(lambda: years) as db:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(db.add_field("years", "year", "number"), 1)
    assert years.space("years").fields == ()
    years.add_field("years", "year", "number")


def test_a_field_of_any_name_is_searched_by(db: Client) -> None:
    names = ["{condition}", "it's", "100 %", "$1", "a.b", "__[POSTCOMPILE_x]"]
    declared = {name: "number" for name in names if not name.startswith("$")}
    db.create_collection("names", fields=declared)
    documents = [{"key": name, "text": "x", "metadata": {name: 1}} for name in names]
    db.load_vectors(documents, random_vectors(len(names)), collection="names", model="all-MiniLM-L6-v2")
    for name in declared:
        for value, keys in ((1, [name]), (2, [])):
            hits = db.search_by_vector(random_vectors(1)[0], collection="names", filter={name: value})
            assert [hit.key for hit in hits] == keys


def test_a_field_needs_connections_of_its_own(engine: Engine, registry: Registry) -> None:
    with engine.connect() as connection:
        handle = Client(connection=connection, registry=registry)
        with pytest.raises(errors.InvalidInput, match="add_field\\(\\) needs connections of its own"):
            handle.add_field("years", "year", "number")


@pytest.mark.parametrize("name", ["", "$gt", "a" * 201, "tab\t", "nul\0"])
def test_a_name_that_no_field_can_have_is_refused(db: Client, name: str) -> None:
    with pytest.raises(errors.InvalidInput, match="cannot be declared; expected a field's name"):
        db.create_collection("things", fields={name: "number"})


def test_downgrading_drops_the_indexes_of_fields(years: Client, engine: Engine) -> None:
    years.add_field("years", "year", "number")
    schema.downgrade(engine, "0001")
    assert indexes(engine) == []
    schema.upgrade(engine)
    assert years.space("years").fields == ()
    assert len(found(years, {"year": {"$lt": 2005}})) == 5
