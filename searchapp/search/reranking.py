"""Putting the first hits of a search in the order that a cross-encoder gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from searchapp import errors, values
from searchapp.search.hits import Hit, Hits
from searchapp.search.request import Request
from searchapp.vectors import Array

DEFAULT_TOP = 50
MAX_TOP = 1000


@dataclass(frozen=True, slots=True)
class Reranking:
    """How hits get another order, and which of them are the page.

    :param scores: of passages for a query: logits, float32, shape (n_passages,), larger is better.
    :param offset, limit: of the page, in that order.
    """

    scores: Callable[[str, Sequence[str]], Array]
    offset: int
    limit: int


def candidates(request: Request, model: str, top: int = DEFAULT_TOP, cursor: str | None = None) -> Request:
    """The search for the hits that are scored: as it was asked for, from its best hit on.

    :param model: what will score them.
    :param top: how many at least, 1 to 1,000; more where the page ends behind them.
    :raises errors.InvalidInput: a value that cannot be; a cursor; a page that ends behind the first thousand.
    """
    if not isinstance(model, str) or not model.strip() or not values.is_storable(model):
        raise errors.InvalidInput(f"rerank is {model!r}; expected a cross-encoder's folder or name")
    if not isinstance(top, int) or isinstance(top, bool) or not 1 <= top <= MAX_TOP:
        raise errors.InvalidInput(f"rerank_top is {top!r}; expected 1 to {MAX_TOP:,}")
    if cursor is not None:
        raise errors.InvalidInput("a reranked search takes no cursor; ask for its next page by offset")
    end = request.offset + request.limit
    if end > MAX_TOP:
        raise errors.InvalidInput(f"offset and limit reach hit {end:,}; at most {MAX_TOP:,} can be reranked")
    return dataclasses.replace(request, offset=0, limit=max(top, end))


def rerank(hits: Hits, query: str, reranking: Reranking) -> Hits:
    """The page of hits in the order of their new scores; equal ones keep the order they had. It has no cursor.

    :param query: without the marks of phrases and exclusions, which mean nothing to a model.
    """
    scores = reranking.scores(query, [_read(hit) for hit in hits])
    order = np.argsort(-scores, kind="stable")[reranking.offset :][: reranking.limit]
    scored = [hit._replace(score=score, rerank_score=score) for hit, score in zip(hits, scores.tolist(), strict=True)]
    return dataclasses.replace(hits, hits=tuple(scored[place] for place in order), cursor=None)


def _read(hit: Hit) -> str:
    """What the model reads of a hit: as for its embedding, the title stands in front of the passage."""
    return f"{hit.title} {hit.passage}" if hit.title else hit.passage
