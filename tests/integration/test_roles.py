"""A reader, a writer and a member of the owner: what each may do, what none may, and what they are told."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from searchapp import database, errors, schema, spaces
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from tests.acceptance.test_eval_command import write
from tests.conftest import Run

MODEL = "all-MiniLM-L6-v2"
DOCUMENTS = [
    {"key": "cat", "text": "A cat purrs and licks its paws", "metadata": {"legs": 4}},
    {"key": "dog", "text": "A dog barks at the postman", "metadata": {"legs": 4}},
    {"key": "ship", "text": "The vessel sails across the ocean", "metadata": {"legs": 0}},
]
ASKING: dict[str, Callable[[Client], Any]] = {
    "search": lambda db: db.search("a cat purrs", collection="things"),
    "search by words": lambda db: db.search('"cat purrs" -dog', collection="things", mode="text", highlight=True),
    "search by meaning": lambda db: db.search("a cat", collection="things", mode="vector", filter={"legs": 4}),
    "search exactly": lambda db: db.search("a cat", collection="things", exact=True, timeout=60),
    "search_many": lambda db: db.search_many(["a cat", "a dog"], collection="things"),
    "similar": lambda db: db.similar("dog", collection="things"),
    "search_by_examples": lambda db: db.search_by_examples("dog", collection="things"),
    "facets": lambda db: db.facets("legs", collection="things"),
    "facets of hits": lambda db: db.facets("legs", collection="things", query="a cat"),
    "context": lambda db: db.context("a cat", collection="things").text,
    "get": lambda db: db.get("cat", collection="things"),
    "count": lambda db: db.count(collection="things", filter={"legs": 4}),
    "space": lambda db: db.space("things"),
    "describe": lambda db: db.describe("things"),
    "collections": lambda db: db.collections(),
}
WRITING: dict[str, Callable[[Client], Any]] = {
    "ingest": lambda db: db.ingest([{"key": "new", "text": "A new one"}], collection="things"),
    "ingest into a new collection": lambda db: db.ingest(DOCUMENTS, collection="others"),
    "replace": lambda db: db.ingest([{"key": "cat", "text": "Another cat"}], collection="things"),
    "relabel": lambda db: db.ingest([DOCUMENTS[0] | {"metadata": {"legs": 3}}], collection="things"),
    "prune": lambda db: db.ingest(DOCUMENTS[:2], collection="things", prune=True),
    "delete": lambda db: db.delete(["cat"], collection="things"),
    "create_collection": lambda db: db.create_collection("others"),
    "make_words": lambda db: db.make_words("things"),
    "tune": lambda db: db.tune("things"),
    "drop_collection": lambda db: db.drop_collection("things"),
}
OWNING: dict[str, Callable[[Client], Any]] = {
    "add_field": lambda db: db.add_field("things", "age", "number"),
    "drop_field": lambda db: db.drop_field("things", "legs"),
    "maintain": lambda db: db.maintain(),
}
OURS = """
WITH ours AS (SELECT oid FROM pg_namespace WHERE nspname IN ('searchapp', 'searchapp_data', 'searchapp_private'))
"""
# What is of an extension that stands there belongs to whoever created that.
EXTENSIONS = "(SELECT objid FROM pg_depend WHERE deptype = 'e')"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def people(server: database.Parameters, template: str) -> dict[str, str]:
    """Roles that log in, by the role of ours that each is a member of; and ``nobody``."""
    names = {role: f"{role}_{next(_numbers)}" for role in ("reader", "writer", "owner", "nobody")}
    with psycopg.connect(**{**server, "dbname": template}, autocommit=True) as connection:
        for role, name in names.items():
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
            if role != "nobody":
                grant = sql.SQL("GRANT {} TO {}")
                connection.execute(grant.format(sql.Identifier(f"searchapp_{role}"), sql.Identifier(name)))
    return names


@contextmanager
def acting(url: str, role: str, registry: Registry) -> Iterator[Client]:
    """A handle that connects as a role."""
    engine = database.create_engine({**database.parse_url(url), "user": role})
    try:
        yield Client(engine, registry=registry)
    finally:
        engine.dispose()


def connect(url: str, role: str) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(**{**database.parse_url(url), "user": role}, autocommit=True)


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    """What the superuser is answered."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def everything(url: str) -> list[tuple[Any, ...]]:
    """All that is stored, but for statistics, and all tables."""
    contents = [
        row
        for table in ("collections", "spaces", "models", "documents", "chunks", "postings", "runs", "alembic_version")
        for row in rows(url, f"SELECT '{table}', to_jsonb(t) - 'documents' FROM searchapp_data.{table} t ORDER BY 2")
    ]
    return contents + rows(url, f"{OURS} SELECT relname FROM pg_class JOIN ours ON relnamespace = ours.oid ORDER BY 1")


