"""What a search returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload


class Hit(NamedTuple):  # five times as fast to make as a frozen dataclass
    """One document found.

    ``passage`` is the piece of its text that is nearest; ``distance`` is cosine distance, 0 to 2; ``score`` is
    1 - ``distance``, larger is better.
    """

    key: str
    title: str | None
    passage: str
    score: float
    distance: float
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Took:
    """Milliseconds spent in encoding the query and in the database, the way there included."""

    encode: float
    database: float


@dataclass(frozen=True, slots=True)
class Hits(Sequence[Hit]):
    """The hits of one search, nearest first.

    ``exact`` says whether this answer came from a scan of everything; ``complete`` is false while documents lack their
    chunks in the space asked. ``cursor`` asks for the next page, which begins behind the last hit: there is one where
    the answer was asked exactly and the page is full.
    """

    hits: tuple[Hit, ...]
    mode: str
    exact: bool
    complete: bool
    took_ms: Took
    cursor: str | None = None

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | Sequence[Hit]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)
