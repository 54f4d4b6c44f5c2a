"""``searchapp db``, and what every command says where the way to the database fails."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine

import searchapp
from searchapp import database, embedded, errors
from searchapp.client import Client
from tests.acceptance.commands import programs
from tests.conftest import Run

PASSWORD = "Tr0ub4dor@&/3 %:"
_numbers = itertools.count(1)


def select_one(psql: Path, address: str) -> str:
    command = [str(psql), "--no-psqlrc", "--tuples-only", "--no-align", "--command=SELECT 1", address]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def assert_one_line(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """An error as users meet it: one line with what is wrong and what to do, exit code 2, no traceback, no secret."""
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("searchapp: error: ")
    assert done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr
    for secret in (PASSWORD, quote(PASSWORD, safe="")):
        assert secret not in done.stderr


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Where ``run`` has the embedded server; gone afterwards."""
    home = tmp_path / "home"
    yield home
    embedded.stop(home)
    location = embedded.folder(home)
    if location is not None:
        shutil.rmtree(location)


@pytest.fixture
def password_url(server: database.Parameters, url: str) -> Iterator[str]:
    """The address of this test's database for a role that needs a password, without the password."""
    name = f"ann_{next(_numbers)}"
    with psycopg.connect(**server, autocommit=True) as connection:
        create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(PASSWORD))
        connection.execute(create)
        row = connection.execute("SHOW hba_file").fetchone()
        assert row is not None
        rules = Path(row[0])
        before = rules.read_bytes()
        rules.write_bytes(b"local all %s scram-sha-256\n%s" % (name.encode(), before))
        reload(server, connection)
        found = database.parse_url(url)
        yield database.conninfo({"host": found["host"], "port": found["port"], "dbname": found["dbname"], "user": name})
        rules.write_bytes(before)
        reload(server, connection)