@pytest.fixture
def things(db: Client) -> Client:
    """A handle of the superuser on a collection with words, an index and a declared field."""
    db.ingest(DOCUMENTS, collection="things")
    db.add_field("things", "legs", "number")
    return db


@pytest.mark.usefixtures("things")
def test_all_belongs_to_the_owner_and_nothing_is_everybodys(url: str) -> None:
    assert set(
        rows(
            url,
            f"{OURS} SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE oid IN (SELECT oid FROM ours)"
            " UNION ALL SELECT pg_get_userbyid(relowner) FROM pg_class JOIN ours ON relnamespace = ours.oid"
            f" WHERE reltype NOT IN {EXTENSIONS}"
            " UNION ALL SELECT pg_get_userbyid(proowner) FROM pg_proc p JOIN ours ON pronamespace = ours.oid"
            f" WHERE p.oid NOT IN {EXTENSIONS}",
        )
    ) == {("searchapp_owner",)}
    acls = (
        "SELECT nspacl AS acl FROM pg_namespace WHERE oid IN (SELECT oid FROM ours)"
        " UNION ALL SELECT relacl FROM pg_class JOIN ours ON relnamespace = ours.oid"
        " UNION ALL SELECT coalesce(proacl, acldefault('f', proowner))"
        " FROM pg_proc JOIN ours ON pronamespace = ours.oid"
    )
    public = f"{OURS}, acls AS ({acls}) SELECT count(*) FROM acls, aclexplode(acl) WHERE grantee = 0"
    assert rows(url, public) == [(0,)]
    flags = "SELECT rolsuper OR rolcanlogin OR rolcreaterole OR rolcreatedb OR rolbypassrls FROM pg_roles"
    named = "rolname IN ('searchapp_reader', 'searchapp_writer', 'searchapp_owner')"
    assert rows(url, f"{flags} WHERE {named}") == [(False,)] * 3


def test_functions_have_a_fixed_search_path_and_a_comment(url: str) -> None:
    without = rows(
        url,
        f"{OURS} SELECT p.oid::regprocedure::text FROM pg_proc p JOIN ours ON p.pronamespace = ours.oid"
        " WHERE p.prosecdef AND NOT 'search_path=pg_catalog, pg_temp' = ANY(coalesce(p.proconfig, '{}'))"
        f" AND p.oid NOT IN {EXTENSIONS}",
    )
    assert without == []
    silent = rows(
        url,
        f"{OURS} SELECT p.proname FROM pg_proc p JOIN ours ON p.pronamespace = ours.oid"
        f" WHERE obj_description(p.oid, 'pg_proc') IS NULL AND p.oid NOT IN {EXTENSIONS} ORDER BY 1",
    )
    assert silent == [("has_phrase",), ("slices",)]  # of before


def test_a_reader_is_answered_what_the_owner_is(
    things: Client, url: str, people: dict[str, str], registry: Registry, run: Run
) -> None:
    with acting(url, people["reader"], registry) as reader:
        for name, ask in ASKING.items():
            assert _comparable(ask(reader)) == _comparable(ask(things)), name
        assert reader.explain("a cat", collection="things").rung == things.explain("a cat", collection="things").rung
        engine = reader._engine
        assert engine is not None
        assert (schema.current(engine), schema.differences(engine)) == (database.REVISION, [])
    address = database.conninfo({**database.parse_url(url), "user": people["reader"]})
    done = run("search", "a cat purrs", "-c", "things", "--jsonl", "--limit", "1", DATABASE_URL=address)
    assert json.loads(done.stdout)["key"] == "cat"


