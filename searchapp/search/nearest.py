"""The builder behind every search by vector: the nearest documents of a space, always as many as were asked for.

The statement carries its own settings and its own exact rung (a ladder): an approximate scan of the HNSW index, where
documents have several chunks a wider one, and an exact scan that runs only where the rungs before it gave fewer
documents than asked for. So it never returns fewer than ``limit`` hits when that many match, in whatever session it
runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    CTE,
    ColumnElement,
    Integer,
    Select,
    Subquery,
    and_,
    bindparam,
    cast,
    distinct,
    false,
    func,
    literal_column,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.types import Float

from searchapp import errors
from searchapp.models import Chunk, Document
from searchapp.search.filters import compile_filter
from searchapp.spaces import Space
from searchapp.vectors import Vector, quote

MAX_LIMIT = 100_000
# hnsw.ef_search goes no further.
MAX_EF_SEARCH = 1000
# The first rung fetches at least so many, and so many more than asked for.
LEAST_FETCHED = 20
FETCHED_BEYOND = 10
# The planner takes an iterative scan for far cheaper than it is; a LIMIT of 110 times what is asked makes it answer
# filters that keep up to some 5,000 of 60,000 documents by the filter first, so exactly (at 90 times 4,524 documents
# stayed with HNSW).
PLANNER_FACTOR = 110


def nearest(
    space: Space,
    vector: npt.ArrayLike,
    *,
    limit: int,
    filter: Mapping[str, Any] | None = None,
    exact: bool = False,
) -> Select[Any]:
    """Build the statement for the documents nearest to a vector.

    :param vector: float32, shape (dimensions,), not zero.
    :param limit: how many hits, 1 to 100,000.
    :param filter: what a hit's metadata must satisfy.
    :param exact: scan everything instead of the index.
    :return: columns ``key, title, passage, metadata, distance, exact``: nearest first, equal distances by key; one row
    a
        document, by its nearest passage; ``distance`` is cosine distance, 0 to 2; ``exact`` is true where the row is of
        an exact scan.
    :raises errors.ModelMismatch: the vector's dimension is not the space's.
    :raises errors.InvalidInput: limit, vector or filter cannot be.
    """
    check_limit(limit)
    scan = _Scan(space, check_vector(vector, space), filter)
    hits = scan.exactly(limit) if exact or not space.indexed else _ladder(scan, limit)
    text = func.substring(Document.text, hits.c.start + 1, hits.c.length)
    return (
        select(
            Document.key,
            Document.title,
            text.label("passage"),
            Document.metadata_.label("metadata"),
            hits.c.distance,
            hits.c.exact,
        )
        .join_from(
            hits,
            Document,
            and_(Document.id == hits.c.document_id, Document.collection_id == _literally(space.collection_id)),
        )
        .order_by(hits.c.distance, Document.key)
        .limit(_literally(limit))
    )


def check_limit(limit: int) -> int:
    """Return a limit that can be.

    :raises errors.InvalidInput: it is below 1 or over 100,000.
    """
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        raise errors.InvalidInput(f"limit is {limit!r}; expected 1 to {MAX_LIMIT:,}")
    return limit


def check_vector(vector: npt.ArrayLike, space: Space) -> npt.NDArray[np.float32]:
    """Return a query vector as float32, shape (dimensions,).

    :raises errors.ModelMismatch: its dimension is not the space's.
    :raises errors.InvalidInput: it is zero, or has NaN or infinity: no direction, no cosine.
    """
    array = np.asarray(vector, dtype=np.float32)
    if array.shape != (space.dimensions,):
        raise errors.ModelMismatch(
            f"the vector's shape is {array.shape}; the collection {space.collection} has ({space.dimensions},)"
        )
    if not np.isfinite(array).all() or not array.any():
        raise errors.InvalidInput("the vector is zero or has NaN or infinity; it has no direction to compare")
    return array


class _Scan:
    """The parts that every rung is made of. Its CTEs are anonymous, so two such statements can stand in one."""

    def __init__(self, space: Space, vector: npt.NDArray[np.float32], filter: Mapping[str, Any] | None) -> None:
        self.space = space
        self.filtered = bool(filter)
        self._vector = vector
        self._condition = None if filter is None else compile_filter(filter, Document.metadata_)

    def chunks(self, *columns: ColumnElement[Any]) -> Select[Any]:
        """Chunks of the space, with the filter's condition on their documents where there is one."""
        statement = select(Chunk.document_id, Chunk.start, Chunk.length, *columns)
        # the space's id stands literally: as a parameter, a generic plan over 50 partitions costs 0.9 ms more
        statement = statement.where(Chunk.space_id == _literally(self.space.id))
        if self._condition is not None:
            on = and_(Document.id == Chunk.document_id, Document.collection_id == _literally(self.space.collection_id))
            statement = statement.join(Document, on).where(self._condition)
        return statement

    def distance(self) -> ColumnElement[float]:
        """The distance, written so that the HNSW index is found by it."""
        schema = self.space.vector_schema
        kind = Vector(self.space.dimensions, schema)
        operator = f"OPERATOR({quote(schema)}.<=>)"
        return cast(Chunk.embedding, kind).op(operator, return_type=Float())(
            cast(bindparam(None, self._vector, kind, unique=True), kind)
        )

    def approximately(self, setting: CTE, wanted: int, fetch: int) -> CTE:
        """A rung: up to ``fetch`` chunks, of which ``wanted`` are needed, by the HNSW index under ``setting``."""
        distance = self.distance()
        planned = max(wanted * PLANNER_FACTOR, fetch) if self.filtered else fetch
        # beside a LATERAL the inner LIMIT is what the planner sees; the outer one ends the lazy scan early
        scan = (
            self.chunks(distance.label("distance"))
            .where(setting.c.v.is_not(None))
            .order_by(distance)
            .limit(_literally(planned))
            .lateral()
        )
        return _anonymous(
            select(scan.c.document_id, scan.c.start, scan.c.length, scan.c.distance)
            .select_from(setting.join(scan, true()))
            .limit(_literally(fetch))
        )

    def exactly(self, limit: int, *, unless: ColumnElement[bool] | None = None) -> Subquery:
        """The exact rung: the nearest chunk of each document by a scan of all, and of these the nearest ``limit``.

        Documents as far as the last one are kept, to be cut by key.
        """
        distance = (self.distance() + literal_column("0")).label("distance")  # + 0: not by the index
        statement = self.chunks(distance)
        if unless is not None:
            statement = statement.where(~unless)
        best = _best_per_document(statement.subquery())
        return _with_ties(select(*best.c, true().label("exact")), best.c.distance, limit)


