"""Forward, backward, offline, and compared with the models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

import searchapp
from searchapp import database, errors, schema
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from tests.conftest import ROOT, Run
from tests.migration.conftest import TABLES, as_role, execute, scalar, tables


def program(url: str, name: str) -> Path:
    """One of the server's own programs."""
    return Path(scalar(url, "SELECT setting FROM pg_config WHERE name = 'BINDIR'"), name)


def dump(url: str) -> list[str]:
    """All that stands in a database but for rows, as pg_dump writes it, and the version's row."""
    command = [str(program(url, "pg_dump")), "--schema-only", url]
    written = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    # \restrict bears a random word, different every time
    lines = [line for line in written if line and not line.startswith(("--", r"\restrict", r"\unrestrict"))]
    version = scalar(url, "SELECT to_regclass('searchapp_data.alembic_version')::text")
    return lines + [str(row) for row in execute(url, f"SELECT * FROM {version}")] if version else lines


def psql(url: str, script: str, role: str = "searchapp") -> None:
    address = as_role(url, role)
    command = [str(program(url, "psql")), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", address]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    # that only a superuser makes the extension dblink
    complaints = [line for line in done.stderr.splitlines() if "goes on without the extension dblink" not in line]
    assert (done.returncode, complaints) == (0, [])


def alembic(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "alembic", *arguments]
    environment = {**os.environ, "DATABASE_URL": url}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_the_code_is_written_for_the_last_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.folder()))
    assert ScriptDirectory.from_config(config).get_heads() == [database.REVISION]


def test_an_empty_database_is_migrated_once(empty: Engine, empty_url: str) -> None:
    assert schema.current(empty) is None
    assert schema.upgrade(empty) is None
    assert schema.current(empty) == database.REVISION
    assert tables(empty_url) == TABLES
    assert schema.upgrade(empty) == database.REVISION


def test_downgrade_takes_all_tables_and_leaves_the_extension(empty: Engine, empty_url: str) -> None:
    schema.upgrade(empty)
    first = dump(empty_url)
    schema.downgrade(empty, "base")
    assert schema.current(empty) is None
    assert tables(empty_url) == set()
    assert scalar(empty_url, "SELECT count(*) FROM pg_extension WHERE extname = 'vector'") == 1
    assert schema.upgrade(empty) is None
    assert dump(empty_url) == first


def test_downgrade_takes_what_is_stored(db: Client, engine: Engine, url: str) -> None:
    db.ingest([{"key": "a", "text": "A cat"}], collection="things")
    schema.downgrade(engine, "base")
    assert tables(url) == set()
    schema.upgrade(engine)
    assert tables(url) == TABLES


def test_downgrade_takes_triggers_off_the_tables_of_users(engine: Engine, url: str) -> None:
    execute(url, "CREATE TABLE public.notes (id int PRIMARY KEY, body text)")
    execute(url, "CREATE TABLE public.parts (id int PRIMARY KEY, body text) PARTITION BY LIST (id)")
    execute(url, "CREATE TABLE public.part PARTITION OF public.parts FOR VALUES IN (1)")
    for name in ("notes", "parts"):
        execute(url, f"SELECT searchapp.add_source('{name}', 'public.{name}', '{{id}}', '{{body}}')")
    execute(url, "ALTER TABLE public.notes RENAME TO renamed")
    schema.downgrade(engine, "0007")
    assert scalar(url, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 0
    assert scalar(url, "SELECT count(*) FROM pg_proc WHERE proname ~ '^source_'") == 0
    execute(url, "INSERT INTO public.renamed VALUES (1, 'x'); INSERT INTO public.parts VALUES (1, 'x')")
    schema.upgrade(engine)
    assert execute(url, "SELECT * FROM searchapp.sources") == []


def test_what_was_stored_before_declared_fields_is_found_afterwards(db: Client, engine: Engine, url: str) -> None:
    db.ingest([{"key": "a", "text": "A cat", "metadata": {"year": 2020}}], collection="things")
    known = "SELECT count(*) FROM pg_stats WHERE tablename = 'documents' AND attname = 'id' AND inherited"
    schema.downgrade(engine, "0001")
    with searchapp.connect(url) as early, pytest.raises(errors.NotMigrated, match="stands at migration 0001"):
        early.search("a cat", collection="things")
    execute(url, "DELETE FROM pg_statistic WHERE stainherit")
    assert scalar(url, known) == 0
    schema.upgrade(engine)
    assert scalar(url, known) == 1
    with searchapp.connect(url) as again:
        again.add_field("things", "year", "number")
        assert [hit.key for hit in again.search("a cat", collection="things", filter={"year": {"$gte": 2020}})] == ["a"]


def test_words_stored_before_their_counts_are_counted(db: Client, engine: Engine, url: str) -> None:
    db.ingest([{"key": "a", "text": "A cat and a dog"}, {"key": "b", "text": "A cat"}], collection="things")
    counts = "SELECT collection_id, term, documents FROM searchapp_data.term_counts ORDER BY term"
    before = execute(url, counts)
    schema.downgrade(engine, "0003")
    schema.upgrade(engine)
    assert execute(url, counts) == before == [(1, "cat", 2), (1, "dog", 1)]
    with searchapp.connect(url) as again:
        assert [hit.key for hit in again.search("dog", collection="things", mode="text")] == ["a"]


def test_a_migrated_database_has_no_differences(engine: Engine) -> None:
    assert schema.differences(engine) == []


def test_partitions_and_their_indexes_are_no_differences(db: Client, engine: Engine) -> None:
    db.ingest([{"key": "a", "text": "A cat"}], collection="things")
    assert schema.differences(engine) == []


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("ALTER TABLE searchapp_data.collections ADD note text", "remove column collections.note"),
        ("ALTER TABLE searchapp_data.documents DROP COLUMN title", "add column documents.title"),
        ("ALTER TABLE searchapp_data.documents ALTER COLUMN text DROP NOT NULL", "modify nullable documents.text"),
        ("ALTER TABLE searchapp_data.spaces ALTER COLUMN ef_search SET DEFAULT 7", "modify default spaces.ef_search"),
        ("ALTER TABLE searchapp_data.chunks ALTER COLUMN embedding TYPE text", "modify type chunks.embedding"),
        ("ALTER TABLE searchapp_data.spaces DROP CONSTRAINT spaces_state_check", "add constraint spaces_state_check"),
        ("ALTER TABLE searchapp_data.spaces DROP CONSTRAINT spaces_model_id_fkey", "add fk spaces_model_id_fkey"),
        ("DROP INDEX searchapp_data.documents_key_idx", "add index documents_key_idx"),
        ("CREATE TABLE searchapp_data.extra (id int)", "remove table extra"),
    ],
)
def test_a_change_by_hand_is_a_difference(engine: Engine, url: str, change: str, difference: str) -> None:
    execute(url, change)
    assert schema.differences(engine) == [difference]


