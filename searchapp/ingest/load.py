"""Writing documents: one transaction changes a document and its chunks, so text and vectors always agree."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg.types.json import Jsonb
from sqlalchemy import Connection, Select, select, text

from searchapp import faults, models
from searchapp.database import Transaction
from searchapp.encoders import Encoder
from searchapp.ingest.chunking import Chunker, Passage
from searchapp.ingest.documents import Document
from searchapp.spaces import Space
from searchapp.vectors import Array, quote

# The fixed namespace of document ids: uuid5(NAMESPACE, collection id, NUL, key).
NAMESPACE = uuid.UUID("b2f0e6c4-3c52-5d0e-9f63-2f9a6f3d9c11")

# A transaction takes this many documents, or fewer where they are long (in code points).
BATCH_DOCUMENTS = 1000
BATCH_LENGTH = 4_000_000
# So many passages are encoded and staged at a time, which bounds memory where one document is very long.
BATCH_PASSAGES = 4096


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a batch: documents written, their chunks, and documents that were there already, unchanged."""

    documents: int = 0
    chunks: int = 0
    unchanged: int = 0

    def __add__(self, other: Loaded) -> Loaded:
        return Loaded(self.documents + other.documents, self.chunks + other.chunks, self.unchanged + other.unchanged)


@dataclass(frozen=True, slots=True)
class _Row:
    id: uuid.UUID
    content_hash: bytes
    document: Document


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch that is ready to be written: what changed, in the order of the ids, and its chunks as COPY takes them;
    what differs in metadata alone; and how many documents are there already."""

    changed: list[_Row]
    packed: list[bytes]
    passages: int
    relabelled: list[_Row]
    unchanged: int


def document_id(collection_id: int, key: str) -> uuid.UUID:
    """The id of a document: the same key in the same collection has always the same one."""
    return uuid.uuid5(NAMESPACE, f"{collection_id}\0{key}")


def content_hash(title: str | None, body: str) -> bytes:
    """The SHA-256 of title and text; neither can hold the NUL between them."""
    return hashlib.sha256(f"{title or ''}\0{body}".encode()).digest()


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Cut a stream into what one transaction takes."""
    batch: list[Document] = []
    length = 0
    for document in documents:
        batch.append(document)
        length += len(document.text) + len(document.title or "") + len(json.dumps(document.metadata))
        if len(batch) >= BATCH_DOCUMENTS or length >= BATCH_LENGTH:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def prepare(
    transaction: Transaction, space: Space, documents: Sequence[Document], encoder: Callable[[], Encoder]
) -> Prepared:
    """Find out which documents of a batch are new or changed, and encode these; nothing is written yet.

    :param documents: with distinct keys.
    :param transaction: opens a transaction; encoding happens outside of any.
    :param encoder: gives the encoder; called only where something must be encoded.
    """
    rows = [
        _Row(document_id(space.collection_id, each.key), content_hash(each.title, each.text), each)
        for each in documents
    ]
    with transaction() as connection:
        changed, relabelled = _compare(connection, space, rows)
    changed.sort(key=lambda row: row.id)
    passages, packed = _encode(space, changed, encoder()) if changed else (0, [])
    return Prepared(changed, packed, passages, relabelled, unchanged=len(rows) - len(changed) - len(relabelled))


def write(transaction: Transaction, space: Space, prepared: Prepared, encoder: Callable[[], Encoder]) -> Loaded:
    """Write a prepared batch: what changed, then what was relabelled, in transactions with one order of locks each."""
    if prepared.changed:
        with transaction() as connection:
            _write(connection, space, prepared)
    updated: set[uuid.UUID] = set()
    if prepared.relabelled:
        with transaction() as connection:
            updated = _update_metadata(connection, space, prepared.relabelled)
    written = Loaded(len(updated) + len(prepared.changed), prepared.passages, prepared.unchanged)
    missed = [row.document for row in prepared.relabelled if row.id not in updated]
    if not missed:
        return written
    # Another writer changed these texts since they were compared: they are written like any changed ones.
    return written + write(transaction, space, prepare(transaction, space, missed, encoder), encoder)


