"""What a search is: what is asked, in which mode, and how the answer is put together."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cached_property

from searchapp.search.hybrid import DEFAULT_FUSION, Fusion
from searchapp.search.query import Query
from searchapp.search.request import HYBRID, TEXT, VECTOR, Request
from searchapp.vectors import Array

AVERAGE = "average"
BEST_SCORE = "best_score"
STRATEGIES = (AVERAGE, BEST_SCORE)


@dataclass(frozen=True, eq=False)
class Examples:
    """Documents and vectors that hits are to be like, or unlike.

    :param ids: of the documents, which are no hits.
    :param vectors: shape (n_vectors, dimensions).
    """

    ids: tuple[uuid.UUID, ...]
    vectors: Array


@dataclass(frozen=True)
class Question:
    """A search, all but its vector.

    :param query: what the words are; None in the mode ``vector``.
    :param like: the document that hits are to be like, and are not; it stands for the vector.
    :param examples: what hits are to be like and unlike; they stand for the vector, too.
    :param strategy: how several examples are one question.
    :param fusion, candidates: of a hybrid: how both scores become one, and how many candidates each leg gives.
    """

    request: Request
    mode: str = VECTOR
    query: Query | None = None
    fusion: Fusion = DEFAULT_FUSION
    candidates: int = 0
    like: uuid.UUID | None = None
    examples: tuple[Examples, Examples] | None = None
    strategy: str = AVERAGE

    def encoded(self, typed: str) -> str | None:
        """What is encoded for it, of a text that was typed; None: nothing."""
        if self.mode == VECTOR:
            return typed
        return self.query.text if self.mode == HYBRID and self.query is not None else None

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of the rows that answer it, before ``current``."""
        arranged = self.request.arrangement
        names: tuple[str, ...] = ("key", "title", "passage", "metadata", "distance", "exact")
        if self.mode in {TEXT, HYBRID}:
            names += ("score", "id")
        elif arranged.boosts or (self.examples is not None and self.strategy == BEST_SCORE):
            names += ("score",)
        if self.mode == HYBRID:
            names += ("text_score", "all")
        if arranged.group_by is not None:
            names += ("group",)
        if arranged.passages > 1:
            names += ("passages",)
        if arranged.diversity is not None:
            names += ("embedding",)
        return names

    @property
    def max_distance(self) -> float | None:
        """How far a hit may be; None: however far."""
        return self.request.max_distance if "score" in self.columns else self.request.reach
