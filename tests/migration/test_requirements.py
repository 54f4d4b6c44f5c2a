"""What a database must be: where the extension may stand, what a role may lack, what is too old and too new."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine

from searchapp import database, errors, schema
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from tests.conftest import Run
from tests.migration.conftest import TABLES, as_role, execute, scalar, tables

CALLS: dict[str, Callable[[Client], Any]] = {
    "ingest": lambda db: db.ingest([{"key": "a", "text": "A cat"}], collection="things"),
    "get": lambda db: db.get("a", collection="things"),
    "delete": lambda db: db.delete(["a"], collection="things"),
    "count": lambda db: db.count(collection="things"),
    "search": lambda db: db.search("a pet", collection="things"),
    "space": lambda db: db.space("things"),
    "collections": lambda db: db.collections(),
    "describe": lambda db: db.describe("things"),
    "create_collection": lambda db: db.create_collection("things"),
    "drop_collection": lambda db: db.drop_collection("things"),
    "maintain": lambda db: db.maintain(),
}


def assert_works(engine: Engine, registry: Registry) -> None:
    """Everything that needs the extension's type, functions and operators."""
    db = Client(engine, registry=registry)
    db.create_collection("things")
    db.ingest([{"key": "a", "text": "A cat sat on the mat"}], collection="things")
    assert db.describe("things").indexed
    assert [hit.key for hit in db.search("a pet", collection="things")] == ["a"]
    assert [hit.key for hit in db.search("a pet", collection="things", exact=True)] == ["a"]
    assert schema.differences(engine) == []


@pytest.mark.parametrize(
    ("name", "search_path"),
    [
        ("extensions", "public"),
        ('My "ext"', "nowhere"),
        ("searchapp_data", "public"),
        ("extensions", "searchapp_data"),
        ("searchapp_data", "searchapp_data"),
    ],
)
def test_extension_may_stand_in_any_schema(empty_url: str, registry: Registry, name: str, search_path: str) -> None:
    place = sql.Identifier(name)
    execute(
        empty_url,
        sql.SQL("CREATE SCHEMA {}").format(place),
        sql.SQL("CREATE EXTENSION vector SCHEMA {}").format(place),
    )
    parameters = {**database.parse_url(empty_url), "options": f"-csearch_path={search_path}"}
    for act in (
        schema.upgrade,
        lambda engine: assert_works(engine, registry),
        lambda engine: schema.downgrade(engine, "base"),
    ):
        engine = database.create_engine(parameters)
        act(engine)
        engine.dispose()
    assert tables(empty_url) == set()


def test_the_type_of_somebody_elses_that_is_called_vector_is_not_taken(
    empty: Engine, empty_url: str, registry: Registry
) -> None:
    execute(
        empty_url,
        "CREATE SCHEMA extensions",
        "CREATE EXTENSION vector SCHEMA extensions",
        "CREATE DOMAIN public.vector AS text",
    )
    schema.upgrade(empty)
    assert_works(empty, registry)


def test_role_without_rights_is_told_what_an_administrator_must_run(
    role: str, empty_url: str, registry: Registry
) -> None:
    engine = database.create_engine(database.parse_url(as_role(empty_url, role)))
    quoted = '"My ""role'
    with pytest.raises(errors.ExtensionMissing) as caught:
        schema.upgrade(engine)
    assert str(caught.value).startswith(f"role {role} may create neither extensions nor schemas in this database; ask")
    _, _, statements = str(caught.value).partition("to run: ")
    made = "; ".join(f"CREATE SCHEMA {name} AUTHORIZATION {quoted}.*" for name in schema.SCHEMAS)
    assert re.fullmatch(f"CREATE EXTENSION vector; {made}", statements)
    assert scalar(empty_url, "SELECT to_regnamespace('searchapp_data')") is None

    extension, _, authorization = statements.partition("; ")
    execute(empty_url, extension)
    with pytest.raises(errors.PermissionDenied, match=r"may not create schemas .* to run: CREATE SCHEMA") as denied:
        schema.upgrade(engine)
    assert str(denied.value).endswith(authorization)

    execute(empty_url, authorization)
    schema.upgrade(engine)
    assert_works(engine, registry)
    engine.dispose()


def test_role_that_may_create_schemas_only_is_told_to_ask_for_the_extension(role: str, empty_url: str) -> None:
    name = sql.Identifier(str(database.parse_url(empty_url)["dbname"]))
    execute(empty_url, sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(name, sql.Identifier(role)))
    engine = database.create_engine(database.parse_url(as_role(empty_url, role)))
    with pytest.raises(errors.ExtensionMissing, match=r"may not create extensions; .*: CREATE EXTENSION vector$"):
        schema.upgrade(engine)
    assert scalar(empty_url, "SELECT to_regnamespace('searchapp_data')") is None
    execute(empty_url, "CREATE EXTENSION vector")
    schema.upgrade(engine)
    engine.dispose()
    assert tables(empty_url) == TABLES


