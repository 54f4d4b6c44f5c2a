"""Hits by the best score that any of several examples gives them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    CompoundSelect,
    Double,
    Select,
    SQLColumnExpression,
    Subquery,
    and_,
    case,
    false,
    func,
    literal_column,
    not_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import distinct_on

from searchapp.models import Chunk
from searchapp.search.arrangement import Arrangement
from searchapp.search.expressions import as_float, ratio
from searchapp.search.ladder import first_rung
from searchapp.search.nearest import Chunks, is_exact
from searchapp.search.scored import best_of
from searchapp.spaces import Space
from searchapp.wire import literally, vector_operator

# So many times as many hits are looked up for each example: some may be nearer to what hits are to be unlike.
SPARE = 3
_EXAMPLE = "example"


def best_score_of(
    space: Space,
    like: CompoundSelect[Any],
    unlike: CompoundSelect[Any],
    *,
    limit: int,
    offset: int = 0,
    condition: ColumnElement[bool] | None,
    without: ColumnElement[bool],
    min_score: ColumnElement[float] | None = None,
    max_distance: ColumnElement[float] | None = None,
    exact: bool,
    arranged: Arrangement,
) -> Select[Any]:
    """Build the statement for the documents that several examples give the best scores.

    The chunks nearest to each example that hits are to be like are looked up by the index. Any other chunk is no nearer
    than the last of these: where so many hits as are asked for score more than that would give, they are the best.
    Otherwise everything is compared.

    :param like, unlike: the examples: ``vector``.
    :param without: which chunks are left out.
    :return: columns ``key, title, passage, metadata, distance, exact, score``, and what the arrangement adds.
    """
    liked, unliked = (each.cte().prefix_with("MATERIALIZED") for each in (like, unlike))
    scored = _Scored(space, liked, unliked)
    wanted = limit + offset
    scan = Chunks(
        space,
        literal_column(f"{_EXAMPLE}.vector"),  # by its name: the column would bring its table into each part
        condition,
        without,
        carried=("start", "length", "embedding"),
    )
    if exact or is_exact(space, wanted * SPARE, filtered=condition is not None):
        found = select(*scored.best(scan.chunks()).c, true().label("exact")).subquery()
    else:
        near = _near(scan, liked, wanted * SPARE)
        first = scored.best(_distinct(near)).select().cte().prefix_with("MATERIALIZED")
        sure = _is_sure(liked, near, first, wanted)
        rest = scored.best(scan.chunks().where(not_(sure)))
        found = union_all(
            select(*first.c, false().label("exact")).where(sure), select(*rest.c, true().label("exact"))
        ).subquery()
    return best_of(
        space,
        found,
        limit=limit,
        offset=offset,
        min_score=min_score,
        max_distance=max_distance,
        distance=scored.distance_to(liked, Chunk.embedding).label("distance"),
        arranged=arranged,
    )


class _Scored:
    """The scores that examples give chunks.

    :param liked, unliked: the examples: ``vector``.
    """

    def __init__(self, space: Space, liked: CTE, unliked: CTE) -> None:
        self._space = space
        self._liked = liked
        self._unliked = unliked

    def best(self, chunks: Select[Any]) -> Subquery:
        """The best chunk of each document.

        :param chunks: ``document_id, start, length, embedding``.
        :return: ``document_id, start, length, distance, score``.
        """
        each = chunks.subquery()
        compared = (
            select(
                each.c.document_id,
                each.c.start,
                each.c.length,
                self.distance_to(self._liked, each.c.embedding).label("distance"),
                self.distance_to(self._unliked, each.c.embedding).label("away"),
            )
            .offset(literal_column("0"))  # else each distance is computed wherever it is used
            .subquery()
        )
        near, far = (as_float("1") - distance for distance in (compared.c.distance, compared.c.away))
        score = case(
            (func.coalesce(near > far, true()), _sigmoid(near)),
            else_=-_sigmoid(far),
        )
        names = ("document_id", "start", "length", "distance")
        scores = (
            select(*(compared.c[name] for name in names), score.label("score"))
            .where(compared.c.distance.is_not(None))
            .subquery()
        )
        return (
            select(*scores.c)
            .ext(distinct_on(scores.c.document_id))
            .order_by(scores.c.document_id, scores.c.score.desc(), scores.c.start)
            .subquery()
        )

    def distance_to(self, examples: CTE, embedding: SQLColumnExpression[Any]) -> ColumnElement[float]:
        """The distance to the nearest of examples; null where there are none."""
        example = examples.alias()
        operator = vector_operator(self._space.vector_schema, "<=>")
        distance: ColumnElement[Any] = embedding.op(operator, return_type=Double())(example.c.vector)
        nearest = select(func.min(distance)).select_from(example)
        return nearest.scalar_subquery()


def _near(scan: Chunks, liked: CTE, wanted: int) -> CTE:
    """The chunks nearest to each example, by the index: the example's ``place``, and a row of the scan."""
    each = select(liked.c.vector, func.row_number().over().label("place")).subquery(_EXAMPLE)
    rung = first_rung(scan, wanted)
    near = select(*rung.c).add_cte(*scan.ctes, nest_here=True).lateral()
    return select(each.c.place, *near.c).select_from(each.join(near, true())).cte().prefix_with("MATERIALIZED")


def _distinct(near: CTE) -> Select[Any]:
    """The chunks, each once."""
    names = ("document_id", "start", "length", "embedding")
    columns = [near.c[name] for name in names]
    return select(*columns).ext(distinct_on(*columns[:2])).order_by(*columns[:2])


def _is_sure(liked: CTE, near: CTE, first: CTE, wanted: int) -> ColumnElement[bool]:
    """Whether no other chunk can be among the best: so many documents score more than one would that is as near to an
    example as the last of its chunks.

    How many chunks an example has says nothing: its own document's are among the index's candidates, and left out.
    """
    each = select(func.max(near.c.distance).label("distance")).group_by(near.c.place).subquery()
    full = func.count() == select(func.count()).select_from(liked).scalar_subquery()
    reached = select(func.min(each.c.distance).label("distance"), full.label("full")).select_from(each).subquery()
    better = select(func.count()).where(first.c.score > _sigmoid(as_float("1") - reached.c.distance)).scalar_subquery()
    answer = select(and_(reached.c.full, better >= literally(wanted)).label("yes")).cte().prefix_with("MATERIALIZED")
    return func.coalesce(select(answer.c.yes).scalar_subquery(), false())


def _sigmoid(cosine: ColumnElement[float]) -> ColumnElement[float]:
    """``0.5 * (1 + s / (1 + |s|))``, which is between 0 and 1."""
    one = as_float("1")
    return as_float("0.5") * (one + ratio(cosine, one + func.abs(cosine)))
