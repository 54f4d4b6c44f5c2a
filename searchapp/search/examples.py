"""Search by what is there: the documents that are most like others, and unlike some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    Uuid,
    any_,
    bindparam,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY

from searchapp import errors
from searchapp.models import Chunk, Document, document_id
from searchapp.search.arrangement import PLAIN, Arrangement
from searchapp.search.best_score import best_score_of
from searchapp.search.expressions import as_threshold
from searchapp.search.filters import condition_of
from searchapp.search.nearest import check_vector, nearest_to
from searchapp.search.question import BEST_SCORE, STRATEGIES, Examples
from searchapp.search.request import as_max_distance, check_key, check_limit, check_offset
from searchapp.spaces import Space
from searchapp.wire import VectorArray, literally, vector_function, vector_operator

# A document's key, or a vector.
Example = str | npt.ArrayLike


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
    document = literal(document_id(space.collection_id, check_key(key)), Uuid)
    return nearest_to(
        space,
        embedding_of(space, document),
        limit=check_limit(limit),
        offset=check_offset(offset),
        condition=condition_of(filter, where, Document.metadata_, space.fields),
        without=Chunk.document_id == document,
        max_distance=as_threshold(threshold),
        exact=exact,
    )


def nearest_to_examples(
    space: Space,
    like: Example | Sequence[Example],
    unlike: Example | Sequence[Example] = (),
    *,
    strategy: str = "average",
    limit: int,
    offset: int = 0,
    filter: Mapping[str, Any] | None = None,
    where: ColumnElement[bool] | Sequence[ColumnElement[bool]] = (),
    min_score: float | None = None,
    max_distance: float | None = None,
    exact: bool = False,
) -> Select[Any]:
    """Build the statement for the documents that are like some examples, and unlike others. Documents among the
    examples are left out.

    With ``average`` hits are nearest to the average of what they are to be like, moved away from the average of what
    they are to be unlike by as much as that is away from it. With ``best_score`` each hit is compared with every
    example: one that is nearer to an example it is to be like scores by the nearest such, ``0.5 * (1 + s / (1 + |s|))``
    of the cosine s; another by the nearest of those it is to be unlike, and below 0.
    *Source:* Qdrant's recommendation API, https://qdrant.tech/documentation/concepts/explore/.

    :param like, unlike: documents by their keys, and vectors of shape (dimensions,); a document of several passages is
        what these are on average.
    :param strategy: ``average`` or ``best_score``.
    :param limit, offset, filter, where, max_distance, exact: as of :func:`searchapp.nearest`.
    :param min_score: hits have at least this score.
    :return: columns as of :func:`searchapp.nearest`; with ``best_score`` also ``score``, best first, equal scores in
        the order of the documents' ids, and ``distance`` is to the nearest example that a hit is to be like.
    :raises errors.ModelMismatch: a vector's dimension is not the space's.
    :raises errors.InvalidInput, errors.InvalidFilter: a value that cannot be; nothing to be like.
    """
    like, unlike = listed(like), listed(unlike)
    check_examples(like, unlike, strategy)
    scored = strategy == BEST_SCORE
    threshold = as_max_distance(min_score, max_distance)  # which checks both
    farthest = max_distance if scored else threshold
    options: dict[str, Any] = {
        "limit": check_limit(limit),
        "offset": check_offset(offset),
        "condition": condition_of(filter, where, Document.metadata_, space.fields),
        "exact": exact,
    }
    kind = VectorArray(space.vector_schema, space.vector_oid)
    liked, unliked = (
        Side(
            literal(list(side.ids), ARRAY(Uuid())),
            cast(bindparam(None, side.vectors, kind, unique=True), kind),
        )
        for side in sides_of(like, unlike, space)
    )
    return nearest_to_sides(
        space,
        liked,
        unliked,
        strategy,
        min_score=as_threshold(min_score),
        max_distance=as_threshold(farthest),
        **options,
    )


@dataclass(frozen=True, slots=True)
class Side:
    """Examples as a statement has them.

    :param ids: an array of documents' ids.
    :param vectors: an array of vectors.
    """

    ids: ColumnElement[Any]
    vectors: ColumnElement[Any]


def nearest_to_sides(
    space: Space,
    like: Side,
    unlike: Side,
    strategy: str,
    *,
    limit: int,
    offset: int = 0,
    condition: ColumnElement[bool] | None,
    min_score: ColumnElement[float] | None = None,
    max_distance: ColumnElement[float] | None = None,
    exact: bool,
    arranged: Arrangement = PLAIN,
) -> Select[Any]:
    """Build the statement of :func:`nearest_to_examples` for expressions."""
    options: dict[str, Any] = {
        "limit": limit,
        "offset": offset,
        "condition": condition,
        "without": left_out(like, unlike),
        "max_distance": max_distance,
        "exact": exact,
        "arranged": arranged,
    }
    if strategy == BEST_SCORE:
        return best_score_of(space, vectors_of(space, like), vectors_of(space, unlike), min_score=min_score, **options)
    return nearest_to(space, average_of(space, like, unlike), **options)


def left_out(like: Side, unlike: Side) -> ColumnElement[bool]:
    """The chunks of the documents among the examples."""
    return or_(Chunk.document_id == any_(like.ids), Chunk.document_id == any_(unlike.ids))


def check_examples(
    like: Example | Sequence[Example],
    unlike: Example | Sequence[Example],
    strategy: str,
    arranged: Arrangement = PLAIN,
) -> list[str]:
    """Check what is asked by examples, as far as no space is needed for it.

    :return: the keys among them.
    :raises errors.InvalidInput: nothing to be like; a key or a strategy that cannot be.
    """
    if strategy not in STRATEGIES:
        raise errors.InvalidInput(f"strategy is {strategy!r}; expected one of: {', '.join(STRATEGIES)}")
    if strategy == BEST_SCORE and arranged.by_vector_alone:
        raise errors.InvalidInput("groups and boosts go with the strategy average")
    if not listed(like):
        raise errors.InvalidInput("there is nothing that hits are to be like; give one example at least")
    return [check_key(each) for each in listed(like) + listed(unlike) if isinstance(each, str)]


def sides_of(
    like: Example | Sequence[Example], unlike: Example | Sequence[Example], space: Space
) -> tuple[Examples, Examples]:
    """What examples are for a space.

    :raises errors.ModelMismatch, errors.InvalidInput: a vector that cannot be.
    """
    return _examples(listed(like), space), _examples(listed(unlike), space)


def _examples(listed: list[Any], space: Space) -> Examples:
    vectors = [check_vector(each, space) for each in listed if not isinstance(each, str)]
    keys = dict.fromkeys(each for each in listed if isinstance(each, str))
    ids = tuple(document_id(space.collection_id, key) for key in keys)
    return Examples(ids, np.array(vectors, np.float32).reshape(len(vectors), space.dimensions))


def listed(examples: Example | Sequence[Example]) -> list[Any]:
    """Examples as a list, also a single one: a key, or a vector, which is made of numbers.

    :raises errors.InvalidInput: what cannot be listed is no example.
    """
    if isinstance(examples, str):
        return [examples]
    try:
        each = list(examples)  # type: ignore[arg-type]  # which is found out so
    except TypeError as exc:
        raise errors.InvalidInput(
            f"the examples are {examples!r}; expected a document's key, a vector, or a list of these"
        ) from exc
    return [examples] if each and isinstance(each[0], (int, float, np.number)) else each


def embedding_of(space: Space, document: ColumnElement[Any]) -> ColumnElement[Any]:
    """The embedding of a document: its chunks' on average; null where it has none."""
    return (
        select(vector_function(space.vector_schema, "avg", Chunk.embedding))
        .where(Chunk.space_id == literally(space.id), Chunk.document_id == document)
        .scalar_subquery()
    )


