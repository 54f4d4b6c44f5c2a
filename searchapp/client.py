"""The handle that ``searchapp.connect()`` gives: thin, on one database."""

from __future__ import annotations

import dataclasses
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy.typing as npt
from sqlalchemy import Connection, Engine, func, select

from searchapp import database, errors, maintenance, spaces, values
from searchapp.database import Reader
from searchapp.encoders import Encoder, Model, weights
from searchapp.encoders.registry import Registry
from searchapp.evaluation import tuning
from searchapp.evaluation.tuning import Measured, Tuned
from searchapp.fields import Field, declare, from_mapping
from searchapp.ingest import ingestion, load
from searchapp.ingest.destination import Destination, check_revision, chunking_for
from searchapp.ingest.documents import Document, Rejected
from searchapp.ingest.embedded import Embedded, Rows, check_lengths
from searchapp.ingest.ingestion import Ingestion, Progress, Summary
from searchapp.ingest.objects import Objects
from searchapp.ingest.readers import Source
from searchapp.search import asking, explaining
from searchapp.search import cursor as cursors
from searchapp.search import documents as document_builder
from searchapp.search import nearest as nearest_builder
from searchapp.search.explaining import Trial
from searchapp.search.explanation import Explanation
from searchapp.search.hits import Hit, Hits, Took
from searchapp.search.matrix import Row
from searchapp.search.request import MODES, Request, check_query, request
from searchapp.spaces import CollectionInfo, Space
from searchapp.vectors import Array

logger = logging.getLogger("searchapp")


@dataclass(frozen=True, slots=True)
class Maintained:
    """What ``maintain`` did: how many partitions were dropped, and which collections got their index."""

    dropped: int
    indexed: tuple[str, ...]


