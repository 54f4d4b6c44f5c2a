"""One run of ``ingest``: a stream of documents goes into a collection, faulty rows aside; what it lacks is pruned."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import text

from searchapp import errors, spaces
from searchapp.encoders import Encoder
from searchapp.ingest import load
from searchapp.ingest.documents import Document, Rejected
from searchapp.ingest.load import Transaction
from searchapp.spaces import Space

DELETE_BATCH = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Summary:
    """What an ingest did.

    ``documents`` were written (new, changed, or with other metadata), with ``chunks`` passages encoded; ``unchanged``
    were there already; ``rejected`` rows were faulty; ``pruned`` documents were deleted because the source lacks them.
    """

    documents: int = 0
    chunks: int = 0
    unchanged: int = 0
    rejected: int = 0
    pruned: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingest is: ``documents`` done (unchanged ones counted in), or the index being built."""

    documents: int
    indexing: bool = False


class Rows(Protocol):
    """What is ingested: a source, or a caller's own documents."""

    def __iter__(self) -> Iterator[Document | Rejected]: ...

    def repeated(self, key: str) -> Rejected:
        """Reject the row that came last, because a row before it has its key."""
        ...


class Ingestion:
    """One run.

    :param transaction: opens a transaction; each batch of documents has its own.
    :param open_space: creates or finds the space; called when the first sound row has been read, so that an unreadable
        source leaves no empty collection.
    :param on_rejected: told of each faulty row; None: the first one ends the run by ``errors.RowRejected``.
    :param overlap: read and encode a batch while the one before it is written, which takes two connections.
    """

    def __init__(
        self,
        transaction: Transaction,
        open_space: Callable[[], Space],
        encoder: Callable[[], Encoder],
        *,
        on_rejected: Callable[[Rejected], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        overlap: bool = True,
    ) -> None:
        self._transaction = transaction
        self._open_space = open_space
        self._encoder = encoder
        self._on_rejected = on_rejected
        self._overlap = overlap
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
        space = self._open_space()
        try:
            total = self._load(space, itertools.chain(first, rows))
        except (errors.RowRejected, errors.SourceUnreadable):
            self._finish(space)  # what was committed before the fault is to be found by its index
            raise
        self._finish(space)
        pruned = self._prune(space, yes) if prune else 0
        seconds = round(time.monotonic() - started, 3)
        return Summary(total.documents, total.chunks, total.unchanged, self._rejected, pruned, seconds)

    def _load(self, space: Space, rows: Iterable[Document]) -> load.Loaded:
        total = load.Loaded()
        batches = (load.prepare(self._transaction, space, batch, self._encoder) for batch in load.batches(rows))
        for prepared in _ahead(batches) if self._overlap else batches:
            total += load.write(self._transaction, space, prepared, self._encoder)
            self._written = total.documents
            self._on_progress(Progress(total.documents + total.unchanged))
        return total

    def _finish(self, space: Space) -> None:
        if self._written or not space.indexed:
            self._on_progress(Progress(len(self._accepted), indexing=True))
            with self._transaction() as connection:
                spaces.finish_load(connection, space, self._written)

    def _sound(self, source: Rows) -> Iterator[Document]:
        """The sound rows; the faulty ones, and those whose key was given before, are rejected."""
        for row in source:
            if isinstance(row, Rejected):
                self._reject(row)
            elif row.key in self._accepted:
                self._reject(source.repeated(row.key))
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

    def _prune(self, space: Space, yes: bool) -> int:
        if self._unreadable_keys:
            raise errors.InvalidInput(
                f"nothing was pruned: {self._unreadable_keys} rejected rows have no readable key, so their documents "
                "cannot be told from those that the source lacks; mend these rows and ingest again"
            )
        kept = [load.document_id(space.collection_id, key) for key in self._accepted | self._kept]
        lacking, present = self._lacking(space, kept)
        if len(lacking) * 2 > present and not yes:
            raise errors.InvalidInput(
                f"nothing was pruned: the source lacks {len(lacking)} of the collection's {present} documents, "
                "more than half; if that is meant, say so (--yes)"
            )
        return delete_in_batches(self._transaction, space, lacking)

    def _lacking(self, space: Space, kept: list[uuid.UUID]) -> tuple[list[uuid.UUID], int]:
        """The collection's documents that are not kept, and how many it has."""
        with self._transaction() as connection:
            found = connection.scalars(
                text("SELECT id FROM searchapp_data.documents WHERE collection_id = :id ORDER BY id"),
                {"id": space.collection_id},
            ).all()
        among = set(kept)
        return [each for each in found if each not in among], len(found)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in another thread while the one before it is used."""
    end: Any = object()
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, items, end)
        while (item := upcoming.result()) is not end:
            upcoming = pool.submit(next, items, end)
            yield item


def delete_in_batches(transaction: Transaction, space: Space, ids: Sequence[uuid.UUID]) -> int:
    """Delete documents, a thousand a transaction; return how many there were."""
    deleted = 0
    for start in range(0, len(ids), DELETE_BATCH):
        with transaction() as connection:
            deleted += load.delete(connection, space, ids[start : start + DELETE_BATCH])
    return deleted
