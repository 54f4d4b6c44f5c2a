"""``searchapp source check``, and a worker that compares and polls by itself."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import Engine

from tests.conftest import Run
from tests.sources import SQL, QuickRegistry, keep, keys, long_ago
from tests.workers import wait_for, working

PRODUCTS = """
CREATE TABLE public.products (
  id bigint PRIMARY KEY, description text, updated_at timestamptz DEFAULT clock_timestamp()
);
INSERT INTO public.products SELECT n, 'text ' || n FROM generate_series(1, 20) n;
"""
ADD = "SELECT searchapp.add_source('products', 'public.products', '{id}', '{description}')"
POLL = "SELECT searchapp.add_source('products', 'public.products', '{id}', '{description}', poll => 'updated_at')"


@pytest.fixture
def sql(sql: SQL) -> SQL:
    sql.execute(PRODUCTS)
    return sql


def test_a_source_is_checked_and_put_right(sql: SQL, engine: Engine, quick: QuickRegistry, run: Run) -> None:
    sql.execute(ADD)
    done = run("source", "check", "products")
    assert (done.returncode, done.stderr) == (
        2,
        "searchapp: error: the source products is being read for the first time; compare it after that: "
        "searchapp source status products\n",
    )
    keep(engine, quick)
    assert run("source", "check", "products").stdout == "products is as its table: 20 rows compared\n"
    sql.execute("ALTER TABLE public.products DISABLE TRIGGER ALL")
    sql.execute("DELETE FROM public.products WHERE id <= 7")
    sql.execute("INSERT INTO public.products VALUES (30, 'new')")
    sql.execute("UPDATE public.products SET description = 'other' WHERE id = 8")
    assert run("source", "check", "products").stdout.splitlines()[:3] == [
        "products differs from its table: 14 rows compared",
        "missing  1: 30",
        "changed  1: 8",
    ]
    found = json.loads(run("source", "check", "products", "--json").stdout)
    assert found["missing"] == {"count": 1, "keys": ["30"]}
    assert (found["gone"]["count"], len(found["gone"]["keys"])) == (7, 5)
    done = run("source", "check", "products", "--repair")
    assert done.stdout.endswith("a worker puts 9 of them right\n")
    keep(engine, quick)
    assert json.loads(run("source", "check", "products", "--repair", "--json").stdout) == {
        "source": "products",
        "rows": 14,
        "missing": {"count": 0, "keys": []},
        "changed": {"count": 0, "keys": []},
        "gone": {"count": 0, "keys": []},
        "put": 0,
        "complete": True,
    }
    done = run("source", "check", "product")
    assert (done.returncode, done.stderr) == (2, "searchapp: error: no source 'product'; did you mean products?\n")


def test_a_worker_compares_now_and_then(sql: SQL, url: str, quick: QuickRegistry) -> None:
    sql.execute(ADD)
    with working(url, quick):
        wait_for(lambda: len(keys(sql)) == 20)
        sql.execute("ALTER TABLE public.products DISABLE TRIGGER ALL")
        sql.execute("DELETE FROM public.products WHERE id <= 7")
        sql.execute("INSERT INTO public.products VALUES (30, 'new')")
        long_ago(sql)
        wait_for(lambda: len(keys(sql)) == 14)


def test_workers_poll_what_has_no_triggers(sql: SQL, url: str, quick: QuickRegistry) -> None:
    sql.execute(POLL)
    with working(url, quick), working(url, quick):
        wait_for(lambda: len(keys(sql)) == 20)
        sql.execute("INSERT INTO public.products VALUES (30, 'new')")
        wait_for(lambda: "30" in keys(sql))
        sql.execute("SELECT searchapp.pause_source('products'), searchapp.resume_source('products')")
        sql.execute("INSERT INTO public.products VALUES (31, 'new')")
        wait_for(lambda: "31" in keys(sql))
