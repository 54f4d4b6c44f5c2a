"""Documents that bring their own embeddings: put in, replaced, refused row by row."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine

from searchapp import errors, partitions
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.ingest import load
from searchapp.ingest.documents import Rejected
from searchapp.ingest.ingestion import Progress
from tests.made_up import DIMENSIONS, random_vectors

MODEL = "all-MiniLM-L6-v2"


def documents(count: int, text: str = "text") -> list[dict[str, Any]]:
    return [{"key": f"{number:03}", "text": f"{text} {number}", "metadata": {"n": number}} for number in range(count)]


def first_key(db: Client, vector: Any, collection: str = "things") -> str:
    return db.search_by_vector(vector, collection=collection, limit=1)[0].key


def test_vectors_are_found_by_vector_and_by_text(db: Client, registry: Registry) -> None:
    texts = ["red shoes", "a blue whale", "bread"]
    vectors = registry.encoder(MODEL).encode_documents(texts)
    rows = [{"key": text, "text": text, "title": None} for text in texts]
    summary = db.load_vectors(rows, vectors, collection="things", model=MODEL)
    assert (summary.documents, summary.chunks, summary.unchanged) == (3, 3, 0)
    hits = db.search("crimson sneakers", collection="things")
    assert hits[0].key == hits[0].passage == "red shoes"
    assert first_key(db, vectors[1]) == "a blue whale"
    assert db.space("things").indexed
    assert db.describe("things").chunking == "no chunking"


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_number_types_and_lists_are_taken(db: Client, kind: Any) -> None:
    vectors = random_vectors(4).astype(kind)
    db.load_vectors(documents(4), vectors, collection="things", model=MODEL)
    db.load_vectors(iter(documents(4)), iter(vectors.tolist()), collection="lists", model=MODEL)
    for collection in ("things", "lists"):
        assert [first_key(db, vector, collection) for vector in vectors] == ["000", "001", "002", "003"]


def test_a_vector_replaces_the_stored_one_though_the_text_is_the_same(db: Client) -> None:
    old, new = random_vectors(20), random_vectors(20)
    db.load_vectors(documents(20), old, collection="things", model=MODEL)
    again = db.load_vectors(documents(20), old, collection="things", model=MODEL)
    assert (again.documents, again.unchanged) == (0, 20)
    changed = np.vstack([new[:5], old[5:]])
    summary = db.load_vectors(documents(20), changed, collection="things", model=MODEL)
    assert (summary.documents, summary.chunks, summary.unchanged) == (5, 5, 15)
    assert [first_key(db, vector) for vector in changed] == [f"{number:03}" for number in range(20)]
    assert first_key(db, old[0]) != "000" or db.search_by_vector(old[0], collection="things")[0].score < 0.9


def test_vectors_replace_passages_that_were_encoded(db: Client) -> None:
    db.ingest([{"key": "long", "text": "A whale is large. " * 100}], collection="things", chunk_tokens=32)
    assert db.describe("things").chunks > 3
    (vector,) = random_vectors(1)
    db.load_vectors(
        [{"key": "long", "text": "A whale is large. " * 100}], vector[None], collection="things", model=MODEL
    )
    assert db.describe("things").chunks == 1
    (hit,) = db.search_by_vector(vector, collection="things")
    assert hit.passage == "A whale is large. " * 100


def test_metadata_alone_is_relabelled(db: Client) -> None:
    vectors = random_vectors(3)
    db.load_vectors(documents(3), vectors, collection="things", model=MODEL)
    relabelled = [{**each, "metadata": {"n": -1}} for each in documents(3)]
    summary = db.load_vectors(relabelled, vectors, collection="things", model=MODEL)
    assert (summary.documents, summary.chunks) == (3, 0)
    assert db.count(collection="things", filter={"n": -1}) == 3


def test_faulty_vectors_are_rejected_by_row_with_the_reason(db: Client) -> None:
    good = random_vectors(6)
    nan, infinite, zero, huge = good[0].copy(), good[0].copy(), np.zeros(DIMENSIONS), good[0] * 1e25
    nan[3], infinite[3] = np.nan, -np.inf
    vectors = [good[0], nan, infinite, zero, huge, good[1][:-1], "abc", None, [[1.0]], good[5]]
    rejected: list[Rejected] = []
    summary = db.load_vectors(documents(10), vectors, collection="things", model=MODEL, on_rejected=rejected.append)
    assert (summary.documents, summary.rejected) == (2, 8)
    assert [(each.key, each.line) for each in rejected] == [(f"{n:03}", n + 1) for n in range(1, 9)]
    reasons = ["NaN", "infinity", "zero", "length is 1e\\+25", "383 dimensions, expected 384", "numbers", "no vector"]
    for each, reason in zip(rejected, reasons, strict=False):
        assert re.search(reason, each.reason), each.reason
    assert first_key(db, good[5]) == "009"


def test_faulty_rows_of_an_array_are_rejected_too(db: Client) -> None:
    vectors = random_vectors(5)
    vectors[2] = 0
    rows: list[Any] = documents(5)
    rows[3] = {"key": "003"}  # its vector goes with it
    rejected: list[Rejected] = []
    db.load_vectors(rows, vectors, collection="things", model=MODEL, on_rejected=rejected.append)
    assert [(each.key, each.reason.split(";")[0]) for each in rejected] == [
        ("002", "the vector is zero"),
        ("003", "no field 'text'"),
    ]
    assert first_key(db, vectors[4]) == "004"
    with pytest.raises(errors.RowRejected, match="zero"):
        db.load_vectors(rows, vectors, collection="others", model=MODEL)


@pytest.mark.parametrize(
    ("vectors", "reason"),
    [
        (np.ones((3, DIMENSIONS)), "there are 2 rows, and 3 vectors"),
        (np.ones((2, 3)), "have 3 dimensions, the model's have 384"),
        (np.ones(2), r"array of shape \(2,\)"),
        (np.array([["a"], ["b"]]), "expected numbers"),
    ],
)
def test_what_cannot_belong_to_the_documents_is_refused_before_anything_is_written(
    db: Client, vectors: Any, reason: str
) -> None:
    with pytest.raises(errors.SearchAppError, match=reason):
        db.load_vectors(documents(2), vectors, collection="things", model=MODEL)
    assert db.collections() == []


@pytest.mark.parametrize(("rows", "given"), [(3, 2), (2, 3)])
def test_streams_that_do_not_end_together_are_told_apart(db: Client, rows: int, given: int) -> None:
    with pytest.raises(errors.InvalidInput, match="expected a vector for each row"):
        db.load_vectors(iter(documents(rows)), iter(random_vectors(given)), collection="things", model=MODEL)


def test_a_model_that_is_not_here_may_have_made_them(db: Client) -> None:
    vectors = np.eye(4, 1536, dtype=np.float32)
    db.load_vectors(documents(4), vectors, collection="things", model="text-embedding-3-small")
    space = db.space("things")
    assert (space.model, space.dimensions, space.indexed) == ("text-embedding-3-small", 1536, True)
    assert first_key(db, vectors[2]) == "002"
    with pytest.raises(errors.ModelMissing, match="text-embedding-3-small"):
        db.search("a text", collection="things")
    with pytest.raises(errors.CollectionMismatch, match="made with text-embedding-3-small"):
        db.load_vectors(documents(4), random_vectors(4), collection="things", model=MODEL)
    with pytest.raises(errors.ModelMismatch, match="have 384 dimensions, the model's have 1536"):
        db.load_vectors(documents(4), random_vectors(4), collection="things", model="text-embedding-3-small")


def test_pruning_deletes_what_is_not_given(db: Client) -> None:
    vectors = random_vectors(5)
    db.load_vectors(documents(5), vectors, collection="things", model=MODEL)
    summary = db.load_vectors(documents(4), vectors[:4], collection="things", model=MODEL, prune=True)
    assert (summary.unchanged, summary.pruned) == (4, 1)


def test_documents_that_another_writer_puts_in_meanwhile_are_replaced(
    db: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at what is there and the COPY: its unique violation sends the batch another way."""
    old, new = random_vectors(2), random_vectors(2)
    db.create_collection("things", model=MODEL, chunk_tokens=0)
    known = load._known

    def known_before(*arguments: Any) -> set[bytes]:
        found = known(*arguments)
        monkeypatch.undo()
        db.load_vectors(documents(2, "other"), old, collection="things", model=MODEL)
        return found

    monkeypatch.setattr(load, "_known", known_before)
    summary = db.load_vectors(documents(2), new, collection="things", model=MODEL)
    assert (summary.documents, summary.chunks) == (2, 2)
    assert db.describe("things").chunks == 2
    hit = db.search_by_vector(new[1], collection="things", limit=1)[0]
    assert (hit.key, hit.passage) == ("001", "text 1")


def test_the_index_says_how_far_it_is(db: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "WATCHING_INTERVAL", 0.01)
    told: list[Progress] = []
    db.load_vectors(documents(1500), random_vectors(1500), collection="things", model=MODEL, on_progress=told.append)
    assert [each.documents for each in told if not each.indexing][-1] == 1500
    shares = [each.indexed for each in told if each.indexing]
    assert shares == sorted(shares)
    assert 0 < shares[-1] <= 1


def test_a_callers_transaction_is_neither_committed_nor_indexed(engine: Engine, registry: Registry, db: Client) -> None:
    with engine.connect() as connection:
        mine = Client(connection=connection, registry=registry)
        vectors = random_vectors(3)
        mine.load_vectors(documents(3), vectors, collection="things", model=MODEL)
        assert first_key(mine, vectors[1]) == "001"
        assert not mine.space("things").indexed
        connection.rollback()
    assert db.collections() == []


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [each for each in threading.enumerate() if each.name == "searchapp-index-progress"]