def _comparable(answer: Any) -> Any:
    """An answer without how long it took."""
    if isinstance(answer, str) or not isinstance(answer, Sequence):
        return answer
    return [_comparable(each) for each in answer]


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize("role", ["reader", "nobody"])
def test_who_may_not_write_is_told_the_role_that_may(
    url: str, people: dict[str, str], registry: Registry, role: str
) -> None:
    before = everything(url)
    lacking = people[role]
    with acting(url, lacking, registry) as other:
        for calls, needed in ((WRITING, "searchapp_writer"), (OWNING, "searchapp_owner")):
            for name, act in calls.items():
                with pytest.raises(errors.PermissionDenied) as caught:
                    pytest.fail(f"{name} gave {act(other)}")
                said = str(caught.value)
                assert said.endswith(f"; this needs the role {needed} (GRANT {needed} TO {lacking})"), name
                assert said.startswith(("permission denied for ", "must be owner of ")), name
                assert "\n" not in said
        if role == "nobody":
            for name, ask in ASKING.items():
                with pytest.raises(errors.PermissionDenied, match="needs the role searchapp_reader"):
                    pytest.fail(f"{name} gave {ask(other)}")
    assert everything(url) == before


@pytest.mark.usefixtures("things")
def test_a_caller_is_told_the_role_too(url: str, people: dict[str, str], registry: Registry) -> None:
    with acting(url, people["reader"], registry) as reader:
        assert reader._engine is not None
        with reader._engine.connect() as connection:
            ours = Client(connection=connection, registry=registry)
            with pytest.raises(errors.PermissionDenied, match="needs the role searchapp_writer"):
                ours.ingest([{"key": "new", "text": "A new one"}], collection="things")


@pytest.mark.usefixtures("things")
def test_a_command_says_the_role_in_one_line(url: str, people: dict[str, str], run: Run) -> None:
    address = database.conninfo({**database.parse_url(url), "user": people["reader"]})
    for command, role in (
        (("collection", "create", "others"), "searchapp_writer"),
        (("delete", "cat", "-c", "things"), "searchapp_writer"),
        (("collection", "field", "add", "things", "age:number"), "searchapp_owner"),
        (("db", "downgrade", "base"), "searchapp_owner"),
    ):
        done = run(*command, DATABASE_URL=address)
        assert (done.returncode, done.stdout) == (2, "")
        grant = f"this needs the role {role} (GRANT {role} TO {people['reader']})"
        assert done.stderr.startswith("searchapp: error: ")
        assert done.stderr.endswith(f"; {grant}\n")
        assert done.stderr.count("\n") == 1