def average_of(space: Space, like: Side, unlike: Side) -> ColumnElement[Any]:
    """What is near to some examples and away from others: their average, moved by its difference from the others'; null
    where nothing is left of it."""
    schema = space.vector_schema
    liked, unliked = (
        select(vector_function(schema, "avg", side.c.vector).label("vector")).subquery()
        for side in (vectors_of(space, like).subquery(), vectors_of(space, unlike).subquery())
    )
    plus, minus = (vector_operator(schema, sign) for sign in "+-")
    moved = liked.c.vector.op(plus)(liked.c.vector.op(minus, precedence=9)(unliked.c.vector))
    sought = select(func.coalesce(moved, liked.c.vector).label("vector")).join_from(liked, unliked, true()).subquery()
    length = vector_function(schema, "vector_norm", sought.c.vector)
    return select(sought.c.vector).where(length > literal_column("0")).scalar_subquery()


def vectors_of(space: Space, side: Side) -> CompoundSelect[Any]:
    """The vectors of examples, each of length 1: ``vector``."""
    schema = space.vector_schema
    average = vector_function(schema, "avg", Chunk.embedding)
    of_documents = (
        select(vector_function(schema, "l2_normalize", average).label("vector"))
        .where(Chunk.space_id == literally(space.id), Chunk.document_id == any_(side.ids))
        .group_by(Chunk.document_id)
    )
    given = func.unnest(side.vectors).column_valued()
    return union_all(of_documents, select(vector_function(schema, "l2_normalize", given)))