def test_tables_of_others_are_no_differences(engine: Engine, url: str) -> None:
    execute(url, "CREATE TABLE public.documents (id int)", "CREATE SCHEMA shop", "CREATE TABLE shop.chunks (id int)")
    assert schema.differences(engine) == []


def test_alembic_itself_does_the_same(empty_url: str) -> None:
    assert alembic(empty_url, "upgrade", "head").returncode == 0
    assert tables(empty_url) == TABLES
    done = alembic(empty_url, "check")
    assert (done.returncode, done.stdout) == (0, "No new upgrade operations detected.\n")
    execute(empty_url, "ALTER TABLE searchapp_data.collections ADD note text")
    done = alembic(empty_url, "check")
    assert done.returncode != 0
    assert "note" in done.stdout + done.stderr


def test_sql_for_an_administrator_makes_the_same_schema(run: Run, empty: Engine, empty_url: str, url: str) -> None:
    nowhere = {"DATABASE_URL": "host=nowhere.invalid"}  # nothing is connected to
    upgrade, downgrade = (
        run("db", "upgrade", "--sql", **nowhere),
        run("db", "downgrade", f"{database.REVISION}:base", "--sql", **nowhere),
    )
    assert (upgrade.returncode, upgrade.stderr, downgrade.returncode, downgrade.stderr) == (0, "", 0, "")
    online = dump(url)
    psql(empty_url, upgrade.stdout)
    assert dump(empty_url) == online
    assert schema.differences(empty) == []
    psql(empty_url, downgrade.stdout)
    schema.downgrade(engine := database.create_engine(database.parse_url(url)), "base")
    engine.dispose()
    assert dump(empty_url) == dump(url)
    psql(empty_url, upgrade.stdout)
    assert dump(empty_url) == online


def test_sql_takes_an_extension_that_is_there(empty: Engine, empty_url: str, registry: Registry) -> None:
    execute(empty_url, "CREATE SCHEMA extensions", "CREATE EXTENSION vector SCHEMA extensions")
    psql(empty_url, schema.script("head"))
    assert schema.differences(empty) == []
    Client(empty, registry=registry).create_collection("things")


def test_a_teams_own_version_table_is_neither_read_nor_written(empty: Engine, empty_url: str) -> None:
    execute(
        empty_url,
        "CREATE TABLE public.alembic_version (version_num varchar(32) PRIMARY KEY)",
        "INSERT INTO public.alembic_version VALUES ('9999')",
    )
    assert schema.upgrade(empty) is None
    assert schema.differences(empty) == []
    schema.downgrade(empty, "base")
    psql(empty_url, schema.script("head"))
    assert schema.current(empty) == database.REVISION
    assert execute(empty_url, "SELECT * FROM public.alembic_version") == [("9999",)]


@pytest.mark.parametrize("revision", ["nonsense", "0001:base", "+7"])
def test_a_revision_that_does_not_exist_is_refused(engine: Engine, revision: str) -> None:
    for migrate in (schema.upgrade, schema.downgrade):
        with pytest.raises(errors.InvalidInput, match="see: searchapp db current") as caught:
            migrate(engine, revision)
        assert "\n" not in str(caught.value)
    assert schema.current(engine) == database.REVISION


@pytest.mark.parametrize(("revision", "downgrade"), [("nonsense", False), ("base", True), ("nonsense:base", True)])
def test_sql_for_a_revision_that_does_not_exist_is_refused(revision: str, downgrade: bool) -> None:
    with pytest.raises(errors.InvalidInput):
        schema.script(revision, downgrade=downgrade)
