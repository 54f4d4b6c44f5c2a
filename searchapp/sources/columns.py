"""Sources that are kept in a vector column of their own table: no collection, no passages, a vector a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from psycopg import sql
from sqlalchemy import Connection, text

from searchapp import errors
from searchapp.encoders import Encoder, Model
from searchapp.ingest.chunking import Chunker
from searchapp.ingest.documents import Document
from searchapp.sources import rows, stored
from searchapp.sources.catalog import Source
from searchapp.sources.rows import Row
from searchapp.sources.session import Session
from searchapp.sources.stored import StoredVectors
from searchapp.sources.writing import Written
from searchapp.spaces import Chunking
from searchapp.vectors import Array
from searchapp.wire import ArrayParameter

_COLUMN = text(
    "SELECT a.atttypmod AS dimensions, a.atttypid AS oid FROM searchapp_data.sources s JOIN pg_attribute a"
    " ON a.attrelid = searchapp_private.table_of(s) AND a.attname = s.into_column AND NOT a.attisdropped"
    " WHERE s.id = :source_id"
)
_STORE = text("""
INSERT INTO searchapp_data.source_rows AS r (source_id, key, content_hash)
SELECT :source_id, n.key, n.content_hash
FROM unnest(CAST(:keys AS text[]), CAST(:hashes AS bytea[])) n (key, content_hash)
ON CONFLICT (source_id, key) DO UPDATE SET content_hash = excluded.content_hash
""")
_SET = (
    "UPDATE {table} AS t SET {vector} = wanted.searchapp_vector"
    " FROM unnest($1::text[], $2::{schema}.vector[]) AS wanted (searchapp_key, searchapp_vector) WHERE {joined}"
)
_CLEAR = (
    "UPDATE {table} AS t SET {vector} = NULL FROM unnest($1::text[]) AS wanted (searchapp_key)"
    " WHERE {joined} AND t.{vector} IS NOT NULL"
)
_FORGET = text("DELETE FROM searchapp_data.source_rows r WHERE r.source_id = :source_id AND r.key = ANY(:keys)")


class ColumnUnfit(errors.SearchAppError):
    """A vector column that cannot hold what the model makes; the message says why."""


def check(connection: Connection, source: Source, model: Model) -> int:
    """Check that a source's column can hold a model's embeddings; the oid of its type.

    :raises ColumnUnfit: it has other dimensions, or is gone.
    """
    found = connection.execute(_COLUMN, {"source_id": source.id}).one_or_none()
    named = f"the column {source.into_column} of {source.table_schema}.{source.table_name}"
    if found is None:
        raise ColumnUnfit(f"{named} is gone")
    if found.dimensions not in (-1, model.dimensions):
        raise ColumnUnfit(
            f"{named} has {found.dimensions} dimensions; the embeddings of {model.name} have {model.dimensions}"
        )
    return int(found.oid)


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A row that is to be written: its vector, and what that is of."""

    key: str
    vector: Array
    content_hash: bytes


class ColumnTarget:
    """The vector column of a source's own table.

    :param oid: of the column's type.
    """

    collection_id = None

    def __init__(self, source: Source, encoder: Encoder, oid: int) -> None:
        self._source = source
        self._encoder = encoder
        self._oid = oid

    @property
    def stored(self) -> StoredVectors:
        return StoredVectors(self._source, self._encoder.model.revision)

    def prepare(self, session: Session, keys: Sequence[str], found: Mapping[str, Row]) -> _Vectors:
        documents, refused = rows.documents(self._source, found)
        with session.transaction() as connection:
            changed = self._changed(connection, documents, found)
            # as likely as not these still are when they are encoded
            locked = changed.keys() - rows.lock(connection, self._source, list(changed))
        encoded = self._encode({key: changed[key] for key in changed if key not in locked}, documents)
        cleared = [key for key in keys if key not in documents and key not in refused]
        return _Vectors(self._source, session.vector_schema, self._oid, encoded, cleared, refused, locked)

    def _changed(
        self, connection: Connection, documents: Mapping[str, Document], found: Mapping[str, Row]
    ) -> dict[str, bytes]:
        """The hashes of those that have no vector, or one of something else."""
        known = stored.hashes(connection, self._source, list(documents))
        revision = self._encoder.model.revision
        hashes = {key: stored.vector_hash(revision, document) for key, document in documents.items()}
        return {key: made for key, made in hashes.items() if not found[key][rows.FILLED] or known.get(key) != made}

    def _encode(self, changed: Mapping[str, bytes], documents: Mapping[str, Document]) -> list[_Encoded]:
        if not changed:
            return []
        encoder = self._encoder
        chunker = Chunker(encoder.tokenizer, encoder.max_tokens, Chunking(0), encoder.model.document_prefix)
        texts = [chunker.passages(documents[key].title, documents[key].text)[0].encoded for key in changed]
        made = encoder.encode_documents(texts)
        return [_Encoded(key, vector, changed[key]) for key, vector in zip(changed, made, strict=True)]


@dataclass(frozen=True, slots=True)
class _Vectors:
    source: Source
    vector_schema: str
    oid: int
    encoded: list[_Encoded]
    cleared: list[str]
    refused: dict[str, str]
    locked: Set[str]

    def write(self, connection: Connection) -> Written:
        """Write them; rows that somebody's transaction has locked are put off, not waited for."""
        wanted = [*(each.key for each in self.encoded), *self.cleared]
        held = rows.lock(connection, self.source, wanted)
        locked = rows.existing(connection, self.source, [key for key in wanted if key not in held], whichever=True)
        ready = [each for each in self.encoded if each.key in held]
        if ready:
            self._set(connection, ready)
        cleared = [key for key in self.cleared if key in held]
        if cleared:
            rows.run(connection, self.source, _CLEAR, [cleared], **self._parts())
        forgotten = [key for key in wanted if key not in locked and (key not in held or key in cleared)]
        connection.execute(_FORGET, {"source_id": self.source.id, "keys": forgotten})
        return Written(len(ready) + len(cleared), self.refused, self.locked | locked)

    def _set(self, connection: Connection, ready: Sequence[_Encoded]) -> None:
        """Write vectors, and note what they are of."""
        keys = [each.key for each in ready]
        vectors = ArrayParameter(np.stack([each.vector for each in ready]), self.oid)
        schema = sql.Identifier(self.vector_schema)
        rows.run(connection, self.source, _SET, [keys, vectors], schema=schema, **self._parts())
        values = {"keys": keys, "hashes": [each.content_hash for each in ready]}
        connection.execute(_STORE, {"source_id": self.source.id, **values})

    def _parts(self) -> dict[str, sql.Composable]:
        assert self.source.into_column is not None
        return {"vector": sql.Identifier(self.source.into_column), "joined": rows.joined(self.source)}
