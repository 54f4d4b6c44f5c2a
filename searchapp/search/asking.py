"""Putting a search to the database, for one question or for many: the way of the plain calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import psycopg

from searchapp import database, errors, spaces
from searchapp.database import Reader
from searchapp.search.cursor import Position, digest
from searchapp.search.facets import facets_of_hits
from searchapp.search.matrix import Row, nearest_by_matrix
from searchapp.search.question import Question
from searchapp.search.statements import Statement, statement_of
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
    vector: Array | None,
    question: Question,
    *,
    after: Position | None = None,
    ef_search: int | None = None,
) -> list[Row]:
    """The rows that answer a question, best first, in one round trip.

    :param vector: shape (dimensions,); None in the mode ``text``, and where a document stands for it.
    :param after: where the page before ended.
    :param ef_search: the least that the index is asked with, on trial; None: the space's.
    :return: rows of the question's columns, and what else may follow.
    :raises Outdated: as it says; where there are no rows it cannot be known.
    :raises errors.InvalidCursor: that page was of another space.
    """
    if after is not None and after.space_id != space.id:
        raise errors.InvalidCursor(
            f"the cursor is of a former space of {space.collection}; begin again with the first page"
        )
    if after is not None and after.vector != digest(vector):
        raise errors.InvalidCursor("the query is encoded otherwise here; begin again with the first page")
    statement = statement_of(space, question, after=after is not None, ef_search=ef_search)
    rows = reader.fetch(statement.text, values_of(space, statement, vector, question, after), question.request.timeout)
    return _current(rows, question)


def ask_many(reader: Reader, space: Space, vectors: Array, question: Question) -> list[list[Row]]:
    """The rows nearest to each of many vectors, shape (n_vectors, dimensions), in one round trip.

    Many exact ones go another way: everything is read once and compared here.

    :param question: in the mode ``vector``.
    """
    if not len(vectors):
        return []
    request = question.request
    if request.exact and len(vectors) >= MATRIX_FROM:
        with reader.snapshot(request.timeout) as connection:
            if spaces.find(connection, space.collection, space.vector_schema) != space:
                raise Outdated
            return nearest_by_matrix(database.driver_of(connection), space, vectors, request)
    statement = statement_of(space, question, many=True)
    values = _values(space, question, None) | {"vectors": ArrayParameter(vectors, space.vector_oid)}
    rows = reader.fetch(statement.text, _in_order(statement, values), request.timeout)
    answers: list[list[Row]] = [[] for _ in vectors]
    for place, group in groupby(_current(rows, question), key=itemgetter(-1)):
        answers[place - 1] = list(group)
    return answers


def ask_each(
    reader: Reader, space: Space, vectors: Sequence[Array | None], questions: Sequence[Question]
) -> list[list[Row]]:
    """The rows that answer each of many questions: statements of their own, sent together.

    :param vectors: one for each question, as for :func:`ask_one`.
    """
    if not questions:
        return []
    with reader.snapshot(questions[0].request.timeout) as connection:
        driver = database.driver_of(connection)
        with driver.pipeline():
            cursors = [_sent(driver, space, *each) for each in zip(vectors, questions, strict=True)]
            rows = [cursor.fetchall() for cursor in cursors]
    return [_current(answer, question) for answer, question in zip(rows, questions, strict=True)]


def count_values(
    reader: Reader, space: Space, vector: Array | None, question: Question, field: str, limit: int
) -> list[Row]:
    """How many of a question's hits have which value in a field: rows of ``value, documents``.

    :raises Outdated: as of :func:`ask_one`.
    """
    statement = statement_of(space, question)
    text = facets_of_hits(statement.text.decode(), field, limit).encode()
    rows = reader.fetch(text, values_of(space, statement, vector, question), question.request.timeout)
    if rows and rows[0][2] is not True:
        raise Outdated
    return rows


def _sent(
    driver: psycopg.Connection[Any], space: Space, vector: Array | None, question: Question
) -> psycopg.RawCursor[Row]:
    statement = statement_of(space, question)
    return database.raw_cursor(driver).execute(statement.text, values_of(space, statement, vector, question))


def values_of(
    space: Space, statement: Statement, vector: Array | None, question: Question, after: Position | None = None
) -> list[Any]:
    """The values of a statement's parameters, in their order."""
    values = _values(space, question, after)
    if vector is not None:
        values["vector"] = Parameter(vector)
    return _in_order(statement, values)


def _values(space: Space, question: Question, after: Position | None) -> dict[str, Any]:
    request, query = question.request, question.query
    values: dict[str, Any] = {
        "min_score": request.min_score,
        "max_distance": question.max_distance,
    }
    if question.like is not None:
        values["like"] = question.like
    if question.examples is not None:
        for name, side in zip(("like", "unlike"), question.examples, strict=True):
            values |= {f"{name}_ids": list(side.ids), f"{name}_vectors": ArrayParameter(side.vectors, space.vector_oid)}
    if query is not None:
        values |= {"text": query.text, "phrases": list(query.phrases), "excluded": list(query.excluded)}
    if after is not None:
        values |= {"place": after.place, "key": after.key, "tied": after.tied, "id": after.key}
    return values


def _in_order(statement: Statement, values: Mapping[str, Any]) -> list[Any]:
    return [values[name] for name in statement.parameters]


def _current(rows: list[Row], question: Question) -> list[Row]:
    if rows and rows[0][len(question.columns)] is not True:
        raise Outdated
    return rows
