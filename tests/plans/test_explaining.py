"""``explain`` says which rung gave an answer, from how many rows, and what could be done."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text

from searchapp import errors
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.fields import Field
from searchapp.search import explaining, trial
from searchapp.search.explanation import EXACT, FILTER, FIRST, WIDER, Explanation
from searchapp.search.question import Question
from searchapp.search.request import request
from searchapp.spaces import Space
from tests import conftest
from tests.made_up import fill, random_vectors, unit

# With fewer, PostgreSQL rightly reads everything.
DOCUMENTS = 8000
VECTOR = np.ones(384, dtype=np.float32)


engine, db = conftest.shared_database()


@pytest.fixture(scope="module")
def space(db: Client) -> Space:
    chunks = [each[None] for each in random_vectors(DOCUMENTS)]
    return fill(db, "things", chunks, lambda number: {"rare": number % 300, "often": number % 2, "number": number})


@pytest.fixture(scope="module")
def small(db: Client) -> Space:
    return fill(db, "few", [each[None] for each in random_vectors(15)])


def explain(db: Client, space: Space, **options: Any) -> Explanation:
    return db.explain_by_vector(VECTOR, collection=space.collection, **options)


def test_the_first_rung_is_told(db: Client, space: Space) -> None:
    told = explain(db, space)
    index = f"space_{space.id}_hnsw"
    assert (told.rung, told.index, told.ef_search, told.exact) == (FIRST, index, 100, False)
    assert (told.hits, told.passages_scanned, told.documents_scanned, told.rows_scanned) == (10, 20, 0, 20)
    assert told.advice == ()
    lines = str(told).splitlines()
    assert lines[:2] == [
        f"answer   10 hits, approximate, by the index {index} (first rung, ef_search 100)",
        "read     20 passages",
    ]
    assert len(lines) == 3
    assert explain(db, space, limit=200, offset=100).ef_search == 310


def test_times_are_those_of_the_server_and_of_a_round_trip(db: Client, space: Space) -> None:
    for told in (explain(db, space), explain(db, space, limit=2000)):
        took = dataclasses.astuple(told.took_ms)
        assert all(each >= 0 for each in took)
        assert took[1] > 0


def test_the_plan_is_the_servers_without_vectors(db: Client, space: Space) -> None:
    plan = explain(db, space).plan
    assert f"Index Scan using space_{space.id}_hnsw on chunks_{space.id}" in plan
    assert "Execution Time" in plan
    assert "<=> '[...]'" in plan
    assert len(plan) < 20_000


def test_a_wide_filter_goes_by_the_index_and_counts_its_documents(db: Client, space: Space) -> None:
    told = explain(db, space, filter={"often": 1})
    assert told.rung == FIRST
    assert 30 <= told.passages_scanned <= 300
    assert told.documents_scanned == told.passages_scanned
    assert told.advice == ()


def test_a_rare_filter_comes_first_by_its_index(db: Client, space: Space) -> None:
    told = explain(db, space, filter={"rare": 7})
    index = f"documents_{space.collection_id}_metadata_idx"
    assert (told.rung, told.index, told.ef_search, told.exact) == (FILTER, index, None, True)
    assert (told.hits, told.passages_scanned, told.documents_scanned) == (10, 27, 27)
    assert told.advice == ()
    assert f"10 hits, exact: the filter came first, found by the index {index}\n" in str(told)
    assert "read     27 passages, and 27 documents for the filter\n" in str(told)


def test_fewer_matching_than_asked_for_are_told(db: Client, space: Space) -> None:
    told = explain(db, space, filter={"rare": 7}, limit=50)
    assert (told.rung, told.hits) == (EXACT, 27)
    assert told.advice == (
        "27 documents match and 50 were asked for, so that everything was compared; fewer come faster",
    )
    told = explain(db, space, filter={"rare": "never"})
    assert (told.rung, told.hits, told.passages_scanned) == (EXACT, 0, 0)
    assert told.advice == ("no document passes the filter; check its fields and values",)


def test_asked_exactly_everything_is_compared(db: Client, space: Space) -> None:
    told = explain(db, space, exact=True)
    assert (told.rung, told.index, told.passages_scanned, told.hits) == (EXACT, None, DOCUMENTS, 10)
    assert told.advice == ("it was asked for an exact answer; without that the index answers, where it is faster",)
    assert "exact: compared with all passages\n" in str(told)


def test_a_small_collection_needs_no_index(db: Client, small: Space) -> None:
    told = explain(db, small)
    assert (told.rung, told.index, told.passages_scanned) == (EXACT, None, 15)
    assert told.advice == ("the collection is small: comparing with all its 15 passages is about as fast as the index",)


def test_a_threshold_that_cuts_is_told(db: Client, space: Space) -> None:
    told = explain(db, space, max_distance=0.1)
    assert (told.rung, told.hits) == (FIRST, 0)
    assert told.advice == (
        "no hits came within the distance 0.1; a larger max_distance, or a smaller min_score, gives more",
    )
    assert explain(db, space, max_distance=2).advice == ()


def test_the_wider_rung_is_told(db: Client) -> None:
    """The nearest documents have hundreds of chunks each, most others one."""
    crowd = unit(unit(VECTOR) + 0.01 * random_vectors(300))
    near = [crowd[:150], crowd[150:], *(each[None] for each in unit(unit(VECTOR) + 0.5 * random_vectors(40)))]
    chunks = [*near, *(each[None] for each in random_vectors(DOCUMENTS))]
    space = fill(db, "crowded", chunks)
    told = explain(db, space)
    assert (told.rung, told.index, told.ef_search) == (WIDER, f"space_{space.id}_hnsw", 1000)
    assert 400 < told.passages_scanned < 1100
    assert "approximate, by the index" in str(told)
    assert "(wider rung, ef_search 1000)" in str(told)
    assert told.advice == ()


def test_the_exact_rung_is_told_where_many_are_equally_far(db: Client) -> None:
    same = [unit(VECTOR)[None]] * 1500
    space = fill(db, "equal", [*same, *(each[None] for each in random_vectors(DOCUMENTS))])
    told = explain(db, space)
    assert (told.rung, told.index, told.hits) == (EXACT, None, 10)
    assert told.passages_scanned == DOCUMENTS + 1500 + 20
    [advice] = told.advice
    assert advice.startswith("many of the nearest passages are equally far, so that everything was compared")


def test_a_collection_without_index_or_without_anything_is_told(db: Client, engine: Engine) -> None:
    empty = db.create_collection("empty")
    assert explain(db, empty).advice == ("the collection holds nothing yet: searchapp ingest FILE --collection empty",)
    space = fill(db, "unindexed", [each[None] for each in random_vectors(20)])
    with engine.begin() as connection:
        connection.execute(text("UPDATE searchapp_data.spaces SET state = 'building' WHERE id = :id"), {"id": space.id})
    told = explain(db, space)
    assert (told.rung, told.index, told.hits, told.passages_scanned) == (EXACT, None, 10, 20)
    assert told.advice == (
        "there is no index yet, so that every search compares with everything: searchapp db maintain",
    )


def test_declaring_fields_is_advised_where_the_filter_reads_much(db: Client, space: Space) -> None:
    def advised(filter: dict[str, Any], declared: tuple[Field, ...] = ()) -> list[str]:
        asked = request(10, filter=filter)
        tried = trial.ask(db._reader, space, VECTOR, Question(asked))
        reading = explaining.read_plan(tried.plan, space, asked)
        known = dataclasses.replace(space, fields=declared)
        return list(explaining.advise(reading, known, asked, len(tried.rows)))

    number = "declaring number would help the filter: searchapp collection field add things number:number"
    assert number in advised({"number": {"$lt": 30}})
    assert number not in advised({"number": {"$lt": 30}}, (Field("number", "number"),))
    assert advised({"often": 1, "number": {"$gte": 0}}) == []  # reads little
    assert advised({"rare": 7}) == []  # the index on all metadata finds them


def test_a_text_is_explained_and_a_callers_transaction_too(db: Client, engine: Engine, registry: Registry) -> None:
    db.ingest([{"key": "1", "text": "Red shoes"}], collection="texts")
    with engine.begin() as connection:
        for handle in (db, Client(connection=connection, registry=registry)):
            told = handle.explain("crimson sneakers", collection="texts", timeout=30)
            assert (told.rung, told.hits) == (EXACT, 1)
            assert handle.explain("crimson sneakers", collection="texts", offset=1).hits == 0


def test_what_cannot_be_asked_cannot_be_explained(db: Client, space: Space) -> None:
    with pytest.raises(errors.InvalidInput, match="the query is empty"):
        db.explain(" ", collection=space.collection)
    with pytest.raises(errors.InvalidInput, match="limit is 0"):
        explain(db, space, limit=0)
    with pytest.raises(errors.InvalidFilter, match="unknown operator"):
        explain(db, space, filter={"a": {"$regex": "x"}})
    with pytest.raises(errors.ModelMismatch):
        db.explain_by_vector([1.0], collection=space.collection)
    with pytest.raises(errors.CollectionMissing, match="did you mean things"):
        db.explain_by_vector(VECTOR, collection="thingz")


def test_a_space_that_has_changed_is_looked_up_again(db: Client, engine: Engine, small: Space) -> None:
    explain(db, small)
    with engine.begin() as connection:
        connection.execute(text("UPDATE searchapp_data.spaces SET ef_search = 55 WHERE id = :id"), {"id": small.id})
    explain(db, small)
    assert db._spaces[small.collection].ef_search == 55