def test_role_that_may_not_read_is_told_so(role: str, url: str, registry: Registry) -> None:
    engine = database.create_engine(database.parse_url(as_role(url, role)))
    for call in (schema.current, schema.upgrade, schema.differences):
        with pytest.raises(errors.PermissionDenied, match="permission denied for schema searchapp_data; this needs"):
            call(engine)
    for name, ask in CALLS.items():
        with pytest.raises(errors.PermissionDenied, match="permission denied for schema searchapp_data; this needs"):
            pytest.fail(f"{name} gave {ask(Client(engine, registry=registry))}")
    engine.dispose()


def test_server_without_pgvector_is_told_to_install_it(empty: Engine, empty_url: str) -> None:
    shared = Path(scalar(empty_url, "SELECT setting FROM pg_config WHERE name = 'SHAREDIR'"))
    control = shared / "extension" / "vector.control"
    control.rename(hidden := control.with_suffix(".hidden"))
    try:
        with pytest.raises(errors.ExtensionMissing, match="pgvector is not installed on this server; install it"):
            schema.upgrade(empty)
    finally:
        hidden.rename(control)
    schema.upgrade(empty)


def test_database_without_schema_public_is_told_to_choose_another(empty: Engine, empty_url: str) -> None:
    execute(empty_url, "DROP SCHEMA public")
    with pytest.raises(
        errors.ExtensionMissing, match="no schema public; choose another: CREATE EXTENSION vector SCHEMA"
    ):
        schema.upgrade(empty)
    execute(empty_url, "CREATE SCHEMA mine", "CREATE EXTENSION vector SCHEMA mine")
    schema.upgrade(empty)


def test_pgvector_that_is_too_old_is_refused_by_the_code_and_by_the_sql(empty: Engine, empty_url: str) -> None:
    too_old = "UPDATE pg_extension SET extversion = '0.8.1' WHERE extname = 'vector'"
    execute(empty_url, "CREATE EXTENSION vector", too_old)
    with pytest.raises(errors.DatabaseTooOld, match="ALTER EXTENSION vector UPDATE"):
        schema.upgrade(empty)
    with (
        pytest.raises(
            psycopg.Error, match=r"the database has pgvector 0\.8\.1; .*: ALTER EXTENSION vector UPDATE"
        ) as caught,
        psycopg.connect(empty_url, autocommit=True) as connection,
    ):
        connection.execute(schema.script("head").encode())
    assert isinstance(database.translate(caught.value), errors.DatabaseTooOld)
    assert scalar(empty_url, "SELECT to_regnamespace('searchapp_data')") is None


def test_extension_that_is_lost_is_missed(engine: Engine, url: str, registry: Registry) -> None:
    execute(url, "DROP EXTENSION vector CASCADE")
    with pytest.raises(errors.ExtensionMissing, match="run: CREATE EXTENSION vector"):
        Client(engine, registry=registry).search("a pet", collection="things")


def test_database_without_tables_names_the_command_that_makes_them(empty: Engine, registry: Registry) -> None:
    for name, ask in CALLS.items():
        with pytest.raises(errors.NotMigrated, match=r"no searchapp tables yet, .*; run: searchapp db upgrade"):
            pytest.fail(f"{name} gave {ask(Client(empty, registry=registry))}")


def test_database_of_a_newer_searchapp_is_not_touched(db: Client, url: str, engine: Engine, registry: Registry) -> None:
    db.create_collection("things")
    execute(url, "UPDATE searchapp_data.alembic_version SET version_num = '9999'")
    for name, ask in CALLS.items():
        with pytest.raises(errors.DatabaseTooNew, match=r"stands at migration 9999, .*pip install --upgrade searchapp"):
            pytest.fail(f"{name} gave {ask(Client(engine, registry=registry))}")


def test_database_of_a_newer_searchapp_is_not_migrated(run: Run, url: str) -> None:
    execute(url, "UPDATE searchapp_data.alembic_version SET version_num = '9999'")
    for arguments in (["upgrade"], ["downgrade", "base"], ["check"]):
        done = run("db", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("searchapp: error: the database stands at migration 9999, this searchapp knows")
        assert done.stderr.count("\n") == 1
    assert tables(url) == TABLES
    assert run("db", "current").stdout == f"9999 (this searchapp needs {database.REVISION})\n"
