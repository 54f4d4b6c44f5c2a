"""A collection's view is searched by its index."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from searchapp.client import Client
from tests.conftest import shared_database
from tests.made_up import fill, random_vectors

engine, db = shared_database()


@pytest.fixture(scope="module", autouse=True)
def collection(db: Client) -> None:
    fill(db, "things", [random_vectors(1) for _ in range(3000)], lambda number: {"half": number % 2})


def plan(engine: Engine, statement: str) -> str:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {statement}")
        return "\n".join(row[0] for row in rows)


VECTOR = f"'{random_vectors(1)[0].tolist()}'::vector"


@pytest.mark.parametrize(
    "statement",
    [
        f"SELECT key FROM searchapp.things ORDER BY embedding <=> {VECTOR} LIMIT 10",
        f"SELECT t.key, d.title FROM searchapp.things t JOIN searchapp_data.documents d USING (key)"
        f" ORDER BY t.embedding <=> {VECTOR} LIMIT 10",
        f"WITH q AS MATERIALIZED (SELECT {VECTOR} AS v)"
        " SELECT key FROM searchapp.things ORDER BY embedding <=> (SELECT v FROM q) LIMIT 10",
        f"SELECT key FROM searchapp.things WHERE metadata @> '{{\"half\": 1}}'"
        f" ORDER BY embedding <=> {VECTOR} LIMIT 10",
    ],
)
def test_the_view_is_searched_by_the_index(engine: Engine, statement: str) -> None:
    assert "Index Scan using space_1_hnsw" in plan(engine, statement)


def test_a_prepared_statement_and_a_function_use_the_index(engine: Engine) -> None:
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.execute(
            "PREPARE nearest (vector) AS SELECT key FROM searchapp.things ORDER BY embedding <=> $1 LIMIT 10"
        )
        driver.execute("SET plan_cache_mode = force_generic_plan")
        rows = driver.execute(f"EXPLAIN (COSTS OFF) EXECUTE nearest ({VECTOR})".encode()).fetchall()
        assert "Index Scan using space_1_hnsw" in "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("limit", [100, 1000])
def test_the_view_gives_as_many_rows_as_asked_for(engine: Engine, limit: int) -> None:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            f"SELECT embedding <=> {VECTOR} AS distance FROM searchapp.things WHERE metadata @> '{{\"half\": 1}}'"
            f" ORDER BY embedding <=> {VECTOR} LIMIT {limit}"
        )
        distances = list(rows.scalars())
    assert len(distances) == limit
    assert distances == sorted(distances)
