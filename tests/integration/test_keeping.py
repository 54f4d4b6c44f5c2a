"""Sources that workers keep in step with a collection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.worker import Worker

PRODUCTS = """
CREATE TABLE public.products (
  id bigint PRIMARY KEY, name text, description text, price numeric(9, 2), brand text, stock int DEFAULT 0
);
INSERT INTO public.products VALUES
  (1, 'Red shoes', 'Running shoes in red, light and fast', 79.90, 'Alpha', 3),
  (2, 'Tent', 'A tent for two people and three seasons', 199, 'Beta', 1),
  (3, 'Mug', 'An enamel mug for the fire', 9.5, NULL, 7),
  (4, 'Nothing', NULL, 1, NULL, 0);
"""
ADD = """
SELECT searchapp.add_source('products', 'public.products', '{id}', '{description}', title => 'name',
  metadata => '{price,brand}')
"""


@pytest.fixture
def sql(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(PRODUCTS)
        yield connection


def keep(engine: Engine, registry: Registry) -> int:
    return Worker(engine, registry).run_once().rows


def documents(sql: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return sql.execute(
        "SELECT d.key, d.title, d.text, d.metadata FROM searchapp_data.documents d ORDER BY d.key"
    ).fetchall()


def test_a_source_is_read_and_kept_in_step(
    sql: psycopg.Connection[Any], engine: Engine, registry: Registry, db: Client
) -> None:
    sql.execute(ADD)
    assert keep(engine, registry) == 4
    assert documents(sql)[0] == (
        "1",
        "Red shoes",
        "Running shoes in red, light and fast",
        {"price": 79.9, "brand": "Alpha"},
    )
    assert [row[0] for row in documents(sql)] == ["1", "2", "3"]
    assert db.space("products").indexed
    assert db.search("something to sleep in outside", collection="products", limit=1)[0].key == "2"
    assert keep(engine, registry) == 0
    sql.execute("UPDATE public.products SET description = 'A sleeping bag for cold nights' WHERE id = 3")
    sql.execute("UPDATE public.products SET price = 100 WHERE id = 2")
    sql.execute("UPDATE public.products SET id = 10 WHERE id = 1")
    sql.execute("UPDATE public.products SET stock = stock + 1")
    assert keep(engine, registry) == 4
    assert [row[0] for row in documents(sql)] == ["10", "2", "3"]
    assert documents(sql)[1][3] == {"price": 100, "brand": "Beta"}
    assert documents(sql)[2][2] == "A sleeping bag for cold nights"
    sql.execute("DELETE FROM public.products WHERE id = 2")
    keep(engine, registry)
    assert [row[0] for row in documents(sql)] == ["10", "3"]
    sql.execute("TRUNCATE public.products")
    keep(engine, registry)
    assert documents(sql) == []
    assert sql.execute("SELECT count(*) FROM searchapp_data.postings").fetchone() == (0,)
    assert sql.execute("SELECT count(*) FROM searchapp_data.chunks").fetchone() == (0,)
