"""The statements that the plain calls run: built once a shape, kept as text."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Double,
    Text,
    Uuid,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import BigInteger, Boolean

from searchapp import spaces
from searchapp.models import Chunk
from searchapp.search import lexical, nearest
from searchapp.search.arrangement import Arrangement
from searchapp.search.best_score import best_score_of
from searchapp.search.boosting import boosted_of
from searchapp.search.examples import Side, average_of, embedding_of, left_out, vectors_of
from searchapp.search.grouping import grouped_of
from searchapp.search.hybrid import Fusion, hybrid_of
from searchapp.search.lexical import Asked, words_of
from searchapp.search.nearest import nearest_to
from searchapp.search.question import BEST_SCORE, Question
from searchapp.search.request import TEXT, VECTOR
from searchapp.spaces import Space
from searchapp.wire import RAW_DIALECT, Vector, VectorArray, as_text, quote

# Some 3 to 10 kB each.
SHAPES_KEPT = 512
# Stands for the filter's condition until its values are known.
_CONDITION = b"\0condition\0"  # which no text or name of a statement can have
# The vectors of a statement for many.
_EACH = "asked"


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL text with ``$1``, ``$2``, ..., and the names of the values that these are.

    They are ``vector`` or ``vectors``, or ``like``, the id of a document, or the ids and vectors of examples
    (``like_ids``, ``like_vectors``, ``unlike_ids``, ``unlike_vectors``); ``text``, ``phrases`` and ``excluded``;
    ``min_score`` and ``max_distance``; and ``place``, ``key`` and ``tied``, or ``place`` and ``id``, of the last hit
    before.
    """

    text: bytes
    parameters: tuple[str, ...]


def statement_of(
    space: Space, question: Question, *, after: bool = False, many: bool = False, ef_search: int | None = None
) -> Statement:
    """The statement of a search.

    :param after: whether it goes on behind a hit.
    :param many: whether it is for an array of vectors; in the mode ``vector`` alone.
    :param ef_search: the least that the index is asked with, instead of the space's; None: the space's. ``current`` is
        about the space's either way.
    :return: its columns are those of the mode's builder: ``nearest_to``, ``words_of`` or ``hybrid_of``; then
        ``current``: not true where the collection has another space by now, and with ``many`` ``place``: the vector's
        in the array, from 1. A vector's rows are in their order.
    """
    request, query = question.request, question.query
    condition = request.condition(space.fields)
    shape = _Shape(
        mode=question.mode,
        limit=request.limit,
        offset=request.offset,
        filtered=condition is not None,
        exact=request.exact,
        min_score="score" in question.columns and request.min_score is not None,
        max_distance=question.max_distance is not None,
        after=after,
        many=many,
        ef_search=ef_search,
        phrases=query is not None and bool(query.phrases),
        excluded=query is not None and bool(query.excluded),
        fusion=question.fusion,
        candidates=question.candidates,
        like=question.like is not None,
        strategy=None if question.examples is None else question.strategy,
        arranged=request.arrangement,
    )
    made = _compile(space, shape)
    if condition is None:
        return made
    return Statement(made.text.replace(_CONDITION, _render_condition(condition).encode()), made.parameters)


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


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a statement's text depends on, its values and the filter apart."""

    mode: str
    limit: int
    offset: int
    filtered: bool
    exact: bool
    min_score: bool
    max_distance: bool
    after: bool
    many: bool
    ef_search: int | None
    phrases: bool
    excluded: bool
    fusion: Fusion
    candidates: int
    like: bool
    strategy: str | None
    arranged: Arrangement


