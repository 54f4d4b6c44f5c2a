"""Postings are read by their index alone, and taken away by it."""

from __future__ import annotations

import random
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, TextClause, text

import searchapp
from searchapp.client import Client
from searchapp.ingest import words
from searchapp.ingest.documents import Document
from searchapp.models import document_id
from searchapp.search import asking
from searchapp.search.answering import Typed
from searchapp.search.request import request
from searchapp.search.statements import statement_of
from searchapp.spaces import Space
from tests import conftest
from tests.made_up import driver_of, random_vectors
from tests.plans.explaining import explain

# With fewer, PostgreSQL rightly reads everything.
DOCUMENTS = 6000
VECTOR = random_vectors(1)[0]

engine, db = conftest.shared_database()


@pytest.fixture(scope="module")
def space(db: Client, engine: Engine) -> Space:
    """Documents of 40 words each, rare ones and frequent ones."""
    chance = random.Random(1)
    rows = [
        {
            "key": f"{number:04}",
            "text": " ".join(f"word{int(chance.paretovariate(0.4)) % 20_000}" for _ in range(40)),
            "metadata": {"rare": number % 300, "often": number % 2},
        }
        for number in range(DOCUMENTS)
    ]
    db.load_vectors(rows, random_vectors(DOCUMENTS), collection="things", model="all-MiniLM-L6-v2", language="simple")
    space = db.space("things")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in (f"postings_{space.collection_id}", f"documents_{space.collection_id}", f"chunks_{space.id}"):
            connection.exec_driver_sql(f"VACUUM searchapp_data.{table}")
    return space


def plan_of(engine: Engine, space: Space, query: str, mode: str, **options: Any) -> str:
    """The plan of a plain call's statement, which was run."""
    question = Typed(query, mode, request(limit=10, **options)).question(space)
    statement = statement_of(space, question)
    values = asking.values_of(space, statement, VECTOR if mode == "hybrid" else None, question)
    with driver_of(engine) as driver:
        rows = psycopg.RawCursor(driver).execute(b"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + statement.text, values)
        return "\n".join(row[0] for row in rows)


def check(plan: str, space: Space) -> None:
    """Check that postings are read by their index, and by nothing else."""
    table = f"postings_{space.collection_id}"
    assert f"Index Only Scan using {table}_pkey on {table}" in plan
    others = [line for line in plan.splitlines() if f" on {table}" in line and "Index Only Scan" not in line]
    assert others == []


@pytest.mark.parametrize("filter", [None, {"rare": 7}, {"often": 1}], ids=["none", "rare", "often"])
@pytest.mark.parametrize("query", ["word7", "word1 word2 word300 word4000 nonsense", 'word3 "word1 word2" -word5'])
@pytest.mark.parametrize("mode", ["text", "hybrid"])
def test_postings_are_read_by_their_index_alone(
    engine: Engine, space: Space, mode: str, query: str, filter: dict[str, int] | None
) -> None:
    plan = plan_of(engine, space, query, mode, filter=filter)
    check(plan, space)
    assert "Heap Fetches: 0" in plan


def test_a_phrase_is_looked_for_in_texts_that_have_its_words(engine: Engine, space: Space) -> None:
    plan = plan_of(engine, space, '"word12 word345" word1', "text")
    check(plan, space)
    assert "Heap Fetches: 0" in plan


def test_builders_read_postings_by_their_index(engine: Engine, space: Space) -> None:
    check(explain(engine, searchapp.words(space, 'word3 word70 -"word4 word5"', limit=10)), space)
    check(explain(engine, searchapp.hybrid(space, VECTOR, "word3 word70", limit=10)), space)


def test_a_hybrid_asks_the_index_of_vectors_once(engine: Engine, space: Space) -> None:
    plan = plan_of(engine, space, "word7 word80", "hybrid")
    assert plan.count(f"space_{space.id}_hnsw") == 1


@pytest.mark.parametrize("count", [1, 1000])
@pytest.mark.parametrize("statement", [words._REMOVE, words._REPLACE], ids=["removed", "replaced"])
def test_postings_are_taken_away_by_their_index(
    engine: Engine, space: Space, statement: TextClause, count: int
) -> None:
    ids = [document_id(space.collection_id, f"{number:04}") for number in range(count)]
    texts = {"titles": [None] * count, "texts": ["other words"] * count} if statement is words._REPLACE else {}
    with engine.connect() as connection:
        rows = connection.execute(
            text(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {statement.text}"),
            {"collection_id": space.collection_id, "ids": ids, **texts},
        )
        plan = "\n".join(row[0] for row in rows)
        connection.rollback()
    table = f"postings_{space.collection_id}"
    assert f"Seq Scan on {table}" not in plan
    assert f"using {table}_pkey" in plan or f"on {table}_pkey" in plan
    assert "Seq Scan on term_counts" not in plan


def test_writing_words_is_planned_once(engine: Engine, space: Space) -> None:
    with engine.connect() as connection:
        for number in range(12):
            each = document_id(space.collection_id, f"{number:04}")
            words.replace(connection, space.collection_id, {each: Document("key", "other words", None, {})})
            words.remove(connection, space.collection_id, [each])
            words.add(connection, space.collection_id, [each])
        planned = connection.exec_driver_sql(
            "SELECT custom_plans <= 6, generic_plans > 0 FROM pg_prepared_statements WHERE statement LIKE %s",
            ("%regconfig%",),
        ).all()
        connection.rollback()
    assert planned == [(True, True)] * 3
