"""Sources that workers keep in step with a collection, and what may come in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from searchapp import errors
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.sources import failures
from searchapp.worker import Worker
from searchapp.worker.encoding import PART, QueriesFirst, YieldingEncoder
from tests.waiting_encoder import WaitingRegistry
from tests.workers import wait_for

SQL = psycopg.Connection[Any]

PRODUCTS = """
CREATE TABLE public.products (
  id bigint PRIMARY KEY, name text, description text, price numeric(9, 2), brand text, stock int DEFAULT 0
);
INSERT INTO public.products VALUES
  (1, 'Red shoes', 'Running shoes in red, light and fast', 79.90, 'Alpha', 3),
  (2, 'Tent', 'A tent for two people and three seasons', 199, 'Beta', 1),
  (3, 'Mug', 'An enamel mug for the fire', 9.5, NULL, 7),
  (4, 'Nothing', NULL, 1, NULL, 0),
  (5, 'Blank', '  ', 1, NULL, 0);
"""
ADD = """
SELECT searchapp.add_source('products', 'public.products', '{id}', '{description}', title => 'name',
  metadata => '{price,brand}', model => %s)
"""


@pytest.fixture
def sql(sql: SQL) -> SQL:
    sql.execute(PRODUCTS)
    return sql


@pytest.fixture
def waiting() -> WaitingRegistry:
    """A model that does not wait at all."""
    return WaitingRegistry()


def add(sql: SQL, model: str | None = "waiting") -> None:
    sql.execute(ADD, [model])


def keep(engine: Engine, registry: Registry) -> int:
    """Do what waits; how many keys that were."""
    return Worker(engine, registry).run_once().rows


def documents(sql: SQL) -> dict[str, tuple[Any, ...]]:
    """Title, text and metadata of all documents, by their keys."""
    found = sql.execute("SELECT key, title, text, metadata FROM searchapp_data.documents ORDER BY key")
    return {row[0]: row[1:] for row in found}


def value(sql: SQL, statement: str, *parameters: Any) -> Any:
    row = sql.execute(statement, parameters).fetchone()
    return None if row is None else row[0]


def pending(sql: SQL) -> int:
    return int(value(sql, "SELECT count(*) FROM searchapp_data.changes"))


@contextmanager
def running(engine: Engine, registry: Registry, **options: Any) -> Iterator[Worker]:
    """A worker in a thread."""
    worker = Worker(engine, registry, poll_interval=0.02, **options)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join()


def test_a_source_is_read_and_kept_in_step(sql: SQL, engine: Engine, registry: Registry, db: Client) -> None:
    add(sql, None)
    assert keep(engine, registry) == 5
    found = documents(sql)
    assert found["1"] == ("Red shoes", "Running shoes in red, light and fast", {"price": 79.9, "brand": "Alpha"})
    assert list(found) == ["1", "2", "3"]
    assert db.space("products").indexed
    assert db.search("something to sleep in outside", collection="products", limit=1)[0].key == "2"
    assert keep(engine, registry) == 0
    sql.execute("UPDATE public.products SET description = 'A sleeping bag for cold nights' WHERE id = 3")
    sql.execute("UPDATE public.products SET price = 100 WHERE id = 2")
    sql.execute("UPDATE public.products SET id = 10 WHERE id = 1")
    sql.execute("UPDATE public.products SET stock = stock + 1")
    assert keep(engine, registry) == 4
    found = documents(sql)
    assert list(found) == ["10", "2", "3"]
    assert found["2"][2] == {"price": 100, "brand": "Beta"}
    assert found["3"][1] == "A sleeping bag for cold nights"
    sql.execute("DELETE FROM public.products WHERE id = 2; TRUNCATE public.products")
    keep(engine, registry)
    assert documents(sql) == {}
    assert value(sql, "SELECT count(*) FROM searchapp_data.postings") == 0
    assert value(sql, "SELECT count(*) FROM searchapp_data.chunks") == 0


def test_many_edits_of_a_row_are_one_encoding(sql: SQL, engine: Engine, waiting: WaitingRegistry) -> None:
    add(sql)
    keep(engine, waiting)
    waiting.waiting.encoded.clear()
    sql.execute(
        "DO $$ BEGIN FOR i IN 1..10000 LOOP"
        " UPDATE public.products SET description = 'edit ' || i WHERE id = 1; END LOOP; END $$"
    )
    assert pending(sql) == 10_000
    assert keep(engine, waiting) == 1
    assert waiting.waiting.encoded == ["Red shoes edit 10000"]


def test_a_row_that_fails_is_isolated_tried_again_and_parked(
    sql: SQL, engine: Engine, waiting: WaitingRegistry
) -> None:
    sql.execute("INSERT INTO public.products SELECT n, 'name', 'text ' || n FROM generate_series(100, 170) n")
    sql.execute("UPDATE public.products SET description = 'poison' WHERE id = 137")
    add(sql)
    keep(engine, waiting)
    assert len(documents(sql)) == 3 + 70
    with engine.begin() as connection:
        (failure,) = failures.listed(connection)
    assert (failure.source, failure.key, failure.attempts) == ("products", "137", 1)
    assert failure.error == "ValueError: a text is poisonous"
    for attempts in range(2, len(failures.DELAYS) + 2):
        sql.execute("UPDATE searchapp_data.failures SET retry_at = now() WHERE retry_at IS NOT NULL")
        assert keep(engine, waiting) == 1
        assert value(sql, "SELECT attempts FROM searchapp_data.failures") == attempts
    assert value(sql, "SELECT retry_at FROM searchapp_data.failures") is None
    assert keep(engine, waiting) == 0
    assert sql.execute("SELECT failed, retrying, pending FROM searchapp.source_status").fetchone() == (1, 0, 0)
    with engine.begin() as connection:
        assert failures.retry_parked(connection) == 1
    assert keep(engine, waiting) == 1
    sql.execute("UPDATE public.products SET description = 'antidote' WHERE id = 137")
    assert value(sql, "SELECT key FROM searchapp.change_status") == "137"
    keep(engine, waiting)
    assert value(sql, "SELECT count(*) FROM searchapp_data.failures") == 0
    assert documents(sql)["137"][1] == "antidote"


def test_rows_that_cannot_be_documents_are_parked_at_once(sql: SQL, engine: Engine, waiting: WaitingRegistry) -> None:
    sql.execute("CREATE TABLE public.odd (id text PRIMARY KEY, body text, data json, number numeric)")
    sql.execute(
        "INSERT INTO public.odd VALUES ('nul', 'a', '\"\\u0000\"'), (repeat('k', 2001), 'a', NULL), ('', 'a', NULL)"
    )
    sql.execute("INSERT INTO public.odd (id, body, number) VALUES ('number', 'a', 'NaN'), ('good', 'a', 1.50)")
    sql.execute(
        "SELECT searchapp.add_source('odd', 'public.odd', '{id}', '{body}',"
        " metadata => '{data,number}', model => 'waiting')"
    )
    keep(engine, waiting)
    assert documents(sql) == {"good": (None, "a", {"data": None, "number": 1.5})}
    with engine.begin() as connection:
        found = {each.key[:9]: each for each in failures.listed(connection)}
    assert set(found) == {"", "k" * 9, "number", "nul"}
    assert all(each.retry_at is None for each in found.values())
    assert found["nul"].error == "NUL in field 'data'"
    assert "NaN in field 'number'" in found["number"].error
    assert "2,001 bytes" in found["k" * 9].error


@pytest.mark.parametrize(
    ("breaks", "reason", "mends"),
    [
        ("DROP TABLE public.products", "the table public.products is gone", None),
        (
            "ALTER TABLE public.products RENAME TO items",
            "the table public.products is called public.items now",
            "ALTER TABLE public.items RENAME TO products",
        ),
        (
            "ALTER TABLE public.products RENAME id TO number",
            "the table public.products has no id any more",
            "ALTER TABLE public.products RENAME number TO id",
        ),
        (
            "ALTER TABLE public.products DROP brand CASCADE",
            "the table public.products has no brand any more",
            "ALTER TABLE public.products ADD brand text",
        ),
        (
            "ALTER TABLE public.products DROP CONSTRAINT products_pkey",
            "id is no key of the table public.products any more",
            "ALTER TABLE public.products ADD PRIMARY KEY (id)",
        ),
    ],
)
def test_a_source_that_cannot_be_read_is_broken_and_can_be_mended(
    sql: SQL, engine: Engine, waiting: WaitingRegistry, breaks: str, reason: str, mends: str | None
) -> None:
    add(sql)
    keep(engine, waiting)
    sql.execute("UPDATE public.products SET description = 'changed before' WHERE id = 1")
    sql.execute(breaks)
    if mends is not None:  # the user's statements go on
        table = "items" if "items" in mends else "products"
        sql.execute(f"UPDATE public.{table} SET description = 'changed' WHERE name = 'Tent'")
        sql.execute(f"DELETE FROM public.{table} WHERE name = 'Mug'")
    keep(engine, waiting)
    assert sql.execute("SELECT state, reason FROM searchapp.sources").fetchone() == ("broken", reason)
    if mends is None:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="source remove products"):
            sql.execute("SELECT searchapp.resume_source('products')")
        sql.execute("SELECT searchapp.remove_source('products')")
        return
    sql.execute(mends)
    sql.execute("SELECT searchapp.resume_source('products')")
    keep(engine, waiting)
    assert {key: row[1] for key, row in documents(sql).items()} == {"1": "changed before", "2": "changed"}


def test_a_dropped_collection_breaks_its_source(sql: SQL, engine: Engine, waiting: WaitingRegistry) -> None:
    add(sql)
    keep(engine, waiting)
    sql.execute("UPDATE searchapp_data.collections SET state = 'retired', active_space = NULL")
    sql.execute("UPDATE public.products SET description = 'changed'")
    keep(engine, waiting)
    reason = value(sql, "SELECT reason FROM searchapp.sources WHERE state = 'broken'")
    assert reason == "the collection products was dropped; remove the source, and add it again"


def test_a_locked_table_holds_up_no_other_source(sql: SQL, engine: Engine, waiting: WaitingRegistry, url: str) -> None:
    sql.execute("CREATE TABLE public.notes (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), body text)")
    add(sql)
    sql.execute("SELECT searchapp.add_source('notes', 'public.notes', '{id}', '{body}', model => 'waiting')")
    keep(engine, waiting)
    sql.execute("UPDATE public.products SET description = 'changed'")
    with psycopg.connect(url) as other, running(engine, waiting):
        other.execute("TRUNCATE public.products")
        sql.execute("INSERT INTO public.notes (body) VALUES ('a note')")
        wait_for(lambda: value(sql, "SELECT count(*) FROM searchapp_data.documents WHERE text = 'a note'"))
        other.rollback()
        wait_for(lambda: not pending(sql))
    assert documents(sql)["1"][1] == "changed"


def test_log_rows_that_are_committed_in_another_order_are_all_seen(
    sql: SQL, engine: Engine, waiting: WaitingRegistry, url: str
) -> None:
    sql.execute("INSERT INTO public.products SELECT n, 'name', 'text' FROM generate_series(100, 160) n")
    add(sql)
    keep(engine, waiting)
    with psycopg.connect(url) as other:
        other.execute("UPDATE public.products SET description = 'numbered first' WHERE id < 130 AND id >= 100")
        sql.execute("UPDATE public.products SET description = 'committed first' WHERE id >= 130")
        keep(engine, waiting)
        other.commit()
    keep(engine, waiting)
    texts = {key: row[1] for key, row in documents(sql).items() if int(key) >= 100}
    assert texts == {str(n): "numbered first" if n < 130 else "committed first" for n in range(100, 161)}


def test_a_batch_whose_session_ends_writes_nothing(sql: SQL, engine: Engine, url: str) -> None:
    add(sql)
    slow = WaitingRegistry()
    encode = slow.waiting.encode_documents
    sessions = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    ended: list[bool] = []

    def ending(texts: Any) -> Any:
        if not ended:
            ended.append(True)
            with psycopg.connect(url, autocommit=True) as other:
                other.execute("UPDATE public.products SET description = 'newer' WHERE id = 1")
                other.execute(sessions)
        return encode(texts)

    slow.waiting.encode_documents = ending  # type: ignore[method-assign]  # as though the way there were lost
    with pytest.raises(errors.DatabaseUnavailable):
        keep(engine, slow)
    with psycopg.connect(url, autocommit=True) as again:
        assert documents(again) == {}
        assert keep(engine, slow) > 0
        assert documents(again)["1"][1] == "newer"


def test_a_model_that_cannot_be_had_parks_no_row(sql: SQL, engine: Engine) -> None:
    class Lacking(WaitingRegistry):
        def encoder(self, name: str) -> Any:
            raise errors.ModelMissing(f"{name} is not here")

    add(sql)
    keep(engine, Lacking())
    assert value(sql, "SELECT count(*) FROM searchapp_data.failures") == 0
    assert pending(sql) == 5
    keep(engine, WaitingRegistry())
    assert len(documents(sql)) == 3


def test_a_stopped_worker_finishes_its_batch(sql: SQL, engine: Engine) -> None:
    add(sql)
    with running(engine, WaitingRegistry(longest=0.5)):
        wait_for(lambda: pending(sql))
    assert pending(sql) in (0, 5)
    assert len(documents(sql)) in (0, 3)


def test_a_worker_that_hangs_is_left_behind(
    sql: SQL, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("searchapp.worker.worker.STOP_SECONDS", 0.2)
    hanging, begun, released = WaitingRegistry(), threading.Event(), threading.Event()

    def hang(_: Any) -> Any:
        begun.set()
        released.wait(20)
        raise ValueError("late")

    hanging.waiting.encode_documents = hang  # type: ignore[method-assign, assignment]
    add(sql)
    with running(engine, hanging) as worker:
        assert begun.wait(20)
        worker.stop()
    assert "given up" in caplog.text
    assert pending(sql) == 5
    released.set()


def test_several_threads_share_the_work(sql: SQL, engine: Engine) -> None:
    sql.execute("INSERT INTO public.products SELECT n, 'name', 'text ' || n FROM generate_series(100, 1500) n")
    add(sql)
    registry = WaitingRegistry(longest=0.02)
    with running(engine, registry, concurrency=4):
        wait_for(lambda: value(sql, "SELECT backfilled AND pending = 0 FROM searchapp.source_status"), seconds=60)
        wait_for(lambda: value(sql, "SELECT state = 'ready' FROM searchapp_data.spaces"), seconds=60)
    assert len(documents(sql)) == 3 + 1401
    assert len(registry.waiting.encoded) == 3 + 1401
    found = sql.execute("SELECT rows, read, pending, failed, time_left FROM searchapp.source_status").fetchone()
    assert found is not None
    assert found[1:4] == (1406, 0, 0)
    assert found[4].total_seconds() == 0


def test_a_paused_source_is_left_alone(sql: SQL, engine: Engine, waiting: WaitingRegistry) -> None:
    add(sql)
    keep(engine, waiting)
    sql.execute("SELECT searchapp.pause_source('products')")
    sql.execute("UPDATE public.products SET description = 'changed' WHERE id = 1")
    assert keep(engine, waiting) == 0
    assert pending(sql) == 1
    sql.execute("SELECT searchapp.resume_source('products')")
    keep(engine, waiting)
    assert documents(sql)["1"][1] == "changed"


def test_a_source_that_is_removed_while_it_is_encoded_leaves_nothing(
    sql: SQL, engine: Engine, waiting: WaitingRegistry, url: str
) -> None:
    add(sql)
    encode = waiting.waiting.encode_documents

    def remove(texts: Any) -> Any:
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("SELECT searchapp.remove_source('products')")
        return encode(texts)

    waiting.waiting.encode_documents = remove  # type: ignore[method-assign]
    keep(engine, waiting)
    assert documents(sql) == {}
    assert pending(sql) == 0
    assert (
        value(sql, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'public.products'::regclass AND NOT tgisinternal")
        == 0
    )


def test_the_space_that_is_active_says_the_model(sql: SQL, engine: Engine, registry: Registry, db: Client) -> None:
    db.create_collection("products")
    add(sql, "another")
    keep(engine, registry)
    assert len(documents(sql)) == 3
    assert db.space("products").model == "all-MiniLM-L6-v2"


def test_huge_texts_are_cut_into_passages(sql: SQL, engine: Engine, waiting: WaitingRegistry) -> None:
    sql.execute("UPDATE public.products SET description = repeat('many words of a long text ', 40000) WHERE id = 1")
    add(sql)
    keep(engine, waiting)
    assert len(documents(sql)["1"][1]) == 40_000 * 26
    assert value(sql, "SELECT count(*) FROM searchapp_data.chunks") > 200


def test_queries_are_let_pass_between_documents() -> None:
    waiting, first = WaitingRegistry().waiting, QueriesFirst()
    order: list[str] = []
    encode = waiting.encode_documents

    def slowly(texts: Any) -> Any:
        order.append("documents")
        time.sleep(0.05)
        return encode(texts)

    waiting.encode_documents = slowly  # type: ignore[method-assign]
    texts = [f"text {number}" for number in range(4 * PART)]
    thread = threading.Thread(target=YieldingEncoder(waiting, first).encode_documents, args=(texts,))
    thread.start()
    wait_for(lambda: order)
    with first.query():
        time.sleep(0.2)
        order.append("query")
    thread.join()
    assert order.index("query") <= 2
    assert order.count("documents") == 4