class Client:
    """A handle on one database. Every call takes the collection's name; none keeps state but the loaded models.

    Safe for several threads, unless it was made with a connection.
    """

    def __init__(
        self,
        engine: Engine | None = None,
        *,
        connection: Connection | None = None,
        dispose: bool = False,
        registry: Registry,
    ) -> None:
        source = engine if connection is None else connection
        assert source is not None
        self._engine = engine
        self._connection = connection
        self._dispose = dispose
        self._reader = Reader(source, kept=database.KEPT_READY if dispose else 0)
        self._vector_schema: str | None = None
        self._registry = registry
        self._spaces: dict[str, Space] = {}  # as each was seen last; a search asks whether it still is so

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the pool's connections, if this handle made the pool."""
        self._reader.close()
        if self._engine is not None and self._dispose:
            self._engine.dispose()

    # Putting in and taking out

    def ingest(
        self,
        documents: Iterable[Any],
        *,
        collection: str,
        model: str | None = None,
        chunk_tokens: int | None = None,
        prune: bool = False,
        yes: bool = False,
        on_rejected: Callable[[Rejected], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Summary:
        """Put documents into a collection, which is made where it is absent. Unchanged ones are not encoded again.

        :param documents: mappings or objects with ``key``, ``text``, and optionally ``title`` and ``metadata``.
        :param model: what encodes them; default the collection's, or all-MiniLM-L6-v2.
        :param chunk_tokens: how long passages are; 0: one a document; default the collection's, or what the model
        reads.
        :param prune: afterwards delete what ``documents`` lacks; over half of a collection only with ``yes``.
        :param on_rejected: told of each faulty document; without it the first one raises.
        :raises errors.RowRejected: a document is faulty; those before it may be in.
        :raises errors.CollectionMismatch: the collection has another model or other chunking.
        """
        destination = self._destination(collection)
        destination.check(model, chunk_tokens)
        run = self._ingestion(lambda: destination.open(model, chunk_tokens), on_rejected, on_progress)
        return run.run(_rows(documents), prune=prune, yes=yes)

    def load_vectors(
        self,
        documents: Iterable[Any],
        vectors: Iterable[Any] | None = None,
        *,
        collection: str,
        model: str,
        prune: bool = False,
        yes: bool = False,
        on_rejected: Callable[[Rejected], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Summary:
        """Put documents into a collection with embeddings that are there already; nothing is encoded.

        A vector replaces the stored one though the text is unchanged. Each document is one chunk.

        :param documents: as for :meth:`ingest`.
        :param vectors: one for each document, in order: shape (n_documents, dimensions), or an iterable; None where
            the documents bring them, as a source opened with ``Fields(embedding=...)`` does.
        :param model: what made them, by its name; searches by text need that model here, searches by vector do not.
        :param on_rejected: told of each faulty document or vector; without it the first one raises.
        :raises errors.RowRejected: a document or its vector is faulty; those before it may be in.
        :raises errors.InvalidInput, errors.ModelMismatch: not as many vectors as documents; other dimensions.
        :raises errors.CollectionMismatch: the collection has another model.
        """
        destination = self._destination(collection)
        dimensions = destination.dimensions_of(model)
        check_lengths(documents, vectors)
        rows = Embedded(_rows(documents), vectors, dimensions)
        run = self._ingestion(lambda: destination.open_for(model, rows.dimensions), on_rejected, on_progress)
        return run.run(rows, prune=prune, yes=yes)

    def get(self, key: str, *, collection: str) -> Document | None:
        """The document of that key, or None."""
        with self._transaction() as connection:
            space = self._find(connection, collection)
            statement = document_builder.documents(space)
            wanted = _document_ids(space, [key])
            row = connection.execute(statement.where(statement.selected_columns.id.in_(wanted))).one_or_none()
        if row is None:
            return None
        return Document(key=row.key, title=row.title, text=row.text, metadata=row.metadata)

    def delete(
        self,
        keys: Iterable[str] | None = None,
        *,
        collection: str,
        filter: Mapping[str, Any] | None = None,
    ) -> int:
        """Delete the documents of these keys, or all that a filter keeps.

        :return: how many there were.
        :raises errors.InvalidInput: neither or both were given.
        """
        if (keys is None) == (not filter):
            raise errors.InvalidInput("delete takes keys, or a filter that is not empty")
        with self._transaction() as connection:
            space = self._find(connection, collection)
            matching = document_builder.documents(space, filter=filter)
            if keys is not None:
                ids = _document_ids(space, [keys] if isinstance(keys, str) else keys)
            else:
                ids = list(connection.scalars(matching.order_by("id")))
        return ingestion.delete_in_batches(self._transaction, space, ids, matching)

    def count(self, *, collection: str, filter: Mapping[str, Any] | None = None) -> int:
        """How many documents a collection has, or how many of them a filter keeps."""
        with self._transaction() as connection:
            statement = document_builder.documents(self._find(connection, collection), filter=filter)
            return connection.scalar(select(func.count()).select_from(statement.subquery())) or 0

    # Asking

    def search(
        self,
        query: str,
        *,
        collection: str,
        mode: str = "vector",
        limit: int = 10,
        offset: int = 0,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        max_distance: float | None = None,
        exact: bool = False,
        cursor: str | None = None,
        timeout: float | None = None,
    ) -> Hits:
        """Find the documents whose passages mean what the query means.

        :param limit: how many hits, 1 to 100,000; fewer come only where fewer match.
        :param offset: how many of the nearest are left out before them, 0 to 100,000.
        :param filter: what a hit's metadata must satisfy, such as ``{"lang": "en", "year": {"$gte": 2020}}``.
        :param min_score: hits have at least this score, which is 1 - distance.
        :param max_distance: hits are no farther than this.
        :param exact: compare with every passage instead of asking the index.
        :param cursor: ``hits.cursor`` of the page before, whose search this is: pages by cursor are exact, so that they
            neither repeat nor skip a hit of unchanged data. Begin with ``exact=True``.
        :param timeout: seconds after which the database ends the search; None: as it is set there.
        :raises errors.InvalidInput: an empty query, a limit or mode or filter that cannot be.
        :raises errors.InvalidCursor: a cursor of another search, or of a former space.
        :raises errors.QueryCanceled: the search ran over its time.
        :raises errors.CollectionMissing: no such collection; the message has the near names.
        """
        check_query(query, mode)
        asked = request(limit, offset, filter, exact, min_score, max_distance, timeout)

        encode = partial(self._encode_query, query)
        return self._ask_page(collection, encode, asked, query.encode(), cursor, by_model=True)

    def search_many(
        self,
        queries: Sequence[str],
        *,
        collection: str,
        mode: str = "vector",
        limit: int = 10,
        offset: int = 0,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        max_distance: float | None = None,
        exact: bool = False,
        timeout: float | None = None,
    ) -> list[Hits]:
        """Answer many queries at once, each as :meth:`search` would: they are encoded together, and asked in one
        round trip.

        Many exact ones (16 or more) take some: everything is read once, in blocks, and compared here.

        :return: hits for each query, in their order; ``took_ms`` is each one's share.
        """
        if isinstance(queries, str):
            raise errors.InvalidInput("search_many takes a list of queries; for a single one there is search")
        queries = list(queries)
        for query in queries:
            check_query(query, mode)
        asked = request(limit, offset, filter, exact, min_score, max_distance, timeout)

        def encode(space: Space) -> Array:
            return self._encoder(space).encode_queries(queries)

        ask = partial(asking.ask_many, self._reader, request=asked)
        return self._ask(collection, encode, ask, by_model=True)

    def search_by_vector(
        self,
        vector: npt.ArrayLike,
        *,
        collection: str,
        limit: int = 10,
        offset: int = 0,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        max_distance: float | None = None,
        exact: bool = False,
        cursor: str | None = None,
        timeout: float | None = None,
    ) -> Hits:
        """Find the documents whose embeddings are nearest to a vector; as :meth:`search`, without a model.

        :param vector: shape (dimensions,), of the collection's model, of any length but zero.
        :raises errors.ModelMismatch: its dimension is not the collection's.
        :raises errors.InvalidInput: it is zero, or has NaN or infinity.
        """
        asked = request(limit, offset, filter, exact, min_score, max_distance, timeout)
        check = partial(nearest_builder.check_vector, vector)
        given = nearest_builder.as_floats(vector).tobytes()
        return self._ask_page(collection, check, asked, given, cursor, by_model=False)

    def search_many_by_vector(
        self,
        vectors: npt.ArrayLike,
        *,
        collection: str,
        limit: int = 10,
        offset: int = 0,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        max_distance: float | None = None,
        exact: bool = False,
        timeout: float | None = None,
    ) -> list[Hits]:
        """Find what is nearest to each of many vectors, as :meth:`search_by_vector` would, in one round trip.

        Many exact ones (16 or more) take some: everything is read once, in blocks, and compared here.

        :param vectors: shape (n_vectors, dimensions).
        :return: hits for each vector, in their order; ``took_ms`` is each one's share.
        """
        asked = request(limit, offset, filter, exact, min_score, max_distance, timeout)
        check = partial(nearest_builder.check_vectors, vectors)
        ask = partial(asking.ask_many, self._reader, request=asked)
        return self._ask(collection, check, ask, by_model=False)

    def explain(
        self,
        query: str,
        *,
        collection: str,
        mode: str = "vector",
        limit: int = 10,
        offset: int = 0,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        max_distance: float | None = None,
        exact: bool = False,
        timeout: float | None = None,
    ) -> Explanation:
        """Say how :meth:`search` answers a query: by which index and rung, from how many rows, how long each part
        takes, and what could be done about it. The query is asked three times for that.
        """
        check_query(query, mode)
        asked = request(limit, offset, filter, exact, min_score, max_distance, timeout)

        return self._explain(collection, partial(self._encode_query, query), asked, by_model=True)

    def explain_by_vector(
        self,
        vector: npt.ArrayLike,
        *,
        collection: str,
        limit: int = 10,
        offset: int = 0,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        max_distance: float | None = None,
        exact: bool = False,
        timeout: float | None = None,
    ) -> Explanation:
        """Say how :meth:`search_by_vector` answers, as :meth:`explain` does."""
        asked = request(limit, offset, filter, exact, min_score, max_distance, timeout)
        check = partial(nearest_builder.check_vector, vector)
        return self._explain(collection, check, asked, by_model=False)

    # Looking after

    def space(self, collection: str) -> Space:
        """The active space of a collection, which builders such as ``searchapp.nearest`` take."""
        with self._transaction() as connection:
            space = self._find(connection, collection)
        self._spaces[collection] = space
        return space

    def collections(self) -> list[CollectionInfo]:
        """All collections, by name."""
        with self._transaction() as connection:
            self._ready(connection)
            found = []
            for name in spaces.names(connection):
                with suppress(errors.CollectionMissing):  # dropped a moment ago
                    found.append(spaces.describe(connection, self._find(connection, name)))
            return found

    def describe(self, collection: str) -> CollectionInfo:
        """What a collection holds and how it was made."""
        with self._transaction() as connection:
            return spaces.describe(connection, self._find(connection, collection))

    def create_collection(
        self,
        collection: str,
        *,
        model: str | None = None,
        chunk_tokens: int | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> Space:
        """Make an empty collection.

        :param fields: declared fields, whose filters are the faster by an index each: by name the type of their
            values, ``number``, ``text`` or ``date``.
        :raises errors.CollectionExists: it is there already.
        :raises errors.InvalidInput: an unknown type.
        """
        spaces.check_name(collection)
        declared = from_mapping(fields or {})
        described = self._registry.model(model or weights.DEFAULT)
        return self._create(collection, described, chunking_for(chunk_tokens, described), declared)

    def add_field(self, collection: str, name: str, type: str) -> None:
        """Declare a field of a collection: filters on it are the faster by an index, which is made first.

        Nobody waits for it, but behind a pooler, where writers do. Interrupted, it leaves nothing that the next call,
        or :meth:`maintain`, does not take away.

        :param name: as in a filter, with dots into objects: ``author.name``.
        :param type: of its values: ``number``, ``text`` or ``date``; a filter finds values of other types without it.
        :raises errors.InvalidInput: an unknown type; the field is declared already.
        :raises errors.PermissionDenied: this role does not own the tables.
        """
        field = declare(name, type)
        with self._maintaining("add_field") as (connection, concurrently):
            _check_askable(collection)
            schema = self._ready(connection)
            maintenance.add_field(connection, collection, field, schema, concurrently=concurrently)

    def drop_field(self, collection: str, name: str) -> None:
        """Take the declaration of a field back, with its index; filters on it go on working.

        :raises errors.InvalidInput: it is not declared.
        :raises errors.PermissionDenied: this role does not own the tables.
        """
        with self._maintaining("drop_field") as (connection, concurrently):
            _check_askable(collection)
            schema = self._ready(connection)
            maintenance.drop_field(connection, collection, name, schema, concurrently=concurrently)

    def drop_collection(self, collection: str) -> None:
        """Drop a collection with all its documents.

        It is out of sight at once; with a caller's connection, where this role may not drop tables, or beside another
        call that declares a field or drops, ``searchapp db maintain`` gives its room back.
        """
        _check_askable(collection)
        with self._transaction() as connection:
            self._ready(connection)
            maintenance.retire(connection, collection)
        if self._engine is not None:
            try:
                if not self._drop_retired():
                    logger.info(
                        "the collection is gone; another process gives its room back, or: searchapp db maintain"
                    )
            except errors.DatabaseError as exc:
                logger.warning(
                    "the collection is gone, its room not given back yet (%s); run: searchapp db maintain", exc
                )

    def maintain(self) -> Maintained:
        """Drop what is retired, make the indexes that are missing."""
        dropped = self._drop_retired()
        indexed = []
        for collection in self.collections():
            if collection.documents and not collection.indexed:
                with suppress(errors.CollectionMissing):  # dropped a moment ago
                    spaces.build_index(self._transaction, self.space(collection.name))
                    indexed += [collection.name] if self.space(collection.name).indexed else []
        return Maintained(dropped, tuple(indexed))

    def tune(
        self, collection: str, *, recall: float = 0.99, on_measured: Callable[[Measured], None] | None = None
    ) -> Tuned:
        """Measure the index's recall@10 against exact search, and store the least ``ef_search`` that reaches one.

        :param recall: how much of the ten nearest is to be found, over 0 and up to 1.
        :param on_measured: told of each ``ef_search`` that was measured.
        :raises errors.NotMeasurable: fewer than two documents, no index, or a collection that changes meanwhile.
        :raises errors.RecallNotReached: no ``ef_search`` reaches it; what was stored is kept.
        """
        tuning.check_recall(recall)
        space = self.space(collection)
        return tuning.tune(self._transaction, self._reader, space, recall=recall, on_measured=on_measured)

    # The insides

    def _destination(self, collection: str) -> Destination:
        find, create = partial(self.space, collection), partial(self._create, collection)
        return Destination(collection, self._registry, find, create)

    def _ingestion(
        self,
        open_space: Callable[[], Space],
        on_rejected: Callable[[Rejected], None] | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> Ingestion:
        return Ingestion(
            self._transaction,
            open_space,
            self._encoder,
            on_rejected=on_rejected,
            on_progress=on_progress,
            own_transactions=self._engine is not None,
        )

    def _ask(
        self,
        collection: str,
        encode: Callable[[Space], Array],
        ask: Callable[[Space, Array], list[list[Row]]],
        *,
        by_model: bool,
    ) -> list[Hits]:
        """Ask with the space as it was seen last; where it has changed, or nothing was found, look at it again."""
        space = self._spaces.get(collection) or self.space(collection)
        while True:
            if by_model:
                self._encoder(space)  # the first time it is loaded, which is no part of the encoding
            started = time.perf_counter()
            vectors = encode(space)
            encoded = time.perf_counter()
            with suppress(asking.Outdated):
                answers = ask(space, vectors)
                if any(answers) or self.space(collection) == space:
                    break
            space = self.space(collection)
        share = 1000 / max(len(answers), 1)
        took = Took(round((encoded - started) * share, 3), round((time.perf_counter() - encoded) * share, 3))
        return [_hits(rows, took) for rows in answers]

    def _ask_page(
        self,
        collection: str,
        encode: Callable[[Space], Array],
        request: Request,
        asked: bytes,
        cursor: str | None,
        *,
        by_model: bool,
    ) -> Hits:
        """Ask for one page, and note in its cursor where it ended.

        :param asked: the query's text or the vector, which the cursor is bound to.
        """
        if cursor is None and not request.exact:
            ask = partial(asking.ask_one, self._reader, request=request)
            return self._ask(collection, encode, ask, by_model=by_model)[0]
        question = cursors.question_of(collection, asked, request)
        before = None
        if cursor is not None:
            if request.offset:
                raise errors.InvalidInput("give an offset or a cursor, not both")
            before = cursors.read(cursor, question)
            request = dataclasses.replace(request, exact=True)
        answered: list[tuple[Space, Array]] = []

        def ask_exactly(space: Space, vector: Array) -> list[list[Row]]:
            answered[:] = [(space, vector)]
            return asking.ask_one(self._reader, space, vector, request=request, after=before)

        [hits] = self._ask(collection, encode, ask_exactly, by_model=by_model)
        if len(hits) < request.limit:
            return hits
        [(space, vector)] = answered
        position = cursors.after(hits.hits, space.id, vector, before)
        return dataclasses.replace(hits, cursor=cursors.write(position, question))

    def _explain(
        self, collection: str, encode: Callable[[Space], Array], request: Request, *, by_model: bool
    ) -> Explanation:
        trials: list[Trial] = []

        def ask(space: Space, vector: Array) -> list[list[Row]]:
            trials.append(explaining.ask(self._reader, space, vector, request=request))
            return [trials[-1].rows]

        [hits] = self._ask(collection, encode, ask, by_model=by_model)
        return explaining.explanation(trials[-1], encode=hits.took_ms.encode)

    def _drop_retired(self) -> int:
        with self._maintaining("maintain") as (connection, concurrently):
            return maintenance.drop_retired(connection, concurrently=concurrently)

    @contextmanager
    def _maintaining(self, call: str) -> Iterator[tuple[Connection, bool]]:
        """A connection for what runs CONCURRENTLY, in autocommit; behind a pooler a transaction, in which nothing does.

        :return: the connection, and whether it may be CONCURRENTLY.
        """
        if self._engine is None:
            raise errors.InvalidInput(f"{call}() needs connections of its own; connect with a URL or an engine")
        with self._transaction() as connection:
            self._ready(connection)
            if database.is_pooled(connection):
                yield connection, False
                return
        with database.translated(), self._engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            with database.cancellable(database.driver_of(connection)):
                yield connection, True

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with database.translated():
            if self._connection is not None:
                yield self._connection
            else:
                assert self._engine is not None
                # whatever the engine's own level: in AUTOCOMMIT a document and its chunks would change one by one
                options = {"isolation_level": "READ COMMITTED"}
                with (
                    self._engine.connect().execution_options(**options) as connection,
                    connection.begin(),
                    database.cancellable(database.driver_of(connection)),
                ):
                    yield connection

    def _ready(self, connection: Connection) -> str:
        """Check once that the database is fit to work with; the schema that pgvector stands in."""
        if self._vector_schema is None:
            self._vector_schema = database.require_ready(database.inspect_server(connection))
        return self._vector_schema

    def _find(self, connection: Connection, collection: str) -> Space:
        _check_askable(collection)
        return spaces.find(connection, collection, self._ready(connection))

    def _encoder(self, space: Space) -> Encoder:
        encoder = self._registry.encoder(space.model)
        check_revision(space, encoder.model)
        return encoder

    def _encode_query(self, query: str, space: Space) -> Array:
        return self._registry.encode_query(space.model, query)

    def _create(
        self, collection: str, model: Model, chunking: spaces.Chunking, declared: Sequence[Field] = ()
    ) -> Space:
        with self._transaction() as connection:
            return spaces.create(connection, collection, model, chunking, self._ready(connection), declared)


def _hits(rows: list[Row], took: Took) -> Hits:
    hits = tuple(
        Hit(key, title, passage, 1 - distance, distance, metadata)
        for key, title, passage, metadata, distance, *_ in rows
    )
    # Every writer changes a document and its chunks in one transaction, so no document lacks its chunks.
    return Hits(hits, MODES[0], all(row[5] for row in rows), complete=True, took_ms=took)


def _document_ids(space: Space, keys: Iterable[str]) -> list[uuid.UUID]:
    """The ids of the documents of these keys, without those keys that no document can have."""
    return [load.document_id(space.collection_id, key) for key in map(str, keys) if values.is_storable(key)]


def _rows(documents: Iterable[Any]) -> Rows:
    return documents if isinstance(documents, Source) else Objects(documents)


def _check_askable(collection: str) -> None:
    """Check that the database can be asked for a collection of that name.

    :raises errors.InvalidName: it cannot: a NUL, or what is not UTF-8.
    """
    if not values.is_storable(collection):
        spaces.check_name(collection)
