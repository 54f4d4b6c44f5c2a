"""The roles that migrations make, who owns what afterwards, and what is asked of an administrator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine

from searchapp import database, errors, schema
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from tests.conftest import engine_on
from tests.migration.conftest import as_role, execute, scalar
from tests.migration.test_migrations import psql
from tests.migration.test_races import start, wait_for
from tests.migration.test_requirements import assert_works
from tests.servers import temporary_server

ROLES = ["searchapp_owner", "searchapp_reader", "searchapp_writer"]
OURS = "(SELECT oid FROM pg_namespace WHERE nspname IN ('searchapp', 'searchapp_data', 'searchapp_private'))"
# What is of an extension that stands there belongs to whoever created that.
EXTENSIONS = "(SELECT objid FROM pg_depend WHERE deptype = 'e')"
OWNERS = (
    f"SELECT DISTINCT pg_get_userbyid(owner) FROM (SELECT nspowner AS owner FROM pg_namespace WHERE oid IN {OURS}"
    f" UNION ALL SELECT relowner FROM pg_class WHERE relnamespace IN {OURS} AND reltype NOT IN {EXTENSIONS}"
    f" UNION ALL SELECT proowner FROM pg_proc WHERE pronamespace IN {OURS} AND oid NOT IN {EXTENSIONS}) o"
)


@pytest.fixture(scope="module")
def own_server() -> Iterator[database.Parameters]:
    """A server for this module, where no other test has made our roles."""
    with temporary_server() as parameters:
        yield parameters


@pytest.fixture
def cluster(own_server: database.Parameters) -> Iterator[str]:
    """The address of an empty database on a server where there are no roles of ours; what is made there goes."""
    server = database.conninfo(own_server)
    databases, roles = "SELECT datname FROM pg_database", "SELECT rolname FROM pg_roles"
    kept_databases, kept_roles = set(names(server, databases)), set(names(server, roles))
    execute(server, "CREATE DATABASE shop")
    yield database.conninfo({**own_server, "dbname": "shop"})
    for name in set(names(server, databases)) - kept_databases:
        execute(server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    if made := set(names(server, roles)) - kept_roles:  # at once, as they are members of each other
        execute(server, sql.SQL("DROP ROLE {}").format(sql.SQL(", ").join(map(sql.Identifier, made))))


def make_role(url: str, name: str, attributes: LiteralString = "", *, schemas: bool = True) -> str:
    """Make a role that may migrate; the address for it."""
    quoted = sql.Identifier(name)
    execute(
        url,
        "CREATE EXTENSION IF NOT EXISTS vector",
        sql.SQL("CREATE ROLE {} LOGIN {}").format(quoted, sql.SQL(attributes)),
    )
    if schemas:
        place = sql.Identifier(str(database.parse_url(url)["dbname"]))
        execute(url, sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(place, quoted))
    return as_role(url, name)


def names(url: str, statement: str) -> list[Any]:
    return sorted(name for (name,) in execute(url, statement))


def wanted(said: str) -> str:
    """What a warning says that an administrator must run."""
    return said.partition(" run: ")[2].removesuffix("; and then run again: searchapp db upgrade")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a migration warned of, but for the extension dblink, which only a superuser makes."""
    return [message for message in caplog.messages if "extension dblink" not in message]


def roles(url: str) -> list[Any]:
    return names(url, r"SELECT rolname FROM pg_roles WHERE rolname LIKE 'searchapp\_%'")


