"""Sources without triggers, whose changes are found by a column that grows."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest
from psycopg import sql as composing
from sqlalchemy import Engine

from searchapp import database
from searchapp.sources import backfill, catalog, polling
from searchapp.sources.polling import Poller
from searchapp.sources.session import open_session
from tests.sources import SQL, QuickRegistry, keep, keys, long_ago, stored, value

NOTES = """
CREATE TABLE public.notes (id int PRIMARY KEY, body text, updated_at {kind} DEFAULT {now});
INSERT INTO public.notes (id, body) SELECT n, 'text ' || n FROM generate_series(1, 5) n;
"""
ADD = "SELECT searchapp.add_source('notes', 'public.notes', '{id}', '{body}', poll => 'updated_at')"
WAITING = "SELECT coalesce(array_agg(key ORDER BY id), '{}') FROM searchapp_data.changes"


@pytest.fixture
def notes(sql: SQL, engine: Engine, quick: QuickRegistry) -> SQL:
    make(sql)
    keep(engine, quick)
    return sql


def make(sql: SQL, kind: str = "timestamptz", now: str = "clock_timestamp()") -> None:
    sql.execute(composing.SQL(NOTES).format(kind=composing.SQL(kind), now=composing.SQL(now)))
    sql.execute(ADD)


@pytest.mark.parametrize(
    ("kind", "now"),
    [
        ("timestamptz", "clock_timestamp()"),
        ("timestamp", "clock_timestamp()"),
        ("timestamp(3)", "clock_timestamp()"),
        ("bigint", "nextval('public.versions')"),
        ("numeric(20, 4)", "nextval('public.versions') / 7.0"),
        ("public.version", "nextval('public.versions')"),
    ],
)
def test_changes_are_found_by_any_column_that_grows(
    sql: SQL, engine: Engine, quick: QuickRegistry, kind: str, now: str
) -> None:
    sql.execute("CREATE SEQUENCE public.versions; CREATE DOMAIN public.version AS int")
    make(sql, kind, now)
    assert keep(engine, quick) == 5
    assert value(sql, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'public.notes'::regclass") == 0
    sql.execute("INSERT INTO public.notes (id, body) VALUES (6, 'text 6')")
    sql.execute("UPDATE public.notes SET body = 'another text', updated_at = DEFAULT WHERE id = 2")
    assert keep(engine, quick) == 2
    assert stored(sql)[1] == ("2", None, "another text")
    assert len(keys(sql)) == 6
    sql.execute("SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Kathmandu'")
    sql.execute("UPDATE public.notes SET body = NULL, updated_at = DEFAULT WHERE id = 6")
    keep(engine, quick)
    assert len(keys(sql)) == 5


def test_columns_that_do_not_tell_changes_are_refused(sql: SQL) -> None:
    for kind in ("date", "text", "jsonb", "timestamptz[]"):
        with pytest.raises(psycopg.errors.DatatypeMismatch) as caught, sql.transaction():
            make(sql, kind, "NULL")
        assert (
            f"the column updated_at is of the type {kind.replace('timestamptz', 'timestamp with time zone')};"
            in str(caught.value)
        )


def test_deletions_are_found_by_the_comparison(notes: SQL, engine: Engine, quick: QuickRegistry) -> None:
    notes.execute("DELETE FROM public.notes WHERE id = 2")
    notes.execute("UPDATE public.notes SET id = 30, updated_at = DEFAULT WHERE id = 3")
    assert keep(engine, quick) == 1
    assert keys(notes) == ["1", "2", "3", "30", "4", "5"]
    long_ago(notes)
    assert keep(engine, quick) >= 2
    assert keys(notes) == ["1", "30", "4", "5"]
    notes.execute("TRUNCATE public.notes")
    long_ago(notes)
    keep(engine, quick)
    assert keys(notes) == []


def test_rows_without_a_time_are_found_by_the_comparison(notes: SQL, engine: Engine, quick: QuickRegistry) -> None:
    notes.execute("INSERT INTO public.notes VALUES (6, 'text 6', NULL)")
    assert keep(engine, quick) == 0
    long_ago(notes)
    keep(engine, quick)
    assert "6" in keys(notes)


def test_rows_of_the_far_future_hide_no_others(notes: SQL, engine: Engine, quick: QuickRegistry) -> None:
    notes.execute("INSERT INTO public.notes VALUES (6, 'text 6', 'infinity'), (7, 'text 7', '2999-01-01')")
    keep(engine, quick)
    notes.execute("INSERT INTO public.notes (id, body) VALUES (8, 'text 8')")
    keep(engine, quick)
    assert "8" in keys(notes)
    assert "6" not in keys(notes)
    long_ago(notes)
    keep(engine, quick)
    assert {"6", "7"} <= set(keys(notes))


def test_what_is_committed_late_is_found(notes: SQL, engine: Engine, quick: QuickRegistry) -> None:
    with psycopg.connect(notes.info.dsn) as late:
        late.execute("INSERT INTO public.notes VALUES (6, 'late', now())")
        notes.execute("INSERT INTO public.notes VALUES (7, 'later', now())")
        keep(engine, quick)
    assert keys(notes) == ["1", "2", "3", "4", "5", "7"]
    keep(engine, quick)
    assert "6" in keys(notes)


def test_what_is_committed_too_late_is_found_by_the_comparison(
    notes: SQL, engine: Engine, quick: QuickRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "OVERLAP_SECONDS", 0)
    with psycopg.connect(notes.info.dsn) as late:
        late.execute("INSERT INTO public.notes VALUES (6, 'late', now())")
        notes.execute("INSERT INTO public.notes VALUES (7, 'later', now())")
        keep(engine, quick)
        keep(engine, quick)
    assert keep(engine, quick) == 0
    long_ago(notes)
    keep(engine, quick)
    assert "6" in keys(notes)


def test_what_changes_before_the_first_reading_ends_is_found(
    sql: SQL, engine: Engine, quick: QuickRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the comparison that follows: it may have been committed late."""
    monkeypatch.setattr(backfill, "PAGE", 2)
    make(sql)
    with psycopg.connect(sql.info.dsn) as late:
        late.execute("UPDATE public.notes SET body = 'late', updated_at = now() WHERE id = 1")
        sql.execute("INSERT INTO public.notes (id, body) VALUES (6, 'text 6')")
        with open_session(engine) as session:
            source = only_source(engine)
            assert not backfill.advance(session, source)  # before it is polled
            Poller(session, source).advance(source)
            assert backfill.advance(session, source)
    keep(engine, quick)
    assert stored(sql)[0] == ("1", None, "late")


