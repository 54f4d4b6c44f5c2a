"""Exact and approximate search by vector: the nearest documents of a space, always as many as were asked for.

The statement carries its own settings and its own exact rungs (a ladder): an approximate scan of the HNSW index, where
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
    String,
    Subquery,
    and_,
    bindparam,
    cast,
    distinct,
    false,
    func,
    literal_column,
    not_,
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
from searchapp.vectors import is_usable, unusable, why_unusable
from searchapp.wire import Vector, quote

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
    parameter = bindparam(None, check_vector(vector, space), Vector(space.vector_schema), unique=True)
    condition = compile_filter(filter, Document.metadata_) if filter else None
    return nearest_to(space, parameter, limit=limit, condition=condition, exact=exact)


def nearest_to(
    space: Space, vector: ColumnElement[Any], *, limit: int, condition: ColumnElement[bool] | None, exact: bool
) -> Select[Any]:
    """Build the statement of :func:`nearest` for expressions.

    :param vector: a parameter, or a column of a query around it.
    :param condition: what a hit's document must satisfy.
    """
    scan = _Scan(space, vector, condition)
    ladder = _exactly if exact or not space.indexed else _approximately
    found = ladder(scan, check_limit(limit))
    # equally far ones are kept, to be cut by key
    hits = select(*found.c).order_by(found.c.distance).fetch(_literally(limit), with_ties=True).subquery()
    text = func.substring(Document.text, hits.c.start + literal_column("1"), hits.c.length)
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
        .add_cte(*scan.ctes, nest_here=True)
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
    try:
        array = np.asarray(vector, dtype=np.float32)
    except (TypeError, ValueError) as exc:
        raise errors.InvalidInput("the vector is not a list of numbers") from exc
    if array.shape != (space.dimensions,):
        raise errors.ModelMismatch(
            f"the vector's shape is {array.shape}; the collection {space.collection} has ({space.dimensions},)"
        )
    if not is_usable(array):
        raise errors.InvalidInput(why_unusable(array))
    return array


def check_vectors(vectors: npt.ArrayLike, space: Space) -> npt.NDArray[np.float32]:
    """Return query vectors as float32, shape (n_vectors, dimensions).

    :raises errors.ModelMismatch, errors.InvalidInput: as :func:`check_vector`; the message has the first faulty one.
    """
    try:
        array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as exc:
        raise errors.InvalidInput("the vectors are not numbers, or not equally long") from exc
    if array.size == 0:
        return np.empty((0, space.dimensions), dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != space.dimensions:
        raise errors.ModelMismatch(
            f"the vectors' shape is {array.shape}; the collection {space.collection} has (n, {space.dimensions})"
        )
    for place in np.flatnonzero(unusable(array)):
        raise errors.InvalidInput(f"vector {place}: {why_unusable(array[place])}")
    return array


class _Scan:
    """The parts that every rung is made of. Its CTEs are anonymous, so two such statements can stand in one.

    All but the vector stands literally: as parameters, a generic plan over 50 partitions costs 0.9 ms more.
    """

    def __init__(self, space: Space, vector: ColumnElement[Any], condition: ColumnElement[bool] | None) -> None:
        self.space = space
        self.filtered = condition is not None
        # without its dimensions: that cast would be made for each row of a prepared plan
        self.vector = cast(vector, Vector(space.vector_schema))
        self._condition = condition
        self.ctes: list[CTE] = []

    def once(self, statement: Select[Any]) -> CTE:
        """A part that is run once, at most."""
        self.ctes.append(statement.cte().prefix_with("MATERIALIZED"))
        return self.ctes[-1]

    def chunks(self, *columns: ColumnElement[Any]) -> Select[Any]:
        """Chunks of the space, with the filter's condition on their documents where there is one."""
        statement = select(Chunk.document_id, Chunk.start, Chunk.length, *columns)
        statement = statement.where(Chunk.space_id == _literally(self.space.id))
        if self._condition is not None:
            on = and_(Document.id == Chunk.document_id, Document.collection_id == _literally(self.space.collection_id))
            statement = statement.join(Document, on).where(self._condition)
        return statement

    def distance(self) -> ColumnElement[float]:
        """The distance, written so that the HNSW index is found by it."""
        schema = self.space.vector_schema
        kind = Vector(schema, self.space.dimensions)
        operator = f"OPERATOR({quote(schema)}.<=>)"
        return cast(Chunk.embedding, kind).op(operator, return_type=Float())(self.vector)

    def exact_distance(self) -> ColumnElement[float]:
        """The distance, written so that no index is used."""
        return (self.distance() + literal_column("0")).label("distance")

    def wanted(self, limit: int) -> int:
        """How many chunks ``limit`` documents have, by the statistics."""
        return math.ceil(limit * self.space.chunks_per_document)

    def fetched(self, limit: int) -> int:
        """How many chunks surely hold ``limit`` documents, in the usual run of things."""
        return max(LEAST_FETCHED, (2 if self.filtered else 1) * self.wanted(limit) + FETCHED_BEYOND)

    def by_index(self, setting: CTE, wanted: int, fetch: int) -> CTE:
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
        return self.once(
            select(scan.c.document_id, scan.c.start, scan.c.length, scan.c.distance)
            .select_from(setting.join(scan, true()))
            .limit(_literally(fetch))
        )

    def by_sorting(self, fetch: int) -> CTE:
        """A rung: the nearest ``fetch`` chunks by a scan of all, which keeps no more than these."""
        distance = self.exact_distance()
        return self.once(self.chunks(distance).order_by(distance).limit(_literally(fetch)))

    def of_everything(self, unless: ColumnElement[bool]) -> Select[Any]:
        """The last rung: the nearest chunk of every document."""
        return _best_per_document(self.chunks(self.exact_distance()).where(not_(unless)).subquery(), exact=True)