def _compare(connection: Connection, space: Space, rows: list[_Row]) -> tuple[list[_Row], list[_Row]]:
    """Which rows are new or changed, and which differ in metadata alone."""
    found = connection.execute(
        text(
            "SELECT n.place, d.id IS NOT NULL AND d.content_hash = n.content_hash AND EXISTS ("
            "   SELECT FROM searchapp_data.chunks c WHERE c.space_id = :space_id AND c.document_id = n.id"
            "  ) AS same_content,"
            "  d.metadata = n.metadata AS same_metadata"
            " FROM unnest(CAST(:ids AS uuid[]), CAST(:hashes AS bytea[]), CAST(:metadata AS jsonb[]))"
            "   WITH ORDINALITY AS n(id, content_hash, metadata, place)"
            " LEFT JOIN searchapp_data.documents d ON d.collection_id = :collection_id AND d.id = n.id"
        ),
        {
            "space_id": space.id,
            "collection_id": space.collection_id,
            "ids": [row.id for row in rows],
            "hashes": [row.content_hash for row in rows],
            "metadata": [Jsonb(row.document.metadata) for row in rows],
        },
    ).all()
    changed = [rows[place - 1] for place, same_content, _ in found if not same_content]
    relabelled = [rows[place - 1] for place, same_content, same_metadata in found if same_content and not same_metadata]
    return changed, relabelled


def _update_metadata(connection: Connection, space: Space, rows: list[_Row]) -> set[uuid.UUID]:
    """Write new metadata where the content is still the one compared; return the ids that were written."""
    lock_documents(connection, space.collection_id, [row.id for row in rows])
    updated = connection.execute(
        text(
            "UPDATE searchapp_data.documents d SET metadata = n.metadata, updated_at = now()"
            " FROM unnest(CAST(:ids AS uuid[]), CAST(:hashes AS bytea[]), CAST(:metadata AS jsonb[]))"
            "   AS n(id, content_hash, metadata)"
            " WHERE d.collection_id = :collection_id AND d.id = n.id AND d.content_hash = n.content_hash RETURNING d.id"
        ),
        {
            "collection_id": space.collection_id,
            "ids": [row.id for row in rows],
            "hashes": [row.content_hash for row in rows],
            "metadata": [Jsonb(row.document.metadata) for row in rows],
        },
    )
    return set(updated.scalars())


