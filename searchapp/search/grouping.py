"""Hits by the values of a field: the nearest groups, and in each its nearest documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
from sqlalchemy import (
    CTE,
    ColumnElement,
    Select,
    bindparam,
    false,
    func,
    not_,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB, distinct_on

from searchapp.models import Document
from searchapp.search.arrangement import arrangement
from searchapp.search.expressions import as_threshold, is_document, shown
from searchapp.search.facets import is_scalar
from searchapp.search.filters import condition_of, path_to
from searchapp.search.ladder import MAX_EF_SEARCH, first_rung, wide_rung
from searchapp.search.nearest import Chunks, check_vector, is_exact
from searchapp.search.request import as_max_distance, check_limit
from searchapp.spaces import Space
from searchapp.wire import Vector, literally

# So many times as many hits are looked up as would fill the groups, if these came in turn.
SPARE = 12


def grouped(
    space: Space,
    vector: npt.ArrayLike,
    by: str,
    *,
    limit: int,
    size: int = 3,
    filter: Mapping[str, Any] | None = None,
    where: ColumnElement[bool] | Sequence[ColumnElement[bool]] = (),
    min_score: float | None = None,
    max_distance: float | None = None,
    exact: bool = False,
) -> Select[Any]:
    """Build the statement for the groups of documents that are nearest to a vector.

    A group are the documents that have one value in a field; one whose field is an array stands in the group of each of
    its elements, one without the field, or with an object in it, in none. A group is as near as its nearest document.

    :param vector: float32, shape (dimensions,), not zero.
    :param by: the field of the metadata, with dots into objects.
    :param limit: how many groups, 1 to 100,000.
    :param size: how many documents a group has at most, 1 to 1,000.
    :param filter, where, min_score, max_distance, exact: as of :func:`searchapp.nearest`, of the documents.
    :return: columns ``key, title, passage, metadata, distance, exact, group``; the nearest group first, in it the
        nearest document, equally near ones in the order of their ids; ``group`` is the value as JSON.
    :raises errors.ModelMismatch: the vector's dimension is not the space's.
    :raises errors.InvalidInput, errors.InvalidFilter: a value that cannot be.
    """
    arranged = arrangement(group_by=by, group_size=size)
    threshold = as_max_distance(min_score, max_distance)
    return grouped_of(
        space,
        bindparam(None, check_vector(vector, space), Vector(space.vector_schema), unique=True),
        by,
        limit=check_limit(limit),
        size=arranged.group_size,
        condition=condition_of(filter, where, Document.metadata_, space.fields),
        max_distance=as_threshold(threshold),
        exact=exact,
    )


def grouped_of(
    space: Space,
    vector: ColumnElement[Any],
    by: str,
    *,
    limit: int,
    size: int,
    offset: int = 0,
    condition: ColumnElement[bool] | None,
    without: ColumnElement[bool] | None = None,
    max_distance: ColumnElement[float] | None = None,
    exact: bool,
) -> Select[Any]:
    """Build the statement of :func:`grouped` for expressions.

    The nearest chunks are looked up by the index, and more of them where these do not fill the groups; where they do
    not either, all documents are compared.

    :param offset: how many groups are left out.
    :param without: which chunks are left out.
    """
    scan = Chunks(space, vector, condition, without)
    groups = offset + limit
    wanted = groups * size
    everything = scan.rows(scan.exact_distance())

    def ranked(rows: Any, *, exact: bool) -> Select[Any]:
        found = _ranked(space, by, rows, groups, size).subquery()
        return select(*found.c, (true() if exact else false()).label("exact"))

    if exact or is_exact(space, wanted * SPARE, filtered=condition is not None):
        found: Any = ranked(everything.subquery(), exact=True).subquery()
    else:
        rows = first_rung(scan, wanted * SPARE)
        first = scan.once(ranked(rows, exact=False))
        full = _is_full(scan, rows, first, wanted, max_distance)
        parts = [select(*first.c).where(full)]
        if scan.fetched(wanted * SPARE) < MAX_EF_SEARCH:
            rows = wide_rung(scan, unless=full)
            wide = scan.once(ranked(rows, exact=False))
            full_by_wide = _is_full(scan, rows, wide, wanted, max_distance)
            parts.append(select(*wide.c).where(full_by_wide, not_(full)))
            full = or_(full, full_by_wide)
        rest = ranked(everything.where(not_(full)).subquery(), exact=True)
        found = union_all(*parts, rest).subquery()
    # how many they are at most, the planner would not know
    page = select(*found.c).where(found.c.rank > literally(offset)).order_by(found.c.rank, found.c.place)
    hits = page.limit(literally(limit * size)).subquery()
    statement = shown(space, hits, hits.c.distance, hits.c.exact, hits.c.group)
    statement = statement.order_by(hits.c.rank, hits.c.place).add_cte(*scan.ctes, nest_here=True)
    return statement if max_distance is None else statement.where(hits.c.distance <= max_distance)


def _ranked(space: Space, by: str, rows: Any, groups: int, size: int) -> Select[Any]:
    """The nearest groups and their nearest documents.

    :param rows: ``document_id, start, length, distance``.
    :return: these, and ``group``, its ``rank`` and the document's ``place`` in it.
    """
    found = func.jsonb_path_query(Document.metadata_, path_to(by, Document.metadata_), type_=JSONB)
    value = found.table_valued("value").render_derived().lateral()
    each = (
        select(rows.c.document_id, rows.c.start, rows.c.length, rows.c.distance, value.c.value.label("group"))
        .join_from(rows, Document, is_document(space, rows.c.document_id))
        .join(value, is_scalar(value.c.value))
        .cte()
        .prefix_with("MATERIALIZED")
    )
    nearest = func.min(each.c.distance)
    top = select(each.c.group, nearest.label("distance")).group_by(each.c.group).order_by(nearest, each.c.group)
    nearest_groups = top.limit(literally(groups)).subquery()
    rank = func.row_number().over(order_by=(nearest_groups.c.distance, nearest_groups.c.group)).label("rank")
    ranked = select(nearest_groups.c.group, rank).subquery()
    # a document by its nearest passage, and once, though an array had a value twice
    best = (
        # the group's value is the one it was found by: 1 and 1.0 are equal
        select(each.c.document_id, each.c.start, each.c.length, each.c.distance, ranked.c.group, ranked.c.rank)
        .join_from(each, ranked, ranked.c.group == each.c.group)
        .ext(distinct_on(ranked.c.rank, each.c.document_id))
        .order_by(ranked.c.rank, each.c.document_id, each.c.distance, each.c.start)
        .subquery()
    )
    place = func.row_number().over(partition_by=best.c.rank, order_by=(best.c.distance, best.c.document_id))
    placed = select(*best.c, place.label("place")).subquery()
    return select(*placed.c).where(placed.c.place <= literally(size))


def _is_full(
    scan: Chunks, rows: CTE, part: CTE, wanted: int, max_distance: ColumnElement[float] | None
) -> ColumnElement[bool]:
    """Whether all groups are full of documents that are nearer than the last chunk, or nothing else is near enough."""
    last = select(func.max(rows.c.distance)).scalar_subquery()
    full = func.count().filter(part.c.distance < last) >= literally(wanted)
    if max_distance is not None:
        full = or_(full, func.coalesce(last > max_distance, false()))
    answer = scan.once(select(full.label("yes")).select_from(part))
    return select(answer.c.yes).scalar_subquery()
