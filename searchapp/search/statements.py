"""The statements that the plain calls run: built once a shape, kept as text."""

from __future__ import annotations

import dataclasses
import itertools
from functools import lru_cache
from typing import Any

from sqlalchemy import ClauseElement, ColumnElement, bindparam, cast, func, literal_column, select, true
from sqlalchemy.types import Boolean

from searchapp import spaces
from searchapp.search.nearest import After, nearest_to
from searchapp.search.request import Request
from searchapp.spaces import Space
from searchapp.wire import RAW_DIALECT, Vector, VectorArray, quote

# Some 3 kB each.
SHAPES_KEPT = 512
# Stands for the filter's condition until its values are known.
_CONDITION = b"\0condition\0"  # which no text or name of a statement can have


def text_of(
    space: Space, request: Request, *, after: bool = False, many: bool = False, ef_search: int | None = None
) -> bytes:
    """The SQL text of a search, in which ``$1`` is the vector, or with ``many`` the array of vectors; where they are
    asked for, there follow the greatest distance, and the distance, key and number of ties of the last hit before.

    :param after: whether it goes on behind a hit.
    :param ef_search: the least that the index is asked with, instead of the space's; None: the space's. ``current`` is
        about the space's either way.
    :return: its columns are those of :func:`searchapp.nearest`, then ``current``: not true where the collection has
        another space by now, and with ``many`` ``place``: the vector's in the array, from 1. A vector's rows are in
        their order.
    """
    condition = request.condition(space.fields)
    filtered, bounded = condition is not None, request.max_distance is not None
    text = _compile(space, request.limit, request.offset, filtered, request.exact, bounded, after, many, ef_search)
    return text if condition is None else text.replace(_CONDITION, _render_condition(condition).encode())


def rows_of(space: Space, condition: ColumnElement[bool] | None) -> str:
    """The SQL text that gives the chunks of the documents from id ``$1`` to ``$2``, all in one value: for each of them
    the document's id and the embedding in binary, in the order of the ids.

    :param condition: on the documents.
    """
    vector_send = f"{quote(space.vector_schema)}.vector_send"
    chunk = "searchapp_data.chunks"
    text = (
        f"SELECT string_agg(uuid_send({chunk}.document_id) || {vector_send}({chunk}.embedding), ''::bytea"
        f" ORDER BY {chunk}.document_id) FROM {chunk}"
    )
    bounds = f" WHERE {chunk}.space_id = {space.id} AND {chunk}.document_id BETWEEN $1 AND $2"
    if condition is None:
        return text + bounds
    document = "searchapp_data.documents"
    on = f"{document}.collection_id = {space.collection_id} AND {document}.id = {chunk}.document_id"
    return f"{text} JOIN {document} ON {on}{bounds} AND {_render_condition(condition)}"


@lru_cache(SHAPES_KEPT)
def _compile(
    space: Space,
    limit: int,
    offset: int,
    filtered: bool,
    exact: bool,
    bounded: bool,
    after: bool,
    many: bool,
    ef_search: int | None,
) -> bytes:
    numbers = itertools.count(2)

    def parameter(type_: str) -> ColumnElement[Any]:
        return literal_column(f"${next(numbers)}::{type_}")

    max_distance = parameter("float8") if bounded else None
    last = After(parameter("float8"), parameter("text"), parameter("int8")) if after else None
    where = literal_column(_CONDITION.decode(), Boolean) if filtered else None
    current = spaces.is_current(space).label("current")
    scanned = space if ef_search is None else dataclasses.replace(space, ef_search=ef_search)

    def nearest(vector: ColumnElement[Any]) -> Any:
        return nearest_to(
            scanned,
            vector,
            limit=limit,
            offset=offset,
            condition=where,
            max_distance=max_distance,
            after=last,
            exact=exact,
        )

    if not many:
        vector = bindparam("vector", None, Vector(space.vector_schema))
        return _render(nearest(vector).add_columns(current)).encode()
    vectors = cast(bindparam("vectors", None), VectorArray(space.vector_schema))
    asked = func.unnest(vectors).table_valued("vector", with_ordinality="place").render_derived("asked")
    hits = nearest(literal_column("asked.vector")).lateral()  # a name: the column would bring its table into each part
    statement = select(*hits.c, current, asked.c.place).select_from(asked.join(hits, true()))
    return _render(statement.order_by(asked.c.place, hits.c.distance, hits.c.key)).encode()


def _render_condition(condition: ColumnElement[bool]) -> str:
    return f"({_render(condition)})"  # it may be an OR, and stands among others


def _render(element: ClauseElement) -> str:
    return str(element.compile(dialect=RAW_DIALECT, compile_kwargs={"render_postcompile": True}))