def lock_documents(connection: Connection, collection_id: int, ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Lock those of the documents that exist, in the order of their ids, which keeps writers from deadlocking."""
    statement = text(
        "SELECT id FROM searchapp_data.documents WHERE collection_id = :collection_id AND id = ANY(:ids)"
        " ORDER BY id FOR UPDATE"
    )
    return list(connection.scalars(statement, {"collection_id": collection_id, "ids": list(ids)}))


def _encode(space: Space, rows: list[_Row], encoder: Encoder) -> tuple[int, list[bytes]]:
    """Cut and encode documents; return how many chunks they have, and these as COPY takes them."""
    chunker = Chunker(encoder.tokenizer, encoder.max_tokens, space.chunking, encoder.model.document_prefix)
    passages = [(row, position, passage) for row in rows for position, passage in enumerate(_cut(chunker, row))]
    packed = [
        _pack(part, encoder.encode_documents([passage.encoded for _, _, passage in part]))
        for part in _parts(passages, BATCH_PASSAGES)
    ]
    return len(passages), packed


def _write(connection: Connection, space: Space, prepared: Prepared) -> None:
    """Write new and changed documents, in the order of their ids, with their chunks."""
    _stage(connection, space, prepared.changed, prepared.packed)
    faults.point("after-staging")
    _merge_documents(connection, space)
    faults.point("between-documents-and-chunks")
    _replace_chunks(connection, space, [row.id for row in prepared.changed])
    connection.exec_driver_sql("DROP TABLE pg_temp.staged_documents, pg_temp.staged_chunks")
    faults.point("before-commit")


def _cut(chunker: Chunker, row: _Row) -> list[Passage]:
    return chunker.passages(row.document.title, row.document.text)


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _pack(passages: list[tuple[_Row, int, Passage]], vectors: Array) -> bytes:
    """Rows of (document_id, position, start, length, embedding) as COPY BINARY wants them, without its header.

    Every row is as long as the next, so they are one structured array: no Python object a value.
    *Source:* https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"; pgvector's vector_send.
    """
    dimensions = vectors.shape[1]
    layout: list[tuple[str, Any]] = [("fields", ">i2"), ("id_size", ">i4"), ("id", "V16")]
    for name in ("position", "start", "length"):
        layout += [(f"{name}_size", ">i4"), (name, ">i4")]
    layout += [("size", ">i4"), ("dimensions", ">i2"), ("unused", ">i2"), ("embedding", ">f4", (dimensions,))]  # type: ignore[list-item]
    table = np.zeros(len(passages), dtype=layout)
    table["fields"], table["id_size"], table["size"], table["dimensions"] = 5, 16, 4 + 4 * dimensions, dimensions
    table["id"] = np.frombuffer(b"".join(row.id.bytes for row, _, _ in passages), dtype="V16")
    for name, values in (
        ("position", [position for _, position, _ in passages]),
        ("start", [passage.start for _, _, passage in passages]),
        ("length", [passage.length for _, _, passage in passages]),
    ):
        table[f"{name}_size"], table[name] = 4, values
    table["embedding"] = vectors
    return table.tobytes()


def _stage(connection: Connection, space: Space, rows: list[_Row], packed: list[bytes]) -> None:
    """Copy a batch into temporary tables."""
    connection.exec_driver_sql(
        "CREATE TEMPORARY TABLE staged_documents"
        " (id uuid, key text, title text, text text, metadata jsonb, content_hash bytea)"
    )
    connection.exec_driver_sql(
        "CREATE TEMPORARY TABLE staged_chunks (document_id uuid, position int, start int, length int,"
        f" embedding {quote(space.vector_schema)}.vector)"
    )
    driver = connection.connection.driver_connection
    assert driver is not None
    with driver.cursor() as cursor:
        with cursor.copy("COPY pg_temp.staged_documents FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["uuid", "text", "text", "text", "jsonb", "bytea"])
            for row in rows:
                each = row.document
                copy.write_row((row.id, each.key, each.title, each.text, Jsonb(each.metadata), row.content_hash))
        with cursor.copy("COPY pg_temp.staged_chunks FROM STDIN (FORMAT binary)") as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
            for part in packed:
                copy.write(part)
            copy.write(b"\xff\xff")


def _merge_documents(connection: Connection, space: Space) -> None:
    connection.execute(
        text(
            "INSERT INTO searchapp_data.documents AS d (collection_id, id, key, title, text, metadata, content_hash)"
            " SELECT :collection_id, id, key, title, text, metadata, content_hash"
            " FROM pg_temp.staged_documents ORDER BY id"
            " ON CONFLICT (collection_id, id) DO UPDATE SET title = excluded.title, text = excluded.text,"
            "  metadata = excluded.metadata, content_hash = excluded.content_hash, updated_at = now()"
        ),
        {"collection_id": space.collection_id},
    )


def _replace_chunks(connection: Connection, space: Space, ids: list[uuid.UUID]) -> None:
    _delete_chunks(connection, space, ids)
    connection.execute(
        text(
            "INSERT INTO searchapp_data.chunks (space_id, document_id, position, start, length, embedding)"
            " SELECT :space_id, document_id, position, start, length, embedding FROM pg_temp.staged_chunks"
        ),
        {"space_id": space.id},
    )


def delete(connection: Connection, space: Space, ids: Sequence[uuid.UUID], matching: Select[Any] | None = None) -> int:
    """Delete documents and all their chunks.

    :param matching: a statement with a column ``id``: only what it still gives, once locked, is deleted.
    :return: how many documents there were.
    """
    found = lock_documents(connection, space.collection_id, ids)
    if matching is not None:
        found = list(connection.scalars(matching.where(matching.selected_columns.id.in_(found))))
    _delete_chunks(connection, space, found)
    connection.execute(
        text("DELETE FROM searchapp_data.documents WHERE collection_id = :collection_id AND id = ANY(:ids)"),
        {"collection_id": space.collection_id, "ids": found},
    )
    return len(found)


def _delete_chunks(connection: Connection, space: Space, ids: Sequence[uuid.UUID]) -> None:
    """Delete the chunks of documents, in all spaces of the collection: none may be of an older text."""
    spaces = list(connection.scalars(select(models.Space.id).where(models.Space.collection_id == space.collection_id)))
    # The ids as an array, not a staged table: without statistics of that a join reads the whole partition.
    connection.execute(
        text("DELETE FROM searchapp_data.chunks WHERE space_id = ANY(:spaces) AND document_id = ANY(:ids)"),
        {"spaces": spaces, "ids": list(ids)},
    )
