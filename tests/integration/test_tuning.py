"""Tuning: the recall it measures is the one there is, and the least ``ef_search`` that reaches what is wanted stays."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine

from searchapp import errors
from searchapp.async_client import AsyncClient
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.evaluation import tuning
from searchapp.evaluation.tuning import Measured
from searchapp.models import document_id
from searchapp.search import asking
from searchapp.search.question import Question
from searchapp.search.request import Request
from searchapp.search.statements import statement_of
from searchapp.spaces import CollectionInfo, Space
from searchapp.vectors import Array
from tests import conftest
from tests.made_up import fill, random_vectors

DOCUMENTS = 3000
MODEL = "all-MiniLM-L6-v2"
VECTORS = random_vectors(DOCUMENTS)


engine, db = conftest.shared_database()


@pytest.fixture(scope="module")
def loaded(db: Client) -> str:
    """A collection of random directions, which are hard to find: they are all about equally far from each other."""
    return put_in(db, "things", VECTORS)


def put_in(db: Client, name: str, vectors: Array) -> str:
    documents = ({"key": str(number), "text": f"text {number}"} for number in range(len(vectors)))
    db.load_vectors(documents, vectors, collection=name, model=MODEL)
    return name


def description(db: Client, name: str) -> CollectionInfo:
    """A collection but for its bytes, which autovacuum changes when it comes by."""
    return dataclasses.replace(db.describe(name), bytes=0)


def recall_by_numpy(db: Client, space: Space) -> float:
    """The recall of a space's searches as they are: how many hits are as near as the right tenth."""
    numbers = sorted(range(DOCUMENTS), key=lambda number: document_id(space.collection_id, str(number)))[:200]
    distances = 1 - VECTORS[numbers] @ VECTORS.T
    distances[range(200), numbers] = np.inf
    found = 0
    for number, others in zip(numbers, distances, strict=True):
        hits = db.search_by_vector(VECTORS[number], collection=space.collection, limit=11)
        keys = [int(hit.key) for hit in hits if hit.key != str(number)][:10]
        found += int(sum(others[keys] <= np.sort(others)[9] + 1e-5))
    return found / 2000


def test_the_least_ef_search_that_reaches_the_recall_is_stored(db: Client, loaded: str) -> None:
    before = db.space(loaded).ef_search
    told: list[Measured] = []
    tuned = db.tune(loaded, recall=0.98, on_measured=told.append)
    assert (tuned.collection, tuned.wanted, tuned.queries, tuned.before) == (loaded, 0.98, 200, before)
    assert tuple(told) == tuned.measured
    assert tuple(each.ef_search for each in told) == tuning.EF_SEARCHES[: len(told)]
    assert len(told) > 1
    assert [each for each in told if each.recall >= 0.98] == [tuned.chosen] == told[-1:]
    assert all(0 < each.p50_ms <= each.p95_ms for each in told)
    space, described = db.space(loaded), db.describe(loaded)
    assert space.ef_search == described.ef_search == tuned.chosen.ef_search
    assert described.recall == tuned.chosen.recall
    assert described.measured_at is not None
    assert described.measured_at > described.created_at


def test_the_recall_is_the_one_that_searches_have(db: Client, loaded: str) -> None:
    tuned = db.tune(loaded, recall=0.95)
    assert tuned.chosen.recall < 1
    assert recall_by_numpy(db, db.space(loaded)) == tuned.chosen.recall
    assert db.tune(loaded, recall=0.95).chosen.recall == tuned.chosen.recall


def test_documents_of_several_chunks_are_measured_from_what_a_search_asks_anyway(db: Client) -> None:
    fill(db, "long", [random_vectors(8) for _ in range(200)])
    tuned = db.tune("long", recall=0.5)
    assert [each.ef_search for each in tuned.measured] == [100]  # 98 chunks are fetched for 11 documents
    assert tuned.chosen.recall > 0.9


def test_of_equal_vectors_any_will_do(db: Client) -> None:
    fill(db, "equal", [each[None] for each in np.repeat(random_vectors(4), 50, axis=0)])
    assert db.tune("equal", recall=1).chosen.recall == 1


@pytest.mark.parametrize("documents", [2, 5, 11, 12])
def test_few_documents_are_enough(db: Client, documents: int) -> None:
    name = put_in(db, f"few_{documents}", random_vectors(documents))
    tuned = db.tune(name)
    assert (tuned.queries, tuned.chosen.recall, tuned.chosen.ef_search) == (documents, 1, 100)  # as before