def _approximately(scan: _Scan, limit: int) -> Subquery:
    """The rungs: each runs only where those before it gave too few documents."""
    fetch = scan.fetched(limit)
    first = scan.by_index(_setting(scan, min(fetch, MAX_EF_SEARCH)), scan.wanted(limit), fetch)
    enough = _enough(scan, first, limit)
    parts = [_best_per_document(first, exact=False, condition=enough)]
    if scan.space.chunks_per_document > 1 and fetch < MAX_EF_SEARCH:
        wide = scan.by_index(_setting(scan, MAX_EF_SEARCH, when=not_(enough)), MAX_EF_SEARCH // 2, MAX_EF_SEARCH)
        enough_by_wide = _enough(scan, wide, limit)
        parts.append(_best_per_document(wide, exact=False, condition=and_(enough_by_wide, not_(enough))))
        enough = or_(enough, enough_by_wide)
    return union_all(*parts, scan.of_everything(unless=enough)).subquery()


def _exactly(scan: _Scan, limit: int) -> Subquery:
    """The rungs of an exact answer: the nearest chunks, and where these are too few documents, all."""
    fetch = scan.fetched(limit)
    first = scan.by_sorting(fetch)
    enough = _enough(scan, first, limit, or_fewer_than=fetch)
    return union_all(
        _best_per_document(first, exact=True, condition=enough), scan.of_everything(unless=enough)
    ).subquery()


def _setting(scan: _Scan, ef_search: int, *, when: ColumnElement[bool] | None = None) -> CTE:
    """The settings of a rung, made when it is run and undone with the transaction.

    They hang on the vector, so that where it is a column they are made again for each: a wider rung may have run.
    """
    iterative = "relaxed_order" if scan.filtered or ef_search >= MAX_EF_SEARCH else "off"
    ef_search = max(ef_search, scan.space.ef_search)
    value = _set("hnsw.ef_search", str(ef_search)).op("||")(_set("hnsw.iterative_scan", iterative))
    statement = select(value.label("v")).where(scan.vector.is_not(None))
    return scan.once(statement if when is None else statement.where(when))


def _set(name: str, value: str) -> ColumnElement[str]:
    literals = [bindparam(None, text, String, literal_execute=True, unique=True) for text in (name, value)]
    return func.set_config(*literals, true(), type_=String)


def _enough(scan: _Scan, rung: CTE, limit: int, *, or_fewer_than: int | None = None) -> ColumnElement[bool]:
    """Whether a rung gave enough documents that are nearer than the last chunk it gave.

    Where the last chunks are all equally far, the scan may be stuck among equal vectors, which hide nearer ones;
    and perhaps it has not seen all that are equal, of which the first by key are to be taken.

    :param or_fewer_than: an exact scan that gave fewer chunks than this has given all there are.
    """
    last = select(func.max(rung.c.distance)).scalar_subquery()
    enough = func.count(distinct(rung.c.document_id)).filter(rung.c.distance < last) >= _literally(limit)
    if or_fewer_than is not None:
        enough = or_(enough, func.count() < _literally(or_fewer_than))
    answer = scan.once(select(enough.label("yes")).select_from(rung))
    return select(answer.c.yes).scalar_subquery()


def _best_per_document(
    chunks: CTE | Subquery, *, exact: bool, condition: ColumnElement[bool] | None = None
) -> Select[Any]:
    best = (
        select(chunks.c.document_id, chunks.c.start, chunks.c.length, chunks.c.distance)
        .ext(distinct_on(chunks.c.document_id))
        .order_by(chunks.c.document_id, chunks.c.distance, chunks.c.start)
    )
    found = (best if condition is None else best.where(condition)).subquery()
    return select(*found.c, (true() if exact else false()).label("exact"))


def _literally(value: int) -> ColumnElement[int]:
    """A number that stands in the statement itself, where the planner sees it."""
    return bindparam(None, value, Integer, literal_execute=True, unique=True)