def _ladder(scan: _Scan, limit: int) -> Subquery:
    """The rungs: each runs only where those before it gave too few documents."""
    wanted = math.ceil(limit * scan.space.chunks_per_document)
    fetch = max(LEAST_FETCHED, (2 if scan.filtered else 1) * wanted + FETCHED_BEYOND)
    first = scan.approximately(_setting(scan, min(fetch, MAX_EF_SEARCH)), wanted, fetch)
    rungs = [first]
    if scan.space.chunks_per_document > 1 and fetch < MAX_EF_SEARCH:
        short = ~_enough(first, limit)
        rungs.append(scan.approximately(_setting(scan, MAX_EF_SEARCH, when=short), MAX_EF_SEARCH // 2, MAX_EF_SEARCH))
    parts: list[Select[Any]] = []
    taken: list[ColumnElement[bool]] = []
    for rung in rungs:
        enough = _enough(rung, limit)
        condition = and_(enough, *(~before for before in taken)) if taken else enough
        best = _best_per_document(rung, condition)
        parts.append(select(*best.c, false().label("exact")))
        taken.append(enough)
    last = scan.exactly(limit, unless=or_(*taken))
    return union_all(*parts, select(*last.c)).subquery()


def _setting(scan: _Scan, ef_search: int, *, when: ColumnElement[bool] | None = None) -> CTE:
    """The settings of a rung, made when it is run and undone with the transaction."""
    iterative = "relaxed_order" if scan.filtered or ef_search >= MAX_EF_SEARCH else "off"
    ef_search = max(ef_search, scan.space.ef_search)
    value = func.set_config("hnsw.ef_search", str(ef_search), true()).op("||")(
        func.set_config("hnsw.iterative_scan", iterative, true())
    )
    statement = select(value.label("v"))
    return _anonymous(statement if when is None else statement.where(when))


def _enough(rung: CTE, limit: int) -> ColumnElement[bool]:
    """Whether a rung gave enough documents that are nearer than the last chunk it gave.

    Where the last chunks are all equally far, the scan may be stuck among equal vectors, which hide nearer ones;
    and perhaps it has not seen all that are equal, of which the first by key are to be taken.
    """
    last = select(func.max(rung.c.distance)).scalar_subquery()
    nearer = func.count(distinct(rung.c.document_id)).filter(rung.c.distance < last)
    return select(nearer >= _literally(limit)).scalar_subquery()


def _best_per_document(chunks: CTE | Subquery, condition: ColumnElement[bool] | None = None) -> Subquery:
    statement = (
        select(chunks.c.document_id, chunks.c.start, chunks.c.length, chunks.c.distance)
        .ext(distinct_on(chunks.c.document_id))
        .order_by(chunks.c.document_id, chunks.c.distance, chunks.c.start)
    )
    return (statement if condition is None else statement.where(condition)).subquery()


def _with_ties(statement: Select[Any], distance: ColumnElement[Any], limit: int) -> Subquery:
    return statement.order_by(distance).fetch(_literally(limit), with_ties=True).subquery()


def _anonymous(statement: Select[Any]) -> CTE:
    return statement.cte().prefix_with("MATERIALIZED")


def _literally(value: int) -> ColumnElement[int]:
    """A number that stands in the statement itself, where the planner sees it."""
    return bindparam(None, value, Integer, literal_execute=True, unique=True)