def test_what_cannot_be_reached_is_told_and_nothing_is_stored(
    db: Client, loaded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = description(db, loaded)
    monkeypatch.setattr(tuning, "EF_SEARCHES", (25, 40))
    with pytest.raises(
        errors.RecallNotReached, match="no ef_search up to 40 reaches a recall of 1 in things"
    ) as raised:
        db.tune(loaded, recall=1)
    assert [each.ef_search for each in raised.value.measured] == [25, 40]
    best = raised.value.measured[1]
    assert f"the best was {best.recall:.4f}, with 40; ask for less" in str(raised.value)
    assert description(db, loaded) == before


@pytest.mark.parametrize("recall", [0, -0.5, 1.001, float("nan"), "0.9", True, None])
def test_a_recall_that_cannot_be_is_refused(db: Client, recall: Any) -> None:
    with pytest.raises(errors.InvalidInput, match=r"recall is .*; expected a number over 0 and at most 1"):
        db.tune("anything", recall=recall)


def test_what_cannot_be_measured_is_refused(db: Client, engine: Engine, registry: Registry, loaded: str) -> None:
    with pytest.raises(errors.CollectionMissing, match=f"did you mean .*{loaded}"):
        db.tune("thigs")
    db.create_collection("hollow")
    with pytest.raises(errors.NotMeasurable, match=r"hollow has no documents; .*: ingest some first"):
        db.tune("hollow")
    put_in(db, "hollow", random_vectors(1))
    with pytest.raises(errors.NotMeasurable, match="hollow has a single document"):
        db.tune("hollow")
    with engine.connect() as connection:
        mine = Client(connection=connection, registry=registry)  # which makes no index
        put_in(mine, "bare", random_vectors(30))
        with pytest.raises(errors.NotMeasurable, match=r"bare has no index yet, .*: searchapp db maintain"):
            mine.tune("bare")
        connection.rollback()


def test_a_callers_transaction_is_worked_in(db: Client, engine: Engine, registry: Registry, loaded: str) -> None:
    before = description(db, loaded)
    with engine.connect() as connection:
        mine = Client(connection=connection, registry=registry)
        tuned = mine.tune(loaded, recall=0.3)
        assert mine.describe(loaded).recall == tuned.chosen.recall
        assert description(db, loaded) == before
        connection.rollback()
    assert description(db, loaded) == before


async def test_it_can_be_awaited(db: Client, loaded: str) -> None:
    tuned = await AsyncClient(lambda: db).tune(loaded, recall=0.3)
    assert db.space(loaded).ef_search == tuned.chosen.ef_search


def test_a_collection_that_changes_meanwhile_is_left_as_it_is(db: Client, engine: Engine, registry: Registry) -> None:
    elsewhere = Client(engine, registry=registry)
    put_in(db, "changing", VECTORS)

    def set_otherwise(_: Measured) -> None:
        elsewhere.tune("changing", recall=0.1)

    with pytest.raises(errors.NotMeasurable, match="changing has changed while it was measured; tune it again"):
        db.tune("changing", recall=1, on_measured=set_otherwise)
    assert db.space("changing").ef_search == 25
    with pytest.raises(errors.NotMeasurable, match="tune it again"):
        db.tune("changing", recall=1, on_measured=lambda _: elsewhere.drop_collection("changing"))
    put_in(db, "changing", random_vectors(20))
    with pytest.raises(errors.CollectionMissing, match="was dropped meanwhile"):
        db.tune("changing", recall=0.1, on_measured=lambda _: elsewhere.drop_collection("changing"))


def test_another_ef_search_is_tried_of_a_space_that_is_current_alone(db: Client, loaded: str) -> None:
    space = db.space(loaded)
    former = dataclasses.replace(space, ef_search=space.ef_search + 1)
    asked = Question(Request(limit=10))
    assert len(asking.ask_one(db._reader, space, VECTORS[0], asked, ef_search=777)) == 10
    assert b"'777'" in statement_of(space, asked, ef_search=777).text
    assert b"'777'" not in statement_of(space, asked).text
    for ef_search in (None, space.ef_search, 777):
        with pytest.raises(asking.Outdated):
            asking.ask_one(db._reader, former, VECTORS[0], asked, ef_search=ef_search)
