"""What may go wrong while workers keep sources in step: kills, locks, rights, other people's transactions."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from searchapp import database, embedded, errors, schema
from searchapp.encoders import Encoder, Model
from searchapp.sources import backfill, log, targets
from searchapp.worker import Worker, keeping, refreshing
from tests import conftest, waiting_encoder
from tests.servers import QUICK
from tests.sources import SQL, keep, keys, stored, value
from tests.waiting_encoder import WaitingRegistry
from tests.workers import wait_for, workers, working

NOTES = """
CREATE TABLE public.notes (id int PRIMARY KEY, body text);
INSERT INTO public.notes SELECT n, 'note ' || n FROM generate_series(1, 10) n;
SELECT searchapp.add_source('notes', 'public.notes', '{id}', '{body}', model => 'waiting');
"""
PENDING = "SELECT count(*) FROM searchapp_data.changes"
STATE = "SELECT state, reason FROM searchapp.sources"


@pytest.fixture
def sql(sql: SQL) -> SQL:
    sql.execute(NOTES)
    return sql


@pytest.fixture
def waiting() -> WaitingRegistry:
    return WaitingRegistry()


@contextmanager
def held(engine: Engine) -> Iterator[Future[int]]:
    """A worker that has read the rows that wait, and is held while it encodes them."""
    reached, released = threading.Event(), threading.Event()
    registry = WaitingRegistry()
    encode = registry.waiting.encode_documents

    def hold(texts: Any) -> Any:
        reached.set()
        assert released.wait(20)
        return encode(texts)

    registry.waiting.encode_documents = hold  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        kept = pool.submit(Worker(engine, registry).run_once)
        try:
            assert reached.wait(20)
            yield pool.submit(lambda: kept.result().rows)
        finally:
            released.set()


def test_a_key_is_in_one_hand_at_a_time(sql: SQL, engine: Engine, waiting: WaitingRegistry) -> None:
    keep(engine, waiting)
    sql.execute("UPDATE public.notes SET body = 'older' WHERE id = 1")
    with held(engine):
        sql.execute("UPDATE public.notes SET body = 'newer' WHERE id = 1")
        assert keep(engine, waiting) == 0  # else the older text would be written over it
    assert ("1", None, "newer") in stored(sql)
    assert value(sql, PENDING) == 0


def test_what_is_noted_while_rows_are_encoded_is_not_taken_for_done(
    sql: SQL, engine: Engine, waiting: WaitingRegistry, url: str
) -> None:
    """Not even where it was numbered before what was taken."""
    keep(engine, waiting)
    key = value(
        sql,
        "SELECT n FROM generate_series(11, 1000) n"
        " WHERE searchapp_private.lane_of(n::text) = searchapp_private.lane_of('1') LIMIT 1",
    )
    with psycopg.connect(url) as other:
        other.execute("INSERT INTO public.notes VALUES (%s, 'numbered first')", [key])
        sql.execute("UPDATE public.notes SET body = 'numbered later' WHERE id = 1")
        with held(engine):
            other.commit()
    assert {("1", None, "numbered later"), (str(key), None, "numbered first")} <= set(stored(sql))


def test_a_batch_whose_log_rows_are_gone_writes_nothing(
    sql: SQL, engine: Engine, waiting: WaitingRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    keep(engine, waiting)
    before = stored(sql)
    sql.execute("UPDATE public.notes SET body = 'changed'")
    with held(engine):
        sql.execute("DELETE FROM searchapp_data.changes WHERE key = '3'")
    assert stored(sql) == before
    assert "taken by another worker" in caplog.text
    keep(engine, waiting)
    assert sum(text == "changed" for _, _, text in stored(sql)) == 9


def test_a_source_that_is_paused_while_rows_are_encoded_goes_on_later(
    sql: SQL, engine: Engine, waiting: WaitingRegistry
) -> None:
    with held(engine):
        sql.execute("SELECT searchapp.pause_source('notes')")
        sql.execute("UPDATE public.notes SET body = 'changed' WHERE id = 1")
    assert ("1", None, "note 1") in stored(sql)
    sql.execute("SELECT searchapp.resume_source('notes')")
    keep(engine, waiting)
    assert ("1", None, "changed") in stored(sql)


@pytest.mark.parametrize("place", ["rows-are-read", "rows-are-encoded", "before-commit"])
def test_a_worker_that_is_killed_leaves_all_to_the_next(
    sql: SQL, engine: Engine, waiting: WaitingRegistry, url: str, place: str
) -> None:
    process = waiting_encoder.start(url, 0.0, place)
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert stored(sql) == []
    assert value(sql, PENDING) == 10
    keep(engine, waiting)
    assert len(keys(sql)) == 10
    assert value(sql, PENDING) == 0


def test_a_first_reading_that_is_killed_repeats_nothing(
    sql: SQL, engine: Engine, waiting: WaitingRegistry, url: str
) -> None:
    sql.execute("INSERT INTO public.notes SELECT n, 'note ' || n FROM generate_series(11, 1500) n")
    sql.execute("TRUNCATE searchapp_data.changes")
    process = waiting_encoder.start(url, 0.0, "before-commit:8")
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    done = {text for _, _, text in stored(sql)}
    assert 0 < len(done) < 1500
    keep(engine, waiting)
    assert len(keys(sql)) == 1500
    assert sorted(waiting.waiting.encoded) == sorted({f"note {n}" for n in range(1, 1501)} - done)
    assert sql.execute("SELECT backfilled, read FROM searchapp.source_status").fetchone() == (True, 1500)


@pytest.mark.usefixtures("sql")
@pytest.mark.parametrize(("loading", "doing"), [(0.0, "answering"), (60.0, "loading waiting")])
def test_a_worker_process_that_is_told_to_end_does(url: str, loading: float, doing: str) -> None:
    process = waiting_encoder.start(url, 0.0, loading=loading)
    wait_for(lambda: workers(url, doing=doing))
    process.terminate()
    process.join(30)
    assert process.exitcode == 0


def test_queries_are_answered_while_a_table_is_read(sql: SQL, url: str) -> None:
    sql.execute("INSERT INTO public.notes SELECT n, 'note ' || n FROM generate_series(11, 3000) n")
    with working(url, WaitingRegistry(longest=0.4)):
        wait_for(lambda: keys(sql))
        asked = (
            "INSERT INTO searchapp_private.query_requests (model_id, text_hash, text)"
            " SELECT id, sha256('a query'), 'a query' FROM searchapp_data.models"
        )
        sql.execute(asked)
        wait_for(lambda: value(sql, "SELECT count(*) FROM searchapp_private.query_embeddings"))
        assert value(sql, PENDING) > 0


def test_transactions_of_any_kind_go_on_beside_workers(sql: SQL, url: str) -> None:
    """Each reads the table and writes other rows than the other, and reads what no worker has written to."""
    sql.execute("CREATE TABLE public.counts (n int); INSERT INTO public.counts VALUES (0)")
    with working(url, WaitingRegistry(longest=0.02)):
        wait_for(lambda: len(keys(sql)) == 10)
        for level in ("REPEATABLE READ", "SERIALIZABLE"):
            for number in range(20):
                with psycopg.connect(url) as one, psycopg.connect(url) as other:
                    for connection, key in ((one, 1), (other, 2)):
                        connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
                        connection.execute("SELECT body FROM public.notes WHERE id = %s", [key])
                        changed = f"{level} {number}"
                        connection.execute("UPDATE public.notes SET body = %s WHERE id = %s", [changed, key])
        wait_for(lambda: not value(sql, PENDING))
    assert {("1", None, "SERIALIZABLE 19"), ("2", None, "SERIALIZABLE 19")} <= set(stored(sql))


@pytest.fixture
def home() -> Iterator[Path]:
    """A home for an embedded server of this test's own."""
    home = Path(tempfile.mkdtemp(prefix="searchapp-tests-"))
    yield home
    embedded.stop(home)
    location = embedded.folder(home)
    shutil.rmtree(home, ignore_errors=True)
    if location is not None:
        shutil.rmtree(location, ignore_errors=True)


