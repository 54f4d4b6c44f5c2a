"""``searchapp source``, ``searchapp status`` and what ``searchapp worker`` says of rows that failed, as processes."""

from __future__ import annotations

import doctest
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from searchapp import database
from searchapp.cli import source
from tests.acceptance.commands import call, error_of, run_all
from tests.conftest import Run
from tests.sources import SQL, QuickRegistry, keep, keys, value
from tests.workers import wait_for, working

PRODUCTS = """
CREATE TABLE public.products (
  id bigint PRIMARY KEY, name text, description text, price numeric(9, 2), changed timestamptz DEFAULT now(),
  embedding vector(384)
);
INSERT INTO public.products VALUES
  (1, 'Trainers', 'Light shoes for running', 79.90), (2, 'Tent', 'A tent for two people', 199), (3, 'Sample', NULL, 1);
"""
ADD = ("source", "add", "products", "--table", "public.products", "--key", "id", "--text", "description")
HERE = "SELECT searchapp.add_source('here', 'public.products', '{id}', '{description}', collection => 'there')"


@pytest.fixture
def sql(sql: SQL) -> SQL:
    sql.execute(PRODUCTS)
    return sql


def said(run: Run, *arguments: str) -> str:
    """What a call that goes well prints."""
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def table(text: str) -> list[list[str]]:
    """The cells of a table, its head first."""
    return [line.split() for line in text.splitlines()]