def test_a_role_that_may_make_roles_makes_them(
    cluster: str, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    deployer = make_role(cluster, "My deployer", "CREATEROLE")
    with engine_on(deployer) as engine:
        schema.upgrade(engine)
        assert told(caplog) == []
        assert (roles(cluster), names(cluster, OWNERS)) == (ROLES, ["searchapp_owner"])
        assert_works(engine, registry)
        schema.downgrade(engine, "0004")
        with pytest.raises(errors.NotMigrated, match="stands at migration 0004"):
            Client(engine, registry=registry).count(collection="things")
        schema.upgrade(engine)
        assert Client(engine, registry=registry).count(collection="things") == 1
        assert names(cluster, OWNERS) == ["searchapp_owner"]
        schema.downgrade(engine, "base")
        assert roles(cluster) == ROLES
        schema.upgrade(engine)
        assert_works(engine, registry)
        assert told(caplog) == []


def test_a_role_that_may_not_goes_on_and_says_what_an_administrator_must_run(
    cluster: str, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    deployer = make_role(cluster, "My deployer")
    with engine_on(deployer) as engine:
        schema.upgrade(engine)
        (said,) = told(caplog)
        assert said.startswith("role My deployer may not set up the roles of searchapp; ask an administrator to run: ")
        assert said.endswith("; and then run again: searchapp db upgrade")
        assert (roles(cluster), names(cluster, OWNERS)) == ([], ["My deployer"])
        assert_works(engine, registry)
        execute(cluster, *wanted(said).split("; "))
        caplog.clear()
        schema.upgrade(engine)
        assert told(caplog) == []
        assert names(cluster, OWNERS) == ["searchapp_owner"]
        db = Client(engine, registry=registry)
        db.ingest([{"key": "b", "text": "A dog barks"}], collection="things")
        db.add_field("things", "legs", "number")
    reader = make_role(cluster, "ann", "IN ROLE searchapp_reader", schemas=False)
    with engine_on(reader) as engine:
        assert {hit.key for hit in Client(engine, registry=registry).search("a pet", collection="things")} == {"a", "b"}


@pytest.mark.usefixtures("template")
def test_a_role_that_is_no_member_of_the_owner_goes_on(
    empty_url: str, role: str, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """The roles are there, for another database of the cluster has been migrated."""
    name = sql.Identifier(str(database.parse_url(empty_url)["dbname"]))
    execute(
        empty_url,
        "CREATE EXTENSION vector",
        sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(name, sql.Identifier(role)),
    )
    with engine_on(as_role(empty_url, role)) as engine:
        schema.upgrade(engine)
        (said,) = told(caplog)
        grant = sql.SQL("GRANT searchapp_owner TO {} WITH INHERIT TRUE, SET TRUE").format(sql.Identifier(role))
        assert wanted(said) == grant.as_string(None)
        assert names(empty_url, OWNERS) == [role]
        assert_works(engine, registry)
        assert scalar(empty_url, "SELECT has_table_privilege('searchapp_reader', 'searchapp_data.chunks', 'SELECT')")
        execute(empty_url, grant)
        schema.upgrade(engine)
        assert names(empty_url, OWNERS) == ["searchapp_owner"]


@pytest.mark.usefixtures("template")
def test_a_role_whose_schemas_an_administrator_made_cannot_give_them_away(
    empty_url: str, role: str, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    place = sql.Identifier(role)
    execute(
        empty_url,
        "CREATE EXTENSION vector",
        *(sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(sql.Identifier(each), place) for each in schema.SCHEMAS),
        sql.SQL("GRANT searchapp_owner TO {}").format(place),
    )
    with engine_on(as_role(empty_url, role)) as engine:
        schema.upgrade(engine)
        assert told(caplog) == []
        assert names(empty_url, OWNERS) == sorted([role, "searchapp_owner"])
        relations = f"SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace IN {OURS}"
        assert names(empty_url, relations) == ["searchapp_owner"]
        assert_works(engine, registry)


def test_what_earlier_versions_made_is_taken_over(
    db: Client, engine: Engine, url: str, role: str, registry: Registry
) -> None:
    db.ingest([{"key": "a", "text": "A cat sat"}], collection="things")
    schema.downgrade(engine, "0004")
    name = sql.Identifier(role)
    execute(
        url,
        sql.SQL("REASSIGN OWNED BY searchapp_owner TO {}").format(name),
        "ALTER TABLE searchapp_data.chunks OWNER TO searchapp",
        "REVOKE ALL ON ALL TABLES IN SCHEMA searchapp_data FROM searchapp_reader, searchapp_writer",
        "REVOKE ALL ON SCHEMA searchapp_data FROM searchapp_reader",
    )
    assert names(url, OWNERS) == sorted([role, "searchapp"])
    schema.upgrade(engine)
    assert names(url, OWNERS) == ["searchapp_owner"]
    assert schema.differences(engine) == []
    assert names(url, "SELECT key FROM searchapp.things") == ["a"]
    execute(url, sql.SQL("GRANT searchapp_writer TO {}").format(name))
    with engine_on(as_role(url, role)) as writing:
        writer = Client(writing, registry=registry)
        assert writer.ingest([{"key": "b", "text": "A dog barks"}], collection="things").documents == 1
        assert [hit.key for hit in writer.search("barks", collection="things", mode="text")] == ["b"]
        writer.create_collection("others")


def test_a_takeover_gives_way_to_searches(engine: Engine, url: str) -> None:
    """They lock the same tables in another order."""
    schema.downgrade(engine, "0004")
    execute(url, "REASSIGN OWNED BY searchapp_owner TO searchapp")
    with psycopg.connect(url) as searching:
        searching.execute("SELECT FROM searchapp_data.spaces")
        process = start(url, "db", "upgrade")
        wait_for(url, "wait_event_type = 'Lock'")
        searching.execute("SELECT FROM searchapp_data.collections")
    assert process.communicate(timeout=60) == (f"migrated from 0004 to {database.REVISION}\n", "")
    assert names(url, OWNERS) == ["searchapp_owner"]


def test_what_may_not_be_taken_over_is_named(db: Client, url: str, role: str, caplog: pytest.LogCaptureFixture) -> None:
    db.create_collection("things")
    name = sql.Identifier(role)
    execute(
        url,
        sql.SQL("GRANT searchapp_owner TO {}").format(name),
        "ALTER TABLE searchapp_data.documents_1 OWNER TO searchapp",
        "ALTER FUNCTION searchapp_data.give_words(int, text) OWNER TO searchapp",
    )
    with engine_on(as_role(url, role)) as engine:
        schema.upgrade(engine)
    assert told(caplog) == [
        f"role {role} may not give all to searchapp_owner; ask an administrator to run:"
        " ALTER ROUTINE searchapp_data.give_words(integer,text) OWNER TO searchapp_owner;"
        " ALTER TABLE searchapp_data.documents_1 OWNER TO searchapp_owner"
    ]


def test_databases_of_a_cluster_may_be_migrated_at_once(cluster: str) -> None:
    addresses = [cluster]
    for number in range(3):
        execute(cluster, f"CREATE DATABASE other_{number}")
        addresses.append(database.conninfo({**database.parse_url(cluster), "dbname": f"other_{number}"}))
    processes = [start(address, "db", "upgrade") for address in addresses]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert outputs == [(f"migrated from nothing to {database.REVISION}\n", "")] * 4
    assert roles(cluster) == ROLES
    for address in addresses:
        assert names(address, OWNERS) == ["searchapp_owner"]


def test_sql_for_an_administrator_makes_the_roles(cluster: str, registry: Registry) -> None:
    deployer = make_role(cluster, "deployer", "CREATEROLE")
    psql(cluster, schema.script("head"), role="deployer")
    assert (roles(cluster), names(cluster, OWNERS)) == (ROLES, ["searchapp_owner"])
    with engine_on(deployer) as engine:
        assert_works(engine, registry)
    psql(cluster, schema.script(f"{database.REVISION}:0004", downgrade=True), role="deployer")
    psql(cluster, schema.script(f"0004:{database.REVISION}"), role="deployer")
    assert names(cluster, OWNERS) == ["searchapp_owner"]


def test_a_schema_of_the_extension_is_opened_to_readers(
    empty: Engine, empty_url: str, role: str, registry: Registry
) -> None:
    execute(empty_url, 'CREATE SCHEMA "My ext"', 'CREATE EXTENSION vector SCHEMA "My ext"')
    schema.upgrade(empty)
    db = Client(empty, registry=registry)
    db.ingest([{"key": "a", "text": "A cat sat on the mat"}], collection="things")
    execute(empty_url, sql.SQL("GRANT searchapp_writer TO {}").format(sql.Identifier(role)))
    with engine_on(as_role(empty_url, role)) as engine:
        writer = Client(engine, registry=registry)
        assert writer.ingest([{"key": "b", "text": "A dog barks"}], collection="things").documents == 1
        assert {hit.key for hit in writer.search("a pet", collection="things")} == {"a", "b"}
        writer.ingest([{"key": "c", "text": "A ship"}], collection="others")
        assert writer.describe("others").indexed


@pytest.mark.usefixtures("template")
def test_a_schema_of_the_extension_that_may_not_be_opened_is_named(
    empty_url: str, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = sql.Identifier(role)
    place = sql.Identifier(str(database.parse_url(empty_url)["dbname"]))
    execute(
        empty_url,
        "CREATE SCHEMA extensions",
        "CREATE EXTENSION vector SCHEMA extensions",
        sql.SQL("GRANT USAGE ON SCHEMA extensions TO {}").format(name),
        sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(place, name),
        sql.SQL("GRANT searchapp_owner TO {}").format(name),
    )
    with engine_on(as_role(empty_url, role)) as engine:
        schema.upgrade(engine)
        assert [wanted(said) for said in told(caplog)] == [
            "GRANT USAGE ON SCHEMA extensions TO searchapp_reader",
            "GRANT USAGE ON SCHEMA extensions TO searchapp_owner",
        ]
        execute(empty_url, *map(wanted, told(caplog)))
        caplog.clear()
        schema.upgrade(engine)
        assert told(caplog) == []