FOR_NO_READER = [
    "INSERT INTO searchapp_data.models (name, provider, revision, dimensions, max_tokens) VALUES ('m', 'p', '', 3, 0)",
    "UPDATE searchapp_data.documents SET text = 'x'",
    "UPDATE searchapp_data.collections SET state = 'retired'",
    "DELETE FROM searchapp_data.chunks",
    "SELECT FROM searchapp_data.documents FOR UPDATE",
    "DO 'BEGIN LOCK TABLE searchapp_data.documents IN SHARE MODE; END'",
    "SELECT searchapp_data.create_collection('others', NULL, '{}', 1, '{\"tokens\": 0, \"overlap\": 0}')",
    "SELECT searchapp_data.build_index(1)",
    "SELECT searchapp_data.give_words(1, 'simple')",
]
FOR_NO_WRITER = [
    "TRUNCATE searchapp_data.documents",
    "DROP TABLE searchapp_data.runs",
    "ALTER TABLE searchapp_data.documents ADD note text",
    "ALTER TABLE searchapp_data.documents DETACH PARTITION searchapp_data.documents_1",
    "CREATE INDEX ON searchapp_data.documents_1 (title)",
    "CREATE TRIGGER t BEFORE INSERT ON searchapp_data.documents EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE TABLE searchapp_data.mine (id int)",
    "CREATE TABLE searchapp.mine (id int)",
    "CREATE VIEW searchapp.mine AS SELECT 1",
    "CREATE FUNCTION searchapp_data.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION searchapp_data.build_index(space_id int) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    "UPDATE searchapp_data.alembic_version SET version_num = '0001'",
    "INSERT INTO searchapp_data.collections (name) VALUES ('search')",
    "UPDATE searchapp_data.collections SET name = 'search'",
    "UPDATE searchapp_data.spaces SET model_id = 2",
    "DELETE FROM searchapp_data.spaces",
    "UPDATE searchapp_data.models SET dimensions = 7",
    "SELECT FROM searchapp_data.documents_1",
    "UPDATE searchapp_data.chunks_1 SET start = 7",
    "SELECT searchapp_private.make_partition('documents', 7)",
    "SELECT searchapp_private.check_language('english')",
    "CREATE TABLE searchapp_private.mine (id int)",
    "GRANT searchapp_owner TO CURRENT_USER",
    "SET ROLE searchapp_owner",
    "ALTER ROLE searchapp_reader LOGIN",
]


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize(("role", "statements"), [("reader", FOR_NO_READER + FOR_NO_WRITER), ("writer", FOR_NO_WRITER)])
def test_statements_of_those_who_may_not_are_refused(
    url: str, people: dict[str, str], role: str, statements: list[str]
) -> None:
    before = everything(url)
    with connect(url, people[role]) as connection:
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                pytest.fail(f"{statement} gave {connection.execute(statement.encode()).statusmessage}")
    assert everything(url) == before


