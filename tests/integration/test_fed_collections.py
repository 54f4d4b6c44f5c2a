"""A collection that a source keeps in step with a table takes no other writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Engine, text

import searchapp
from searchapp import errors
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from tests.sources import QuickRegistry, keep

DOCUMENT = {"key": "1", "text": "written by hand"}
SAID = "the collection notes is kept by the source memos; change its table, or remove it: searchapp source remove memos"
WRITES: dict[str, Callable[[Client], Any]] = {
    "ingest": lambda db: db.ingest([DOCUMENT], collection="notes"),
    "ingest_nothing": lambda db: db.ingest([], collection="notes"),
    "load_vectors": lambda db: db.load_vectors(
        [DOCUMENT], np.ones((1, 384)), collection="notes", model="all-MiniLM-L6-v2"
    ),
    "delete_by_key": lambda db: db.delete(["1"], collection="notes"),
    "delete_by_filter": lambda db: db.delete(filter={"stars": 1}, collection="notes"),
    "drop": lambda db: db.drop_collection("notes"),
}


@pytest.fixture(autouse=True)
def source(url: str) -> None:
    """A source of one note."""
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("CREATE TABLE public.notes (id bigint PRIMARY KEY, body text, stars int)")
        sql.execute("INSERT INTO public.notes VALUES (1, 'water the plants', 1)")
        sql.execute("SELECT searchapp.add_source('memos', 'public.notes', '{id}', '{body}', collection => 'notes')")


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_other_writes_are_refused(
    db: Client, engine: Engine, registry: Registry, write: Callable[[Client], Any]
) -> None:
    for _ in range(2):  # before a worker has made the collection, and after
        with pytest.raises(errors.CollectionFed) as raised:
            write(db)
        assert str(raised.value) == SAID
        keep(engine, QuickRegistry(registry))
    assert db.count(collection="notes") == 1
    found = db.get("1", collection="notes")
    assert found is not None
    assert found.text == "water the plants"


def test_in_a_transaction_of_the_callers_too(engine: Engine, registry: Registry) -> None:
    keep(engine, QuickRegistry(registry))
    with engine.begin() as connection:
        mine = searchapp.connect(connection=connection)
        with pytest.raises(errors.CollectionFed):
            mine.ingest([DOCUMENT], collection="notes")
        assert connection.scalar(text("SELECT 1")) == 1


def test_once_the_source_is_removed_the_collection_is_like_any_other(
    db: Client, engine: Engine, registry: Registry, url: str
) -> None:
    quick = QuickRegistry(registry)
    keep(engine, quick)
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("SELECT searchapp.remove_source('memos')")
        client = Client(engine, registry=quick)
        assert client.ingest([{"key": "2", "text": "written by hand"}], collection="notes").documents == 1
        assert client.delete(["1"], collection="notes") == 1
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has documents of its own"):
            sql.execute("SELECT searchapp.add_source('memos', 'public.notes', '{id}', '{body}', collection => 'notes')")
        client.drop_collection("notes")
        sql.execute("SELECT searchapp.add_source('memos', 'public.notes', '{id}', '{body}', collection => 'notes')")
    keep(engine, quick)
    assert db.count(collection="notes") == 1


def test_other_collections_are_written_as_before(engine: Engine, registry: Registry) -> None:
    client = Client(engine, registry=QuickRegistry(registry))
    assert client.ingest([DOCUMENT], collection="others").documents == 1
    client.drop_collection("others")
