"""``searchapp source``, ``searchapp status`` and ``searchapp worker failed|retry`` as processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.worker import Worker
from tests.acceptance.commands import error_of, run_all
from tests.conftest import Run
from tests.sources import SQL, QuickRegistry
from tests.workers import worker_process

PRODUCTS = """
CREATE TABLE public.products (id bigint PRIMARY KEY, name text, description text, price numeric);
INSERT INTO public.products SELECT n, 'name ' || n, 'text ' || n, n FROM generate_series(1, 20) n;
"""
ADD = ("source", "add", "products", "--table", "public.products", "--key", "id", "--text", "description")


@pytest.fixture
def sql(url: str) -> Iterator[SQL]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(PRODUCTS)
        yield connection


def test_a_source_is_added_listed_paused_and_removed(
    sql: SQL, run: Run, engine: Engine, registry: Registry, db: Client
) -> None:
    assert run("source", "list").stdout == "no sources yet; add one: searchapp source add NAME --table TABLE ...\n"
    done = run(*ADD, "--title", "name", "--metadata", "price", "--where", "price > 5", "-c", "things")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "added products: public.products is kept in the collection things; by: searchapp worker\n"
    Worker(engine, QuickRegistry(registry)).run_once()
    assert db.count(collection="things") == 15
    assert run("source", "list").stdout.splitlines() == [
        "name      table            kept in  watched by  state",
        "products  public.products  things   triggers    running",
    ]
    assert run("source", "pause", "products", "--drop-triggers").stdout == "paused products, without triggers\n"
    assert run("source", "resume", "products").stdout == "resumed products\n"
    found = json.loads(run("source", "status", "products", "--json").stdout)
    assert found["workers"] == 0
    expected = {"name": "products", "state": "running", "backfilled": True, "read": 15, "pending": 0, "failed": 0}
    assert expected.items() <= found["sources"][0].items()
    said = run("status").stdout.splitlines()
    assert said[0].split() == ["name", "state", "pending", "oldest", "retrying", "failed", "rows/s", "time", "left"]
    assert said[-1] == "0 workers alive; start one: searchapp worker"
    assert run("source", "remove", "products", "--drop").stdout == "removed products\ndropped things\n"
    assert sql.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").fetchone() == (0,)


def test_waiting_shows_what_has_failed(sql: SQL, url: str, run: Run) -> None:
    sql.execute("INSERT INTO public.products VALUES (30, 'n', 'text', 'NaN')")
    with worker_process(url):
        done = run(*ADD, "--metadata", "price", "--wait")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == [
        "the row 30 has failed: NaN in field 'price'; null says that a number is missing",
        "1 row has failed; see: searchapp worker failed --source products",
        "products is in step",
    ]
    assert json.loads(run("worker", "failed", "--json").stdout)[0]["key"] == "30"
    assert run("worker", "retry").stdout == "1 row will be tried again by a worker\n"


def test_errors_are_one_line(sql: SQL, url: str, tmp_path: Path) -> None:
    add = ["source", "add", "p", "--key", "id", "--text", "description", "--table"]
    calls = {
        (*add, "public.product"): "no table public.product; did you mean products?",
        (
            *add,
            "public.products",
            "--title",
            "nam",
        ): "the table public.products has no column 'nam'; did you mean name?",
        (*add, "public.products", "--where", "random() < 1"): "must be marked IMMUTABLE",
        (*add, "public.products", "--model", "nonsense"): "the model sentence-transformers/nonsense is not installed",
        ("source", "pause", "p"): "no source 'p'; there are none yet",
        ("source", "status", "p"): "no source 'p'; there are none yet",
        ("worker", "--concurrency", "-1"): "Invalid value for '--concurrency'",
    }
    done = run_all(url, tmp_path, calls)
    for each, said in zip(done, calls.values(), strict=True):
        assert said in error_of(each)
    assert sql.execute("SELECT count(*) FROM searchapp_data.sources").fetchone() == (0,)