def test_a_source_is_added_looked_at_and_removed(run: Run, sql: SQL, engine: Engine, quick: QuickRegistry) -> None:
    assert said(run, "source", "list").startswith("no sources yet; add one: searchapp source add NAME")
    more = ("--title", "name", "--metadata", "price", "--where", "price < 1000")
    assert said(run, *ADD, *more) == (
        "added products: public.products is kept in the collection products; by: searchapp worker\n"
    )
    (listed,) = json.loads(said(run, "source", "list", "--json"))
    expected: dict[str, Any] = {"name": "products", "table": "public.products", "collection": "products", "key": ["id"]}
    assert expected.items() <= listed.items()
    assert (listed["where"], listed["state"], listed["metadata"]) == ("(price < (1000)::numeric)", "running", ["price"])
    assert "first reading" in said(run, "status")
    keep(engine, quick)
    status = json.loads(said(run, "source", "status", "products", "--json"))
    expected = {"pending": 0, "failed": 0, "backfilled": True, "oldest": None, "time_left": 0}
    assert status["workers"] == 0
    assert expected.items() <= status["sources"][0].items()
    assert said(run, "status").splitlines()[-1] == "0 workers alive; start one: searchapp worker"
    assert keys(sql) == ["1", "2"]
    assert said(run, "source", "remove", "products") == "removed products; the collection products stays\n"
    assert keys(sql) == ["1", "2"]
    assert value(sql, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 0
    said(run, *ADD, "--collection", "wares")
    keep(engine, quick)
    assert said(run, "source", "remove", "products", "--drop") == "removed products\ndropped wares\n"
    assert value(sql, "SELECT array_agg(name) FROM searchapp.collections") == ["products"]


def test_a_source_without_triggers_and_one_into_a_column(
    run: Run, sql: SQL, engine: Engine, quick: QuickRegistry
) -> None:
    said(run, *ADD, "--poll", "changed")
    vectors = ("source", "add", "vectors", "--table", "products", "--key", "id", "--text", "name,description")
    kept = said(run, *vectors, "--into", "embedding")
    assert kept == "added vectors: products is kept in the column embedding; by: searchapp worker\n"
    head, *rows = said(run, "source", "list").splitlines()
    assert head.split() == ["name", "table", "kept", "in", "watched", "by", "state"]
    assert "looks at changed" in rows[-2]
    assert "the column embedding" in rows[-1]
    keep(engine, quick)
    assert keys(sql) == ["1", "2"]
    assert value(sql, "SELECT count(embedding) FROM public.products") == 3
    assert said(run, "source", "remove", "vectors", "--drop") == "removed vectors\n"


def test_a_migration_may_change_what_is_watched_while_a_source_is_paused(
    run: Run, sql: SQL, engine: Engine, quick: QuickRegistry
) -> None:
    said(run, *ADD, "--metadata", "price")
    keep(engine, quick)
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        sql.execute("ALTER TABLE public.products ALTER price TYPE float8")
    assert said(run, "source", "pause", "products") == "paused products\n"
    assert said(run, "source", "pause", "products", "--drop-triggers") == "paused products, without triggers\n"
    sql.execute("ALTER TABLE public.products ALTER price TYPE float8")
    sql.execute("UPDATE public.products SET description = 'A lamp', price = 0.5 WHERE id = 3")
    assert "paused" in said(run, "status")
    assert said(run, "source", "resume", "products") == "resumed products\n"
    keep(engine, quick)
    assert value(sql, "SELECT metadata FROM searchapp_data.documents WHERE key = '3'") == {"price": 0.5}


def test_rows_that_fail_are_listed_and_tried_again(run: Run, sql: SQL, engine: Engine, quick: QuickRegistry) -> None:
    assert said(run, "worker", "failed") == "no row has failed\n"
    sql.execute("ALTER TABLE public.products ADD weight float8 DEFAULT 'NaN'")
    said(run, *ADD, "--metadata", "weight")
    keep(engine, quick)
    assert "NaN" in said(run, "worker", "failed")
    first, second = json.loads(said(run, "worker", "failed", "--source", "products", "--json"))
    assert (first["key"], second["key"], first["retry_at"], first["attempts"]) == ("1", "2", None, 1)
    assert table(said(run, "source", "status"))[-2][:5] == ["products", "running", "0", "0", "2"]
    assert said(run, "worker", "retry", "--source", "products") == "2 rows will be tried again by a worker\n"
    sql.execute("UPDATE public.products SET weight = 1 WHERE id = 1")
    keep(engine, quick)
    assert [each["key"] for each in json.loads(said(run, "worker", "failed", "--json"))] == ["2"]
    assert keys(sql) == ["1"]


def test_a_broken_source_says_why(run: Run, sql: SQL, engine: Engine, quick: QuickRegistry) -> None:
    said(run, *ADD)
    sql.execute("ALTER TABLE public.products RENAME TO wares")
    keep(engine, quick)
    reason = "the table public.products is called public.wares now"
    assert f"products is broken: {reason}" in said(run, "status").splitlines()
    assert error_of(run("source", "resume", "products")) == (
        f"{reason}; mend that, or remove the source: searchapp source remove products"
    )
    sql.execute("ALTER TABLE public.wares RENAME TO products")
    assert said(run, "source", "resume", "products") == "resumed products\n"
    keep(engine, quick)
    assert keys(sql) == ["1", "2"]


def test_waiting_shows_how_it_ends(run: Run, url: str, sql: SQL, quick: QuickRegistry) -> None:
    sql.execute("ALTER TABLE public.products ADD weight float8; UPDATE public.products SET weight = 'NaN' WHERE id = 2")
    with working(url, quick):
        lines = said(run, *ADD, "--wait", "--metadata", "weight").splitlines()
    assert lines[0] == "added products: public.products is kept in the collection products"
    assert lines[1].startswith("the row 2 has failed: ")
    assert lines[2:] == ["1 row has failed; see: searchapp worker failed --source products", "products is in step"]


def test_waiting_ends_where_the_source_is_paused(run: Run, sql: SQL) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run, *ADD, "--wait")
        wait_for(lambda: value(sql, "SELECT count(*) FROM searchapp.sources"))
        sql.execute("SELECT searchapp.pause_source('products')")
        done = waiting.result(timeout=60)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "searchapp: error: the source products is paused"


