"""What arranges an answer uses the index that it is meant to use, and reads no more than it needs."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Engine

import searchapp
from searchapp.client import Client
from searchapp.models import document_id
from searchapp.search import context
from searchapp.search.answering import widened
from searchapp.search.arrangement import arrangement
from searchapp.search.asking import values_of
from searchapp.search.question import Examples, Question
from searchapp.search.request import Request
from searchapp.search.statements import statement_of
from searchapp.spaces import Space
from searchapp.vectors import Array
from tests import conftest
from tests.made_up import driver_of, fill, random_vectors
from tests.plans.explaining import explain

# With fewer, PostgreSQL rightly reads everything.
DOCUMENTS = 6000
# No search of these needs more rows of chunks or documents.
MOST_READ = 1200

engine, db = conftest.shared_database()

BOOST = searchapp.Boost("views", 0.2, 10)
DECAY = searchapp.Decay("when", 0.2, dt.timedelta(days=30))

# Arrangement, strategy of examples if it is by these, request; and how often the index is scanned, of how many nodes.
Case = tuple[dict[str, Any], str | None, dict[str, Any], int, int]
CASES: dict[str, Case] = {
    "average": ({}, "average", {}, 1, 1),
    "average, filtered": ({}, "average", {"filter": {"often": 1}}, 1, 1),
    "average, by threshold": ({}, "average", {"min_score": 0.01, "offset": 5}, 1, 1),
    "average, boosted": ({"boost": BOOST}, "average", {}, 1, 1),
    "average, grouped": ({"group_by": "lang"}, "average", {}, 1, 2),
    "average, diverse": ({"diversity": 0.5, "passages": 2}, "average", {}, 1, 1),
    "best score": ({}, "best_score", {}, 2, 1),
    "best score, by threshold": ({}, "best_score", {"min_score": 0.3, "max_distance": 0.99, "offset": 2}, 2, 1),
    "best score, diverse": ({"diversity": 0.5, "passages": 2}, "best_score", {}, 2, 1),
    "diverse": ({"diversity": 0.5}, None, {}, 1, 1),
    "boosted": ({"boost": [BOOST, DECAY]}, None, {}, 1, 1),
    "boosted, diverse": ({"boost": BOOST, "diversity": 0.3, "passages": 3}, None, {}, 1, 1),
    "grouped": ({"group_by": "lang"}, None, {}, 1, 2),
    "grouped, by threshold": ({"group_by": "lang"}, None, {"max_distance": 0.001, "offset": 1}, 1, 2),
    "grouped by arrays": ({"group_by": "tags", "group_size": 2}, None, {}, 1, 2),
    "passages": ({"passages": 3}, None, {}, 1, 1),
    "passages, filtered": ({"passages": 3}, None, {"filter": {"often": 1}, "offset": 3}, 1, 1),
}
# So many are looked up that half of these few documents are read faster, sorted and cut.
SORTED: dict[str, Case] = {
    "best score, filtered": ({}, "best_score", {"filter": {"often": 1}}, 0, 0),
    "diverse, filtered": ({"diversity": 0.5}, None, {"filter": {"often": 1}}, 0, 0),
    "boosted, filtered": ({"boost": DECAY}, None, {"filter": {"often": 1}, "min_score": 0.0}, 0, 0),
    "grouped, filtered": ({"group_by": "lang"}, None, {"filter": {"often": 1}}, 0, 0),
}


def metadata_of(number: int) -> dict[str, Any]:
    return {
        "often": number % 2,
        "views": number % 90,
        "when": f"2024-01-{number % 28 + 1:02}",
        "lang": number % 7,
        "tags": [number % 5, number % 6],
    }


@pytest.fixture(scope="module")
def space(db: Client) -> Space:
    fill(db, "others", [each[None] for each in random_vectors(10)])
    return fill(db, "things", [each[None] for each in random_vectors(DOCUMENTS)], metadata_of)


def question_of(space: Space, name: str, shift: int = 0) -> Question:
    """As the plain calls ask it, of two examples that it is to be like, and two others."""
    arranged, strategy, request, *_ = (CASES | SORTED)[name]
    asked = Request(**{"limit": 5, **request}, arrangement=arrangement(**arranged))
    if strategy is None:
        return widened(Question(asked))
    like, unlike = (
        Examples((document_id(space.collection_id, f"{shift + place:04}"),), random_vectors(1)) for place in (0, 100)
    )
    return widened(Question(asked, examples=(like, unlike), strategy=strategy))


def vector_of(question: Question) -> Array | None:
    return None if question.examples is not None else random_vectors(1)[0]


def read(plan: str, table: str) -> int:
    """How many rows of a partition were read, those that a filter left out among them."""
    rows = 0
    for scan in re.split(r"\n(?=.*->)", plan):
        if re.search(rf"Scan\b.* on (?:{table}\b|\w+ {table}\b)", scan):
            found = re.search(r"actual rows=([\d.]+) loops=(\d+)", scan)
            if found is not None:
                left_out = re.search(r"Rows Removed by (?:Index Recheck|Filter): (\d+)", scan)
                rows += int((float(found[1]) + (int(left_out[1]) if left_out else 0)) * int(found[2]))
    return rows


def plan_of(engine: Engine, space: Space, question: Question) -> str:
    """The plan of a plain call's statement, which was run."""
    statement = statement_of(space, question)
    values = values_of(space, statement, vector_of(question), question)
    with driver_of(engine) as driver:
        rows = psycopg.RawCursor(driver).execute(b"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + statement.text, values)
        return "\n".join(row[0] for row in rows)


def check_others_untouched(db: Client, plan: str) -> None:
    other = db.space("others")
    assert not re.search(rf" on (chunks_{other.id}|documents_{other.collection_id})\b", plan), plan


@pytest.mark.parametrize("name", CASES)
def test_the_index_answers(db: Client, engine: Engine, space: Space, name: str) -> None:
    plan = plan_of(engine, space, question_of(space, name))
    *_, scans, nodes = CASES[name]
    of_index = re.findall(rf"using space_{space.id}_hnsw .*?\((?:actual rows=\S+ loops=(\d+)|never executed)\)", plan)
    assert (sum(int(loops or 0) for loops in of_index), len(of_index)) == (scans, nodes), plan
    assert not re.search(r"Seq Scan on (chunks|documents)_\d+ .*actual", plan), plan
    assert 0 < read(plan, f"chunks_{space.id}") <= MOST_READ, plan
    assert read(plan, f"documents_{space.collection_id}") <= MOST_READ, plan
    check_others_untouched(db, plan)


@pytest.mark.parametrize("name", SORTED)
def test_what_a_filter_leaves_of_few_is_sorted(db: Client, engine: Engine, space: Space, name: str) -> None:
    question = question_of(space, name)
    plan = plan_of(engine, space, question)
    scans = 2 if question.examples is not None else 1
    assert read(plan, f"chunks_{space.id}") <= scans * DOCUMENTS + MOST_READ, plan
    check_others_untouched(db, plan)


@pytest.mark.parametrize("name", [*CASES, *SORTED])
def test_a_prepared_search_is_planned_once(engine: Engine, space: Space, name: str) -> None:
    with driver_of(engine) as driver:
        cursor = psycopg.RawCursor(driver)
        for shift in range(12):
            question = question_of(space, name, shift)
            statement = statement_of(space, question)
            cursor.execute(statement.text, values_of(space, statement, vector_of(question), question), prepare=True)
            driver.commit()  # which undoes hnsw.ef_search, by which PostgreSQL reckons what a plan costs
        planned = driver.execute(
            "SELECT custom_plans <= 6, generic_plans >= 6 FROM pg_prepared_statements WHERE statement = %s",
            [statement.text.decode()],
        )
        assert planned.fetchall() == [(True, True)]


def test_builders_go_by_the_index(engine: Engine, space: Space) -> None:
    query = np.ones(384, dtype=np.float32)
    like: list[Any] = ["0001", query]
    statements = {
        "average": searchapp.nearest_to_examples(space, like, "0002", limit=5),
        "best score": searchapp.nearest_to_examples(space, like, "0002", strategy="best_score", limit=5),
        "boosted": searchapp.boosted(space, query, [BOOST, DECAY], limit=5),
        "grouped": searchapp.grouped(space, query, "lang", limit=5),
        "passages": searchapp.nearest(space, query, limit=5, passages=3),
    }
    for name, statement in statements.items():
        plan = explain(engine, statement)
        assert f"Index Scan using space_{space.id}_hnsw on chunks_{space.id}" in plan, name
        assert not re.search(r"Seq Scan on (chunks|documents)_\d+ .*actual", plan), plan
        assert 0 < read(plan, f"chunks_{space.id}") <= MOST_READ, plan


def test_facets_read_the_documents_that_the_filter_keeps(engine: Engine, space: Space) -> None:
    plan = explain(engine, searchapp.facets(space, "lang", filter={"views": 7}))
    kept = DOCUMENTS // 90 + 1
    assert f"documents_{space.collection_id}_metadata_idx" in plan
    assert 0 < read(plan, f"documents_{space.collection_id}") <= kept, plan
    assert "chunks" not in plan


def test_a_context_is_looked_up_by_keys(engine: Engine, space: Space) -> None:
    numbers = range(0, 1000, 20)
    ids = [document_id(space.collection_id, f"{number:04}") for number in numbers]
    with driver_of(engine) as driver:
        statement = b"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + context.statement_of_passages(space, 1)
        rows = psycopg.RawCursor(driver).execute(statement, [ids, [0] * len(ids)])
        plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan" not in plan
    assert read(plan, f"chunks_{space.id}") == 2 * len(numbers)
    assert read(plan, f"documents_{space.collection_id}") == len(numbers)