class _Parameters:
    """The parameters of a statement, numbered as they are asked for."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)

    def __call__(self, name: str, type_: Any) -> ColumnElement[Any]:
        self.names.append(name)
        return literal_column(f"${len(self.names)}::{type_.compile(dialect=RAW_DIALECT)}", type_)


@lru_cache(SHAPES_KEPT)
def _compile(space: Space, shape: _Shape) -> Statement:
    scanned = space if shape.ef_search is None else dataclasses.replace(space, ef_search=shape.ef_search)
    asked_otherwise = shape.mode == TEXT or shape.like or shape.strategy is not None
    given = () if asked_otherwise else ("vectors" if shape.many else "vector",)
    parameter = _Parameters(*given)
    if shape.mode == VECTOR:
        statement = _nearest_to_each(scanned, shape, parameter) if shape.many else _nearest(scanned, shape, parameter)
    else:
        statement = (_by_words if shape.mode == TEXT else _by_both)(scanned, shape, parameter)
    text = as_text(statement.add_columns(spaces.is_current(space).label("current"), *_place(shape)))
    return Statement(text.encode(), tuple(parameter.names))


def _nearest(space: Space, shape: _Shape, parameter: _Parameters, vector: ColumnElement[Any] | None = None) -> Any:
    without = None
    arranged = shape.arranged
    options: dict[str, Any] = {
        "limit": shape.limit,
        "offset": shape.offset,
        "condition": _condition(shape),
        "exact": shape.exact,
    }
    if shape.strategy is not None:
        like, unlike = (_side(space, parameter, name) for name in ("like", "unlike"))
        without = left_out(like, unlike)
        if shape.strategy == BEST_SCORE:
            examples = vectors_of(space, like), vectors_of(space, unlike)
            options |= _thresholds(shape, parameter)
            return best_score_of(space, *examples, without=without, arranged=arranged, **options)
        vector = average_of(space, like, unlike)
    elif shape.like:
        document = parameter("like", Uuid())
        vector, without = embedding_of(space, document), Chunk.document_id == document
    elif vector is None:
        vector = _vector(space)
    options |= {"without": without, **_thresholds(shape, parameter)}
    if arranged.boosts:
        return boosted_of(space, vector, arranged=arranged, **options)
    del options["min_score"]  # which is a distance then
    if arranged.group_by is not None:
        return grouped_of(space, vector, arranged.group_by, size=arranged.group_size, **options)
    after = nearest.After(*_last(parameter)) if shape.after else None
    return nearest_to(space, vector, after=after, arranged=arranged, **options)


def _nearest_to_each(space: Space, shape: _Shape, parameter: _Parameters) -> Any:
    vectors = cast(bindparam("vectors", None), VectorArray(space.vector_schema))
    each = func.unnest(vectors).table_valued("vector", with_ordinality="place").render_derived(_EACH)
    # by its name: the column would bring its table into each part
    hits = _nearest(space, shape, parameter, literal_column(f"{_EACH}.vector")).lateral()
    statement = select(*hits.c).select_from(each.join(hits, true()))
    return statement.order_by(each.c.place, hits.c.distance, hits.c.key)


def _by_words(space: Space, shape: _Shape, parameter: _Parameters) -> Any:
    return words_of(
        space,
        _asked(shape, parameter),
        limit=shape.limit,
        offset=shape.offset,
        condition=_condition(shape),
        min_score=parameter("min_score", Double()) if shape.min_score else None,
        after=_last_scored(parameter) if shape.after else None,
    )


def _by_both(space: Space, shape: _Shape, parameter: _Parameters) -> Any:
    return hybrid_of(
        space,
        _vector(space),
        _asked(shape, parameter),
        limit=shape.limit,
        offset=shape.offset,
        candidates=shape.candidates,
        condition=_condition(shape),
        fusion=shape.fusion,
        **_thresholds(shape, parameter),
        after=_last_scored(parameter) if shape.after else None,
        exact=shape.exact,
        arranged=shape.arranged,
    )


def _thresholds(shape: _Shape, parameter: _Parameters) -> dict[str, Any]:
    return {
        "min_score": parameter("min_score", Double()) if shape.min_score else None,
        "max_distance": parameter("max_distance", Double()) if shape.max_distance else None,
    }


def _side(space: Space, parameter: _Parameters, name: str) -> Side:
    """Examples by parameters, in subqueries: else PostgreSQL plans each search anew for how many they are."""
    ids, vectors = ARRAY(Uuid()), VectorArray(space.vector_schema)

    def unchanged(array: ColumnElement[Any]) -> Any:
        return func.array(select(func.unnest(array)).scalar_subquery())

    return Side(unchanged(parameter(f"{name}_ids", ids)), unchanged(parameter(f"{name}_vectors", vectors)))


def _vector(space: Space) -> ColumnElement[Any]:
    return bindparam("vector", None, Vector(space.vector_schema))


def _asked(shape: _Shape, parameter: _Parameters) -> Asked:
    texts = ARRAY(Text())
    return Asked(
        parameter("text", Text()),
        parameter("phrases", texts) if shape.phrases else None,
        parameter("excluded", texts) if shape.excluded else None,
    )


def _last(parameter: _Parameters) -> tuple[ColumnElement[Any], ColumnElement[Any], ColumnElement[Any]]:
    return parameter("place", Double()), parameter("key", Text()), parameter("tied", BigInteger())


def _last_scored(parameter: _Parameters) -> lexical.After:
    return lexical.After(parameter("place", Double()), parameter("id", Uuid()))


def _condition(shape: _Shape) -> ColumnElement[bool] | None:
    return literal_column(_CONDITION.decode(), Boolean) if shape.filtered else None


def _place(shape: _Shape) -> list[ColumnElement[int]]:
    return [literal_column(f"{_EACH}.place")] if shape.many else []


def _render_condition(condition: ColumnElement[bool]) -> str:
    return f"({as_text(condition)})"  # it may be an OR, and stands among others