def test_what_cannot_be_is_one_line_each(
    url: str, sql: SQL, engine: Engine, quick: QuickRegistry, tmp_path: Path
) -> None:
    sql.execute(HERE)
    keep(engine, quick)
    add = ("source", "add", "others", "--table", "public.products", "--key", "id", "--text", "name")
    calls = {
        ("source", "add", "others", "--table", "public.product", "--key", "id", "--text", "name"): (
            "no table public.product; did you mean products?"
        ),
        (*add, "--title", "nam"): "the table public.products has no column 'nam'; did you mean name?",
        (*add, "--where", "price < (SELECT 5)"): "cannot use subquery in the condition",
        (*add, "--where", "changed < now()"): "must be marked IMMUTABLE",
        (*add, "--where", "true) OR (true; DROP TABLE public.products"): "the condition",
        (*add, "--poll", "name"): "expected a timestamp or a number",
        (*add, "--into", "price"): "is no vector; add one",
        (*add, "--into", "embedding", "--collection", "others"): "leave one of both out",
        (*add, "--collection", "there"): "the collection there is kept by the source here already",
        ("source", "add", "Others", *add[3:]): "the name 'Others' is not allowed",
        ("source", "add", "others", "--table", "public.products", "--key", "name", "--text", "name"): "is no key of",
        (*add, "--model", "nonsense"): "the model sentence-transformers/nonsense is not installed",
        ("worker", "--concurrency", "-1"): "Invalid value for '--concurrency'",
        ("source", "pause", "her"): "no source 'her'; did you mean here?",
        ("source", "resume", "her"): "no source 'her'; did you mean here?",
        ("source", "remove", "her"): "no source 'her'; did you mean here?",
        ("source", "status", "her"): "no source 'her'; did you mean here?",
        ("source", "check", "her"): "no source 'her'; did you mean here?",
        ("worker", "failed", "--source", "her"): "no source 'her'; did you mean here?",
        ("worker", "retry", "--source", "her"): "no source 'her'; did you mean here?",
        ("ingest", "-", "--collection", "there"): "is kept by the source here; change its table, or remove it",
        ("delete", "1", "--collection", "there"): "is kept by the source here; change its table, or remove it",
        ("collection", "drop", "there"): "is kept by the source here; change its table, or remove it",
    }
    for done, expected in zip(run_all(url, tmp_path, calls), calls.values(), strict=True):
        assert expected in error_of(done)
    assert value(sql, "SELECT array_agg(name) FROM searchapp.sources") == ["here"]


def test_who_may_not_is_told_which_role_it_takes(run: Run, sql: SQL, url: str) -> None:
    name = f"writer_{database.parse_url(url)['dbname']}"
    sql.execute(f"CREATE ROLE {name} LOGIN IN ROLE searchapp_writer".encode())
    sql.execute(f"GRANT ALL ON public.products TO {name}".encode())
    theirs: dict[str, Any] = {"DATABASE_URL": database.conninfo({**database.parse_url(url), "user": name})}
    sql.execute(HERE)
    needs = f"this needs the role searchapp_owner (GRANT searchapp_owner TO {name})"
    for arguments in (ADD, ("source", "remove", "here"), ("source", "pause", "here"), ("worker", "retry")):
        assert error_of(run(*arguments, **theirs)).endswith(needs), arguments
    assert run("source", "status", **theirs).returncode == 0
    with psycopg.connect(theirs["DATABASE_URL"], autocommit=True) as writer:
        writer.execute("UPDATE public.products SET description = 'changed'")
    assert value(sql, "SELECT count(*) FROM searchapp_data.changes") == 3


def test_a_table_that_somebody_has_is_left_to_them(
    url: str, sql: SQL, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("searchapp.sources.definitions.ATTEMPTS", 1)
    monkeypatch.setenv("DATABASE_URL", url)
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE public.products IN ACCESS EXCLUSIVE MODE")
        assert call(*ADD) == 2
    assert "somebody's transaction has the table; nothing was done" in capsys.readouterr().err
    assert value(sql, "SELECT count(*) FROM searchapp.sources") == 0


def test_what_docstrings_show_is_so() -> None:
    assert doctest.testmod(source).failed == 0
