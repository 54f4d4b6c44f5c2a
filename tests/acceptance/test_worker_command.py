"""``searchapp worker`` and ``searchapp db embed-link`` as processes, and ``searchapp.embed()`` meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from searchapp import database, embedded, link, schema
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from tests import conftest
from tests.acceptance.commands import error_of
from tests.conftest import Run
from tests.servers import QUICK
from tests.workers import wait_for, worker_process, workers

WAITING = "SELECT count(*) FROM searchapp_private.query_requests"
DIMENSIONS = "SELECT vector_dims(searchapp.embed(%s, 'things'))"


def value(url: str, statement: str, *parameters: Any) -> Any:
    """The one value that a statement gives, in a session of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode(), parameters or None).fetchone()
    assert row is not None
    return row[0]


def patient(url: str, timeout: str) -> str:
    """The address with another time that embed() waits."""
    return database.conninfo({**database.parse_url(url), "options": f"-csearchapp.timeout={timeout}"})


@pytest.fixture
def linked(url: str, db: Client) -> str:
    """The address of a database with a collection, where embed() can ask."""
    db.create_collection("things")
    with conftest.engine_on(url) as engine:
        link.make(engine)
    return url


def test_a_worker_answers_until_it_is_told_to_end(linked: str) -> None:
    with worker_process(linked) as process:
        assert value(linked, DIMENSIONS, "red shoes") == 384
        host, doing = value(linked, "SELECT ARRAY[host, doing] FROM searchapp.worker_status WHERE alive")
        assert host == socket.gethostname()
        assert doing.startswith(("answering", "loading"))
        process.send_signal(signal.SIGTERM)
        out, complaints = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert complaints.splitlines()[0].startswith("searchapp: worker ")
    assert not workers(linked)
    assert value(linked, DIMENSIONS, "red shoes") == 384  # kept


def test_once_answers_what_waits_and_ends(linked: str, run: Run) -> None:
    value(linked, "SELECT searchapp.ask('red shoes', 'things')")
    value(linked, "SELECT searchapp.ask('blue shoes', 'things')")
    value(linked, "SELECT searchapp.ask('red shoes', 'things')")
    done = run("worker", "--once")
    assert (done.returncode, done.stdout) == (0, "answered 2 queries\n"), done.stderr
    assert run("worker", "--once").stdout == "answered 0 queries\n"
    assert value(linked, DIMENSIONS, "blue shoes") == 384


def test_a_worker_without_a_database_that_it_can_use_says_so(run: Run, empty_url: str) -> None:
    assert "is PostgreSQL running there?" in error_of(run("worker", DATABASE_URL="host=localhost port=1"))
    assert "run: searchapp db upgrade" in error_of(run("worker", "--once", DATABASE_URL=empty_url))