def test_a_restart_and_a_prepared_transaction_are_outlived(home: Path) -> None:
    settings = {**QUICK, "max_prepared_transactions": "2"}
    url = database.conninfo(embedded.start(home, follow_parent=True, settings=settings))
    with conftest.engine_on(url) as engine:
        schema.upgrade(engine)
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute(NOTES)
    with working(url, WaitingRegistry()):
        with psycopg.connect(url, autocommit=True) as sql:
            wait_for(lambda: len(keys(sql)) == 10)
            sql.execute("BEGIN; UPDATE public.notes SET body = 'prepared' WHERE id = 1; PREPARE TRANSACTION 'mine'")
            sql.execute("UPDATE public.notes SET body = 'meanwhile' WHERE id = 2")
            wait_for(lambda: ("2", None, "meanwhile") in stored(sql))
        embedded.stop(home)
        embedded.start(home, follow_parent=True, settings=settings)
        with psycopg.connect(url, autocommit=True) as sql:
            assert ("1", None, "note 1") in stored(sql)
            sql.execute("COMMIT PREPARED 'mine'")
            sql.execute("UPDATE public.notes SET body = 'afterwards' WHERE id = 3")
            expected = {("1", None, "prepared"), ("3", None, "afterwards")}
            wait_for(lambda: expected <= set(stored(sql)), seconds=60)


