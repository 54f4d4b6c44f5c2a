"""The handle for asyncio: the same answers, an event loop that goes on, and cancellation that reaches PostgreSQL."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import searchapp
from searchapp import errors
from searchapp.async_client import AsyncClient
from searchapp.client import Client
from tests.made_up import fill, random_vectors

THINGS = [
    {"key": "shoes", "text": "Red running shoes", "metadata": {"price": 80}},
    {"key": "hat", "text": "A blue woollen hat", "metadata": {"price": 20}},
    {"key": "cat", "text": "A cat sat on the mat"},
]


@pytest.fixture
def other(db: Client) -> AsyncClient:
    """A handle for asyncio that works with the same one."""
    return AsyncClient(lambda: db)


def told(hits: Any) -> Any:
    return [(hit.key, hit.passage, hit.distance) for hit in hits]


async def test_calls_give_what_the_others_give(db: Client, other: AsyncClient) -> None:
    rejected: list[Any] = []
    documents = [*THINGS, {"key": "faulty"}]
    summary = await other.ingest(documents, collection="things", on_rejected=rejected.append)
    assert (summary.documents, len(rejected)) == (3, 1)
    assert told(await other.search("sneakers", collection="things")) == told(db.search("sneakers", collection="things"))
    many = await other.search_many(["sneakers", "a pet"], collection="things", limit=1)
    assert [hits[0].key for hits in many] == ["shoes", "cat"]
    assert (await other.explain("sneakers", collection="things")).hits == 3
    assert (await other.explain_by_vector(random_vectors(1)[0], collection="things", limit=1)).hits == 1
    assert await other.get("hat", collection="things") == db.get("hat", collection="things")
    assert await other.count(collection="things", filter={"price": {"$gt": 50}}) == 1
    assert await other.space("things") == db.space("things")
    assert [each.name for each in await other.collections()] == ["things"]
    assert await other.delete(["hat"], collection="things") == 1
    with pytest.raises(errors.CollectionMissing, match="did you mean things"):
        await other.search("x", collection="thigs")


async def test_it_is_opened_and_closed_by_itself(url: str) -> None:
    async with searchapp.connect_async(url) as db:
        assert await db.collections() == []
    db = await searchapp.connect_async(url)
    assert await db.collections() == []
    await db.close()


async def test_the_event_loop_goes_on_while_texts_are_encoded(other: AsyncClient) -> None:
    documents = [{"key": str(number), "text": f"{number} " * 100} for number in range(100)]
    await other.ingest(documents[:1], collection="things")
    working = asyncio.ensure_future(other.ingest(documents, collection="things"))
    longest, last = 0.0, time.monotonic()
    while not working.done():
        await asyncio.sleep(0.001)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert (await working).documents == 99
    assert longest < (await working).seconds / 2


@contextmanager
def locked(url: str, table: str) -> Iterator[psycopg.Connection[Any]]:
    """Hold a lock that whoever reads the table waits for."""
    with psycopg.connect(url) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield connection


def waiting(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("call", ["search", "count"])
async def test_a_call_that_is_cancelled_ends_in_the_database(
    db: Client, other: AsyncClient, url: str, call: str
) -> None:
    space = fill(db, "things", [each[None] for each in random_vectors(50)])
    vector = random_vectors(1)[0]
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "search": lambda: other.search_by_vector(vector, collection="things"),
        "count": lambda: other.count(collection="things"),
    }
    tables = {"search": f"searchapp_data.chunks_{space.id}", "count": f"searchapp_data.documents_{space.collection_id}"}
    await calls[call]()
    with locked(url, tables[call]) as connection:
        asking = asyncio.ensure_future(calls[call]())
        while not waiting(connection):
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert waiting(connection) == 0
    await calls[call]()


async def test_an_async_session_gives_the_same_rows(db: Client, url: str) -> None:
    space = fill(db, "things", [each[None] for each in random_vectors(400)])
    statement = searchapp.nearest(space, random_vectors(1)[0], limit=300)
    parameters = psycopg.conninfo.conninfo_to_dict(url)

    async def connect() -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(**parameters)  # type: ignore[arg-type]  # libpq's parameters

    engine = create_async_engine("postgresql+psycopg://", async_creator=connect)
    async with AsyncSession(engine) as session:
        rows = (await session.execute(statement)).all()
    await engine.dispose()
    assert db._engine is not None
    with Session(db._engine) as same:
        assert [tuple(row) for row in same.execute(statement)] == [tuple(row) for row in rows]
    assert len(rows) == 300


async def test_time_is_up_in_a_thread_too(db: Client, other: AsyncClient, url: str) -> None:
    space = fill(db, "things", [each[None] for each in random_vectors(50)])
    vector = random_vectors(1)[0]
    with locked(url, f"searchapp_data.chunks_{space.id}"), pytest.raises(errors.QueryCanceled, match="more time"):
        await other.search_by_vector(vector, collection="things", timeout=0.1)
    assert dataclasses.is_dataclass(await other.search_by_vector(vector, collection="things", timeout=5))
