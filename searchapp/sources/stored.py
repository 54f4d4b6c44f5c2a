"""What is stored of a source's rows, to be compared with these."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import Connection, text

from searchapp.ingest import load, packing
from searchapp.ingest.documents import Document, InvalidRow
from searchapp.models import id_bytes
from searchapp.sources import rows
from searchapp.sources.catalog import Source
from searchapp.sources.rows import Row
from searchapp.spaces import Space


@dataclass(frozen=True, slots=True)
class Differences:
    """Keys of rows that nothing is stored of, of which something else is, and of what is stored though there is no such
    row, or none with a text."""

    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        return [*self.missing, *self.changed, *self.gone]

    def without(self, settled: set[str], failed: set[str]) -> Differences:
        """Those that are worth telling.

        :param settled: keys that wait in the log.
        :param failed: keys of rows that failed: what is not stored of them is known.
        """
        return Differences(
            [key for key in self.missing if key not in settled | failed],
            [key for key in self.changed if key not in settled | failed],
            [key for key in self.gone if key not in settled],
        )


class Stored(Protocol):
    """What a source is kept in, as the comparison sees it."""

    def compare(self, connection: Connection, found: Iterable[Row]) -> Differences:
        """How rows differ from what is stored of them.

        :param found: read while they are gone through: nothing else is asked meanwhile.
        """
        ...

    def keys_after(self, connection: Connection, after: Any, limit: int) -> Mapping[str, Any]:
        """The next keys that something is stored of, each with what it comes after; None: the first ones."""
        ...


# A look by the key for each row: joined, the planner would now and then read the whole partition. A document without
# passages was left by a model that failed.
_COMPARE = """
SELECT n.place, d.known FROM unnest(CAST(:ids AS uuid[]), CAST(:hashes AS bytea[]), CAST(:metadata AS jsonb[]))
  WITH ORDINALITY AS n (id, content_hash, metadata, place)
LEFT JOIN LATERAL (
  SELECT true AS known, d.content_hash = n.content_hash AND d.metadata = n.metadata AND EXISTS (
    SELECT FROM searchapp_data.chunks c WHERE c.space_id = :space_id AND c.document_id = n.id
  ) AS same
  FROM searchapp_data.documents d WHERE d.collection_id = :collection_id AND d.id = n.id LIMIT 1
) d ON true
WHERE d.same IS NOT TRUE
"""
_KNOWN = text(
    "SELECT d.key FROM searchapp_data.documents d"
    " WHERE d.collection_id = :collection_id AND d.id = ANY(CAST(:ids AS uuid[]))"
)
_HASHES = text(
    "SELECT r.key, r.content_hash FROM searchapp_data.source_rows r"
    " WHERE r.source_id = :source_id AND r.key = ANY(CAST(:keys AS text[]))"
)
_ROW_KEYS = text(
    "SELECT r.key FROM searchapp_data.source_rows r WHERE r.source_id = :source_id AND r.key > :after"
    " ORDER BY r.key LIMIT :limit"
)


class StoredDocuments:
    """The documents of a collection."""

    def __init__(self, source: Source, space: Space) -> None:
        self._source = source
        self._space = space

    def compare(self, connection: Connection, found: Iterable[Row]) -> Differences:
        made: list[tuple[str, bytes, bytes, str]] = []  # without the texts
        textless: list[str] = []
        refused: list[str] = []
        for row in found:
            try:
                document = rows.document(self._source, row)
            except InvalidRow:
                refused.append(row[rows.KEY])
                continue
            if document is None:
                textless.append(row[rows.KEY])
                continue
            written = load.Row.of(self._space.collection_id, document)
            made.append((document.key, written.id, written.content_hash, written.metadata.decode()))
        differences = self._differences(connection, made)
        # what is the matter with a refused row is noted as its failure, unless nobody has read it
        differences.changed.extend(refused)
        differences.gone.extend(self._known(connection, textless))
        return differences

    def _differences(self, connection: Connection, made: Sequence[tuple[str, bytes, bytes, str]]) -> Differences:
        differences = Differences()
        if made:
            _, ids, hashes, metadata = zip(*made, strict=True)
            values = {"ids": packing.Ids(ids), "hashes": list(hashes), "metadata": list(metadata)}
            literal = {"space_id": self._space.id, "collection_id": self._space.collection_id}
            for place, known in connection.execute(text(_COMPARE), values | literal):
                (differences.changed if known else differences.missing).append(made[place - 1][0])
        return differences

    def _known(self, connection: Connection, keys: Sequence[str]) -> list[str]:
        if not keys:
            return []
        ids = packing.Ids([id_bytes(self._space.collection_id, key) for key in keys])
        return list(connection.scalars(_KNOWN, {"collection_id": self._space.collection_id, "ids": ids}))

    def keys_after(self, connection: Connection, after: Any, limit: int) -> Mapping[str, Any]:
        statement = text(
            "SELECT d.key, d.id FROM searchapp_data.documents d"
            " WHERE d.collection_id = :collection_id AND d.id > :after ORDER BY d.id LIMIT :limit"
        )
        values = {"collection_id": self._space.collection_id, "after": after or uuid.UUID(int=0), "limit": limit}
        return {row.key: row.id for row in connection.execute(statement, values)}


def vector_hash(revision: str, document: Document) -> bytes:
    """What a vector is of: the weights of the model, title and text."""
    return hashlib.sha256(revision.encode() + load.content_hash(document.title, document.text)).digest()


def hashes(connection: Connection, source: Source, keys: Sequence[str]) -> dict[str, bytes]:
    """What the vectors of some rows are of, by their keys."""
    found = connection.execute(_HASHES, {"source_id": source.id, "keys": list(keys)})
    return {key: bytes(content_hash) for key, content_hash in found}


class StoredVectors:
    """The vector column of the source's own table.

    :param revision: of the model's weights.
    """

    def __init__(self, source: Source, revision: str) -> None:
        self._source = source
        self._revision = revision

    def compare(self, connection: Connection, found: Iterable[Row]) -> Differences:
        differences = Differences()
        wanted: dict[str, bytes] = {}
        empty: set[str] = set()
        textless: list[str] = []
        for row in found:
            key = row[rows.KEY]
            try:
                document = rows.document(self._source, row)
            except InvalidRow:
                differences.changed.append(key)
                continue
            if not row[rows.FILLED]:
                empty.add(key)
            if document is not None:
                wanted[key] = vector_hash(self._revision, document)
            elif row[rows.FILLED]:
                textless.append(key)
        known = hashes(connection, self._source, list(wanted))
        differences.gone.extend(textless)
        for key, content_hash in wanted.items():
            if key in empty or key not in known:
                differences.missing.append(key)
            elif known[key] != content_hash:
                differences.changed.append(key)
        return differences

    def keys_after(self, connection: Connection, after: Any, limit: int) -> Mapping[str, Any]:
        values = {"source_id": self._source.id, "after": after or "", "limit": limit}
        return {key: key for key in connection.scalars(_ROW_KEYS, values)}