@pytest.fixture
def ann(sql: SQL, url: str) -> Iterator[Engine]:
    """Connects as a member of the owner who has no rights on the table."""
    sql.execute("DROP ROLE IF EXISTS ann; CREATE ROLE ann LOGIN IN ROLE searchapp_owner")
    engine = database.create_engine({**database.parse_url(url), "user": "ann"})
    yield engine
    engine.dispose()
    sql.execute("DROP OWNED BY ann; DROP ROLE ann")


def test_rights_that_are_missing_break_the_source(sql: SQL, ann: Engine, waiting: WaitingRegistry) -> None:
    keep(ann, waiting)
    reason = "role ann may not read the table public.notes; run: GRANT SELECT ON public.notes TO ann"
    assert sql.execute(STATE).fetchone() == ("broken", reason)
    sql.execute("INSERT INTO public.notes VALUES (11, 'note 11')")
    sql.execute("GRANT SELECT ON public.notes TO ann; SELECT searchapp.resume_source('notes')")
    keep(ann, waiting)
    assert len(keys(sql)) == 11


def test_row_level_security_breaks_the_source_and_deletes_nothing(
    sql: SQL, ann: Engine, waiting: WaitingRegistry
) -> None:
    sql.execute("GRANT SELECT ON public.notes TO ann")
    keep(ann, waiting)
    assert len(keys(sql)) == 10
    sql.execute("ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY; UPDATE public.notes SET body = 'changed'")
    keep(ann, waiting)
    reason = "row-level security hides rows of public.notes from role ann; run: ALTER ROLE ann BYPASSRLS"
    assert sql.execute(STATE).fetchone() == ("broken", reason)
    assert len(keys(sql)) == 10
    sql.execute("ALTER ROLE ann BYPASSRLS; SELECT searchapp.resume_source('notes')")
    keep(ann, waiting)
    assert {text for _, _, text in stored(sql)} == {"changed"}
    sql.execute("ALTER ROLE ann NOBYPASSRLS")


