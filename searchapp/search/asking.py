"""Putting a search to the database, for one vector or for many: the way of the plain calls."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any

from searchapp import database, spaces
from searchapp.database import Reader
from searchapp.search import statements
from searchapp.search.matrix import Row, nearest_by_matrix
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
    limit: int,
    filter: Mapping[str, Any] | None,
    exact: bool,
) -> list[list[Row]]:
    """The rows nearest to a vector, shape (dimensions,), in one round trip.

    :return: a list of one: rows of ``key, title, passage, metadata, distance, exact``, and what else may follow.
    :raises Outdated: as it says; where there are no rows it cannot be known.
    """
    text = statements.text_of(space, limit=limit, filter=filter, exact=exact)
    return [_checked(reader.fetch(text, [Parameter(vector)]))]


def ask_many(
    reader: Reader,
    space: Space,
    vectors: Array,
    *,
    limit: int,
    filter: Mapping[str, Any] | None,
    exact: bool,
) -> list[list[Row]]:
    """The rows nearest to each of many vectors, shape (n_vectors, dimensions), in one round trip.

    Many exact ones go another way: everything is read once and compared here.
    """
    if not len(vectors):
        return []
    if exact and len(vectors) >= MATRIX_FROM:
        with reader.snapshot() as connection:
            if spaces.find(connection, space.collection, space.vector_schema) != space:
                raise Outdated
            driver = database.driver_of(connection)
            return nearest_by_matrix(driver, space, vectors, limit=limit, filter=filter)
    text = statements.text_of(space, limit=limit, filter=filter, exact=exact, many=True)
    rows = _checked(reader.fetch(text, [ArrayParameter(vectors, space.vector_oid)]))
    answers: list[list[Row]] = [[] for _ in vectors]
    for place, group in groupby(rows, key=itemgetter(-1)):
        answers[place - 1] = list(group)
    return answers


def _checked(rows: list[Row]) -> list[Row]:
    if rows and rows[0][6] is not True:
        raise Outdated
    return rows
