"""Search by vector where something beside the distance counts: a number in the metadata, or a date's age."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy.typing as npt
from sqlalchemy import (
    ColumnElement,
    Double,
    Numeric,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    extract,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from searchapp.models import Document
from searchapp.search.arrangement import CANDIDATES, LEAST, MOST, Arrangement, Boost, Decay, arrangement
from searchapp.search.expressions import as_float, as_threshold, is_document, ratio
from searchapp.search.filters import condition_of, path_to
from searchapp.search.ladder import Scan
from searchapp.search.nearest import Chunks, candidates_near, check_vector
from searchapp.search.request import as_max_distance, check_limit, check_offset
from searchapp.search.scored import best_of
from searchapp.spaces import Space
from searchapp.wire import Vector, literally

# A date in ISO 8601, and its time zone.
_DATE = r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+)?(Z|[+-][0-9:]+)?\Z"
_ZONE = r"[0-9](Z|[T ][0-9:.]+[+-][0-9:]+)\Z"


def boosted(
    space: Space,
    vector: npt.ArrayLike,
    boost: Boost | Decay | Sequence[Boost | Decay],
    *,
    limit: int,
    offset: int = 0,
    filter: Mapping[str, Any] | None = None,
    where: ColumnElement[bool] | Sequence[ColumnElement[bool]] = (),
    min_score: float | None = None,
    max_distance: float | None = None,
    exact: bool = False,
) -> Select[Any]:
    """Build the statement for the documents that are near to a vector, and good by what stands in their metadata.

    Of the 100 nearest documents, or as many as are asked for, the best by
    ``(1 - all weights) * (1 - distance) + weight * boost + ...``; with ``exact`` of all documents.

    :param vector: float32, shape (dimensions,), not zero.
    :param boost: one or several of :class:`searchapp.Boost` and :class:`searchapp.Decay`.
    :param limit, offset, filter, where, max_distance: as of :func:`searchapp.nearest`.
    :param min_score: hits have at least this score.
    :return: columns ``key, title, passage, metadata, distance, exact, score``, best first, equal scores in the order of
        the documents' ids.
    :raises errors.ModelMismatch: the vector's dimension is not the space's.
    :raises errors.InvalidInput, errors.InvalidFilter: a value that cannot be.
    """
    as_max_distance(min_score, max_distance)  # which checks both
    return boosted_of(
        space,
        bindparam(None, check_vector(vector, space), Vector(space.vector_schema), unique=True),
        limit=check_limit(limit),
        offset=check_offset(offset),
        condition=condition_of(filter, where, Document.metadata_, space.fields),
        min_score=as_threshold(min_score),
        max_distance=as_threshold(max_distance),
        exact=exact,
        arranged=arrangement(boost=boost),
    )


def boosted_of(
    space: Space,
    vector: ColumnElement[Any],
    *,
    limit: int,
    offset: int = 0,
    condition: ColumnElement[bool] | None,
    without: ColumnElement[bool] | None = None,
    min_score: ColumnElement[float] | None = None,
    max_distance: ColumnElement[float] | None = None,
    exact: bool,
    arranged: Arrangement,
) -> Select[Any]:
    """Build the statement of :func:`boosted` for expressions.

    :param without: which chunks are left out.
    """
    if exact:
        scan: Scan = Chunks(space, vector, condition, without)
        near = scan.best(scan.rows(scan.exact_distance()).subquery(), exact=True).subquery()
    else:
        count = max(CANDIDATES, offset + limit)
        scan, nearest = candidates_near(space, vector, count, condition=condition, without=without, exact=False)
        near = nearest.subquery()
    rest = as_float(repr(1 - sum(each.weight for each in arranged.boosts)))
    parts = [as_float(repr(each.weight)) * _value_of(each) for each in arranged.boosts]
    score = reduce(add, parts, rest * (as_float("1") - near.c.distance))
    scored = select(*near.c, score.label("score")).join_from(near, Document, is_document(space, near.c.document_id))
    hits = best_of(
        space,
        scored.subquery(),
        limit=limit,
        offset=offset,
        min_score=min_score,
        max_distance=max_distance,
        distance=scan.exact_distance(),
        arranged=arranged,
    )
    return hits.add_cte(*scan.ctes, nest_here=True)


def _value_of(boost: Boost | Decay) -> ColumnElement[float]:
    """What a document's metadata gives it, 0 to 1."""
    found = func.jsonb_path_query_first(Document.metadata_, path_to(boost.field, Document.metadata_), type_=JSONB)
    zero = as_float("0")
    if isinstance(boost, Boost):
        number = func.greatest(func.coalesce(_number(found), zero), zero)
        return ratio(number, number + as_float(repr(float(boost.pivot))))
    if isinstance(boost.half_life, dt.timedelta):
        given = boost.origin
        origin = as_float(repr(given.timestamp())) if isinstance(given, dt.datetime) else _epoch(func.now())
        away = origin - _epoch(_date(found))
    else:
        assert not isinstance(boost.origin, dt.datetime)  # as it checks itself
        away = _number(found) - as_float(repr(float(boost.origin or 0)))
    # beyond 300 half-lives nothing is left, which power() would call an error
    halvings = func.least(ratio(func.abs(away), as_float(repr(float(boost.seconds)))), as_float("300"))
    return func.coalesce(func.power(as_float("0.5"), halvings), zero)


def _number(found: ColumnElement[Any]) -> ColumnElement[float]:
    """A JSON value as a number of 64 bits, the largest and smallest cut; null where it is none."""
    number = cast(found, Numeric)
    least, most = literal_column(repr(LEAST), Numeric), literal_column(repr(MOST), Numeric)
    cut = cast(func.least(func.greatest(number, -most), most), Double)
    value = case((func.abs(number) < least, as_float("0")), else_=cut)
    return case((func.jsonb_typeof(found) == literally("number"), value))


def _date(found: ColumnElement[Any]) -> ColumnElement[Any]:
    """A JSON value as a date, in UTC where it has no time zone, whatever the session's is; null where it is none."""
    text = found.op("#>>", return_type=Text())(literal_column("'{}'"))
    zoned = case((text.regexp_match(literally(_ZONE)), text), else_=text.op("||")(literally("Z")))
    kind = TIMESTAMP(timezone=True)
    dated = and_(text.regexp_match(literally(_DATE)), func.pg_input_is_valid(zoned, literally("timestamptz")))
    return case((dated, cast(zoned, kind)))


def _epoch(date: ColumnElement[Any]) -> ColumnElement[float]:
    """Seconds since 1970."""
    return cast(extract("epoch", date), Double)
