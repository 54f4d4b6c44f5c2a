"""Search by meaning and by words in one statement: candidates of both, both scores of every candidate, and their
fusion.

By default a convex combination of both scores, each counted from the least that it can be and divided by the largest
among the candidates (TM2C2, with its authors' weights), or by reciprocal ranks.
*Source:* Bruch, Gai and Ingber, An Analysis of Fusion Functions for Hybrid Retrieval, TOIS 42 (2023); Cormack, Clarke
and Buettcher, Reciprocal Rank Fusion, SIGIR 2009, for k = 60.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from sqlalchemy import (
    CTE,
    ColumnElement,
    Double,
    Select,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    select,
    true,
    union,
    union_all,
)
from sqlalchemy.dialects.postgresql import distinct_on

from searchapp import errors
from searchapp.models import Chunk, Document
from searchapp.search import query as queries
from searchapp.search.arrangement import PLAIN, Arrangement
from searchapp.search.expressions import as_float, as_threshold, best_first, is_document, ratio
from searchapp.search.filters import condition_of
from searchapp.search.lexical import PIECE, After, Asked, Words, asked_for
from searchapp.search.nearest import candidates_near, check_vector
from searchapp.search.passages import more_columns
from searchapp.search.request import check_limit, check_offset
from searchapp.spaces import Space
from searchapp.wire import Vector, literally

# Each leg gives so many candidates, or as many as are asked for; more where pages follow, of one and the same list.
CANDIDATES = 100
CANDIDATES_OF_PAGES = 300

CONVEX = "convex"
RRF = "rrf"
_WEIGHTS = {CONVEX: (0.8, 0.2), RRF: (1.0, 1.0)}
# How much less the first ranks count than their reciprocals.
K = 60


@dataclass(frozen=True, slots=True)
class Fusion:
    """How two scores become one.

    :param method: ``convex`` or ``rrf``.
    :param vector, text: the weights.
    """

    method: str = CONVEX
    vector: float = _WEIGHTS[CONVEX][0]
    text: float = _WEIGHTS[CONVEX][1]


DEFAULT_FUSION = Fusion()


def fusion(method: str | None = None, weights: Sequence[float | str] | None = None) -> Fusion:
    """Make a fusion that can be.

    :param weights: of the vectors and of the words; None: the method's own.
    :raises errors.InvalidInput: an unknown method, or weights that are not two numbers, of which one at least is
        over 0 and none below.

    >>> fusion("rrf")
    Fusion(method='rrf', vector=1.0, text=1.0)
    """
    method = CONVEX if method is None else method
    if method not in _WEIGHTS:
        raise errors.InvalidInput(f"fusion is {method!r}; expected one of: {', '.join(_WEIGHTS)}")
    try:
        vector, text = (float(each) for each in (_WEIGHTS[method] if weights is None else weights))
    except (TypeError, ValueError, OverflowError) as exc:
        raise errors.InvalidInput(f"weights are {weights!r}; expected two numbers, such as 0.8 and 0.2") from exc
    if not (0 <= vector < float("inf") and 0 <= text < float("inf") and vector + text > 0):
        raise errors.InvalidInput(f"weights are {vector:g} and {text:g}; expected none below 0, and one over it")
    return Fusion(method, vector, text)


def hybrid(
    space: Space,
    vector: npt.ArrayLike,
    query: str,
    *,
    limit: int,
    offset: int = 0,
    filter: Mapping[str, Any] | None = None,
    where: ColumnElement[bool] | Sequence[ColumnElement[bool]] = (),
    min_score: float | None = None,
    max_distance: float | None = None,
    exact: bool = False,
    method: str | None = None,
    weights: Sequence[float] | None = None,
) -> Select[Any]:
    """Build the statement for the documents that a vector and a question's words find together.

    :param vector: float32, shape (dimensions,), not zero: the question's embedding.
    :param query: words; ``"a phrase"`` must stand in a hit, an ``-excluded`` word or phrase must not.
    :param limit: how many hits, 1 to 100,000.
    :param offset: how many of the best are left out before them; with the limit no more than one list of candidates.
    :param filter: what a document's metadata must satisfy.
    :param where: conditions of the caller's own on ``searchapp.orm.Document``.
    :param min_score: hits have at least this score.
    :param max_distance: hits are no farther from the vector than this.
    :param exact: compare the vector with every passage instead of asking the index.
    :param method: how both scores become one: ``convex``, the default, or ``rrf``, reciprocal rank fusion.
    :param weights: of the vector and of the words; default 0.8 and 0.2, with ``rrf`` 1 and 1.
    :return: columns ``key, title, passage, metadata, distance, exact, score, text_score``; best first, equal scores in
        the order of the documents' ids; ``distance`` is null where a document has no chunk.
    :raises errors.WordsMissing: the collection has no words.
    :raises errors.ModelMismatch: the vector's dimension is not the space's.
    :raises errors.InvalidInput, errors.InvalidFilter: a value that cannot be.
    """
    candidates = candidates_for(check_limit(limit), check_offset(offset), exact=exact)
    statement = hybrid_of(
        space,
        bindparam(None, check_vector(vector, space), Vector(space.vector_schema), unique=True),
        asked_for(queries.read(query)),
        limit=limit,
        offset=offset,
        candidates=candidates,
        condition=condition_of(filter, where, Document.metadata_, space.fields),
        fusion=fusion(method, weights),
        min_score=as_threshold(min_score),
        max_distance=as_threshold(max_distance),
        exact=exact,
    )
    names = ("key", "title", "passage", "metadata", "distance", "exact", "score", "text_score")
    return statement.with_only_columns(*(statement.selected_columns[name] for name in names))


def candidates_for(limit: int, offset: int, *, exact: bool) -> int:
    """How many candidates each leg gives.

    :param exact: which is asked where pages are to follow.
    :raises errors.InvalidInput: a page behind the first list, which would be of another one.

    >>> candidates_for(10, 0, exact=False), candidates_for(1000, 0, exact=True)
    (100, 1000)
    """
    candidates = max(CANDIDATES_OF_PAGES if exact else CANDIDATES, limit)
    if offset and offset + limit > candidates:
        raise errors.InvalidInput(
            f"offset and limit reach {offset + limit:,}; a hybrid search has pages of its best {candidates:,} alone:"
            " ask for more at once by a larger limit, or go on by the cursor of an exact search"
        )
    return candidates


def hybrid_of(
    space: Space,
    vector: ColumnElement[Any],
    asked: Asked,
    *,
    limit: int,
    offset: int = 0,
    candidates: int,
    condition: ColumnElement[bool] | None,
    fusion: Fusion,
    min_score: ColumnElement[float] | None = None,
    max_distance: ColumnElement[float] | None = None,
    after: After | None = None,
    exact: bool,
    arranged: Arrangement = PLAIN,
) -> Select[Any]:
    """Build the statement of :func:`hybrid` for expressions.

    :param candidates: how many each leg gives.
    :param after: only hits behind this one.
    :param arranged: what columns there are more.
    :return: as :func:`hybrid`, and ``all``: whether every document that fits is a candidate.
    """
    found = Words(space, asked, condition)
    scan, nearest = candidates_near(space, vector, candidates, condition=found.condition, exact=exact)
    near = nearest.cte().prefix_with("MATERIALIZED")
    scored = found.best(candidates, near)
    lexical = select(scored.c.document_id).order_by(*best_first(scored)).limit(literally(candidates))
    by_words = lexical.cte().prefix_with("MATERIALIZED")
    measured = _measured(space, scan, near, by_words)
    listed = union(select(by_words.c.document_id), select(near.c.document_id)).subquery()
    text_score = func.coalesce(scored.c.score, as_float("0")).label("text_score")
    both = (
        select(listed.c.document_id, measured.c.start, measured.c.length, measured.c.distance, text_score)
        .outerjoin_from(listed, measured, measured.c.document_id == listed.c.document_id)
        .outerjoin(scored, scored.c.document_id == listed.c.document_id)
        .subquery()
    )
    fused = select(*both.c, _fused(both, fusion).label("score")).subquery()
    best = select(*fused.c).order_by(*best_first(fused)).limit(literally(limit))
    if offset:
        best = best.offset(literally(offset))
    if min_score is not None:
        best = best.where(fused.c.score >= min_score)
    if max_distance is not None:
        best = best.where(fused.c.distance <= max_distance)
    if after is not None:
        best = best.where(after.precedes(fused))
    hits = best.subquery()
    start = func.coalesce(hits.c.start, literal_column("0"))
    length = func.coalesce(hits.c.length, literal_column(str(PIECE)))
    exactly = select(func.coalesce(func.bool_and(near.c.exact), true())).scalar_subquery()
    everything = select(func.count() < literally(candidates)).select_from(near).scalar_subquery()
    return (
        select(
            Document.key,
            Document.title,
            func.substring(Document.text, start + literal_column("1"), length).label("passage"),
            Document.metadata_.label("metadata"),
            hits.c.distance,
            exactly.label("exact"),
            hits.c.score,
            hits.c.document_id.label("id"),
            hits.c.text_score,
            everything.label("all"),
            *more_columns(space, hits.c.document_id, scan.exact_distance(), arranged),
        )
        .join_from(hits, Document, is_document(space, hits.c.document_id))
        .order_by(*best_first(hits))
        .add_cte(*scan.ctes)
    )


def _measured(space: Space, scan: Any, near: CTE, by_words: CTE) -> Any:
    """The nearest chunk of each candidate, and how far it is."""
    rest = select(by_words.c.document_id).where(by_words.c.document_id.not_in(select(near.c.document_id)))
    distance = scan.exact_distance()
    of_rest = (
        select(Chunk.document_id, Chunk.start, Chunk.length, distance)
        .where(
            Chunk.space_id == literally(space.id),
            Chunk.document_id == func.any(func.array(rest.scalar_subquery())),
        )
        .ext(distinct_on(Chunk.document_id))
        .order_by(Chunk.document_id, distance, Chunk.start)
        .subquery()
    )
    names = ("document_id", "start", "length", "distance")
    return union_all(select(*(near.c[name] for name in names)), select(*(of_rest.c[name] for name in names))).subquery()


def _fused(both: Any, fusion: Fusion) -> ColumnElement[float]:
    vector, text = as_float(repr(fusion.vector)), as_float(repr(fusion.text))
    if fusion.method == RRF:
        nearer = func.rank().over(order_by=both.c.distance.asc().nulls_last())
        better = func.rank().over(order_by=both.c.text_score.desc())
        nothing, k = as_float("0"), as_float(str(K))
        by_vector = case((both.c.distance.is_not(None), ratio(vector, k + nearer)), else_=nothing)
        by_words = case((both.c.text_score > nothing, ratio(text, k + better)), else_=nothing)
        return cast(by_vector + by_words, Double)
    # 1 + cosine, which is 0 at least: a document without a chunk counts as the farthest
    cosine = func.coalesce(as_float("2") - both.c.distance, as_float("0"))

    def share(score: ColumnElement[float]) -> ColumnElement[float]:
        return ratio(score, func.greatest(func.max(score).over(), as_float("1e-9")))

    return vector * share(cosine) + text * share(both.c.text_score)
