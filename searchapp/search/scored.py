"""Hits by a score that is not the distance alone: the best of scored documents, and what is shown of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, Subquery, select

from searchapp.search.arrangement import Arrangement
from searchapp.search.expressions import best_first, shown
from searchapp.search.passages import more_columns
from searchapp.spaces import Space
from searchapp.wire import literally


def best_of(
    space: Space,
    scored: Subquery,
    *,
    limit: int,
    offset: int,
    min_score: ColumnElement[float] | None,
    max_distance: ColumnElement[float] | None,
    distance: ColumnElement[float],
    arranged: Arrangement,
) -> Select[Any]:
    """Build the statement for the best of scored documents.

    :param scored: ``document_id, start, length, distance, exact, score``.
    :param distance: of a chunk, called ``distance``, for what the arrangement adds.
    :return: columns ``key, title, passage, metadata, distance, exact, score``, and what the arrangement adds; best
        first, equal scores in the order of the documents' ids.
    """
    best = select(*scored.c).order_by(*best_first(scored)).limit(literally(limit))
    if offset:
        best = best.offset(literally(offset))
    if min_score is not None:
        best = best.where(scored.c.score >= min_score)
    if max_distance is not None:
        best = best.where(scored.c.distance <= max_distance)
    hits = best.subquery()
    more = more_columns(space, hits.c.document_id, distance, arranged)
    return shown(space, hits, hits.c.distance, hits.c.exact, hits.c.score, *more).order_by(*best_first(hits))
