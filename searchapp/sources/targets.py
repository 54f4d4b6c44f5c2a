"""Where the rows of a source go: into a collection, or a vector column of their own. What is written stands in the
transaction that takes their changes from the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, select, update

from searchapp import errors, models, spaces
from searchapp.encoders import Encoder, Model
from searchapp.encoders.registry import Registry
from searchapp.ingest import load
from searchapp.ingest.destination import DEFAULT_LANGUAGE
from searchapp.sources import columns, rows
from searchapp.sources.catalog import Source
from searchapp.sources.columns import ColumnTarget
from searchapp.sources.rows import Row
from searchapp.sources.session import Session
from searchapp.sources.stored import Stored, StoredDocuments, StoredVectors
from searchapp.sources.writing import Target, Written
from searchapp.spaces import Space

# The encoder of a model, by its name and the revision of its weights, '' where any will do.
Encoders = Callable[[str, str], Encoder]


class CollectionTarget:
    """A collection, which has the documents of a source and no others."""

    def __init__(self, source: Source, space: Space, encoder: Callable[[], Encoder]) -> None:
        self.space = space
        self._source = source
        self._encoder = encoder

    @property
    def collection_id(self) -> int:
        return self.space.collection_id

    @property
    def stored(self) -> StoredDocuments:
        return StoredDocuments(self._source, self.space)

    def prepare(self, session: Session, keys: Sequence[str], found: Mapping[str, Row]) -> _Documents:
        documents, refused = rows.documents(self._source, found)
        made = [load.Row.of(self.collection_id, document) for document in documents.values()]
        prepared = load.prepare(session.transaction, self.space, made, self._encoder) if made else None
        gone = [key for key in keys if key not in documents and key not in refused]
        return _Documents(self.space, prepared, gone, refused, self._encoder)


@dataclass(frozen=True, slots=True)
class _Documents:
    space: Space
    prepared: load.Prepared | None
    gone: list[str]
    refused: dict[str, str]
    encoder: Callable[[], Encoder]

    def write(self, connection: Connection) -> Written:
        written = 0
        if self.prepared is not None:
            written += load.write(lambda: nullcontext(connection), self.space, self.prepared, self.encoder).documents
        if self.gone:
            ids = [models.document_id(self.space.collection_id, key) for key in self.gone]
            written += load.delete(connection, self.space, ids)
        return Written(written, self.refused)


def open_target(session: Session, registry: Registry, source: Source, encoders: Encoders) -> Target:
    """What a source is kept in, made where it is absent and was never there.

    :raises errors.CollectionMissing: the collection was dropped.
    :raises columns.ColumnUnfit: the column cannot hold what the model makes.
    """
    if source.collection is None:
        encoder = encoders(source.model, "")
        with session.transaction() as connection:
            return ColumnTarget(source, encoder, columns.check(connection, source, encoder.model))
    find = partial(spaces.find, name=source.collection, vector_schema=session.vector_schema)
    try:
        with session.transaction() as connection:
            space = find(connection)
    except errors.CollectionMissing:
        if source.collection_id is not None:
            raise
        with suppress(errors.CollectionExists), session.transaction() as connection:  # another worker is as quick
            _create(connection, session.vector_schema, source.collection, registry.model(source.model))
        with session.transaction() as connection:
            space = find(connection)
    if source.collection_id != space.collection_id:
        _adopt(session, source, space)
    return CollectionTarget(source, space, lambda: encoders(space.model, space.revision))


def open_stored(connection: Connection, vector_schema: str, registry: Registry, source: Source) -> Stored:
    """What is stored of a source, to be compared with its rows; no model is loaded for that.

    :raises errors.CollectionMissing: the collection was dropped.
    """
    if source.collection is None:
        return StoredVectors(source, registry.model(source.model).revision)
    return StoredDocuments(source, spaces.find(connection, source.collection, vector_schema=vector_schema))


def _adopt(session: Session, source: Source, space: Space) -> None:
    """Note which collection a source is kept in; another one of the same name, made since, is not it."""
    mine = models.Source.id == source.id, models.Source.collection_id.is_(None)
    with session.transaction() as connection:
        connection.execute(update(models.Source).where(*mine).values(collection_id=space.collection_id))
        noted = connection.scalar(select(models.Source.collection_id).where(models.Source.id == source.id))
    if noted != space.collection_id:
        raise errors.CollectionMissing(f"the collection {source.collection} is another one than the source was kept in")


def _create(connection: Connection, vector_schema: str, collection: str, model: Model) -> None:
    language = spaces.language_of(connection, DEFAULT_LANGUAGE)
    chunking = spaces.default_chunking(model)
    spaces.create(connection, collection, model, chunking, vector_schema, language=language)
