"""How much of the exact answers a space's HNSW index finds, and the least ``ef_search`` that finds enough.

Asked are stored vectors, each for the documents nearest to its own, which is left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, and_, select

from searchapp import errors, spaces
from searchapp.database import Reader, Transaction
from searchapp.models import Chunk, Document
from searchapp.search import asking
from searchapp.search.ladder import MAX_EF_SEARCH, rows_fetched
from searchapp.search.matrix import Row
from searchapp.search.nearest import is_exact
from searchapp.search.question import Question
from searchapp.search.request import Request
from searchapp.spaces import Space
from searchapp.vectors import Array

# Recall is of so many hits, the default limit of a search.
NEIGHBOURS = 10
# With 2,000 neighbours in all, a recall of 0.99 is known to within half a hundredth.
SAMPLE = 200
EF_SEARCHES = (25, 40, 60, 80, 100, 150, 200, 300, 400, 600, 800, MAX_EF_SEARCH)
# The exact answers and the index's are added up in single precision, each in its own order.
ROUNDING = 1e-5

# One more, for the document that the vector is of.
_ASKED = Question(Request(limit=NEIGHBOURS + 1))
_ASKED_EXACTLY = Question(Request(limit=NEIGHBOURS + 1, exact=True))


@dataclass(frozen=True, slots=True)
class Measured:
    """What one ``ef_search`` gives: recall, 0 to 1, and the milliseconds of a query, the way there included."""

    ef_search: int
    recall: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured, in ascending ``ef_search``, and which of it is ``chosen`` and stored with the space.

    ``wanted`` is the recall asked for, ``queries`` how many vectors were asked each time, ``before`` the former
    ``ef_search``.
    """

    collection: str
    wanted: float
    queries: int
    before: int
    chosen: Measured
    measured: tuple[Measured, ...]


@dataclass(frozen=True, slots=True)
class _Sampled:
    """A stored vector, shape (dimensions,), the key of its document, and what an exact answer has beside that.

    :param neighbours: how many hits.
    :param reach: the distance of the last of them.
    """

    key: str
    vector: Array
    neighbours: int
    reach: float


def check_recall(recall: float) -> float:
    """Return a recall that can be asked for.

    :raises errors.InvalidInput: it is no number over 0 and up to 1.
    """
    if not isinstance(recall, (int, float)) or isinstance(recall, bool) or not 0 < recall <= 1:
        raise errors.InvalidInput(f"recall is {recall!r}; expected a number over 0 and at most 1, such as 0.99")
    return recall


def tune(
    transaction: Transaction,
    reader: Reader,
    space: Space,
    *,
    recall: float,
    on_measured: Callable[[Measured], None] | None = None,
) -> Tuned:
    """Find the least ``ef_search`` that reaches a recall, and store both with the space.

    :param recall: over 0 and up to 1.
    :param on_measured: told of each ``ef_search`` when it is measured; the last that it is told of is chosen.
    :raises errors.NotMeasurable: fewer than two documents, no index, or a space that changes meanwhile.
    :raises errors.RecallNotReached: no ``ef_search`` reaches it; what was stored is kept.
    :raises errors.CollectionMissing: the collection was dropped before it could be stored.
    """
    try:
        questions = _ask_exactly(transaction, reader, space)
        measured = _climb(reader, space, questions, recall, on_measured)
    except asking.Outdated as exc:
        raise errors.NotMeasurable(f"{space.collection} has changed while it was measured; tune it again") from exc
    chosen = measured[-1]
    if chosen.recall < recall:
        best = max(measured, key=lambda each: each.recall)
        raise errors.RecallNotReached(
            f"no ef_search up to {chosen.ef_search:,} reaches a recall of {recall} in {space.collection}; the best was"
            f" {best.recall:.4f}, with {best.ef_search}; ask for less, or search exactly (ef_search stays"
            f" {space.ef_search})",
            measured,
        )
    with transaction() as connection:
        spaces.set_ef_search(connection, space, chosen.ef_search, chosen.recall)
    return Tuned(space.collection, recall, len(questions), space.ef_search, chosen, measured)


