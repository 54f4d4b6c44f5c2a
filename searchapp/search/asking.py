"""Putting a search to the database, for one vector or for many: the way of the plain calls."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import Any

from searchapp import database, errors, spaces
from searchapp.database import Reader
from searchapp.search import statements
from searchapp.search.cursor import Position, digest
from searchapp.search.matrix import Row, nearest_by_matrix
from searchapp.search.request import Request
from searchapp.spaces import Space
from searchapp.vectors import Array
from searchapp.wire import ArrayParameter, Parameter

# From so many vectors on reading everything once is faster than scanning it for each.
MATRIX_FROM = 16


class Outdated(Exception):
    """The collection has another space by now, or its space has changed: look it up, and ask again."""


def ask_one(
    reader: Reader,
    space: Space,
    vector: Array,
    *,
    request: Request,
    after: Position | None = None,
    ef_search: int | None = None,
) -> list[list[Row]]:
    """The rows nearest to a vector, shape (dimensions,), in one round trip.

    :param after: where the page before ended.
    :param ef_search: the least that the index is asked with, on trial; None: the space's.
    :return: a list of one: rows of ``key, title, passage, metadata, distance, exact``, and what else may follow.
    :raises Outdated: as it says; where there are no rows it cannot be known.
    :raises errors.InvalidCursor: that page was of another space.
    """
    if after is not None and after.space_id != space.id:
        raise errors.InvalidCursor(
            f"the cursor is of a former space of {space.collection}; begin again with the first page"
        )
    if after is not None and after.vector != digest(vector):
        raise errors.InvalidCursor("the query is encoded otherwise here; begin again with the first page")
    text = statements.text_of(space, request, after=after is not None, ef_search=ef_search)
    return [_fetch(reader, text, Parameter(vector), request, after)]


def ask_many(reader: Reader, space: Space, vectors: Array, *, request: Request) -> list[list[Row]]:
    """The rows nearest to each of many vectors, shape (n_vectors, dimensions), in one round trip.

    Many exact ones go another way: everything is read once and compared here.
    """
    if not len(vectors):
        return []
    if request.exact and len(vectors) >= MATRIX_FROM:
        with reader.snapshot(request.timeout) as connection:
            if spaces.find(connection, space.collection, space.vector_schema) != space:
                raise Outdated
            return nearest_by_matrix(database.driver_of(connection), space, vectors, request)
    text = statements.text_of(space, request, many=True)
    rows = _fetch(reader, text, ArrayParameter(vectors, space.vector_oid), request)
    answers: list[list[Row]] = [[] for _ in vectors]
    for place, group in groupby(rows, key=itemgetter(-1)):
        answers[place - 1] = list(group)
    return answers


def parameters_of(asked: Parameter | ArrayParameter, request: Request, after: Position | None = None) -> list[Any]:
    """The values of a statement's parameters, in their order: see :func:`searchapp.search.statements.text_of`."""
    parameters: list[Any] = [asked] if request.max_distance is None else [asked, request.max_distance]
    return parameters if after is None else [*parameters, after.distance, after.key, after.tied]


def _fetch(
    reader: Reader,
    text: bytes,
    asked: Parameter | ArrayParameter,
    request: Request,
    after: Position | None = None,
) -> list[Row]:
    rows = reader.fetch(text, parameters_of(asked, request, after), request.timeout)
    if rows and rows[0][6] is not True:
        raise Outdated
    return rows