def test_a_writer_does_all_that_a_reader_and_a_writer_do(
    url: str, people: dict[str, str], registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with acting(url, people["writer"], registry) as writer:
        done = writer.ingest(DOCUMENTS, collection="things")
        assert (done.documents, writer.describe("things").indexed) == (3, True)
        assert (writer.space("things").chunks, writer.space("things").chunks_per_document) == (3, 1)
        assert writer.search("a cat purrs", collection="things").complete
        assert writer.ingest([DOCUMENTS[0] | {"text": "Another cat"}], collection="things").chunks == 1
        assert writer.ingest([DOCUMENTS[1] | {"metadata": {"legs": 3}}], collection="things").chunks == 0
        assert writer.count(collection="things", filter={"legs": 3}) == 1
        assert writer.delete(["ship"], collection="things") == 1
        assert writer.ingest(DOCUMENTS, collection="things").documents == 3
        assert writer.ingest(DOCUMENTS[:2], collection="things", prune=True).pruned == 1
        writer.ingest(DOCUMENTS, collection="wordless", words=False)
        assert writer.make_words("wordless", language="english") == 3
        assert writer.search("barks", collection="wordless", mode="text")[0].key == "dog"
        assert writer.tune("wordless").chosen.recall == 1
        labelled = write(tmp_path / "set")
        runs = [writer.evaluate(labelled, mode=mode).run for mode in ("text", "vector")]
        assert writer.compare(*runs).queries == 5
        writer.create_collection("others", language=None, words=False)
        vectors = registry.encoder(MODEL).encode_documents([str(document["text"]) for document in DOCUMENTS])
        writer.load_vectors(DOCUMENTS, vectors, collection="others", model=MODEL)
        for name, ask in ASKING.items():
            assert ask(writer) is not None, name
        assert writer._engine is not None
        with writer._engine.begin() as connection:  # within a caller's transaction
            Client(connection=connection, registry=registry).ingest(DOCUMENTS, collection="in_a_transaction")
        assert caplog.messages == []
        with caplog.at_level(logging.INFO, "searchapp"):
            writer.drop_collection("things")
        said = "the collection is gone; its room is given back by the owner's: searchapp db maintain"
        assert caplog.messages == [said]
        writer.ingest(DOCUMENTS, collection="things")  # of the same name
        with pytest.raises(errors.PermissionDenied, match=r"must be owner of .*; this needs the role searchapp_owner"):
            writer.maintain()
    owners = f"{OURS} SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class JOIN ours ON relnamespace = ours.oid"
    owners += f" WHERE reltype NOT IN {EXTENSIONS}"
    assert rows(url, owners) == [("searchapp_owner",)]
    with acting(url, people["owner"], registry) as owner:
        assert owner.maintain().dropped == 2
        assert owner.count(collection="things") == 3


def test_a_writer_vacuums_and_analyses_what_it_made(url: str, people: dict[str, str], registry: Registry) -> None:
    if rows(url, "SELECT current_setting('server_version_num')::int < 170000") == [(True,)]:
        pytest.skip("MAINTAIN exists from PostgreSQL 17 on")
    with acting(url, people["writer"], registry) as writer:
        writer.ingest(DOCUMENTS, collection="things")
        space = writer.space("things")
    postings = f"'searchapp_data.postings_{space.collection_id}'::regclass"
    assert rows(url, f"SELECT pg_stat_get_vacuum_count({postings})") == [(1,)]
    analysed = "SELECT DISTINCT tablename FROM pg_stats WHERE schemaname = 'searchapp_data' AND tablename ~ '_[0-9]+$'"
    tables = {f"documents_{space.collection_id}", f"postings_{space.collection_id}", f"chunks_{space.id}"}
    assert {name for (name,) in rows(url, analysed)} == tables
    known = "SELECT count(*) FROM pg_stats WHERE tablename = 'documents' AND attname = 'id' AND inherited"
    assert rows(url, known) == [(1,)]


def test_a_writer_who_may_not_vacuum_or_analyse_writes_all_the_same(
    db: Client, url: str, people: dict[str, str], registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """As on PostgreSQL 16."""
    db.create_collection("things")
    if rows(url, "SELECT current_setting('server_version_num')::int >= 170000") == [(True,)]:
        with psycopg.connect(url) as connection:
            connection.execute("REVOKE MAINTAIN ON ALL TABLES IN SCHEMA searchapp_data FROM searchapp_writer")
    with acting(url, people["writer"], registry) as writer:
        assert writer.ingest(DOCUMENTS, collection="things").documents == 3
        assert writer.ingest(DOCUMENTS[:2], collection="things", prune=True).pruned == 1
        assert [hit.key for hit in writer.search("a cat purrs", collection="things", limit=1)] == ["cat"]
        assert writer.describe("things").indexed
    assert caplog.messages == []


@pytest.mark.usefixtures("things")
def test_a_member_of_the_owner_does_all(url: str, people: dict[str, str], registry: Registry) -> None:
    with psycopg.connect(url) as connection:  # what it takes to make schemas
        place = sql.Identifier(str(database.parse_url(url)["dbname"]))
        grant = sql.SQL("GRANT CREATE ON DATABASE {} TO {}")
        connection.execute(grant.format(place, sql.Identifier(people["owner"])))
    with acting(url, people["owner"], registry) as owner:
        for name in ("ingest", "replace", "delete", "create_collection", "tune"):
            WRITING[name](owner)
        owner.add_field("things", "age", "number")
        assert owner.count(collection="things", filter={"legs": {"$lt": 4}}) == 1
        owner.drop_field("things", "legs")
        owner.drop_collection("others")
        assert owner.maintain().dropped == 0  # nothing was left to do
        assert owner._engine is not None
        schema.downgrade(owner._engine, "0004")
        schema.upgrade(owner._engine)
        assert schema.differences(owner._engine) == []
        assert [hit.key for hit in owner.search("the ocean", collection="things", limit=1)] == ["ship"]
    test_all_belongs_to_the_owner_and_nothing_is_everybodys(url)


EVIL = [
    "x'); DROP TABLE searchapp_data.runs; --",
    'x"); DROP TABLE searchapp_data.runs; --',
    "x\\'; DROP TABLE searchapp_data.runs; --",
    "$$; DROP TABLE searchapp_data.runs; $$",
    "%s %I %L %1$s",
    "\u2019; DROP TABLE searchapp_data.runs; --",
    "A",
    "a\n",
    "ä",
    "a" * 52,
    "",
    None,
]
VALID: dict[str, Any] = {
    "name": "fine",
    "language": "english",
    "declared": {},
    "model_id": 1,
    "chunking": {"tokens": 10, "overlap": 1},
}
REFUSED: list[dict[str, Any]] = [
    *({"name": name} for name in (*EVIL, *spaces.RESERVED, "worker_status")),
    *({"language": language} for language in EVIL if language is not None),
    *({"language": language} for language in ("English", "pg_catalog.english", "nowhere.english")),
    *({"declared": {name: "number"}} for name in ("", "$gt", "a" * 201, "tab\t")),
    *({"declared": {"year": type_}} for type_ in (*EVIL, 7, ["number"])),
    *({"declared": declared} for declared in (["year"], "year", 7)),
    *({"model_id": model} for model in (0, -1, 4711, None)),
    *({"chunking": chunking} for chunking in (None, {"tokens": 10}, ["x"], "x", {"tokens": 10, "overlap": 1, "x": 1})),
    *({"chunking": {"tokens": tokens, "overlap": 0}} for tokens in (1.5, -1, "10", None)),
]


@pytest.mark.usefixtures("things")
def test_a_writer_cannot_make_anything_but_collections(url: str, people: dict[str, str]) -> None:
    before = everything(url)
    create = "SELECT searchapp_data.create_collection(%(name)s, %(language)s, %(declared)s, %(model_id)s, %(chunking)s)"
    with connect(url, people["writer"]) as connection:
        for changed in REFUSED:
            given = {**VALID, **changed}
            for name in ("declared", "chunking"):
                given[name] = None if given[name] is None else json.dumps(given[name])
            with pytest.raises(psycopg.errors.InvalidParameterValue):
                pytest.fail(f"{changed} gave {connection.execute(create, given).fetchall()}")
        for call in ("build_index(4711)", "build_index(NULL)", "give_words(4711, 'simple')", "give_words(1, NULL)"):
            with pytest.raises(psycopg.errors.InvalidParameterValue):
                connection.execute(f"SELECT searchapp_data.{call}".encode())
        too_wide = "INSERT INTO searchapp_data.models (name, provider, revision, dimensions, max_tokens)"
        row = connection.execute(f"{too_wide} VALUES ('wide', 'p', '', 2001, 0) RETURNING id".encode()).fetchone()
        assert row is not None
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="expected a model of 1 to 2,000"):
            connection.execute(create, {**VALID, "declared": None, "chunking": "{}", "model_id": row[0]})
    with psycopg.connect(url) as superuser:
        superuser.execute("DELETE FROM searchapp_data.models WHERE name = 'wide'")
    assert everything(url) == before


def test_objects_of_a_writer_do_not_stand_in_for_ours(things: Client, url: str, people: dict[str, str]) -> None:
    """A function with the owner's rights runs nothing that its caller has put into the way."""
    with connect(url, people["writer"]) as connection:
        for statement in (
            "CREATE TEMPORARY TABLE models (id int, dimensions int)",
            "CREATE TEMPORARY TABLE pg_ts_config (cfgname name, cfgnamespace oid)",
            "CREATE FUNCTION pg_temp.format(text, text) RETURNS text LANGUAGE sql AS 'SELECT (1/0)::text'",
            "CREATE FUNCTION pg_temp.quote_ident(name) RETURNS text LANGUAGE sql AS 'SELECT (1/0)::text'",
            "CREATE FUNCTION pg_temp.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT 1/0 = 1'",
            "CREATE OPERATOR pg_temp.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.same)",
            "CREATE TYPE pg_temp.jsonb AS (x int)",
            "SET search_path = pg_temp, pg_catalog, searchapp_data",
        ):
            connection.execute(statement.encode())
        chunking = '{"tokens": 0, "overlap": 0}'
        create = "SELECT searchapp_data.create_collection('others', 'english', '{}', 1, %s)"
        assert connection.execute(create, [chunking]).fetchone() != (None,)
    assert things.count(collection="others") == 0
