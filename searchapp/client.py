"""The handle that ``searchapp.connect()`` gives: thin, on one database."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, func, select

from searchapp import database, errors, maintenance, models, partitions, spaces, values
from searchapp.database import Reader
from searchapp.encoders import Encoder, Model, weights
from searchapp.encoders.registry import Registry
from searchapp.evaluation import beir, runs, tuning
from searchapp.evaluation.runs import Comparison, Evaluated
from searchapp.evaluation.tuning import Measured, Tuned
from searchapp.fields import Field, declare, from_mapping
from searchapp.ingest import backfill, ingestion
from searchapp.ingest.backfill import Backfilled
from searchapp.ingest.destination import (
    DEFAULT_LANGUAGE,
    Destination,
    check_revision,
    chunking_for,
    language_for,
)
from searchapp.ingest.documents import Document, Fields, Rejected
from searchapp.ingest.embedded import Embedded, Rows, check_lengths
from searchapp.ingest.ingestion import Ingestion, Progress, Summary
from searchapp.ingest.objects import Objects
from searchapp.ingest.readers import Source, open_source
from searchapp.roles import OWNER, READER, WRITER, needs
from searchapp.search import documents as document_builder
from searchapp.search import facets as facet_builder
from searchapp.search import nearest as nearest_builder
from searchapp.search import reranking
from searchapp.search.answering import Alike, Answering, ByExamples, Given, Typed
from searchapp.search.arrangement import Boost, Decay, arrangement, check_field
from searchapp.search.context import PASSAGES, Context, check_budget
from searchapp.search.examples import Example, check_examples, listed, sides_of
from searchapp.search.explanation import Explanation
from searchapp.search.hits import FacetCount, Facets, Hits
from searchapp.search.hybrid import fusion as fused_by
from searchapp.search.request import TEXT, check_key, check_limit, check_mode, check_query, request
from searchapp.search.reranking import Reranking
from searchapp.sources import definitions
from searchapp.spaces import CollectionInfo, Space
from searchapp.vectors import Array
from searchapp.wire import as_text

logger = logging.getLogger("searchapp")

Boosts = Boost | Decay | Sequence[Boost | Decay] | None


@dataclass(frozen=True, slots=True)
class Maintained:
    """What ``maintain`` did: how many partitions were dropped, and which collections got their index."""

    dropped: int
    indexed: tuple[str, ...]


class Client:
    """A handle on one database. Every call takes the collection's name; none keeps state but the loaded models.

    Each call needs one of three roles, which its error says where it is refused (errors.PermissionDenied).

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
        self._spaces: dict[str, Space] = {}  # as each was seen last
        self._answering = Answering(self._reader, self.space, self._spaces, self._encoder, self._encode)

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

    @needs(WRITER)
    def ingest(
        self,
        documents: Iterable[Any],
        *,
        collection: str,
        model: str | None = None,
        chunk_tokens: int | None = None,
        language: str | None = None,
        words: bool | None = None,
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
        :param language: the text search configuration that a new collection's words are read by; default english.
        :param words: False: a new collection has no words, and is searched by vectors alone; None: as it was made.
        :param prune: afterwards delete what ``documents`` lacks; over half of a collection only with ``yes``.
        :param on_rejected: told of each faulty document; without it the first one raises.
        :raises errors.RowRejected: a document is faulty; those before it may be in.
        :raises errors.CollectionMismatch: the collection has another model or other chunking.
        :raises errors.CollectionFed: a source keeps the collection in step with a table; as for all that change it.
        """
        destination = self._destination(collection, language, words)
        destination.check(model, chunk_tokens)
        run = self._ingestion(lambda: destination.open(model, chunk_tokens), on_rejected, on_progress)
        return run.run(_rows(documents), prune=prune, yes=yes)

    @needs(WRITER)
    def load_vectors(
        self,
        documents: Iterable[Any],
        vectors: Iterable[Any] | None = None,
        *,
        collection: str,
        model: str,
        language: str | None = None,
        words: bool | None = None,
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
        :param language, words: as for :meth:`ingest`.
        :param on_rejected: told of each faulty document or vector; without it the first one raises.
        :raises errors.RowRejected: a document or its vector is faulty; those before it may be in.
        :raises errors.InvalidInput, errors.ModelMismatch: not as many vectors as documents; other dimensions.
        :raises errors.CollectionMismatch: the collection has another model.
        """
        destination = self._destination(collection, language, words)
        dimensions = destination.dimensions_of(model)
        check_lengths(documents, vectors)
        rows = Embedded(_rows(documents), vectors, dimensions)
        run = self._ingestion(lambda: destination.open_for(model, rows.dimensions), on_rejected, on_progress)
        return run.run(rows, prune=prune, yes=yes)

    @needs(READER)
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

    @needs(WRITER)
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
            self._refuse_if_fed(connection, collection)
            space = self._find(connection, collection)
            matching = document_builder.documents(space, filter=filter)
            if keys is not None:
                ids = _document_ids(space, [keys] if isinstance(keys, str) else keys)
            else:
                ids = list(connection.scalars(matching.order_by("id")))
        deleted = ingestion.delete_in_batches(self._transaction, space, ids, matching)
        if deleted and self._engine is not None:
            with self._transaction() as connection:
                spaces.refresh_statistics(connection, space, deleted)
        return deleted

    @needs(READER)
    def count(self, *, collection: str, filter: Mapping[str, Any] | None = None) -> int:
        """How many documents a collection has, or how many of them a filter keeps."""
        with self._transaction() as connection:
            statement = document_builder.documents(self._find(connection, collection), filter=filter)
            return connection.scalar(select(func.count()).select_from(statement.subquery())) or 0

    # Asking

    @needs(READER)
    def search(
        self,
        query: str,
        *,
        collection: str,
        mode: str | None = None,
        limit: int = 10,
        offset: int = 0,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        max_distance: float | None = None,
        exact: bool = False,
        fusion: str | None = None,
        weights: Sequence[float] | None = None,
        highlight: bool = False,
        passages: int = 1,
        diversity: float | None = None,
        boost: Boosts = None,
        group_by: str | None = None,
        group_size: int = 3,
        rerank: str | None = None,
        rerank_top: int = reranking.DEFAULT_TOP,
        cursor: str | None = None,
        timeout: float | None = None,
    ) -> Hits:
        """Find the documents that mean what the query means, that have its words, or both.

        Where its words count, ``"a phrase"`` in the query must stand in a hit, and an ``-excluded`` word must not.

        :param mode: ``vector``: by meaning; ``text``: by words (BM25); ``hybrid``: by both. None: ``hybrid``, where the
            collection has words, else ``vector``.
        :param limit: how many hits, 1 to 100,000; fewer come only where fewer match.
        :param offset: how many of the best are left out before them, 0 to 100,000; in a hybrid no more than its
            candidates, of which there are 100, or as many as the limit.
        :param filter: what a hit's metadata must satisfy, such as ``{"lang": "en", "year": {"$gte": 2020}}``.
        :param min_score: hits have at least this score: 1 - distance, BM25, or both fused, by the mode.
        :param max_distance: hits are no farther than this.
        :param exact: compare with every passage instead of asking the index.
        :param fusion: how a hybrid's two scores become one: ``convex``, the default, or ``rrf``, by reciprocal ranks.
        :param weights: of meaning and of words; default 0.8 and 0.2, for ``rrf`` 1 and 1.
        :param highlight: say where words of the query stand in each passage, which takes another round trip.
        :param passages: how many of its nearest passages a hit shows at most; over 1, ``hit.passages`` has them.
        :param diversity: by how much hits are to differ from each other (MMR), 0 to 1: chosen among the best 100, or as
            many as are asked for.
        :param boost: one or several of :class:`searchapp.Boost` and :class:`searchapp.Decay`, what counts beside the
            distance: the 100 nearest are ordered by it, or as many as are asked for; with ``exact`` all that match.
        :param group_by: a field of the metadata: ``hits.groups`` are the nearest ``limit`` groups of documents that
            have one value in it, with their nearest ``group_size`` hits each. Groups and boosts are of the mode
            ``vector``.
        :param rerank: a cross-encoder, by its folder or its name on the hub, that puts the best hits in another order:
            it reads the query with each one's passage, and its logits are their ``score``. ``min_score`` and
            ``max_distance`` are of the search before. Takes no cursor.
        :param rerank_top: how many hits it reads at least, 1 to 1,000; offset and limit may reach the 1,000th.
        :param cursor: ``hits.cursor`` of the page before, whose search this is: pages by cursor neither repeat nor skip
            a hit of unchanged data. In the mode ``vector`` they are exact: begin with ``exact=True``. Those of a hybrid
            are of one list of candidates, 100 of each kind, or 300 where it began with ``exact=True``.
        :param timeout: seconds after which the database ends the search; None: as it is set there.
        :raises errors.InvalidInput: an empty query, a limit or mode or filter that cannot be.
        :raises errors.ModelMissing, errors.ModelCorrupted: a model cannot be had; it gives NaN or infinity.
        :raises errors.InvalidCursor: a cursor of another search, of a former space, or behind a hybrid's candidates.
        :raises errors.QueryCanceled: the search ran over its time.
        :raises errors.CollectionMissing: no such collection; the message has the near names.
        :raises errors.WordsMissing: its words are asked for, and the collection has none.
        """
        check_query(query, mode)
        arranged = arrangement(passages, diversity, boost, group_by, group_size)
        asked = request(limit, offset, filter, exact, min_score, max_distance, timeout, arranged)
        fused, reranked = fused_by(fusion, weights), None
        if rerank is not None:
            if group_by is not None or diversity is not None:
                raise errors.InvalidInput("a cross-encoder's order goes with neither groups nor diversity")
            asked = reranking.candidates(asked, rerank, rerank_top, cursor)
            # loaded before the database is asked: where the model is missing, nothing was done in vain
            reranked = Reranking(self._registry.cross_encoder(rerank).scores, offset, limit)
        typed = Typed(query, mode, asked, fused, highlight, reranking=reranked)
        return self._answering.ask(collection, typed, cursor)

    @needs(READER)
    def search_many(
        self,
        queries: Sequence[str],
        *,
        collection: str,
        mode: str | None = None,
        limit: int = 10,
        offset: int = 0,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        max_distance: float | None = None,
        exact: bool = False,
        fusion: str | None = None,
        weights: Sequence[float] | None = None,
        timeout: float | None = None,
    ) -> list[Hits]:
        """Answer many queries at once, each as :meth:`search` would: they are encoded together, and asked in one
        round trip.

        Many exact ones in the mode ``vector`` (16 or more) take some: everything is read once, in blocks, and compared
        here.

        :return: hits for each query, in their order; ``took_ms`` is each one's share.
        """
        if isinstance(queries, str):
            raise errors.InvalidInput("search_many takes a list of queries; for a single one there is search")
        queries = list(queries)
        for query in queries:
            check_query(query, mode)
        asked = request(limit, offset, filter, exact, min_score, max_distance, timeout)
        fused = fused_by(fusion, weights)
        return self._answering.ask_many(collection, [Typed(query, mode, asked, fused) for query in queries])

    @needs(READER)
    def search_by_vector(
        self,
        vector: npt.ArrayLike,
        *,
        collection: str,
        model: str | None = None,
        limit: int = 10,
        offset: int = 0,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        max_distance: float | None = None,
        exact: bool = False,
        passages: int = 1,
        diversity: float | None = None,
        boost: Boosts = None,
        group_by: str | None = None,
        group_size: int = 3,
        cursor: str | None = None,
        timeout: float | None = None,
    ) -> Hits:
        """Find the documents whose embeddings are nearest to a vector; as :meth:`search` in the mode ``vector``,
        without a model.

        :param vector: shape (dimensions,), of the collection's model, of any length but zero.
        :param model: what made it, by its name; None: it is taken for the collection's.
        :raises errors.ModelMismatch: its dimension or its model is not the collection's.
        :raises errors.InvalidInput: it is zero, or has NaN or infinity.
        """
        arranged = arrangement(passages, diversity, boost, group_by, group_size)
        asked = request(limit, offset, filter, exact, min_score, max_distance, timeout, arranged)
        check = partial(_check_vector, vector, model)
        return self._answering.ask(collection, Given(check, nearest_builder.as_floats(vector).tobytes(), asked), cursor)

    @needs(READER)
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
        given = Given(partial(nearest_builder.check_vectors, vectors), b"", asked)
        return self._answering.ask_many_by_vector(collection, given)

    @needs(READER)
    def similar(
        self,
        key: str,
        *,
        collection: str,
        limit: int = 10,
        offset: int = 0,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        max_distance: float | None = None,
        exact: bool = False,
        passages: int = 1,
        diversity: float | None = None,
        boost: Boosts = None,
        group_by: str | None = None,
        group_size: int = 3,
        cursor: str | None = None,
        timeout: float | None = None,
    ) -> Hits:
        """Find the documents that mean what one of the collection means, which is left out; as :meth:`search` in the
        mode ``vector``, without a model.

        :param key: its key; a document of several passages is what these are on average.
        :raises errors.DocumentMissing: there is none of that key; the message has the near ones.
        """
        arranged = arrangement(passages, diversity, boost, group_by, group_size)
        asked = request(limit, offset, filter, exact, min_score, max_distance, timeout, arranged)
        check_key(key)
        hits = self._answering.ask(collection, Alike(key, asked), cursor)
        if not hits:
            with self._transaction() as connection:
                document_builder.check_there(connection, self._find(connection, collection), [key])
        return hits

    @needs(READER)
    def search_by_examples(
        self,
        like: Example | Sequence[Example],
        unlike: Example | Sequence[Example] = (),
        *,
        collection: str,
        strategy: str = "average",
        limit: int = 10,
        offset: int = 0,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        max_distance: float | None = None,
        exact: bool = False,
        passages: int = 1,
        diversity: float | None = None,
        boost: Boosts = None,
        group_by: str | None = None,
        group_size: int = 3,
        timeout: float | None = None,
    ) -> Hits:
        """Find the documents that are like some examples, and unlike others; documents among these are left out.

        :param like, unlike: documents of the collection by their keys, and vectors of its model.
        :param strategy: ``average``: near to the average of what hits are to be like, moved away from the average of
            what they are to be unlike; ``best_score``: each hit is compared with every example, see
            :func:`searchapp.nearest_to_examples`. Then ``score`` is that, and ``distance`` to the nearest example.
        :param limit, offset, filter, min_score, max_distance, exact, timeout: as of :meth:`search`.
        :param passages, diversity, boost, group_by, group_size: as of :meth:`search`; boosts and groups with
            ``average`` alone.
        :raises errors.InvalidInput: nothing to be like; a vector or key that cannot be.
        :raises errors.DocumentMissing: there is none of some key; the message has the near ones.
        """
        arranged = arrangement(passages, diversity, boost, group_by, group_size)
        asked = request(limit, offset, filter, exact, min_score, max_distance, timeout, arranged)
        like, unlike = listed(like), listed(unlike)
        keys = check_examples(like, unlike, strategy, arranged)
        if keys:
            with self._transaction() as connection:
                document_builder.check_there(connection, self._find(connection, collection), keys)
        return self._answering.ask(collection, ByExamples(partial(sides_of, like, unlike), strategy, asked))

    @needs(READER)
    def facets(
        self,
        field: str,
        *,
        collection: str,
        limit: int = 20,
        filter: Mapping[str, Any] | None = None,
        query: str | None = None,
        first: int | None = None,
        mode: str | None = None,
        timeout: float | None = None,
    ) -> Facets:
        """Count the documents of each value of a field: all that the filter matches, or the first hits of a query.

        :param field: of the metadata, with dots into objects; a document whose field is an array counts for each of its
            elements, one without the field for none.
        :param limit: how many values, the most frequent first.
        :param query: None: everything is counted that the filter matches, else the first hits of this search.
        :param first: of how many hits, with a query; None: 100.
        :param mode: of the query, as of :meth:`search`.
        :raises errors.InvalidInput: a field or a number that cannot be.
        """
        check_field(field)
        counted = 100 if first is None else check_limit(first, "first")
        asked = request(counted, 0, filter, timeout=timeout)
        check_limit(limit)
        if query is not None:
            check_query(query, mode)
            counts = self._answering.facets(collection, Typed(query, mode, asked), field, limit)
            return Facets(field, counts, counted)
        for name, given in (("mode", mode), ("first", first)):
            if given is not None:
                raise errors.InvalidInput(f"{name} goes with a query; without one all documents are counted")
        space = self.space(collection)
        statement = facet_builder.facets(space, field, limit=limit, filter=filter)
        rows = self._reader.fetch(as_text(statement).encode(), [], timeout)
        return Facets(field, tuple(FacetCount(*row) for row in rows), None)

    @needs(READER)
    def context(
        self,
        query: str,
        *,
        collection: str,
        token_budget: int = 2000,
        mode: str | None = None,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        max_distance: float | None = None,
        neighbours: int = 1,
        count_tokens: Callable[[str], int] | None = None,
        timeout: float | None = None,
    ) -> Context:
        """Put the best passages for a query together, for a language model to answer from.

        Each passage comes with its neighbours in the text, as far as these fit; overlapping ones are one, those that
        say the same as another one are left out. Passages of a document stand together, in its order.

        :param token_budget: how many tokens the text has at most, the numbers and titles of its sources counted in.
        :param mode: ``vector`` or ``hybrid``, as of :meth:`search`.
        :param filter, min_score, max_distance, timeout: as of :meth:`search`.
        :param neighbours: how many chunks before and behind a passage belong to it, 0 to 20.
        :param count_tokens: says how many tokens a text has; None: by the tokenizer of the collection's model.
        :raises errors.InvalidInput: a budget that no passage fits into.
        """
        check_query(query, mode)
        check_budget(token_budget, neighbours)
        if mode == TEXT:
            raise errors.InvalidInput("mode is 'text'; a context takes vector or hybrid")
        arranged = arrangement(passages=PASSAGES)
        asked = request(1, 0, filter, False, min_score, max_distance, timeout, arrangement=arranged)
        counter = self._token_counter if count_tokens is None else lambda _: count_tokens
        return self._answering.context(collection, Typed(query, mode, asked), neighbours, counter, token_budget)

    @needs(READER)
    def explain(
        self,
        query: str,
        *,
        collection: str,
        mode: str | None = None,
        limit: int = 10,
        offset: int = 0,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        max_distance: float | None = None,
        exact: bool = False,
        fusion: str | None = None,
        weights: Sequence[float] | None = None,
        timeout: float | None = None,
    ) -> Explanation:
        """Say how :meth:`search` answers a query: by which index and rung, from how many rows, how long each part
        takes, and what could be done about it. The query is asked three times for that.
        """
        check_query(query, mode)
        asked = request(limit, offset, filter, exact, min_score, max_distance, timeout)
        return self._answering.explain(collection, Typed(query, mode, asked, fused_by(fusion, weights)))

    @needs(READER)
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
        return self._answering.explain(collection, Given(partial(nearest_builder.check_vector, vector), b"", asked))

    # Looking after

    @needs(READER)
    def space(self, collection: str) -> Space:
        """The active space of a collection, which builders such as ``searchapp.nearest`` take."""
        with self._transaction() as connection:
            space = self._find(connection, collection)
        self._spaces[collection] = space
        return space

    @needs(READER)
    def collections(self) -> list[CollectionInfo]:
        """All collections, by name."""
        with self._transaction() as connection:
            self._ready(connection)
            found = []
            for name in spaces.names(connection):
                with suppress(errors.CollectionMissing):  # dropped a moment ago
                    found.append(spaces.describe(connection, self._find(connection, name)))
            return found

    @needs(READER)
    def describe(self, collection: str) -> CollectionInfo:
        """What a collection holds and how it was made."""
        with self._transaction() as connection:
            return spaces.describe(connection, self._find(connection, collection))

    @needs(WRITER)
    def create_collection(
        self,
        collection: str,
        *,
        model: str | None = None,
        chunk_tokens: int | None = None,
        language: str | None = None,
        words: bool = True,
        fields: Mapping[str, str] | None = None,
    ) -> Space:
        """Make an empty collection.

        :param language: the text search configuration that its words are read by; default english.
        :param words: False: it has no words, and is searched by vectors alone.
        :param fields: declared fields, whose filters are the faster by an index each: by name the type of their
            values, ``number``, ``text`` or ``date``.
        :raises errors.CollectionExists: it is there already.
        :raises errors.InvalidInput: an unknown type or language.
        """
        spaces.check_name(collection)
        declared, read_as = from_mapping(fields or {}), language_for(language, words)
        if read_as is not None:
            self._language(read_as)  # before a model is loaded
        described = self._registry.model(model or weights.DEFAULT)
        return self._create(collection, read_as, described, chunking_for(chunk_tokens, described), declared)

    @needs(WRITER)
    def make_words(
        self,
        collection: str,
        *,
        language: str | None = None,
        on_progress: Callable[[Backfilled], None] | None = None,
    ) -> int:
        """Make words for a collection that has none: one that was made without, or by an earlier version.

        Searches and writers go on meanwhile. Interrupted, the next call goes on where it stood.

        :param language: the text search configuration that they are read by; default english.
        :return: how many documents were read.
        :raises errors.CollectionMismatch: it has words already, read as another language.
        """
        with self._transaction() as connection:
            space = self._find(connection, collection)
            wanted = language or space.language or DEFAULT_LANGUAGE
            space = spaces.give_words(connection, space, spaces.language_of(connection, wanted))
        made = backfill.make_words(self._transaction, space, on_progress or (lambda _: None))
        self._vacuum_words(space)
        return made

    @needs(OWNER)
    def add_field(self, collection: str, name: str, type: str) -> None:
        """Declare a field of a collection: filters on it are the faster by an index, which is made first.

        Nobody waits for it, but behind a pooler, where writers do. Interrupted, it leaves nothing that the next call,
        or :meth:`maintain`, does not take away.

        :param name: as in a filter, with dots into objects: ``author.name``.
        :param type: of its values: ``number``, ``text`` or ``date``; a filter finds values of other types without it.
        :raises errors.InvalidInput: an unknown type; the field is declared already.
        :raises errors.PermissionDenied: this role is no member of searchapp_owner.
        """
        field = declare(name, type)
        with self._maintaining("add_field") as (connection, concurrently):
            _check_askable(collection)
            schema = self._ready(connection)
            maintenance.add_field(connection, collection, field, schema, concurrently=concurrently)

    @needs(OWNER)
    def drop_field(self, collection: str, name: str) -> None:
        """Take the declaration of a field back, with its index; filters on it go on working.

        :raises errors.InvalidInput: it is not declared.
        :raises errors.PermissionDenied: this role is no member of searchapp_owner.
        """
        with self._maintaining("drop_field") as (connection, concurrently):
            _check_askable(collection)
            schema = self._ready(connection)
            maintenance.drop_field(connection, collection, name, schema, concurrently=concurrently)

    @needs(WRITER)
    def drop_collection(self, collection: str) -> None:
        """Drop a collection with all its documents.

        It is out of sight at once; with a caller's connection, where this role may not drop tables, or beside another
        call that declares a field or drops, ``searchapp db maintain`` gives its room back.
        """
        _check_askable(collection)
        with self._transaction() as connection:
            self._refuse_if_fed(connection, collection)
            maintenance.retire(connection, collection)
            owner = maintenance.owns_tables(connection)
        if self._engine is None:
            return
        if not owner:
            logger.info("the collection is gone; its room is given back by the owner's: searchapp db maintain")
            return
        try:
            if not self._drop_retired():
                logger.info("the collection is gone; another process gives its room back, or: searchapp db maintain")
        except errors.DatabaseError as exc:
            logger.warning("the collection is gone, its room not given back yet (%s); run: searchapp db maintain", exc)

    @needs(OWNER)
    def maintain(self) -> Maintained:
        """Drop what is retired, make the indexes that are missing, count the words anew."""
        dropped = self._drop_retired()
        indexed = []
        for collection in self.collections():
            with suppress(errors.CollectionMissing):  # dropped a moment ago
                space = self.space(collection.name)
                if collection.documents and not collection.indexed:
                    spaces.build_index(self._transaction, space)
                    indexed += [collection.name] if self.space(collection.name).indexed else []
                if space.language is not None:
                    with self._transaction() as connection:
                        spaces.count_words(connection, space)
                        spaces.mend_counts(connection, space)
                    self._vacuum_words(space)
        return Maintained(dropped, tuple(indexed))

    @needs(WRITER)
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

    @needs(WRITER)
    def evaluate(
        self,
        folder: str | Path,
        *,
        collection: str | None = None,
        mode: str | None = None,
        model: str | None = None,
        chunk_tokens: int | None = None,
        vectors: npt.ArrayLike | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_asked: Callable[[int], None] | None = None,
    ) -> Evaluated:
        """Measure a mode on labelled data, and store the run.

        :param folder: in BEIR's layout: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/test.tsv``.
        :param collection: whose hits are measured: as it is where it exists; None: ``eval_`` and the folder's name,
            which the corpus is put into.
        :param mode: as for :meth:`search`.
        :param model, chunk_tokens: of a new collection; by default one passage a document.
        :param vectors: embeddings of the corpus that are there already, shape (n_documents, dimensions), in its order;
            a sample is compared with what the model makes.
        :param on_progress: told how far the ingest is.
        :param on_asked: told how many queries have been asked.
        :raises errors.InvalidInput: a file is missing or faulty; vectors that are not the model's.
        """
        if mode is not None:
            check_mode(mode)
        dataset = beir.read(Path(folder))
        name = collection or beir.collection_name(dataset.name)
        with self._transaction() as connection:
            self._ready(connection)
            known = name in spaces.names(connection)
        if collection is not None and known:
            if model is not None or chunk_tokens is not None or vectors is not None:
                raise errors.InvalidInput(
                    f"the collection {name} is there already, and measured as it is: without a model, chunks or vectors"
                )
        else:
            source = open_source(str(dataset.corpus), Fields(key="_id"))
            rejected: list[Rejected] = []
            if vectors is None:
                tokens = 0 if chunk_tokens is None and not known else chunk_tokens
                put = partial(self.ingest, source, model=model, chunk_tokens=tokens)
            else:
                used = model or weights.DEFAULT
                given = beir.check_vectors(self._registry.encoder(used), dataset, vectors)
                put = partial(self.load_vectors, source, given, model=used)
            put(collection=name, on_rejected=rejected.append, on_progress=on_progress)
            if rejected:
                first = f"{rejected[0].place}: {rejected[0].reason}"
                logger.warning(
                    "%d documents of the corpus cannot be found, for they are faulty (%s)", len(rejected), first
                )
        return runs.evaluate(
            self._transaction, self._answering, self.space(name), dataset, mode, on_asked or (lambda _: None)
        )

    @needs(READER)
    def compare(self, one: int, other: int) -> Comparison:
        """Compare two runs of :meth:`evaluate` on the same data, the other against the one.

        :raises errors.RunMissing: there is no such run.
        :raises errors.InvalidInput: they have no queries in common.
        """
        with self._transaction() as connection:
            self._ready(connection)
            return runs.compare(connection, one, other)

    # The insides

    def _destination(self, collection: str, language: str | None, words: bool | None) -> Destination:
        with self._transaction() as connection:
            self._refuse_if_fed(connection, collection)
        find, create = partial(self.space, collection), partial(self._create, collection, language_for(language, words))
        return Destination(collection, self._registry, language, words, find, create, self._language)

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
            vacuum=None if self._engine is None else self._vacuum_words,
        )

    def _refuse_if_fed(self, connection: Connection, collection: str) -> None:
        """Refuse to change what a source keeps in step with its table.

        :raises errors.CollectionFed: the collection is kept by a source.
        """
        self._ready(connection)
        source = definitions.feeding(connection, collection)
        if source is not None:
            raise errors.CollectionFed(
                f"the collection {collection} is kept by the source {source}; change its table, or remove it: "
                f"searchapp source remove {source}"
            )

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

    def _user(self) -> str:
        """The role that this handle connects as."""
        source = self._connection if self._engine is None else self._engine
        assert source is not None
        return database.user_of(source)

    def _encoder(self, space: Space) -> Encoder:
        encoder = self._registry.encoder(space.model)
        check_revision(space, encoder.model)
        return encoder

    def _encode(self, space: Space, texts: Sequence[str]) -> Array:
        if len(texts) == 1:  # which may be known already
            return self._registry.encode_query(space.model, texts[0])[np.newaxis]
        return self._encoder(space).encode_queries(texts)

    def _token_counter(self, space: Space) -> Callable[[str], int]:
        tokenizer = self._encoder(space).tokenizer
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False))

    def _create(
        self,
        collection: str,
        language: str | None,
        model: Model,
        chunking: spaces.Chunking,
        declared: Sequence[Field] = (),
    ) -> Space:
        with self._transaction() as connection:
            schema = self._ready(connection)
            read_as = None if language is None else spaces.language_of(connection, language)
            return spaces.create(connection, collection, model, chunking, schema, declared, read_as)

    def _language(self, name: str) -> str:
        with self._transaction() as connection:
            self._ready(connection)
            return spaces.language_of(connection, name)

    def _vacuum_words(self, space: Space) -> None:
        if self._engine is not None and space.language is not None:
            with database.translated(), self._engine.connect() as connection:
                partitions.vacuum_postings(
                    connection.execution_options(isolation_level="AUTOCOMMIT"), space.collection_id
                )


def _check_vector(vector: npt.ArrayLike, model: str | None, space: Space) -> Array:
    """A vector as a space needs it.

    :raises errors.ModelMismatch: it is of another model, or has other dimensions.
    """
    if model is not None and weights.canonical_name(model) != space.model:
        raise errors.ModelMismatch(f"the vector is of {model}; the collection {space.collection} has {space.model}")
    return nearest_builder.check_vector(vector, space)


def _document_ids(space: Space, keys: Iterable[str]) -> list[uuid.UUID]:
    """The ids of the documents of these keys, without those keys that no document can have."""
    return [models.document_id(space.collection_id, key) for key in map(str, keys) if values.is_storable(key)]


def _rows(documents: Iterable[Any]) -> Rows:
    return documents if isinstance(documents, Source) else Objects(documents)


def _check_askable(collection: str) -> None:
    """Check that the database can be asked for a collection of that name.

    :raises errors.InvalidName: it cannot: a NUL, or what is not UTF-8.
    """
    if not values.is_storable(collection):
        spaces.check_name(collection)
