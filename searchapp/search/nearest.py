"""Exact and approximate search by vector: the nearest documents of a space, or rows of a caller's own table; always as
many as were asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    cast,
    inspect,
    not_,
    or_,
    select,
)
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import Float

from searchapp import errors
from searchapp.models import Chunk, Document
from searchapp.search.arrangement import PLAIN, Arrangement, arrangement
from searchapp.search.expressions import as_threshold, is_document, shown
from searchapp.search.filters import condition_of
from searchapp.search.ladder import Scan, approximately, exact_is_as_fast, exactly
from searchapp.search.passages import more_columns
from searchapp.search.request import as_max_distance, check_limit, check_offset
from searchapp.spaces import Space
from searchapp.vectors import is_usable, unusable, why_unusable
from searchapp.wire import Vector, literally, vector_operator

# The least that the index of a caller's own table is asked with: as of a new space.
OWN_EF_SEARCH = 100


def nearest(
    target: Space | InstrumentedAttribute[Any],
    vector: npt.ArrayLike,
    *,
    limit: int,
    offset: int = 0,
    filter: Mapping[str, Any] | None = None,
    where: ColumnElement[bool] | Sequence[ColumnElement[bool]] = (),
    min_score: float | None = None,
    max_distance: float | None = None,
    exact: bool = False,
    passages: int = 1,
) -> Select[Any]:
    """Build the statement for the documents of a space, or the rows of a caller's own table, nearest to a vector.

    :param target: a space, as ``db.space(collection)`` gives it; or a mapped pgvector column of the caller's own class,
        such as ``Product.embedding``.
    :param vector: float32, shape (dimensions,), not zero.
    :param limit: how many hits, 1 to 100,000.
    :param offset: how many of the nearest are left out before them, 0 to 100,000.
    :param filter: what a document's metadata must satisfy; for a space only.
    :param where: conditions of the caller's own, such as ``searchapp.orm.Document.key.in_(select(Product.sku))`` on a
        space's documents or ``Product.price < 100`` on own rows: they stand inside the LIMIT, so that as many hits come
        back as were asked for; a ``.where()`` on the result comes after it.
    :param min_score: hits have at least this score, which is 1 - distance.
    :param max_distance: hits are no farther than this.
    :param exact: scan everything instead of the index.
    :param passages: for a space: how many of its nearest passages a document shows at most; with more than one there is
        a column ``passages``, JSON arrays of ``position, start, text, distance``, nearest first.
    :return: columns ``key, title, passage, metadata, distance, exact`` for a space: one row a document, by its nearest
        passage; the class (the object itself in a session), ``distance`` and ``exact`` for own rows. Nearest first,
        equal distances by key; ``distance`` is cosine distance, 0 to 2; ``exact`` is true where the row is of an exact
        scan.
    :raises errors.ModelMismatch: the vector's dimension is not the target's.
    :raises errors.InvalidInput: a value that cannot be, or a column of another type.
    """
    declared = target.fields if isinstance(target, Space) else ()
    condition = condition_of(filter, where, Document.metadata_, declared)
    threshold = as_max_distance(min_score, max_distance)
    limits: dict[str, Any] = {
        "limit": check_limit(limit),
        "offset": check_offset(offset),
        "max_distance": as_threshold(threshold),
        "exact": exact,
    }
    if isinstance(target, Space):
        parameter = bindparam(None, check_vector(vector, target), Vector(target.vector_schema), unique=True)
        return nearest_to(target, parameter, condition=condition, arranged=arrangement(passages), **limits)
    if filter is not None:
        raise errors.InvalidInput(
            "a filter is for a space's metadata; conditions on a table's own columns go to where="
        )
    return _nearest_rows(target, vector, condition=condition, **limits)


def nearest_to(
    space: Space,
    vector: ColumnElement[Any],
    *,
    limit: int,
    offset: int = 0,
    condition: ColumnElement[bool] | None,
    without: ColumnElement[bool] | None = None,
    max_distance: ColumnElement[float] | None = None,
    after: After | None = None,
    exact: bool,
    arranged: Arrangement = PLAIN,
) -> Select[Any]:
    """Build the statement of :func:`nearest` in a space for expressions.

    :param vector: a parameter, a column of a query around it, or a subquery; where it is null, there are no hits.
    :param condition: what a hit's document must satisfy.
    :param without: which chunks are left out.
    :param max_distance: stands outside of the scan, which would otherwise go on until it had read everything.
    :param after: only hits behind this one; exactly.
    :param arranged: what columns there are more.
    """
    scan = Chunks(space, vector, condition, without)
    exact = exact or is_exact(space, limit + offset, filtered=condition is not None)
    hits = _hits(scan, limit + offset, exact) if after is None else _hits_after(scan, limit, after)
    more = more_columns(space, hits.c.document_id, scan.exact_distance(), arranged)
    statement = shown(space, hits, hits.c.distance, hits.c.exact, *more)
    if after is not None:
        statement = statement.where(or_(hits.c.distance > after.distance, Document.key > after.key))
    return _page(statement, scan, hits, [Document.key], limit, offset, max_distance)


def is_exact(space: Space, count: int, *, filtered: bool) -> bool:
    """Whether so many hits of a space are always found exactly: without an index, or where it would save no time."""
    return not space.indexed or exact_is_as_fast(
        math.ceil(count * space.chunks_per_document), space.chunks, filtered=filtered
    )


def candidates_near(
    space: Space,
    vector: ColumnElement[Any],
    count: int,
    *,
    condition: ColumnElement[bool] | None,
    without: ColumnElement[bool] | None = None,
    exact: bool,
) -> tuple[Scan, Select[Any]]:
    """The documents of a space that are nearest to a vector, as a part of another statement.

    :param condition: what a document must satisfy.
    :param without: which chunks are left out.
    :return: the scan, whose CTEs that statement must have; and ``document_id, start, length, distance, exact``.
    """
    scan = Chunks(space, vector, condition, without)
    exact = exact or is_exact(space, count, filtered=condition is not None)
    hits = _hits(scan, count, exact)
    return scan, select(*hits.c).order_by(hits.c.distance, hits.c.document_id).limit(literally(count))


@dataclass(frozen=True, slots=True)
class After:
    """The last hit of the page before, and how many hits as far as that were shown: each a parameter or a column."""

    distance: ColumnElement[float]
    key: ColumnElement[str]
    tied: ColumnElement[int]


def _nearest_rows(
    column: InstrumentedAttribute[Any],
    vector: npt.ArrayLike,
    *,
    limit: int,
    offset: int,
    condition: ColumnElement[bool] | None,
    max_distance: ColumnElement[float] | None,
    exact: bool,
) -> Select[Any]:
    """Build the statement of :func:`nearest` for a mapped column."""
    kind = getattr(column, "type", None)
    if not isinstance(kind, VECTOR):
        raise errors.InvalidInput(
            f"cannot search {column!r}; expected a space, or a mapped column of pgvector's type VECTOR"
        )
    array = _as_direction(vector)
    if kind.dim not in (None, len(array)):
        raise errors.ModelMismatch(f"the vector has {len(array)} dimensions; {column} has {kind.dim}")
    scan = _OwnRows(column, array, condition)
    hits = _hits(scan, limit + offset, exact)
    same = and_(*(key == hits.c[name] for key, name in zip(scan.primary_key, scan.keys, strict=True)))
    statement = select(scan.entity, hits.c.distance, hits.c.exact).join_from(hits, scan.entity, same)
    return _page(statement, scan, hits, scan.primary_key, limit, offset, max_distance)


def _hits(scan: Scan, count: int, exact: bool) -> Any:
    """The nearest hits; more where the last ones are equally far, to be cut by key."""
    found = exactly(scan, count) if exact else approximately(scan, count)
    return select(*found.c).order_by(found.c.distance).fetch(literally(count), with_ties=True).subquery()


def _hits_after(scan: Scan, limit: int, after: After) -> Any:
    """The hits behind a page: as far as its last one, or farther; so many that ``limit`` of them were not shown."""
    found = scan.best(scan.rows(scan.exact_distance()).subquery(), exact=True).subquery()
    farther = select(*found.c).where(found.c.distance >= after.distance).order_by(found.c.distance)
    return farther.fetch(literally(limit) + after.tied, with_ties=True).subquery()


def _page(
    statement: Select[Any],
    scan: Scan,
    hits: Any,
    keys: Sequence[Any],
    limit: int,
    offset: int,
    max_distance: ColumnElement[float] | None,
) -> Select[Any]:
    """Put hits in their order and cut them."""
    ordered = statement.order_by(hits.c.distance, *keys).limit(literally(limit)).add_cte(*scan.ctes, nest_here=True)
    if offset:
        ordered = ordered.offset(literally(offset))
    return ordered if max_distance is None else ordered.where(hits.c.distance <= max_distance)


class Chunks(Scan):
    """The chunks of a space, with a condition on their documents where there is one.

    All but the vector stands literally: as parameters, a generic plan over 50 partitions costs 0.9 ms more.

    :param without: which chunks are left out.
    :param carried: the columns of a chunk that are needed.
    """

    def __init__(
        self,
        space: Space,
        vector: ColumnElement[Any],
        condition: ColumnElement[bool] | None,
        without: ColumnElement[bool] | None = None,
        carried: tuple[str, ...] = ("start", "length"),
    ) -> None:
        super().__init__(
            # without its dimensions: that cast would be made for each row of a prepared plan
            cast(vector, Vector(space.vector_schema)),
            filtered=condition is not None,
            keys=("document_id",),
            carried=carried,
            several=True,
            ef_search=space.ef_search,
            rows_per_hit=space.chunks_per_document,
        )
        self._space = space
        self._condition = condition
        self._without = without

    def rows(self, *columns: ColumnElement[Any]) -> Select[Any]:
        """The space's chunks; none where the vector is null, as that of a document that is not there."""
        rows = self.chunks(*columns)
        return rows if self._without is None else rows.where(self.vector.is_not(None))

    def chunks(self, *columns: ColumnElement[Any]) -> Select[Any]:
        """The space's chunks, whatever the vector."""
        carried = [getattr(Chunk, name) for name in self.carried]
        statement = select(Chunk.document_id, *carried, *columns)
        statement = statement.where(Chunk.space_id == literally(self._space.id))
        if self._without is not None:
            statement = statement.where(not_(self._without))
        if self._condition is not None:
            statement = statement.join(Document, is_document(self._space, Chunk.document_id)).where(self._condition)
        return statement

    def distance(self) -> ColumnElement[float]:
        """The distance, written as in the space's index."""
        schema = self._space.vector_schema
        kind = Vector(schema, self._space.dimensions)
        return cast(Chunk.embedding, kind).op(vector_operator(schema, "<=>"), return_type=Float())(self.vector)


