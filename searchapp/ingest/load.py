"""Writing documents: one transaction changes a document, its words and its chunks, so that they always agree."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import psycopg
from sqlalchemy import Connection, Select, select, text

from searchapp import faults, models
from searchapp.database import Transaction
from searchapp.encoders import Encoder
from searchapp.ingest import packing, words
from searchapp.ingest.chunking import Chunker
from searchapp.ingest.documents import Document
from searchapp.models import id_bytes
from searchapp.spaces import Space
from searchapp.vectors import Array
from searchapp.wire import ArrayParameter, quote

# A transaction takes this many documents, or fewer where they are long (in code points). Where nothing is to be encoded
# it is over in a moment, so it may take more.
BATCH_DOCUMENTS = 1000
BATCH_EMBEDDED = 2500
BATCH_LENGTH = 4_000_000
# So many passages are encoded at a time, which bounds memory where one document is very long.
BATCH_PASSAGES = 4096


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a batch: documents written, their chunks, and documents that were there already, unchanged."""

    documents: int = 0
    chunks: int = 0
    unchanged: int = 0

    def __add__(self, other: Loaded) -> Loaded:
        return Loaded(self.documents + other.documents, self.chunks + other.chunks, self.unchanged + other.unchanged)


@dataclass(slots=True)
class Row:
    """A document as it is written; ``id`` in bytes, ``metadata`` as JSON."""

    id: bytes
    document: Document
    metadata: bytes
    content_hash: bytes

    @classmethod
    def of(cls, collection_id: int, document: Document) -> Row:
        return cls(
            id_bytes(collection_id, document.key),
            document,
            _encode_json(document.metadata),
            content_hash(document.title, document.text),
        )


