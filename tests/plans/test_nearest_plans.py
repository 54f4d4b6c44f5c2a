"""The statement of ``nearest`` uses the index that it is meant to use."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy
from sqlalchemy import Engine, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import searchapp
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.models import document_id
from searchapp.search.question import Question
from searchapp.search.request import Request
from searchapp.search.statements import rows_of, statement_of
from searchapp.spaces import Space
from searchapp.wire import ArrayParameter, Parameter
from tests import conftest
from tests.made_up import driver_of, fill, random_vectors
from tests.plans.explaining import explain

# With fewer, PostgreSQL rightly reads everything.
DOCUMENTS = 8000


engine, db = conftest.shared_database()


@pytest.fixture(scope="module")
def space(db: Client) -> Space:
    chunks = [each[None] for each in random_vectors(DOCUMENTS)]
    return fill(db, "things", chunks, lambda number: {"rare": number % 300, "often": number % 2})


def plan_of(engine: Engine, space: Space, **options: Any) -> str:
    return explain(engine, searchapp.nearest(space, np.ones(384, dtype=np.float32), limit=10, **options))


def test_the_index_is_used_and_the_exact_rung_is_not_run(engine: Engine, space: Space) -> None:
    plan = plan_of(engine, space)
    assert f"Index Scan using space_{space.id}_hnsw on chunks_{space.id}" in plan
    assert "never executed" in plan
    assert plan.count("_hnsw") == 1


def test_what_is_like_a_document_goes_by_the_index(engine: Engine, space: Space) -> None:
    plan = explain(engine, searchapp.nearest_to_document(space, "0007", limit=10))
    assert f"Index Scan using space_{space.id}_hnsw on chunks_{space.id}" in plan
    assert plan.count("_hnsw") == 1
    assert "never executed" in plan
    assert f"Index Scan using chunks_{space.id}_pkey" in plan


def test_a_prepared_search_for_what_is_like_a_document_is_planned_once(engine: Engine, space: Space) -> None:
    question = Question(Request(limit=10), like=document_id(space.collection_id, "0007"))
    text = statement_of(space, question).text
    with driver_of(engine) as driver:
        cursor = psycopg.RawCursor(driver)
        for number in range(12):
            cursor.execute(text, [document_id(space.collection_id, f"{number:04}")], prepare=True)
        planned = driver.execute(
            "SELECT custom_plans <= 6, generic_plans >= 6 FROM pg_prepared_statements WHERE statement LIKE '%.avg(%'"
        )
        assert planned.fetchall() == [(True, True)]


def test_a_rare_filter_is_answered_by_the_filter_first(engine: Engine, space: Space) -> None:
    plan = plan_of(engine, space, filter={"rare": 7})
    assert f"documents_{space.collection_id}_metadata_idx" in plan
    assert "hnsw" not in plan


def test_a_wide_filter_goes_by_the_index(engine: Engine, space: Space) -> None:
    assert f"space_{space.id}_hnsw" in plan_of(engine, space, filter={"often": 1})


def test_ids_are_known_to_be_unique(engine: Engine, space: Space) -> None:
    """By the statistics of the partitioned table, for a join is estimated by these."""
    plan = explain(
        engine, searchapp.nearest(space, np.ones(384, dtype=np.float32), limit=10, filter={"rare": 7}), costs=True
    )
    estimated = [int(rows) for rows in re.findall(r"Nested Loop  \(cost=\S+ rows=(\d+)", plan)]
    assert max(estimated) <= 2 * DOCUMENTS / 300


def test_an_exact_search_uses_no_hnsw_index(engine: Engine, space: Space) -> None:
    plan = plan_of(engine, space, exact=True)
    assert "hnsw" not in plan
    assert "set_config" not in plan


def test_other_partitions_are_not_touched(engine: Engine, space: Space, registry: Registry) -> None:
    other = fill(Client(engine, registry=registry), "others", [each[None] for each in random_vectors(10)])
    plan = plan_of(engine, space)
    assert f"chunks_{other.id}" not in plan
    assert f"documents_{other.collection_id}" not in plan


def test_a_prepared_search_is_planned_once(engine: Engine, space: Space) -> None:
    """A cast that depends on the vector would make its generic plan look dearer than planning it each time."""
    text = statement_of(space, Question(Request(limit=10))).text
    with driver_of(engine) as driver:
        cursor = psycopg.RawCursor(driver)
        for vector in random_vectors(12):
            cursor.execute(text, [Parameter(vector)], prepare=True)
        planned = driver.execute(
            "SELECT custom_plans <= 6, generic_plans >= 6 FROM pg_prepared_statements WHERE statement LIKE '%hnsw%'"
        )
        assert planned.fetchall() == [(True, True)]


def plan_of_text(engine: Engine, text: bytes, parameters: Sequence[Any]) -> str:
    """The plan of a plain call's statement, which was run."""
    with driver_of(engine) as driver:
        rows = psycopg.RawCursor(driver).execute(b"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + text, parameters)
        return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("filter", [None, {"often": 1}])
def test_many_vectors_go_by_the_index_each(engine: Engine, space: Space, filter: dict[str, int] | None) -> None:
    text = statement_of(space, Question(Request(limit=10, filter=filter)), many=True).text
    plan = plan_of_text(engine, text, [ArrayParameter(random_vectors(5), space.vector_oid)])
    assert f"Index Scan using space_{space.id}_hnsw on chunks_{space.id} (actual rows=20.00 loops=5)" in plan or (
        filter and f"Index Scan using space_{space.id}_hnsw" in plan
    )
    assert "never executed" in plan


@pytest.mark.parametrize("filter", [None, {"$or": [{"often": 1}, {"rare": 5}]}])
def test_thresholds_and_offsets_go_by_the_index(engine: Engine, space: Space, filter: dict[str, Any] | None) -> None:
    request = Request(limit=10, offset=5, filter=filter, max_distance=0.001)  # which nobody meets
    plan = plan_of_text(
        engine, statement_of(space, Question(request)).text, [Parameter(random_vectors(1)[0]), request.max_distance]
    )
    assert plan.count(f"Index Scan using space_{space.id}_hnsw") == 1
    assert "(never executed)" in plan
    assert f"documents_{space.collection_id}_pkey" in plan


def test_a_page_by_cursor_reads_everything_once(engine: Engine, space: Space) -> None:
    text = statement_of(space, Question(Request(limit=10, exact=True)), after=True).text
    plan = plan_of_text(engine, text, [Parameter(random_vectors(1)[0]), 0.5, "0001", 1])
    assert "hnsw" not in plan
    assert len(re.findall(rf"Scan .*on chunks_{space.id}\b", plan)) == 1


def test_all_that_a_filter_keeps_is_read_by_its_index(engine: Engine, space: Space) -> None:
    text = rows_of(space, Request(limit=10, filter={"rare": 7}).condition()).encode()
    plan = plan_of_text(engine, text, [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)])
    assert f"documents_{space.collection_id}_metadata_idx" in plan
    assert f"Index Scan using chunks_{space.id}_pkey" in plan