def reload(server: database.Parameters, connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Have the server read its rules again; return when new connections obey them."""
    began = connection.execute("SELECT clock_timestamp()").fetchone()
    connection.execute("SELECT pg_reload_conf()")
    assert began is not None
    for _ in range(500):
        with psycopg.connect(**server) as fresh:
            row = fresh.execute("SELECT pg_conf_load_time() > %s", began).fetchone()
        if row == (True,):
            return
        time.sleep(0.01)
    pytest.fail("the server does not read its rules again")


def test_upgrade_current_check_and_downgrade_say_where_the_database_stands(run: Run, empty_url: str) -> None:
    needed = f"(this searchapp needs {database.REVISION})\n"
    told = {
        ("current",): f"nothing {needed}",
        ("upgrade",): f"migrated from nothing to {database.REVISION}\n",
        ("upgrade", "head"): f"the database stands at {database.REVISION} already\n",
        ("current", "--debug"): f"{database.REVISION} {needed}",
        ("check",): "the database is as this searchapp needs it\n",
        ("downgrade", "base"): "the database stands at nothing\n",
    }
    for arguments, output in told.items():
        done = run("db", *arguments, DATABASE_URL=empty_url)
        assert (done.returncode, done.stdout, done.stderr) == (0, output, ""), arguments
    assert_one_line(run("db", "check", DATABASE_URL=empty_url), "no searchapp tables yet", "run: searchapp db upgrade")


def test_check_names_what_differs(run: Run, url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("ALTER TABLE searchapp_data.collections ADD note text")
    assert_one_line(run("db", "check"), "differs from the models: remove column collections.note\n")


def test_commands_say_how_the_tables_are_made(run: Run, empty_url: str) -> None:
    done = run("search", "a pet", "-c", "things", DATABASE_URL=empty_url)
    assert_one_line(done, "the database has no searchapp tables yet", "run: searchapp db upgrade")


def test_a_revision_that_does_not_exist_is_one_line(run: Run) -> None:
    assert_one_line(run("db", "upgrade", "nonsense"), "nonsense", "see: searchapp db current")
    assert_one_line(run("db", "downgrade", "base", "--sql"), "<fromrev>:<torev>")


def test_url_is_an_address_that_psql_accepts(run: Run, url: str, password_url: str) -> None:
    given = {**database.parse_url(password_url), "password": PASSWORD}
    quoted = {name: quote(str(value), safe="") for name, value in given.items()}
    address = "postgresql+psycopg://{user}:{password}@/{dbname}?host={host}&port={port}".format(**quoted)
    done = run("db", "url", DATABASE_URL=address)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    assert select_one(programs(url) / "psql", done.stdout.strip()) == "1\n"


def test_shell_opens_psql_without_the_password_among_its_arguments(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "psql").write_text('#!/bin/sh\necho "$PGPASSWORD"; echo "$@"\n')
    (folder / "psql").chmod(0o755)
    done = run("db", "shell", DATABASE_URL="postgresql://ann:hidden@db/shop", PATH=f"{folder}{os.pathsep}{os.defpath}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hidden\nuser=ann dbname=shop host=db\n", "")


def test_shell_asks_the_database(run: Run, url: str) -> None:
    done = run("db", "shell", stdin="SELECT 'the answer is ' || 42", PATH=str(programs(url)))
    assert done.returncode == 0
    assert "the answer is 42" in done.stdout


def test_shell_without_psql_says_so(run: Run, tmp_path: Path) -> None:
    assert_one_line(run("db", "shell", PATH=str(tmp_path)), "psql is not installed", "searchapp db url")


def test_without_an_address_the_embedded_server_is_used(run: Run, home: Path) -> None:
    nobody = {
        "DATABASE_URL": "",
        "SEARCHAPP_HOME": str(home),
        "PGHOST": "nowhere.invalid",
        "PGPORT": "1",
        "PGUSER": "mallory",
        "PGDATABASE": "none",
    }
    done = run("db", "url", **nobody)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(database.parse_url(done.stdout)) == {"host", "port", "user", "dbname"}  # what an old psql knows
    assert select_one(embedded.binary(home, "psql"), done.stdout.strip()) == "1\n"
    assert run("db", "current", **nobody).stdout == f"nothing (this searchapp needs {database.REVISION})\n"
    assert run("db", "upgrade", **nobody).stdout == f"migrated from nothing to {database.REVISION}\n"
    done = run("db", "shell", stdin="SELECT 'at ' || version_num FROM searchapp_data.alembic_version", **nobody)
    assert f"at {database.REVISION}" in done.stdout
    assert run("db", "stop", **nobody).stdout == "stopped the embedded server\n"
    done = run("db", "stop", **nobody)
    assert (done.returncode, done.stdout) == (0, "the embedded server does not run\n")


def test_stop_without_any_server_says_so(run: Run, home: Path) -> None:
    assert run("db", "stop", SEARCHAPP_HOME=str(home)).stdout == "the embedded server does not run\n"


def test_pg_variables_fill_what_the_address_leaves_out(run: Run, url: str) -> None:
    found = database.parse_url(url)
    variables = {"PGHOST": found["host"], "PGPORT": found["port"], "PGUSER": found["user"]}
    done = run("db", "current", DATABASE_URL=f"postgresql:///{found['dbname']}", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(database.REVISION)
    done = run("db", "current", DATABASE_URL="postgresql://", PGDATABASE=found["dbname"], **variables)
    assert done.stdout.startswith(database.REVISION)


@pytest.mark.parametrize(
    ("address", "kind", "parts"),
    [
        ("host=localhost port=1", errors.DatabaseUnavailable, ["Connection refused", "is PostgreSQL running there?"]),
        ("host=/nowhere", errors.DatabaseUnavailable, ["No such file or directory", "check DATABASE_URL"]),
        ("host=nowhere.invalid", errors.DatabaseUnavailable, ["nowhere.invalid", "check DATABASE_URL"]),
        ("mysql://ann@db/shop", errors.InvalidInput, ["begins with mysql://; expected postgresql://"]),
        ("nonsense", errors.InvalidInput, ["cannot be read", "expected postgresql://user:password@host:5432/database"]),
    ],
)
def test_a_way_that_leads_nowhere_is_one_line(
    run: Run, address: str, kind: type[errors.SearchAppError], parts: list[str]
) -> None:
    assert_one_line(run("search", "a pet", "-c", "things", DATABASE_URL=address), *parts)
    with pytest.raises(kind), searchapp.connect(address) as db:
        db.collections()


def test_debug_shows_where_an_error_comes_from(run: Run) -> None:
    done = run("db", "current", "--debug", DATABASE_URL="host=localhost port=1")
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback")
    assert "searchapp.errors.DatabaseUnavailable: " in done.stderr
    assert "psycopg.OperationalError" in done.stderr


def test_missing_database_role_and_right_are_told_apart(run: Run, url: str, password_url: str) -> None:
    found = database.parse_url(url)
    nowhere = database.conninfo({**found, "dbname": "nowhere"})
    assert_one_line(run("db", "current", DATABASE_URL=nowhere), 'database "nowhere" does not exist', "createdb")
    ghost = database.conninfo({**found, "user": "ghost"})
    assert_one_line(run("db", "current", DATABASE_URL=ghost), 'role "ghost" does not exist', "check the user")
    with pytest.raises(errors.DatabaseMissing), searchapp.connect(nowhere) as db:
        db.collections()
    with pytest.raises(errors.AuthenticationFailed), searchapp.connect(ghost) as db:
        db.collections()
    allowed = database.conninfo({**database.parse_url(password_url), "password": PASSWORD})
    done = run("search", "a pet", "-c", "things", DATABASE_URL=allowed)
    grant = f"GRANT searchapp_reader TO {database.parse_url(password_url)['user']}"
    assert_one_line(
        done, f"permission denied for schema searchapp_data; this needs the role searchapp_reader ({grant})"
    )


def test_wrong_and_missing_passwords_are_refused_without_repeating_them(run: Run, password_url: str) -> None:
    address = database.parse_url(password_url)
    wrong = database.conninfo({**address, "password": f"{PASSWORD}!"})
    done = run("db", "current", DATABASE_URL=wrong)
    assert_one_line(done, f'password authentication failed for user "{address["user"]}"', "check the user and password")
    done = run("db", "current", "--debug", DATABASE_URL=wrong)
    assert "Traceback" in done.stderr
    assert PASSWORD not in done.stderr
    assert_one_line(run("db", "current", DATABASE_URL=password_url), "no password supplied", "check the user")
    with pytest.raises(errors.AuthenticationFailed), searchapp.connect(wrong) as db:
        db.collections()


def test_connection_that_is_ended_is_unavailable_and_the_next_one_works(db: Client, engine: Engine, url: str) -> None:
    db.create_collection("things")

    def end_connections() -> None:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with psycopg.connect(url) as connection:
            connection.execute(f"SELECT pg_terminate_backend(pid, 5000) {others}".encode())

    def lose_one() -> None:
        with database.translated(), engine.begin() as connection:
            connection.exec_driver_sql("SELECT 1")
            end_connections()
            connection.exec_driver_sql("SELECT 1")

    with pytest.raises(errors.DatabaseUnavailable, match="try again"):
        lose_one()
    assert db.count(collection="things") == 0
    end_connections()  # while nobody asks
    assert db.count(collection="things") == 0


def test_settings_of_the_views_are_shown_and_given_to_the_database(run: Run, url: str) -> None:
    assert "hnsw.iterative_scan is strict_order" in run("db", "settings").stdout
    with psycopg.connect(url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET hnsw.iterative_scan = 'off'".encode())
    told = run("db", "settings")
    assert (told.returncode, told.stdout.count("\n")) == (0, 1)
    assert "may give fewer rows than the limit; run: searchapp db settings --apply" in told.stdout
    done = run("db", "settings", "--apply")
    assert done.stdout.startswith(
        f"ALTER DATABASE {name} SET hnsw.iterative_scan = 'strict_order': sessions that begin"
    )
    assert "hnsw.iterative_scan is strict_order" in run("db", "settings").stdout