def _ask_exactly(transaction: Transaction, reader: Reader, space: Space) -> list[_Sampled]:
    """The sample, and the exact answers to it."""
    with transaction() as connection:
        keys, vectors = _sample(connection, space)
    if len(keys) < 2:
        documents = "a single document" if keys else "no documents"
        raise errors.NotMeasurable(
            f"{space.collection} has {documents}; recall is measured with two or more: ingest some first"
        )
    if not space.indexed:
        raise errors.NotMeasurable(
            f"{space.collection} has no index yet, so its searches are exact; make it: searchapp db maintain"
        )
    questions = []
    answers = asking.ask_many(reader, space, vectors, _ASKED_EXACTLY)
    for key, vector, rows in zip(keys, vectors, answers, strict=True):
        others = _others(rows, key)
        questions.append(_Sampled(key, vector, len(others), others[-1][4]))
    return questions


def _sample(connection: Connection, space: Space) -> tuple[list[str], Array]:
    """The keys of some documents, and the vectors of their first chunks, float32, shape (n_documents, dimensions)."""
    same = and_(Document.id == Chunk.document_id, Document.collection_id == space.collection_id)
    rows = connection.execute(
        select(Document.key, Chunk.embedding)
        .join_from(Chunk, Document, same)
        .where(Chunk.space_id == space.id, Chunk.position == 0)
        .order_by(Chunk.document_id)  # ids are hashes of keys: the first are as good as any, and the same each time
        .limit(SAMPLE)
    ).all()
    vectors = np.array([row.embedding for row in rows], dtype=np.float32)
    return [row.key for row in rows], vectors


def _climb(
    reader: Reader,
    space: Space,
    questions: list[_Sampled],
    recall: float,
    on_measured: Callable[[Measured], None] | None,
) -> tuple[Measured, ...]:
    """Measure one ``ef_search`` after the other, up to the first that reaches the recall."""
    # a search asks the index with as many as it fetches, at least: less would change nothing
    fetched = rows_fetched(math.ceil(_ASKED.request.limit * space.chunks_per_document), filtered=False)
    ladder = [each for each in EF_SEARCHES if each >= min(fetched, EF_SEARCHES[-1])]
    # too small for any to matter: when it has grown, one will
    if is_exact(space, _ASKED.request.limit, filtered=False):
        ladder = [space.ef_search]
    _measure(reader, space, questions, ladder[0])  # the first time its pages come from the disk
    measured: list[Measured] = []
    for ef_search in ladder:
        measured.append(_measure(reader, space, questions, ef_search))
        if on_measured is not None:
            on_measured(measured[-1])
        if measured[-1].recall >= recall:
            break
    return tuple(measured)


def _measure(reader: Reader, space: Space, questions: list[_Sampled], ef_search: int) -> Measured:
    """Ask all questions, one by one, as a search would with that ``ef_search``.

    A hit is right if it is as near as the exact answer's last: of equally far ones any will do.
    """
    found, seconds = 0, []
    for question in questions:
        started = time.perf_counter()
        rows = asking.ask_one(reader, space, question.vector, _ASKED, ef_search=ef_search)
        seconds.append(time.perf_counter() - started)
        others = _others(rows, question.key)[: question.neighbours]
        found += sum(row[4] <= question.reach + ROUNDING for row in others)
    p50, p95 = (round(1000 * float(each), 3) for each in np.percentile(seconds, [50, 95]))
    return Measured(ef_search, found / sum(question.neighbours for question in questions), p50, p95)


def _others(rows: list[Row], key: str) -> list[Row]:
    """The nearest hits but for the document of that key, which among equal ones need not be there.

    :raises asking.Outdated: there are none: the collection was dropped or emptied meanwhile.
    """
    others = [row for row in rows if row[0] != key][:NEIGHBOURS]
    if not others:
        raise asking.Outdated
    return others
