"""The statements on users' tables and on what is stored of them use indexes."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql as composing
from sqlalchemy import Connection, Engine, select, text

from searchapp import models
from searchapp.encoders.registry import Registry
from searchapp.ingest import packing
from searchapp.models import id_bytes
from searchapp.sources import catalog, rows, stored
from searchapp.sources.catalog import Source
from searchapp.sources.polling import Poller
from searchapp.sources.session import open_session
from tests.sources import QuickRegistry, keep

TABLES = """
CREATE TABLE public.single (id bigint PRIMARY KEY, body text, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE public.composite (day int, id uuid DEFAULT gen_random_uuid(), body text, PRIMARY KEY (day, id));
INSERT INTO public.single SELECT n, 'text ' || n FROM generate_series(1, 20000) n;
INSERT INTO public.composite SELECT n % 100, gen_random_uuid(), 'text ' || n FROM generate_series(1, 20000) n;
CREATE INDEX single_at_idx ON public.single (at);
ANALYZE public.single, public.composite;
SELECT searchapp.add_source('single', 'public.single', '{id}', '{body}', poll => 'at');
SELECT searchapp.add_source('composite', 'public.composite', '{day,id}', '{body}');
"""
KEYS = {
    "single": ["17", "4711", "none"],
    "composite": ["{1,00000000-0000-0000-0000-000000000001}", "{50,00000000-0000-0000-0000-000000000002}"],
}


@pytest.fixture
def connection(url: str, engine: Engine) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute(TABLES)
    with engine.connect() as connection:
        yield connection


def named(connection: Connection, name: str) -> Source:
    (source,) = (each for each in catalog.running(connection) if each.name == name)
    return source


@pytest.mark.parametrize("name", KEYS)
def test_rows_are_read_by_their_keys(connection: Connection, name: str) -> None:
    source = named(connection, name)
    for statement in (
        "EXPLAIN SELECT {key}, {columns} FROM {wanted}{condition}",
        "EXPLAIN SELECT {key} FROM {wanted} FOR NO KEY UPDATE OF t SKIP LOCKED",
    ):
        plan = str(rows.run(connection, source, statement, [KEYS[name]]))
        assert f"using {name}_pkey" in plan or f"on {name}_pkey" in plan


@pytest.mark.parametrize("name", KEYS)
def test_rows_are_gone_through_by_their_keys(connection: Connection, name: str) -> None:
    source = named(connection, name)
    statement = "EXPLAIN SELECT {key}, {columns} FROM {table} AS t WHERE {beyond}{condition} ORDER BY {order} LIMIT $2"
    plan = str(rows.run(connection, source, statement, [KEYS[name][0], 1000], **rows._beyond(source, KEYS[name][0])))
    assert f"Index Scan using {name}_pkey" in plan
    assert "Index Cond" in plan
    assert "Sort" not in plan


def test_polled_rows_are_found_by_the_columns_index(connection: Connection, engine: Engine) -> None:
    source = named(connection, "single")
    with open_session(engine) as session:
        poller = Poller(session, source)
        poller._until = "2999-01-01"
        order: list[composing.Composable] = [composing.Identifier("t", name) for name in ("at", "id")]
        beyond, parameters = poller._beyond(source, order)
        statement = "EXPLAIN SELECT {key} FROM {table} AS t WHERE {beyond} AND {bound} ORDER BY {order} LIMIT 1000"
        parts = {"beyond": beyond, "order": composing.SQL(", ").join(order)}
        plan = str(poller._run(connection, source, statement, parameters, **parts))
    assert "Index Scan using single_at_idx" in plan


def test_documents_are_compared_by_their_ids(
    connection: Connection, engine: Engine, registry: Registry, url: str
) -> None:
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("DELETE FROM public.single WHERE id > 3000; DELETE FROM public.composite")
        keep(engine, QuickRegistry(registry))
        sql.execute("ANALYZE searchapp_data.documents, searchapp_data.chunks")
    collection_id = named(connection, "single").collection_id or 0
    values = {
        "ids": packing.Ids([id_bytes(collection_id, str(number)) for number in range(1, 1001)]),
        "hashes": [b""] * 1000,
        "metadata": ["{}"] * 1000,
        "space_id": connection.scalar(select(models.Collection.active_space).filter_by(id=collection_id)),
        "collection_id": collection_id,
    }
    plan = str(connection.execute(text(f"EXPLAIN {stored._COMPARE}"), values).all())
    assert "Seq Scan" not in plan
