"""What else of a hit's document is shown: its nearest passages, and the embedding of the nearest one."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Double, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from searchapp.models import Chunk, Document
from searchapp.search.arrangement import Arrangement
from searchapp.spaces import Space
from searchapp.wire import literally, vector_function


def more_columns(
    space: Space, document_id: ColumnElement[Any], distance: ColumnElement[float], arranged: Arrangement
) -> list[ColumnElement[Any]]:
    """The columns that an arrangement adds to a hit's row.

    :param distance: of a chunk, called ``distance``.
    :return: ``passages``, JSON arrays of ``position, start, text, distance``, nearest first; ``embedding``, as pgvector
        sends it.
    """
    of_document = Chunk.space_id == literally(space.id), Chunk.document_id == document_id
    columns: list[ColumnElement[Any]] = []
    if arranged.passages > 1:
        near = (
            select(Chunk.position, Chunk.start, Chunk.length, distance)
            .where(*of_document)
            .order_by(distance, Chunk.position)
            .limit(literally(arranged.passages))
            .correlate_except(Chunk)
            .subquery()
        )
        text = func.substring(Document.text, near.c.start + literal_column("1"), near.c.length)
        shown = func.jsonb_build_array(near.c.position, near.c.start, text, cast(near.c.distance, Double))
        listed = func.jsonb_agg(aggregate_order_by(shown, near.c.distance, near.c.position))
        columns.append(select(listed).select_from(near).correlate(Document).scalar_subquery().label("passages"))
    if arranged.diversity is not None:
        sent = vector_function(space.vector_schema, "vector_send", Chunk.embedding)
        nearest = select(sent).where(*of_document).order_by(distance, Chunk.position)
        columns.append(nearest.limit(literal_column("1")).correlate_except(Chunk).scalar_subquery().label("embedding"))
    return columns