def test_a_model_that_fails_to_load_in_any_way_parks_no_row(
    sql: SQL, engine: Engine, waiting: WaitingRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(WaitingRegistry):
        def encoder(self, _: str) -> Any:
            raise OSError("the file is cut off")

    keep(engine, Broken())
    assert value(sql, "SELECT count(*) FROM searchapp_data.failures") == 0
    assert value(sql, PENDING) == 10
    assert "the model waiting cannot be loaded: OSError: the file is cut off" in caplog.text
    keep(engine, waiting)
    assert len(keys(sql)) == 10


def test_a_model_that_is_long_in_loading_holds_up_no_other_source(sql: SQL, url: str) -> None:
    released = threading.Event()

    class Slow(WaitingRegistry):
        def model(self, name: str) -> Model:
            return dataclasses.replace(super().model(name), name=name)

        def encoder(self, name: str) -> Encoder:
            assert name != "slow" or released.wait(20)
            return super().encoder(name)

    sql.execute(
        "CREATE TABLE public.others (id int PRIMARY KEY, body text); INSERT INTO public.others VALUES (1, 'one')"
    )
    with working(url, Slow()):
        wait_for(lambda: len(keys(sql)) == 10)
        sql.execute("SELECT searchapp.add_source('others', 'public.others', '{id}', '{body}', model => 'slow')")
        wait_for(lambda: value(sql, "SELECT doing FROM searchapp.worker_status") == "loading slow")
        sql.execute("UPDATE public.notes SET body = 'changed'")
        wait_for(lambda: {text for _, _, text in stored(sql)} == {"changed"})
        released.set()
        wait_for(lambda: ("1", None, "one") in stored(sql))


def test_what_nobody_has_thought_of_holds_up_no_other_source(
    sql: SQL,
    engine: Engine,
    waiting: WaitingRegistry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sql.execute(
        "CREATE TABLE public.others (id int PRIMARY KEY, body text); INSERT INTO public.others VALUES (1, 'one')"
    )
    sql.execute("SELECT searchapp.add_source('others', 'public.others', '{id}', '{body}', model => 'waiting')")
    opened = targets.open_target

    def open_target(session: Any, registry: Any, source: Any, encoders: Any) -> Any:
        if source.name == "notes":
            raise RuntimeError("what is this")
        return opened(session, registry, source, encoders)

    monkeypatch.setattr(targets, "open_target", open_target)
    keep(engine, waiting)
    assert stored(sql) == [("1", None, "one")]
    assert value(sql, PENDING) == 10
    assert "what is this" in caplog.text


def test_a_table_that_stays_locked_is_tried_more_and_more_rarely(
    sql: SQL, engine: Engine, waiting: WaitingRegistry, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(engine, waiting)
    sql.execute("UPDATE public.notes SET body = 'changed'")
    monkeypatch.setattr(keeping, "LOCKED_SECONDS", 20.0)
    worker = Worker(engine, waiting)
    keeper = worker._keepers[0]
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE public.notes")
        for seconds in (20.0, 30.0):
            assert worker.run_once().rows == 0
            assert list(keeper._locked.values()) == [seconds]
            keeper._put_off.clear()
    assert sql.execute(STATE).fetchone() == ("running", None)
    assert worker.run_once().rows == 10
    assert keeper._locked == {}


def test_looks_that_take_long_come_more_rarely(
    engine: Engine, waiting: WaitingRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they do where somebody's transaction is open for hours, and what was deleted stays."""
    waits: list[float] = []

    class Stopped(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            waits.append(timeout)
            self.set()
            return True

    def slowly(_: Any) -> dict[int, list[int]]:
        time.sleep(0.05)
        return {}

    monkeypatch.setattr(log, "look", slowly)
    monkeypatch.setattr(backfill, "advance", lambda *_: False)
    worker = Worker(engine, waiting)
    keeper = worker._keepers[0]
    keeper._stopped = Stopped()
    keeper.run()
    assert waits[0] >= 0.05 * keeping.LOOKS_SHARE


def test_statistics_are_refreshed_though_the_worker_is_busy(
    sql: SQL, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refreshing, "SECONDS", 0.5)
    sql.execute("INSERT INTO public.notes SELECT n, 'note ' || n FROM generate_series(11, 10000) n")
    with working(url, WaitingRegistry(longest=0.1)):
        wait_for(lambda: value(sql, "SELECT coalesce(max(documents), 0) > 0 FROM searchapp_data.collections"))
        assert value(sql, PENDING) > 0
        assert value(sql, "SELECT state FROM searchapp_data.spaces") == "building"


def test_an_index_that_cannot_be_built_now_is_built_later(
    sql: SQL, waiting: WaitingRegistry, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("searchapp.partitions.LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(refreshing, "SECONDS", 0.5)
    with working(url, waiting), psycopg.connect(url) as other:
        wait_for(lambda: value(sql, "SELECT count(*) FROM searchapp_data.spaces"))
        other.execute("SELECT FROM searchapp_data.chunks FOR UPDATE")
        wait_for(lambda: value(sql, PENDING) == 0 and len(keys(sql)) == 10)
        other.rollback()
        wait_for(lambda: value(sql, "SELECT state FROM searchapp_data.spaces") == "ready")


def test_a_poolers_address_is_refused(
    engine: Engine, waiting: WaitingRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "is_pooled", lambda _: True)
    for run in (Worker(engine, waiting).run, Worker(engine, waiting).run_once):
        with pytest.raises(errors.InvalidInput, match="let DATABASE_URL name the server itself"):
            run()
    Worker(engine, waiting, concurrency=0).run_once()


def test_rates_and_the_time_that_is_left_are_shown(sql: SQL, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchapp.worker.worker.BEAT_SECONDS", 0.2)
    sql.execute("INSERT INTO public.notes SELECT n, 'note ' || n FROM generate_series(11, 5000) n")
    sql.execute("ANALYZE public.notes; SELECT searchapp.remove_source('notes')")
    sql.execute("SELECT searchapp.add_source('notes', 'public.notes', '{id}', '{body}', model => 'waiting')")
    status = (
        "SELECT rate, extract(epoch FROM time_left)::float8, rows, read, pending, workers FROM searchapp.source_status"
    )
    with working(url, WaitingRegistry(longest=0.1)):
        wait_for(lambda: value(sql, "SELECT rate FROM searchapp.source_status"))
        rate, left, rows, read, pending, alive = sql.execute(status).fetchone()  # type: ignore[misc]
    assert rate > 0
    assert (rows, alive) == (5000, 1)
    assert left == pytest.approx((pending + rows - read) / rate, rel=0.01)


@pytest.fixture(autouse=True)
def caught(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="searchapp")
