"""Deployments that race, locks that others hold, connections that break: nothing is done twice, nothing half."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import Engine

from searchapp import database, errors, schema
from tests.migration.conftest import TABLES, execute, scalar, tables

LOCK = int.from_bytes(b"searchap")

OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
HELD = (
    "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
    " WHERE l.locktype = 'advisory' AND d.datname = current_database()"
)


def start(url: str, *arguments: str) -> subprocess.Popen[str]:
    """Start the command in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "searchapp", *arguments],
        env={**os.environ, "DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def holding(url: str, statement: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Hold what a statement takes, in a session of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("BEGIN" if statement.startswith("LOCK") else "SELECT")
        connection.execute(statement.encode())
        yield connection


def wait_for(url: str, condition: str) -> None:
    """Wait until another session of this database is as said."""
    deadline = time.monotonic() + 30
    while not scalar(url, f"SELECT count(*) {OTHERS} AND {condition}"):
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)


def assert_untouched(url: str) -> None:
    """What a migration that failed leaves: the database as it was, and no lock."""
    assert tables(url) == TABLES
    assert scalar(url, "SELECT version_num FROM searchapp_data.alembic_version") == database.REVISION
    assert scalar(url, HELD) == 0


def test_of_racing_deployments_one_migrates(empty_url: str) -> None:
    processes = [start(empty_url, "db", "upgrade") for _ in range(4)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    already = f"the database stands at {database.REVISION} already\n"
    assert sorted(said for said, _ in outputs) == [f"migrated from nothing to {database.REVISION}\n", *[already] * 3]
    assert {complaint for _, complaint in outputs} == {""}
    assert_untouched(empty_url)


def test_waiting_deployment_holds_no_snapshot(empty_url: str) -> None:
    with holding(empty_url, f"SELECT pg_advisory_lock({LOCK})") as holder:
        waiting = start(empty_url, "db", "upgrade")
        wait_for(empty_url, "query LIKE '%pg_try_advisory_lock%' OR query = 'COMMIT'")
        seen = []
        for _ in range(100):
            seen += execute(empty_url, f"SELECT state, backend_xmin {OTHERS} AND application_name = 'searchapp'")
            time.sleep(0.01)
        assert seen.count(("idle", None)) > 0.8 * len(seen)
        # what waiting in pg_advisory_lock would deadlock with
        holder.execute("CREATE TABLE public.things (id int)")
        holder.execute("SET statement_timeout = '10s'")
        holder.execute("CREATE INDEX CONCURRENTLY ON public.things (id)")
        assert waiting.poll() is None
        holder.execute(f"SELECT pg_advisory_unlock({LOCK})".encode())
        assert waiting.communicate(timeout=30) == (f"migrated from nothing to {database.REVISION}\n", "")
        assert waiting.returncode == 0


def test_waiting_deployment_gives_up_after_ten_minutes(
    empty: Engine, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    clock = time.monotonic
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 1000 * sum(waits))
    with (
        holding(empty_url, f"SELECT pg_advisory_lock({LOCK})"),
        pytest.raises(errors.LockNotAvailable, match="for ten minutes; try later"),
    ):
        schema.upgrade(empty)
    assert 600 <= 1000 * sum(waits) <= 1000
    assert schema.upgrade(empty) is None


def test_migration_gives_way_to_who_holds_a_table(url: str) -> None:
    with holding(url, "LOCK TABLE searchapp_data.collections IN ACCESS EXCLUSIVE MODE"):
        began = time.monotonic()
        process = start(url, "db", "downgrade", "base")
        wait_for(url, "wait_event_type = 'Lock'")
        output, complaint = process.communicate(timeout=60)
        assert 4.5 < time.monotonic() - began < 20
        assert (process.returncode, output) == (2, "")
        assert complaint == (
            "searchapp: error: canceling statement due to lock timeout; another session holds it; try again\n"
        )
    assert_untouched(url)


def test_migration_whose_connection_is_ended_leaves_nothing_half_done(url: str) -> None:
    with holding(url, "LOCK TABLE searchapp_data.collections IN ACCESS EXCLUSIVE MODE"):
        process = start(url, "db", "downgrade", "base")
        wait_for(url, "wait_event_type = 'Lock'")
        execute(url, f"SELECT pg_terminate_backend(pid) {OTHERS} AND wait_event_type = 'Lock'")
        output, complaint = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert complaint == (
        "searchapp: error: terminating connection due to administrator command; try again in a moment\n"
    )
    assert_untouched(url)


def test_failed_migration_leaves_the_session_as_it_was(engine: Engine, url: str) -> None:
    execute(url, "CREATE VIEW public.mine AS SELECT name FROM searchapp_data.models")
    with engine.connect() as connection:
        session = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    with pytest.raises(errors.DatabaseError, match=r"cannot drop table searchapp_data.models because other objects"):
        schema.downgrade(engine, "base")
    assert_untouched(url)
    with engine.connect() as connection:
        query = "SELECT pg_backend_pid(), current_setting('lock_timeout'), current_setting('search_path')"
        assert connection.exec_driver_sql(query).one() == (session, "0", '"$user", public')
