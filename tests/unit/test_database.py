"""Addresses, versions, and the driver's errors in our words."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy

from searchapp import database, errors
from searchapp.database import Server

READY = Server(180_000, "0.8.6", "public", database.REVISION)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("postgres://ann@db/shop", {"user": "ann", "host": "db", "dbname": "shop"}),
        ("postgresql://db:5433", {"host": "db", "port": "5433"}),
        (
            "postgresql+psycopg://ann:secret@db/shop",
            {"user": "ann", "password": "secret", "host": "db", "dbname": "shop"},
        ),
        ("  postgresql://db/shop\n", {"host": "db", "dbname": "shop"}),
        ("host=db dbname='my shop'", {"host": "db", "dbname": "my shop"}),
        ("dbname=shop password=a://b@c", {"dbname": "shop", "password": "a://b@c"}),
        ("postgresql://ann:p%40s%2Fs%25%3A@db", {"user": "ann", "password": "p@s/s%:", "host": "db"}),
        ("postgresql://ann:a:b@db", {"user": "ann", "password": "a:b", "host": "db"}),
        ("postgresql:///shop?host=/tmp", {"dbname": "shop", "host": "/tmp"}),
        ("postgresql://%2Fvar%2Frun/shop", {"host": "/var/run", "dbname": "shop"}),
        ("postgresql://one:5432,two:5433/shop", {"host": "one,two", "port": "5432,5433", "dbname": "shop"}),
        ("postgresql://one,two/shop", {"host": "one,two", "port": ",", "dbname": "shop"}),
        ("postgresql://[2001:db8::1]:5433/shop", {"host": "2001:db8::1", "port": "5433", "dbname": "shop"}),
        ("postgresql://db/shop?sslmode=verify-full", {"host": "db", "dbname": "shop", "sslmode": "verify-full"}),
        ("postgresql://", {}),
        ("", {}),
    ],
)
def test_an_address_becomes_libpqs_parameters(address: str, expected: dict[str, str]) -> None:
    assert database.parse_url(address) == expected


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("mysql://ann:hidden@db/shop", "begins with mysql://; expected postgresql://"),
        ("postgresql+asyncpg://ann:hidden@db/shop", r"begins with postgresql\+asyncpg://"),
        ("postgresql+psycopg2://ann:hidden@db/shop", r"begins with postgresql\+psycopg2://"),
        ("sqlite:///shop.db", "begins with sqlite://"),
        ("hidden", "cannot be read"),
        ("host=db password=one hidden", "cannot be read"),
        ("host=db password='hidden", "cannot be read"),
        ("postgresql://ann:hidden%@db/shop", "cannot be read"),
        ("postgresql://ann:hidden%00@db/shop", "cannot be read"),
        ("postgresql://db/shop?hidden=1", "cannot be read"),
        ("postgresql://[::1/hidden", "cannot be read"),
        ("postgresql://ann:one@hidden@db/shop", "second @.*written %40"),
        ("postgresql://ann:one@hidden/two@db/shop", "second @"),
        ("postgresql://ann:hidden/one@db/shop", "port that is no number"),
        ("host=db port=hidden", "port that is no number"),
    ],
)
def test_what_is_no_address_is_refused_in_one_line_without_its_password(address: str, reason: str) -> None:
    with pytest.raises(errors.InvalidInput, match=reason) as caught:
        database.parse_url(address)
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["plain", "with space", "it's", "back\\slash", "", "p@s/s%:"])
def test_conninfo_is_read_back_as_it_was(value: str) -> None:
    parameters = {"host": "/tmp", "password": value}
    assert database.parse_url(database.conninfo(parameters)) == parameters


def connected_with(monkeypatch: pytest.MonkeyPatch, parameters: dict[str, str]) -> dict[str, str]:
    """What the engine hands to the driver for these parameters."""
    given: dict[str, str] = {}

    def connect(**settled: str) -> None:
        given.update(settled)
        raise psycopg.OperationalError("nobody is asked")

    monkeypatch.setattr(psycopg, "connect", connect)
    with pytest.raises(errors.DatabaseUnavailable), database.translated():
        database.create_engine(parameters).connect()
    return given


def test_an_engine_waits_ten_seconds_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(connected_with(monkeypatch, {})["connect_timeout"]) == "10"
    assert connected_with(monkeypatch, {"connect_timeout": "3"})["connect_timeout"] == "3"
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "4")
    assert "connect_timeout" not in connected_with(monkeypatch, {})


def test_an_engine_leaves_the_applications_name_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    given = connected_with(monkeypatch, {"application_name": "shop"})
    assert (given["application_name"], given["fallback_application_name"]) == ("shop", "searchapp")
    assert "application_name" not in connected_with(monkeypatch, {})  # PGAPPNAME fills it


def test_an_engine_of_another_driver_is_refused() -> None:
    ours = database.create_engine({})
    assert database.adopt_engine(ours) is ours
    with pytest.raises(errors.InvalidInput, match=r"uses sqlite\+pysqlite; expected postgresql\+psycopg"):
        database.adopt_engine(sqlalchemy.create_engine("sqlite://"))


@pytest.mark.parametrize("vector_version", [None, "0.8.2", "0.8.10", "0.9", "0.10.0", "1.0"])
def test_versions_that_do(vector_version: str | None) -> None:
    database.require_versions(Server(160_000, vector_version, None, None))


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (Server(150_018, None, None, None), "runs PostgreSQL 15; searchapp needs 16 or newer"),
        (
            Server(160_000, "0.8.1", "public", None),
            "has pgvector 0.8.1; searchapp needs 0.8.2 .*ALTER EXTENSION vector UPDATE",
        ),
        (Server(160_000, "0.7", "public", None), "has pgvector 0.7;"),
    ],
)
def test_versions_that_are_too_old_are_named(server: Server, reason: str) -> None:
    for require in (database.require_versions, database.require_ready):
        with pytest.raises(errors.DatabaseTooOld, match=reason):
            require(server)


def test_a_ready_database_tells_where_pgvector_stands() -> None:
    assert database.require_ready(READY) == "public"


@pytest.mark.parametrize(
    ("revision", "vector_schema", "kind", "reason"),
    [
        (None, "public", errors.NotMigrated, "no searchapp tables yet, .*; run: searchapp db upgrade"),
        ("0000", "public", errors.NotMigrated, "stands at migration 0000, .*; run: searchapp db upgrade"),
        (
            "9999",
            "public",
            errors.DatabaseTooNew,
            "migration 9999, this searchapp knows .*pip install --upgrade searchapp",
        ),
        (database.REVISION, None, errors.ExtensionMissing, "run: CREATE EXTENSION vector"),
    ],
)
def test_a_database_that_is_not_ready_says_what_to_do(
    revision: str | None, vector_schema: str | None, kind: type[errors.DatabaseError], reason: str
) -> None:
    with pytest.raises(kind, match=reason):
        database.require_ready(Server(180_000, None, vector_schema, revision))


FAILED = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    ("words", "kind", "advice"),
    [
        ('FATAL:  password authentication failed for user "ann"', errors.AuthenticationFailed, "check the user"),
        ('FATAL:  Peer authentication failed for user "database "', errors.AuthenticationFailed, "check the user"),
        ("fe_sendauth: no password supplied", errors.AuthenticationFailed, "check the user"),
        ('FATAL:  no pg_hba.conf entry for host "::1", user "a", database "b"', errors.AuthenticationFailed, "check"),
        ('FATAL:  role "ann" does not exist', errors.AuthenticationFailed, "check the user"),
        ('FATAL:  role "ann" is not permitted to log in', errors.AuthenticationFailed, "check the user"),
        ('FATAL:  database "shop" does not exist', errors.DatabaseMissing, "createdb"),
        ('FATAL:  permission denied for database "shop"', errors.PermissionDenied, "connect as a role"),
        ("FATAL:  the database system is starting up", errors.DatabaseUnavailable, "try again"),
        ("FATAL:  the database system is shutting down", errors.DatabaseUnavailable, "try again"),
        ("FATAL:  sorry, too many clients already", errors.DatabaseUnavailable, "try again"),
        ('FATAL:  too many connections for role "ann"', errors.DatabaseUnavailable, "try again"),
        ('FATAL:  too many connections for database "shop"', errors.DatabaseUnavailable, "try again"),
        ("Connection refused\n\tIs the server running there?", errors.DatabaseUnavailable, "is PostgreSQL running"),
        ("timeout expired", errors.DatabaseUnavailable, "is PostgreSQL running"),
    ],
)
def test_a_failed_connection_is_known_by_its_words(words: str, kind: type[errors.DatabaseError], advice: str) -> None:
    found = database.translate(psycopg.OperationalError(FAILED + words))
    assert type(found) is kind
    assert "\n" not in str(found)
    assert advice in str(found)
    assert words.removeprefix("FATAL:").strip().partition("\n")[0] in str(found)


def test_of_several_addresses_the_first_failure_is_told() -> None:
    several = f"{FAILED}Connection refused\nMultiple connection attempts failed. All failures were:\n- host: 'a' ..."
    assert str(database.translate(psycopg.OperationalError(several))).startswith(f"{FAILED}Connection refused; ")


@pytest.mark.parametrize(
    ("sqlstate", "kind", "advice"),
    [
        ("28P01", errors.AuthenticationFailed, "; check the user"),
        ("3D000", errors.DatabaseMissing, "; create it"),
        ("42501", errors.PermissionDenied, "; connect as a role"),
        ("55P03", errors.LockNotAvailable, "; another session"),
        ("57P01", errors.DatabaseUnavailable, "; try again"),
        ("57P03", errors.DatabaseUnavailable, "; try again"),
        ("53300", errors.DatabaseUnavailable, "; try again"),
        ("08006", errors.DatabaseUnavailable, "; try again"),
        ("40P01", errors.DatabaseError, ""),
        ("42P01", errors.DatabaseError, ""),
    ],
)
def test_a_failed_statement_is_known_by_its_sqlstate(
    sqlstate: str, kind: type[errors.DatabaseError], advice: str
) -> None:
    found = database.translate(psycopg.errors.lookup(sqlstate)("two\nlines"))
    assert type(found) is kind
    assert str(found).startswith("two")
    assert "\n" not in str(found)
    assert advice in str(found)


def test_a_lost_connection_is_unavailable() -> None:
    lost = psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly\n\tThis means")
    assert type(database.translate(lost)) is errors.DatabaseUnavailable
    assert type(database.translate(psycopg.OperationalError("the connection is closed"))) is errors.DatabaseUnavailable


def test_an_error_that_is_not_the_databases_passes() -> None:
    with pytest.raises(KeyError), database.translated():
        raise KeyError


def test_the_drivers_error_is_kept_as_the_cause() -> None:
    with pytest.raises(errors.DatabaseError) as caught, database.translated():
        raise psycopg.DataError("a fault")
    assert isinstance(caught.value.__cause__, psycopg.DataError)


def test_what_ended_a_connection_is_told_not_that_the_rollback_failed() -> None:
    ended = psycopg.errors.AdminShutdown("terminating connection due to administrator command")
    try:
        try:
            raise ended
        finally:
            raise psycopg.OperationalError("the connection is closed")
    except psycopg.OperationalError as exc:
        translated = database.translate(exc)
    assert isinstance(translated, errors.DatabaseUnavailable)
    assert str(translated) == "terminating connection due to administrator command; try again in a moment"


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("could not extend file: No space left on device", "make room on the server's disk and run it again"),
        ("could not resize shared memory segment: No space left on device", "/dev/shm is too small"),
    ],
)
def test_a_full_disk_is_told_with_what_to_do(words: str, advice: str) -> None:
    translated = database.translate(psycopg.errors.DiskFull(words))
    assert isinstance(translated, errors.DiskFull)
    assert advice in str(translated)