def test_conditions_of_the_callers_own_stand_inside_the_limit(engine: Engine, space: Space) -> None:
    plan = plan_of(engine, space, where=searchapp.orm.Document.key.in_(["0001", "0005", "4000"]))
    assert f"documents_{space.collection_id}_key_idx" in plan
    assert "hnsw" not in plan
    assert f"space_{space.id}_hnsw" in plan_of(engine, space, where=searchapp.orm.Document.key > "0")


def test_a_column_of_the_callers_own_is_asked_by_its_index(engine: Engine) -> None:
    class Base(DeclarativeBase):
        pass

    class Product(Base):
        __tablename__ = "products"
        id: Mapped[int] = mapped_column(primary_key=True)
        embedding: Mapped[list[float]] = searchapp.orm.embedding(384)

    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(Product), [{"embedding": each.tolist()} for each in random_vectors(3000)])
        connection.execute(sqlalchemy.text("ANALYZE products"))
    plan = explain(engine, searchapp.nearest(Product.embedding, random_vectors(1)[0], limit=10))
    assert "Index Scan using products_embedding" in plan
    assert "never executed" in plan
    few = explain(engine, searchapp.nearest(Product.embedding, random_vectors(1)[0], limit=10, where=Product.id < 50))
    assert "products_pkey" in few
    assert "Index Scan using products_embedding" not in few
