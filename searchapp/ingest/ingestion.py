"""One run of ``ingest``: a stream of documents goes into a collection, faulty rows aside; what it lacks is pruned."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, func, select

from searchapp import errors, models, spaces
from searchapp.database import Transaction
from searchapp.encoders import Encoder
from searchapp.ingest import load
from searchapp.ingest.documents import Document, Rejected
from searchapp.ingest.embedded import Rows
from searchapp.spaces import Space

DELETE_BATCH = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Summary:
    """What an ingest did.

    ``documents`` were written (new, changed, or with other metadata), with ``chunks`` passages encoded; ``unchanged``
    were there already; ``rejected`` rows were faulty; ``pruned`` documents were deleted because the source lacks them,
    or ``not_pruned`` says why none was though it was asked.
    """

    documents: int = 0
    chunks: int = 0
    unchanged: int = 0
    rejected: int = 0
    pruned: int = 0
    not_pruned: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingest is: ``documents`` done (unchanged ones counted in), then the index being built: ``indexed`` is
    the share of it that is done, 0 to 1."""

    documents: int
    indexing: bool = False
    indexed: float = 0.0


class Ingestion:
    """One run.

    :param transaction: opens a transaction; each batch of documents has its own.
    :param open_space: creates or finds the space; called when the first sound row has been read, so that an unreadable
        source leaves no empty collection.
    :param on_rejected: told of each faulty row; None: the first one ends the run by ``errors.RowRejected``.
    :param vacuum: lets the collection's words be read from their index alone; None where all happens in one transaction
        of the caller's: then nothing is done at the same time, and index and statistics are left to the next ingest or
        ``db maintain``: others would wait for them.
    """

    def __init__(
        self,
        transaction: Transaction,
        open_space: Callable[[], Space],
        encoder: Callable[[Space], Encoder],
        *,
        on_rejected: Callable[[Rejected], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        vacuum: Callable[[Space], None] | None,
    ) -> None:
        self._transaction = transaction
        self._open_space = open_space
        self._encoder = encoder
        self._on_rejected = on_rejected
        self._own_transactions = vacuum is not None
        self._vacuum = vacuum
        self._on_progress = on_progress or (lambda _: None)
        self._accepted: set[str] = set()
        self._kept: set[str] = set()  # keys of rejected rows: their documents are not pruned
        self._written = 0
        self._rejected = 0
        self._unreadable_keys = 0

    def run(self, source: Rows, *, prune: bool = False, yes: bool = False) -> Summary:
        """Ingest a whole source.

        :param prune: at the end, delete every document whose key the source lacks.
        :param yes: even where that is more than half of the collection.
        :raises errors.RowRejected: a row is faulty and nobody wants to be told; whole documents before it stay.
        """
        started = time.monotonic()
        rows = self._sound(source)
        first = list(itertools.islice(rows, 1))
        if not first and not prune:
            return self._summary(load.Loaded(), started)
        space = self._open_space()
        before = self._count(space) if prune else 0
        try:
            total = self._load(space, itertools.chain(first, rows))
        except (errors.RowRejected, errors.SourceUnreadable):
            self._finish(space)  # what was committed before the fault is to be found by its index
            raise
        self._finish(space)
        summary = self._summary(total, started)
        return self._prune(space, summary, before, yes) if prune else summary

    def _load(self, space: Space, rows: Iterable[Document]) -> load.Loaded:
        total = load.Loaded()

        def encoder() -> Encoder:
            return self._encoder(space)

        documents = (load.Row.of(space.collection_id, row) for row in rows)
        empty = self._is_empty(space)
        batches = (load.prepare(self._batch, space, batch, encoder, empty=empty) for batch in load.batches(documents))
        for prepared in _ahead(batches) if self._own_transactions else batches:
            total += load.write(self._batch, space, prepared, encoder)
            if not self._written and total.documents:
                self._count_words(space)  # searches by words need some idea
            self._written = total.documents
            self._on_progress(Progress(total.documents + total.unchanged))
        return total

    def _count_words(self, space: Space) -> None:
        if self._own_transactions and space.language is not None:
            with self._transaction() as connection:
                spaces.count_words(connection, space)

    @contextmanager
    def _batch(self) -> Iterator[Connection]:
        """A transaction whose end is not waited for until it is on the disk: :meth:`_finish` waits for all at once."""
        with self._transaction() as connection:
            if self._own_transactions:
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            yield connection

    def _finish(self, space: Space) -> None:
        """What a load does at its end: the index where it is not there yet, and fresh statistics."""
        if not self._own_transactions:
            return
        if not space.indexed:
            count = len(self._accepted)
            self._on_progress(Progress(count, indexing=True))
            spaces.build_index(
                self._transaction, space, lambda share: self._on_progress(Progress(count, indexing=True, indexed=share))
            )
        if self._written:
            with self._transaction() as connection:
                # its commit is waited for, and so are those before it
                connection.exec_driver_sql("SELECT pg_logical_emit_message(true, 'searchapp', 'ingested')")
                fresh = spaces.refresh_statistics(connection, space, self._written)
            if fresh and self._vacuum is not None:
                self._vacuum(space)

    def _summary(self, total: load.Loaded, started: float) -> Summary:
        seconds = round(time.monotonic() - started, 3)
        return Summary(total.documents, total.chunks, total.unchanged, self._rejected, seconds=seconds)

    def _sound(self, source: Rows) -> Iterator[Document]:
        """The sound rows; the faulty ones, and those whose key was given before, are rejected."""
        for row in source:
            if isinstance(row, Rejected):
                self._reject(row)
            elif row.key in self._accepted:
                self._reject(source.reject_last(f"the key {row.key!r} was given before", row.key))
            else:
                self._accepted.add(row.key)
                yield row

    def _reject(self, row: Rejected) -> None:
        if self._on_rejected is None:
            raise errors.RowRejected(row.place, row.reason)
        self._rejected += 1
        if row.key is None:
            self._unreadable_keys += 1
        else:
            self._kept.add(row.key)
        self._on_rejected(row)

    def _prune(self, space: Space, summary: Summary, before: int, yes: bool) -> Summary:
        """Delete what the source lacks.

        :param before: how many documents the collection had before this run.
        """
        if self._unreadable_keys:
            reason = f"{self._unreadable_keys} rejected rows have no readable key, and may be of any document"
            return dataclasses.replace(summary, not_pruned=reason)
        kept = {models.document_id(space.collection_id, key) for key in self._accepted | self._kept}
        with self._transaction() as connection:
            lacking = [each for each in connection.scalars(_ids(space)) if each not in kept]
        if len(lacking) * 2 > before and not yes:
            raise errors.PruneRefused(
                f"nothing was pruned: the source lacks {len(lacking)} of the {before} documents there were before, "
                "more than half; if that is meant, say so (--yes)",
                dataclasses.replace(summary, not_pruned="more than half of the collection"),
            )
        pruned = delete_in_batches(self._transaction, space, lacking)
        if self._own_transactions and pruned:
            with self._transaction() as connection:
                spaces.refresh_statistics(connection, space, pruned)
        return dataclasses.replace(summary, pruned=pruned)

    def _is_empty(self, space: Space) -> bool:
        with self._transaction() as connection:
            return connection.scalar(_ids(space).order_by(None).limit(1)) is None

    def _count(self, space: Space) -> int:
        with self._transaction() as connection:
            return connection.scalar(select(func.count()).select_from(_ids(space).subquery())) or 0


def _ids(space: Space) -> Select[uuid.UUID]:
    return (
        select(models.Document.id)
        .where(models.Document.collection_id == space.collection_id)
        .order_by(models.Document.id)
    )


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in another thread while the one before it is used."""
    end: Any = object()
    with ThreadPoolExecutor(1) as pool, _taking_turns():
        upcoming = pool.submit(next, items, end)
        while (item := upcoming.result()) is not end:
            upcoming = pool.submit(next, items, end)
            yield item


@contextmanager
def _taking_turns() -> Iterator[None]:
    """Let two threads of Python make and write rows without waiting for each other, or for the garbage collector.

    Threads take turns every 5 ms by default; the one that writes waits for the server thirty times a batch, and needs a
    few microseconds between. And the collector would look through all the caller's documents again and again.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, 0.0001))
    freezing = gc.get_freeze_count() == 0  # else the caller has done so, and may want it to last
    if freezing:
        gc.freeze()
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        if freezing:
            gc.unfreeze()


def delete_in_batches(
    transaction: Transaction, space: Space, ids: Sequence[uuid.UUID], matching: Select[Any] | None = None
) -> int:
    """Delete documents, a thousand a transaction; return how many there were.

    :param matching: a statement with a column ``id``: only what it still gives, once locked, is deleted.
    """
    deleted = 0
    for start in range(0, len(ids), DELETE_BATCH):
        with transaction() as connection:
            deleted += load.delete(connection, space, ids[start : start + DELETE_BATCH], matching)
    return deleted