class _OwnRows(Scan):
    """The rows of a caller's own table.

    :param vector: shape (dimensions,).
    """

    def __init__(
        self,
        column: InstrumentedAttribute[Any],
        vector: npt.NDArray[np.float32],
        condition: ColumnElement[bool] | None,
    ) -> None:
        mapper = inspect(column.parent.mapper)
        self.entity: Any = column.parent.entity
        self.primary_key = [
            getattr(self.entity, mapper.get_property_by_column(each).key) for each in mapper.primary_key
        ]
        super().__init__(
            cast(bindparam(None, vector, Vector(None), unique=True), VECTOR()),
            filtered=condition is not None,
            keys=tuple(f"key_{number}" for number in range(len(self.primary_key))),
            several=False,
            ef_search=OWN_EF_SEARCH,
        )
        self._column = column
        self._condition = condition

    def rows(self, *columns: ColumnElement[Any]) -> Select[Any]:
        """The table's rows that have an embedding."""
        keys = [key.label(name) for key, name in zip(self.primary_key, self.keys, strict=True)]
        statement = select(*keys, *columns).where(self._column.is_not(None))
        return statement if self._condition is None else statement.where(self._condition)

    def distance(self) -> ColumnElement[float]:
        """The distance, written as in an index with ``vector_cosine_ops``."""
        return self._column.op("<=>", return_type=Float())(self.vector)


def check_vector(vector: npt.ArrayLike, space: Space) -> npt.NDArray[np.float32]:
    """Return a query vector as float32, shape (dimensions,).

    :raises errors.ModelMismatch: its dimension is not the space's.
    :raises errors.InvalidInput: it is zero, or has NaN or infinity: no direction, no cosine.
    """
    array = as_floats(vector)
    if array.shape != (space.dimensions,):
        raise errors.ModelMismatch(
            f"the vector's shape is {array.shape}; the collection {space.collection} has ({space.dimensions},)"
        )
    return _as_direction(array)


def as_floats(vector: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """A vector as float32.

    :raises errors.InvalidInput: it is not made of numbers.
    """
    try:
        return np.asarray(vector, dtype=np.float32)
    except (TypeError, ValueError) as exc:
        raise errors.InvalidInput("the vector is not a list of numbers") from exc


def _as_direction(vector: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """A vector that has a direction, as float32, shape (dimensions,)."""
    array = as_floats(vector)
    if array.ndim != 1:
        raise errors.InvalidInput(f"the vector's shape is {array.shape}; expected a list of numbers")
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
