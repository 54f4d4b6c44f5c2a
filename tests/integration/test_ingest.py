"""Ingesting by the Python door: what is encoded again, what is replaced, refused, pruned and deleted."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Engine, text

from searchapp import errors
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.ingest.documents import Rejected
from searchapp.ingest.ingestion import Progress
from searchapp.ingest.readers import open_source

A = {"key": "a", "title": "Shoes", "text": "Red running shoes", "metadata": {"price": 80}}
B = {"key": "b", "text": "A blue woollen hat", "metadata": {"price": 20}}


def test_unchanged_documents_are_not_encoded_again(db: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    first = db.ingest([A, B], collection="things")
    assert (first.documents, first.chunks, first.unchanged, first.rejected) == (2, 2, 0, 0)
    monkeypatch.setattr(db, "_encoder", lambda _: pytest.fail("the encoder was asked for"))
    second = db.ingest([A, B], collection="things")
    assert (second.documents, second.chunks, second.unchanged) == (0, 0, 2)


def test_changed_text_is_replaced_and_found(db: Client) -> None:
    db.ingest([A, B], collection="things")
    summary = db.ingest([A | {"text": "A steam locomotive"}, B], collection="things")
    assert (summary.documents, summary.chunks, summary.unchanged) == (1, 1, 1)
    assert db.search("railway engine", collection="things")[0].passage == "A steam locomotive"
    assert db.count(collection="things") == 2


def test_changed_title_is_a_change_of_content(db: Client) -> None:
    db.ingest([A], collection="things")
    assert db.ingest([A | {"title": "Boots"}], collection="things").chunks == 1
    document = db.get("a", collection="things")
    assert document is not None
    assert document.title == "Boots"


def test_change_of_metadata_alone_updates_it_without_encoding(db: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    db.ingest([A, B], collection="things")
    monkeypatch.setattr(db, "_encoder", lambda _: pytest.fail("the encoder was asked for"))
    summary = db.ingest([A | {"metadata": {"price": True}}, B], collection="things")
    assert (summary.documents, summary.chunks, summary.unchanged) == (1, 0, 1)
    assert db.count(collection="things", filter={"price": True}) == 1
    assert db.count(collection="things", filter={"price": 80}) == 0


def test_a_document_without_its_chunks_is_encoded_again(db: Client, engine: Engine) -> None:
    db.ingest([A, B], collection="things")
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM searchapp_data.chunks WHERE position = 0"))
    assert db.ingest([A, B], collection="things").chunks == 2


def test_long_text_becomes_passages_and_one_hit(db: Client) -> None:
    body = " ".join(["Bread is baked from flour and water."] * 20 + ["A comet passed near Jupiter."])
    summary = db.ingest([{"key": "a", "text": body}, B], collection="things", chunk_tokens=32)
    assert summary.chunks > 4
    hits = db.search("astronomy", collection="things")
    assert [hit.key for hit in hits] == ["a", "b"]
    assert "Jupiter" in hits[0].passage
    assert len(hits[0].passage) < len(body)


def test_fewer_passages_replace_more(db: Client, engine: Engine) -> None:
    db.ingest([{"key": "a", "text": "flour and water " * 100}], collection="things", chunk_tokens=32)
    db.ingest([{"key": "a", "text": "flour and water"}], collection="things")
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM searchapp_data.chunks")) == 1


def test_other_chunking_than_the_collections_is_refused(db: Client) -> None:
    db.ingest([A], collection="things", chunk_tokens=32)
    with pytest.raises(errors.CollectionMismatch, match="made with 32 tokens"):
        db.ingest([B], collection="things", chunk_tokens=64)
    with pytest.raises(errors.CollectionMismatch, match="no chunking needs another collection"):
        db.ingest([B], collection="things", chunk_tokens=0)
    assert db.ingest([B], collection="things", chunk_tokens=32).documents == 1
    assert db.count(collection="things") == 2


@pytest.mark.parametrize("tokens", [-1, 7, 255])
def test_chunks_that_the_model_cannot_read_are_refused(db: Client, tokens: int) -> None:
    with pytest.raises(errors.InvalidInput, match="expected 8 to 254"):
        db.ingest([A], collection="things", chunk_tokens=tokens)
    assert db.collections() == []


def test_a_faulty_document_raises_and_names_its_place(db: Client) -> None:
    with pytest.raises(errors.RowRejected, match=r"document 2: empty text"):
        db.ingest([A, {"key": "x", "text": " "}], collection="things")


def test_faulty_documents_are_told_where_somebody_listens(db: Client) -> None:
    told: list[Rejected] = []
    source: Sequence[Any] = [A, {"key": "x", "text": " "}, {"text": "no key"}, A, B]
    summary = db.ingest(source, collection="things", on_rejected=told.append)
    assert (summary.documents, summary.rejected) == (2, 3)
    assert [(each.line, each.key) for each in told] == [(2, "x"), (3, None), (4, "a")]
    assert "given before" in told[2].reason


def test_one_and_the_text_one_are_one_key(db: Client) -> None:
    told: list[Rejected] = []
    db.ingest([{"key": 1, "text": "x"}, {"key": "1", "text": "y"}], collection="things", on_rejected=told.append)
    assert len(told) == 1
    assert db.get("1", collection="things") is not None


def test_a_source_that_cannot_be_read_leaves_no_collection(db: Client) -> None:
    with pytest.raises(errors.SourceUnreadable):
        db.ingest(open_source("nowhere.jsonl"), collection="things")
    assert db.collections() == []


def test_a_source_that_breaks_off_keeps_what_was_committed(db: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaking() -> Any:
        yield A
        yield B
        raise errors.SourceUnreadable("the file ends in the middle")

    monkeypatch.setattr("searchapp.ingest.load.BATCH_DOCUMENTS", 1)
    with pytest.raises(errors.SourceUnreadable):
        db.ingest(breaking(), collection="things", prune=True)
    assert db.count(collection="things") == 2
    assert db.space("things").indexed


def test_prune_deletes_what_the_source_lacks(db: Client) -> None:
    more = [{"key": str(number), "text": f"number {number}"} for number in range(4)]
    db.ingest([A, B, *more], collection="things")
    summary = db.ingest([A, *more], collection="things", prune=True)
    assert (summary.pruned, summary.unchanged) == (1, 5)
    assert db.get("b", collection="things") is None


def test_prune_of_more_than_half_needs_a_yes(db: Client) -> None:
    db.ingest([A, B, {"key": "c", "text": "c"}], collection="things")
    with pytest.raises(errors.PruneRefused, match="lacks 2 of the 3 documents") as raised:
        db.ingest([A], collection="things", prune=True)
    assert raised.value.summary.unchanged == 1
    assert db.count(collection="things") == 3
    assert db.ingest([A], collection="things", prune=True, yes=True).pruned == 2


def test_prune_counts_what_was_there_before_not_what_came_with_it(db: Client) -> None:
    db.ingest([A, B, {"key": "c", "text": "c"}], collection="things")
    others = [{"key": str(number), "text": "another file"} for number in range(9)]
    with pytest.raises(errors.PruneRefused, match="lacks 3 of the 3 documents"):
        db.ingest(others, collection="things", prune=True)
    assert db.get("a", collection="things") is not None


def test_prune_keeps_documents_whose_row_was_rejected(db: Client) -> None:
    db.ingest([A, B], collection="things")
    summary = db.ingest([A, B | {"text": ""}], collection="things", prune=True, on_rejected=lambda _: None)
    assert summary.pruned == 0
    assert db.count(collection="things") == 2


def test_nothing_is_pruned_where_a_rejected_row_has_no_readable_key(db: Client) -> None:
    db.ingest([A, B, {"key": "c", "text": "c"}], collection="things")
    summary = db.ingest([A, B, {"text": "?"}], collection="things", prune=True, on_rejected=lambda _: None)
    assert (summary.pruned, summary.unchanged, summary.rejected) == (0, 2, 1)
    assert "no readable key" in (summary.not_pruned or "")
    assert db.count(collection="things") == 3


def test_delete_by_key_and_by_filter(db: Client, engine: Engine) -> None:
    db.ingest([A, B, {"key": "c", "text": "c", "metadata": {"price": 5}}], collection="things")
    assert db.delete(["a", "unknown"], collection="things") == 1
    assert db.delete(collection="things", filter={"price": {"$lt": 10}}) == 1
    assert [hit.key for hit in db.search("x", collection="things")] == ["b"]
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM searchapp_data.chunks")) == 1


def test_delete_needs_keys_or_a_filter(db: Client) -> None:
    db.ingest([A], collection="things")
    nothing: tuple[dict[str, Any] | None, ...] = (None, {})
    for filter in nothing:
        with pytest.raises(errors.InvalidInput, match="keys, or a filter"):
            db.delete(collection="things", filter=filter)
    assert db.count(collection="things") == 1


def test_a_dropped_collection_is_gone_and_its_name_free(db: Client, engine: Engine) -> None:
    db.ingest([A], collection="things")
    db.drop_collection("things")
    with pytest.raises(errors.CollectionMissing):
        db.search("x", collection="things")
    db.ingest([B], collection="things")
    assert db.count(collection="things") == 1
    with engine.begin() as connection:
        partitions = connection.scalar(
            text("SELECT count(*) FROM pg_inherits WHERE inhparent::regclass::text ~ 'chunks'")
        )
        assert connection.scalar(text("SELECT count(*) FROM searchapp_data.collections")) == 1
    assert partitions == 2  # the table's and its key's


def test_two_ingests_of_the_same_documents_never_deadlock(
    db: Client, engine: Engine, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("searchapp.ingest.load.BATCH_DOCUMENTS", 7)
    documents = [{"key": str(number), "text": f"number {number}"} for number in range(40)]
    failures: list[Exception] = []

    def ingest(version: int) -> None:
        order = documents if version % 2 else documents[::-1]
        try:
            Client(engine, registry=registry).ingest(
                [each | {"text": f"{each['text']} of {version}"} for each in order], collection="things"
            )
        except Exception as exc:
            failures.append(exc)

    threads = [threading.Thread(target=ingest, args=(version,)) for version in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert db.count(collection="things") == 40
    with engine.begin() as connection:
        agree = connection.scalar(
            text(
                "SELECT count(*) FROM searchapp_data.documents d JOIN searchapp_data.chunks c ON c.document_id = d.id"
                " WHERE c.length = char_length(d.text)"
            )
        )
    assert agree == 40


def test_everything_happens_in_a_callers_transaction(engine: Engine, registry: Registry, db: Client) -> None:
    with engine.connect() as connection:
        ours = Client(connection=connection, registry=registry)
        ours.ingest([A, B], collection="things")
        ours.ingest([A | {"text": "other"}, B], collection="things")
        assert len(ours.search("x", collection="things")) == 2
        ours.drop_collection("things")
        ours.ingest([A], collection="things")
        assert db.collections() == []
        connection.rollback()
    assert db.collections() == []


def test_progress_is_told(db: Client) -> None:
    told: list[Progress] = []
    db.ingest([A, B], collection="things", on_progress=told.append)
    assert told == [Progress(2), Progress(2, indexing=True)]


@pytest.mark.parametrize("name", ["Articles", "1st", "a-b", "", "spaces", "my_status", "ä", "x" * 52])
def test_forbidden_names_are_refused_with_a_suggestion(db: Client, name: str) -> None:
    with pytest.raises(errors.InvalidName, match="would do") as raised:
        db.create_collection(name)
    suggestion = str(raised.value).rsplit("; ", 1)[1].removesuffix(" would do")
    db.create_collection(suggestion)