def test_a_worker_or_a_link_of_somebody_without_the_right_says_which_role_is_needed(run: Run, linked: str) -> None:
    name = f"writer_{database.parse_url(linked)['dbname']}"
    with psycopg.connect(linked, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN IN ROLE searchapp_writer".encode())
    url = database.conninfo({**database.parse_url(linked), "user": name})
    needs = f"this needs the role searchapp_owner (GRANT searchapp_owner TO {name})"
    for arguments in (("worker", "--once"), ("db", "embed-link")):
        assert error_of(run(*arguments, DATABASE_URL=url)).endswith(needs)


def test_when_a_worker_is_killed_another_goes_on(linked: str) -> None:
    with worker_process(linked) as killed:
        assert value(linked, DIMENSIONS, "red shoes") == 384
        killed.send_signal(signal.SIGSTOP)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(value, patient(linked, "60s"), DIMENSIONS, "hats")
            wait_for(lambda: value(linked, WAITING) == 1)
            killed.kill()
            killed.wait()
            with pytest.raises(psycopg.Error, match="no worker has answered within 1 s; start one"):
                value(patient(linked, "1s"), DIMENSIONS, "gloves")
            with worker_process(linked):
                assert waiting.result(timeout=60) == 384


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


def test_a_worker_outlives_a_restart_of_the_database(home: Path, registry: Registry) -> None:
    parameters = embedded.start(home, follow_parent=True, settings=QUICK)
    url = database.conninfo(parameters)
    with conftest.engine_on(url) as engine:
        schema.upgrade(engine)
        Client(engine, registry=registry).create_collection("things")
        link.make(engine)
    with worker_process(url) as process, ThreadPoolExecutor(1) as pool:
        assert value(url, DIMENSIONS, "red shoes") == 384
        process.send_signal(signal.SIGSTOP)
        waiting = pool.submit(value, url, DIMENSIONS, "blue shoes")
        wait_for(lambda: value(url, WAITING) == 1)
        embedded.stop(home)
        with pytest.raises(psycopg.OperationalError):
            waiting.result(timeout=10)
        process.send_signal(signal.SIGCONT)
        time.sleep(1)
        assert process.poll() is None
        embedded.start(home, follow_parent=True, settings=QUICK)
        assert value(patient(url, "20s"), DIMENSIONS, "blue shoes") == 384
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


def test_the_link_is_made_anew_and_what_is_stored_is_said(linked: str, run: Run) -> None:
    options = "SELECT array_to_string(umoptions, ' ') FROM pg_user_mappings WHERE srvname = 'searchapp_self'"
    before = value(linked, options)
    done = run("db", "embed-link")
    assert (done.returncode, done.stderr) == (0, "")
    role = value(linked, "SELECT 'searchapp_asker_' || oid FROM pg_database WHERE datname = current_database()")
    for said in (role, "searchapp_self", "password", database.parse_url(linked)["dbname"]):
        assert said in done.stdout
    after = value(linked, options)
    assert after != before
    assert after.partition("password=")[2] not in done.stdout
    with worker_process(linked):
        assert value(linked, DIMENSIONS, "red shoes") == 384
    refused = run("db", "embed-link", "--host", "localhost", "--port", "1")
    assert "cannot log in: " in error_of(refused)
    assert "pg_hba.conf" in error_of(refused)


def test_where_dblink_may_not_be_made_the_migration_goes_on_and_says_so(run: Run, empty_url: str) -> None:
    name = f"ann_{database.parse_url(empty_url)['dbname']}"
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN; CREATE EXTENSION vector".encode())
        connection.execute(f"GRANT CREATE ON DATABASE {connection.info.dbname} TO {name}".encode())
    url = database.conninfo({**database.parse_url(empty_url), "user": name})
    done = run("db", "upgrade", DATABASE_URL=url)
    assert (done.returncode, done.stdout) == (0, f"migrated from nothing to {database.REVISION}\n")
    assert "goes on without the extension dblink (" in done.stderr
    assert "searchapp db embed-link" in done.stderr
    assert "CREATE EXTENSION dblink SCHEMA searchapp_private; " in error_of(run("db", "embed-link", DATABASE_URL=url))


def test_the_embedded_server_has_its_link_by_itself(tmp_path: Path) -> None:
    home = tmp_path / "home"
    environment = {name: each for name, each in os.environ.items() if name != "DATABASE_URL"}
    environment |= {"SEARCHAPP_HOME": str(home)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "searchapp", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    try:
        assert run("collection", "create", "things").returncode == 0
        url = run("db", "url").stdout.strip()
        assert value(url, "SELECT searchapp_private.try_link()") is None
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP SERVER searchapp_self CASCADE")
        done = run("collection", "list")
        assert (done.returncode, done.stderr) == (0, "")
        assert value(url, "SELECT searchapp_private.try_link()") is None
    finally:
        location = embedded.folder(home)
        embedded.stop(home)
        if location is not None and location != home / "postgresql":
            shutil.rmtree(location, ignore_errors=True)
