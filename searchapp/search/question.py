"""What a search is: what is asked, in which mode, and how the answer is put together."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from searchapp.search.hybrid import DEFAULT_FUSION, Fusion
from searchapp.search.query import Query
from searchapp.search.request import HYBRID, VECTOR, Request


@dataclass(frozen=True)
class Question:
    """A search, all but its vector.

    :param query: what the words are; None in the mode ``vector``.
    :param like: the document that hits are to be like, and are not; it stands for the vector.
    :param fusion, candidates: of a hybrid: how both scores become one, and how many candidates each leg gives.
    """

    request: Request
    mode: str = VECTOR
    query: Query | None = None
    fusion: Fusion = DEFAULT_FUSION
    candidates: int = 0
    like: uuid.UUID | None = None

    def encoded(self, typed: str) -> str | None:
        """What is encoded for it, of a text that was typed; None: nothing."""
        if self.mode == VECTOR:
            return typed
        return self.query.text if self.mode == HYBRID and self.query is not None else None
