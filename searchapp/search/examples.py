"""Search by what is there: the documents that are most like another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Double, Select, Uuid, literal, literal_column, select

from searchapp.models import Chunk, Document, document_id
from searchapp.search.filters import condition_of
from searchapp.search.nearest import nearest_to
from searchapp.search.request import as_max_distance, check_limit, check_offset
from searchapp.spaces import Space
from searchapp.wire import literally, quote


def nearest_to_document(
    space: Space,
    key: str,
    *,
    limit: int,
    offset: int = 0,
    filter: Mapping[str, Any] | None = None,
    where: ColumnElement[bool] | Sequence[ColumnElement[bool]] = (),
    min_score: float | None = None,
    max_distance: float | None = None,
    exact: bool = False,
) -> Select[Any]:
    """Build the statement for the documents that are nearest to one of the collection, which is left out.

    A document of several passages is what these are on average.

    :param key: the document's key; where there is none of it, there are no hits.
    :param limit, offset, filter, where, min_score, max_distance, exact: as of :func:`searchapp.nearest`.
    :return: columns as of :func:`searchapp.nearest`.
    :raises errors.InvalidInput, errors.InvalidFilter: a value that cannot be.
    """
    threshold = as_max_distance(min_score, max_distance)
    document = literal(document_id(space.collection_id, key), Uuid)
    return nearest_to(
        space,
        embedding_of(space, document),
        limit=check_limit(limit),
        offset=check_offset(offset),
        condition=condition_of(filter, where, Document.metadata_, space.fields),
        without=document,
        max_distance=None if threshold is None else literal(threshold, Double),
        exact=exact,
    )


def embedding_of(space: Space, document: ColumnElement[Any]) -> ColumnElement[Any]:
    """The embedding of a document: its chunks' on average; null where it has none."""
    average: ColumnElement[Any] = literal_column(f"{quote(space.vector_schema)}.avg({Chunk.__table__}.embedding)")
    return (
        select(average)
        .select_from(Chunk)
        .where(Chunk.space_id == literally(space.id), Chunk.document_id == document)
        .scalar_subquery()
    )