def test_the_place_moves_on(notes: SQL, engine: Engine, quick: QuickRegistry) -> None:
    place = "SELECT polled_until::timestamptz FROM searchapp_data.sources"
    latest = "SELECT max(updated_at) FROM public.notes"
    assert value(notes, place) == value(notes, latest)
    before = value(notes, latest)
    notes.execute("INSERT INTO public.notes (id, body) VALUES (6, 'text 6')")
    assert keep(engine, quick) == 1
    assert value(notes, place) == before
    notes.execute("UPDATE searchapp_data.sources SET polled_at = polled_at - interval '31 seconds'")
    assert keep(engine, quick) == 1  # once more: another process does not remember it
    assert value(notes, place) == value(notes, latest)
    assert keep(engine, quick) == 0


def test_the_overlap_is_put_into_the_log_once(notes: SQL, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "SECONDS", 0)
    monkeypatch.setattr(polling, "SHARE", 0)
    monkeypatch.setattr(polling, "PAGE", 2)
    source = only_source(engine)
    with open_session(engine) as session:
        poller = Poller(session, source)

        def polled() -> list[str]:
            while poller.advance(source):
                pass
            poller.advance(source)
            waiting: list[str] = value(notes, WAITING)
            notes.execute("DELETE FROM searchapp_data.changes")
            return waiting

        assert polled() == []
        notes.execute("UPDATE public.notes SET updated_at = now()")
        assert polled() == ["1", "2", "3", "4", "5"]
        assert polled() == []
        notes.execute("UPDATE public.notes SET updated_at = clock_timestamp() WHERE id IN (2, 3)")
        assert sorted(polled()) == ["2", "3"]
        assert polled() == []
        assert poller._at is not None
        poller._at -= timedelta(seconds=31)
        assert polled() == []
        notes.execute("UPDATE public.notes SET updated_at = clock_timestamp() WHERE id = 4")
        assert polled() == ["4"]


def test_no_more_waits_than_may(notes: SQL, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "WAITING", 4)
    monkeypatch.setattr(polling, "PAGE", 2)
    notes.execute("UPDATE public.notes SET updated_at = now()")
    source = only_source(engine)
    with open_session(engine) as session:
        poller = Poller(session, source)
        assert [poller.advance(source) for _ in range(4)] == [True, True, False, False]
        assert value(notes, WAITING) == ["1", "2", "3", "4"]
        notes.execute("DELETE FROM searchapp_data.changes")
        assert poller.advance(source)
        assert value(notes, WAITING) == ["5"]