def _encode_json(metadata: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(metadata)  # four times as fast
    except orjson.JSONEncodeError:  # a whole number of more than 64 bits
        return json.dumps(metadata).encode()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch that is ready to be written.

    ``changed`` is what is new or changed, in the order of its ids, ``documents`` and ``chunks`` its rows as COPY
    takes them, ``passages`` how many chunks that are; ``relabelled`` differ in metadata alone; ``unchanged`` are there
    already. ``new``: nothing of it was there.
    """

    changed: list[Row]
    documents: bytes
    chunks: list[memoryview]
    passages: int
    relabelled: list[Row]
    unchanged: int
    new: bool


def content_hash(title: str | None, body: str) -> bytes:
    """The SHA-256 of title and text; neither can hold the NUL between them."""
    return hashlib.sha256(f"{title or ''}\0{body}".encode()).digest()


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Cut a stream into what one transaction takes."""
    batch: list[Row] = []
    length = 0
    for row in rows:
        batch.append(row)
        length += len(row.document.text) + len(row.document.title or "") + len(row.metadata)
        size = BATCH_DOCUMENTS if row.document.embedding is None else BATCH_EMBEDDED
        if len(batch) >= size or length >= BATCH_LENGTH:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def prepare(
    transaction: Transaction, space: Space, rows: Sequence[Row], encoder: Callable[[], Encoder], *, empty: bool = False
) -> Prepared:
    """Find out which documents of a batch are new or changed, and encode these; nothing is written yet.

    :param rows: with distinct keys; all of them bring their embeddings, or none.
    :param transaction: opens a transaction; encoding happens outside of any.
    :param encoder: gives the encoder; called only where something must be encoded.
    :param empty: the collection had no documents just now: it need not be asked for these.
    """
    known: set[bytes] = set()
    changed: list[Row] = []
    relabelled: list[Row] = []
    if not empty:
        with transaction() as connection:
            known = _known(connection, space, rows)
            if known:
                changed, relabelled = _compare(connection, space, [row for row in rows if row.id in known])
    changed += [row for row in rows if row.id not in known]
    changed.sort(key=lambda row: row.id)
    passages, chunks = _packed_passages(space, changed, encoder) if changed else (0, [])
    return Prepared(
        changed,
        _packed_documents(space, changed),
        chunks,
        passages,
        relabelled,
        unchanged=len(rows) - len(changed) - len(relabelled),
        new=not known,
    )


def write(transaction: Transaction, space: Space, prepared: Prepared, encoder: Callable[[], Encoder]) -> Loaded:
    """Write a prepared batch: what changed, then what was relabelled, in transactions with one order of locks each."""
    if prepared.changed:
        with transaction() as connection:
            if not (prepared.new and _insert(connection, space, prepared)):
                _replace(connection, space, prepared)
            faults.point("before-commit")
    updated: set[bytes] = set()
    if prepared.relabelled:
        with transaction() as connection:
            updated = _update_metadata(connection, space, prepared.relabelled)
    written = Loaded(len(updated) + len(prepared.changed), prepared.passages, prepared.unchanged)
    missed = [row for row in prepared.relabelled if row.id not in updated]
    if not missed:
        return written
    # Another writer changed these texts since they were compared: they are written like any changed ones.
    return written + write(transaction, space, prepare(transaction, space, missed, encoder), encoder)


def _known(connection: Connection, space: Space, rows: Sequence[Row]) -> set[bytes]:
    """The ids of those that are there already."""
    statement = text(
        "SELECT id FROM searchapp_data.documents"
        " WHERE collection_id = :collection_id AND id = ANY(CAST(:ids AS uuid[]))"
    )
    values = {"collection_id": space.collection_id, "ids": packing.Ids([row.id for row in rows])}
    return {found.bytes for found in connection.scalars(statement, values)}


def _compare(connection: Connection, space: Space, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Which of the known rows are changed, and which differ in metadata alone.

    A row that brings its embedding is changed where that is another, though the text is the same.
    """
    vector = f"{quote(space.vector_schema)}.vector"
    values: dict[str, Any] = {
        "space_id": space.id,
        "collection_id": space.collection_id,
        "ids": packing.Ids([row.id for row in rows]),
        "hashes": [row.content_hash for row in rows],
        "metadata": [row.metadata.decode() for row in rows],
    }
    wanted, columns, same_chunks = "", "", "count(*) > 0"
    if rows[0].document.embedding is not None:
        embeddings = np.stack([row.document.embedding for row in rows])
        values["embeddings"] = ArrayParameter(embeddings, space.vector_oid)
        wanted, columns = f", CAST(:embeddings AS {vector}[])", ", embedding"
        same_chunks = f"count(*) = 1 AND bool_and(c.embedding OPERATOR({quote(space.vector_schema)}.=) n.embedding)"
    found = connection.execute(
        text(
            "SELECT n.place, d.content_hash = n.content_hash AND ("
            f"   SELECT {same_chunks} FROM searchapp_data.chunks c"
            "    WHERE c.space_id = :space_id AND c.document_id = n.id"
            "  ) AS same_content,"
            "  d.metadata = n.metadata AS same_metadata"
            f" FROM unnest(CAST(:ids AS uuid[]), CAST(:hashes AS bytea[]), CAST(:metadata AS jsonb[]){wanted})"
            f"   WITH ORDINALITY AS n(id, content_hash, metadata{columns}, place)"
            " LEFT JOIN searchapp_data.documents d ON d.collection_id = :collection_id AND d.id = n.id"
        ),
        values,
    ).all()
    changed = [rows[place - 1] for place, same_content, _ in found if not same_content]
    relabelled = [rows[place - 1] for place, same_content, same_metadata in found if same_content and not same_metadata]
    return changed, relabelled


def _update_metadata(connection: Connection, space: Space, rows: list[Row]) -> set[bytes]:
    """Write new metadata where the content is still the one compared; return the ids that were written."""
    lock_documents(connection, space.collection_id, [uuid.UUID(bytes=row.id) for row in rows])
    updated = connection.execute(
        text(
            "UPDATE searchapp_data.documents d SET metadata = n.metadata, updated_at = now()"
            " FROM unnest(CAST(:ids AS uuid[]), CAST(:hashes AS bytea[]), CAST(:metadata AS jsonb[]))"
            "   AS n(id, content_hash, metadata)"
            " WHERE d.collection_id = :collection_id AND d.id = n.id AND d.content_hash = n.content_hash RETURNING d.id"
        ),
        {
            "collection_id": space.collection_id,
            "ids": packing.Ids([row.id for row in rows]),
            "hashes": [row.content_hash for row in rows],
            "metadata": [row.metadata.decode() for row in rows],
        },
    )
    return {found.bytes for found in updated.scalars()}


def lock_documents(connection: Connection, collection_id: int, ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Lock those of the documents that exist, in the order of their ids, which keeps writers from deadlocking."""
    statement = text(
        "SELECT id FROM searchapp_data.documents WHERE collection_id = :collection_id AND id = ANY(:ids)"
        " ORDER BY id FOR UPDATE"
    )
    return list(connection.scalars(statement, {"collection_id": collection_id, "ids": list(ids)}))


def _packed_passages(space: Space, rows: list[Row], encoder: Callable[[], Encoder]) -> tuple[int, list[memoryview]]:
    """Cut and encode documents; return how many chunks they have, and these as COPY takes them.

    A document that brings its embedding is one chunk.
    """
    if rows[0].document.embedding is not None:
        embeddings = np.concatenate([row.document.embedding for row in rows]).reshape(len(rows), -1)
        ids = [row.id for row in rows]
        lengths = [len(row.document.text) for row in rows]
        return len(rows), [packing.chunks(space.id, ids, 0, 0, lengths, embeddings)]
    loaded = encoder()
    chunker = Chunker(loaded.tokenizer, loaded.max_tokens, space.chunking, loaded.model.document_prefix)
    places: list[tuple[bytes, int, int, int]] = []
    texts: list[str] = []
    for row in rows:
        for position, passage in enumerate(chunker.passages(row.document.title, row.document.text)):
            places.append((row.id, position, passage.start, passage.length))
            texts.append(passage.encoded)
    packed = []
    for start in range(0, len(texts), BATCH_PASSAGES):
        part = slice(start, start + BATCH_PASSAGES)
        packed.append(_packed_chunks(space, places[part], loaded.encode_documents(texts[part])))
    return len(texts), packed


def _packed_chunks(space: Space, places: list[tuple[bytes, int, int, int]], embeddings: Array) -> memoryview:
    ids, positions, starts, lengths = zip(*places, strict=True)
    return packing.chunks(space.id, ids, positions, starts, lengths, embeddings)


def _packed_documents(space: Space, rows: list[Row]) -> bytes:
    return b"".join(
        packing.document(
            space.collection_id,
            row.id,
            row.document.key,
            row.document.title,
            row.document.text,
            row.metadata,
            row.content_hash,
        )
        for row in rows
    )


def _insert(connection: Connection, space: Space, prepared: Prepared) -> bool:
    """Copy documents, none of which was there, and their chunks straight into their tables, and make their words; say
    whether that went well.

    They are in the order of their ids, which keeps writers from deadlocking here, too.
    """
    try:
        with connection.begin_nested():
            documents = f"searchapp_data.documents ({packing.DOCUMENT_COLUMNS})"
            packing.copy(connection, documents, [prepared.documents])
            faults.point("between-documents-and-chunks")
            packing.copy(connection, f"searchapp_data.chunks ({packing.CHUNK_COLUMNS})", prepared.chunks)
            words.add(connection, space.collection_id, [uuid.UUID(bytes=row.id) for row in prepared.changed])
    except psycopg.errors.UniqueViolation:  # another writer has put one of them in meanwhile
        return False
    return True


def _replace(connection: Connection, space: Space, prepared: Prepared) -> None:
    """Write new and changed documents with their words and chunks, by way of temporary tables.

    New documents are put in and the others locked by one statement, in the order of their ids, which keeps writers from
    deadlocking: an update that keeps no row, but locks each. What was stored is needed once more, to find its words.
    """
    connection.exec_driver_sql(
        "CREATE TEMPORARY TABLE staged_documents"
        " (collection_id int, id uuid, key text, title text, text text, metadata jsonb, content_hash bytea)"
    )
    connection.exec_driver_sql(
        "CREATE TEMPORARY TABLE staged_chunks (space_id int, document_id uuid, position int, start int, length int,"
        f" embedding {quote(space.vector_schema)}.vector)"
    )
    packing.copy(connection, "pg_temp.staged_documents", [prepared.documents])
    packing.copy(connection, "pg_temp.staged_chunks", prepared.chunks)
    faults.point("after-staging")
    inserted = connection.exec_driver_sql(
        f"INSERT INTO searchapp_data.documents AS d ({packing.DOCUMENT_COLUMNS})"
        f" SELECT {packing.DOCUMENT_COLUMNS} FROM pg_temp.staged_documents ORDER BY id"
        " ON CONFLICT (collection_id, id) DO UPDATE SET key = excluded.key WHERE false RETURNING id"
    )
    new = set(inserted.scalars())
    documents = {uuid.UUID(bytes=row.id): row.document for row in prepared.changed}
    if new:
        words.add(connection, space.collection_id, list(new))
    if stored := {each: documents[each] for each in documents.keys() - new}:
        words.replace(connection, space.collection_id, stored)
        connection.exec_driver_sql(
            "UPDATE searchapp_data.documents d SET title = n.title, text = n.text, metadata = n.metadata,"
            "  content_hash = n.content_hash, updated_at = now()"
            " FROM pg_temp.staged_documents n"
            f" WHERE d.collection_id = {space.collection_id} AND d.id = n.id AND d.id = ANY(%s)",
            (list(stored),),
        )
    faults.point("between-documents-and-chunks")
    _delete_chunks(connection, space, list(documents))
    connection.exec_driver_sql(
        f"INSERT INTO searchapp_data.chunks ({packing.CHUNK_COLUMNS})"
        f" SELECT {packing.CHUNK_COLUMNS} FROM pg_temp.staged_chunks"
    )
    connection.exec_driver_sql("DROP TABLE pg_temp.staged_documents, pg_temp.staged_chunks")


def delete(connection: Connection, space: Space, ids: Sequence[uuid.UUID], matching: Select[Any] | None = None) -> int:
    """Delete documents with their words and all their chunks.

    :param matching: a statement with a column ``id``: only what it still gives, once locked, is deleted.
    :return: how many documents there were.
    """
    found = lock_documents(connection, space.collection_id, ids)
    if matching is not None:
        found = list(connection.scalars(matching.where(matching.selected_columns.id.in_(found))))
    words.remove(connection, space.collection_id, found)
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