def test_a_view_is_kept_in_step(sql: SQL, engine: Engine, quick: QuickRegistry) -> None:
    sql.execute(
        "CREATE TABLE public.authors (id uuid PRIMARY KEY, name text, at timestamptz DEFAULT clock_timestamp());"
        "CREATE TABLE public.books (isbn text PRIMARY KEY, author uuid, name text,"
        " at timestamptz DEFAULT clock_timestamp());"
        "CREATE VIEW public.shelf AS SELECT a.id AS author, b.isbn, b.name || ' by ' || a.name AS body,"
        " greatest(a.at, b.at) AS at FROM public.authors a JOIN public.books b ON b.author = a.id;"
        "INSERT INTO public.authors VALUES ('00000000-0000-0000-0000-000000000001', 'Ann');"
        "INSERT INTO public.books SELECT 'b,' || n, '00000000-0000-0000-0000-000000000001', 'book ' || n"
        " FROM generate_series(1, 3) n;"
        "SELECT searchapp.add_source('shelf', 'public.shelf', '{author,isbn}', '{body}', poll => 'at')"
    )
    assert keep(engine, quick) == 3
    sql.execute("UPDATE public.authors SET name = 'Bea', at = DEFAULT")
    assert keep(engine, quick) == 3
    assert stored(sql)[0] == ('{00000000-0000-0000-0000-000000000001,"b,1"}', None, "book 1 by Bea")
    sql.execute("DELETE FROM public.books WHERE isbn = 'b,2'")
    long_ago(sql)
    keep(engine, quick)
    assert len(keys(sql)) == 2


def test_a_table_of_another_server_is_kept_in_step(
    sql: SQL, engine: Engine, quick: QuickRegistry, server: database.Parameters
) -> None:
    sql.execute(
        "CREATE SCHEMA there; CREATE TABLE there.notes (id int PRIMARY KEY, body text,"
        " updated_at timestamptz DEFAULT clock_timestamp());"
        "INSERT INTO there.notes SELECT n, 'text ' || n FROM generate_series(1, 5) n; CREATE EXTENSION postgres_fdw"
    )
    options = composing.SQL(", ").join(
        composing.SQL("{} {}").format(composing.Identifier(name), composing.Literal(str(given)))
        for name, given in {**server, "dbname": sql.info.dbname}.items()
        if name in ("host", "port", "dbname")
    )
    sql.execute(composing.SQL("CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({})").format(options))
    role = f"searchapp_asker_{sql.info.dbname}"  # such a role may come in by a password
    for statement in (
        "CREATE ROLE {role} LOGIN PASSWORD 'secret'",
        "GRANT USAGE ON SCHEMA there TO {role}",
        "GRANT SELECT ON there.notes TO {role}",
        "CREATE USER MAPPING FOR CURRENT_USER SERVER elsewhere OPTIONS (user {name}, password 'secret')",
    ):
        parts = {"role": composing.Identifier(role), "name": composing.Literal(role)}
        sql.execute(composing.SQL(statement).format(**parts))
    sql.execute("IMPORT FOREIGN SCHEMA there FROM SERVER elsewhere INTO public")
    sql.execute(ADD)
    assert keep(engine, quick) == 5
    sql.execute("UPDATE there.notes SET body = 'another text', updated_at = DEFAULT WHERE id = 2")
    assert keep(engine, quick) == 1
    assert stored(sql)[1] == ("2", None, "another text")
    sql.execute("DELETE FROM there.notes WHERE id = 4")
    long_ago(sql)
    keep(engine, quick)
    assert keys(sql) == ["1", "2", "3", "5"]
    sql.execute(composing.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(composing.Identifier(role)))


def test_a_resumed_source_is_polled_by_its_column_as_it_is_now(
    notes: SQL, engine: Engine, quick: QuickRegistry
) -> None:
    notes.execute("SELECT searchapp.pause_source('notes')")
    notes.execute(
        "ALTER TABLE public.notes ALTER updated_at DROP DEFAULT,"
        " ALTER updated_at TYPE bigint USING extract(epoch FROM updated_at)"
    )
    notes.execute("UPDATE public.notes SET body = 'another text' WHERE id = 2")
    notes.execute("SELECT searchapp.resume_source('notes')")
    keep(engine, quick)
    assert stored(notes)[1] == ("2", None, "another text")
    notes.execute("UPDATE public.notes SET body = 'a third', updated_at = updated_at + 10 WHERE id = 3")
    keep(engine, quick)
    assert stored(notes)[2] == ("3", None, "a third")


def only_source(engine: Engine) -> catalog.Source:
    with engine.connect() as connection:
        (source,) = catalog.running(connection)
    return source
