"""What a search is asked for beside what it is near to, checked before anything is encoded or sent."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement

from searchapp import errors, values
from searchapp.fields import Field
from searchapp.models import Document
from searchapp.search.arrangement import PLAIN, Arrangement
from searchapp.search.filters import compile_filter

VECTOR = "vector"
TEXT = "text"
HYBRID = "hybrid"
MODES = (VECTOR, TEXT, HYBRID)
MAX_QUERY = 100_000  # characters
MAX_LIMIT = 100_000
MAX_OFFSET = 100_000
MAX_TIMEOUT = 86_400.0  # seconds


@dataclass(frozen=True)
class Request:
    """How many hits, which, and how they are looked for.

    :param limit: how many hits, 1 to 100,000.
    :param offset: how many of the nearest are left out before them, 0 to 100,000.
    :param filter: what a hit's metadata must satisfy.
    :param exact: compare with every passage instead of asking the index.
    :param min_score: hits have at least this score; None: whatever they have.
    :param max_distance: hits are no farther than this; None: however far.
    :param timeout: the database ends the search after so many seconds; None: as it is set there.
    :param arrangement: how the hits are arranged.
    """

    limit: int
    offset: int = 0
    filter: Mapping[str, Any] | None = None
    exact: bool = False
    min_score: float | None = None
    max_distance: float | None = None
    timeout: float | None = None
    arrangement: Arrangement = PLAIN

    def condition(self, declared: Sequence[Field] = ()) -> ColumnElement[bool] | None:
        """What the filter means for a hit's document; None where it keeps all.

        :param declared: the fields that have an index.
        :raises errors.InvalidFilter: it cannot be understood.
        """
        if declared and self.filter:
            return compile_filter(self.filter, Document.metadata_, declared)
        return self._by_paths

    @cached_property
    def _by_paths(self) -> ColumnElement[bool] | None:  # compiled once, however often asked for
        compiled = None if self.filter is None else compile_filter(self.filter, Document.metadata_)
        return compiled if self.filter else None

    @cached_property
    def reach(self) -> float | None:
        """How far a hit may be where its score is 1 - distance; None: however far."""
        return as_max_distance(self.min_score, self.max_distance)

    @property
    def has_threshold(self) -> bool:
        """Whether hits are left out for what they score."""
        return self.min_score is not None or self.max_distance is not None

    def includes(self, distance: float) -> bool:
        """Whether a hit may be so far."""
        return self.reach is None or distance <= self.reach


def request(
    limit: int,
    offset: int = 0,
    filter: Mapping[str, Any] | None = None,
    exact: bool = False,
    min_score: float | None = None,
    max_distance: float | None = None,
    timeout: float | None = None,
    arrangement: Arrangement = PLAIN,
) -> Request:
    """Make a request that can be.

    :raises errors.InvalidInput, errors.InvalidFilter: a value that cannot be.
    """
    check_limit(limit)
    check_offset(offset)
    if timeout is not None and not (_is_number(timeout) and 0 < timeout <= MAX_TIMEOUT):
        raise errors.InvalidInput(f"timeout is {timeout!r}; expected seconds, over 0 and at most {MAX_TIMEOUT:,.0f}")
    made = Request(limit, offset, filter, exact, min_score, max_distance, timeout, arrangement)
    _ = made.reach, made.condition()  # which raise where there can be none
    return made


def check_query(query: str, mode: str | None) -> None:
    """Check what is asked and how, before a model is loaded for it.

    :raises errors.InvalidInput: an empty query, one that is too long, an unknown mode.
    """
    if not query.strip():
        raise errors.InvalidInput("the query is empty; say what to look for")
    if not values.is_storable(query):
        raise errors.InvalidInput("the query has a NUL or what is not UTF-8; expected plain text")
    if len(query) > MAX_QUERY:
        raise errors.InvalidInput(f"the query has {len(query):,} characters; at most {MAX_QUERY:,} can be asked")
    if mode is not None:
        check_mode(mode)


def check_key(key: str) -> str:
    """Return a key that a document can have.

    :raises errors.InvalidInput: none can.
    """
    if not isinstance(key, str) or not values.is_storable(key):
        raise errors.InvalidInput(f"key is {key!r}; expected the key of a document, a text without a NUL")
    return key


def check_mode(mode: str) -> str:
    """Return a mode that there is.

    :raises errors.InvalidInput: there is no such mode.
    """
    if mode not in MODES:
        raise errors.InvalidInput(f"mode is {mode!r}; expected one of: {', '.join(MODES)}")
    return mode


def check_limit(limit: int, name: str = "limit") -> int:
    """Return a limit that can be.

    :param name: what it is called where it was given.
    :raises errors.InvalidInput: it is below 1 or over 100,000.
    """
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        raise errors.InvalidInput(f"{name} is {limit!r}; expected 1 to {MAX_LIMIT:,}")
    return limit


def check_offset(offset: int) -> int:
    """Return an offset that can be.

    :raises errors.InvalidInput: it is below 0 or over 100,000.
    """
    if not isinstance(offset, int) or isinstance(offset, bool) or not 0 <= offset <= MAX_OFFSET:
        raise errors.InvalidInput(f"offset is {offset!r}; expected 0 to {MAX_OFFSET:,}")
    return offset


def as_max_distance(min_score: float | None, max_distance: float | None) -> float | None:
    """Both thresholds as one, the stricter, as a distance.

    :raises errors.InvalidInput: one of them is no number.

    >>> as_max_distance(0.75, 0.5)
    0.25
    """
    for name, value in (("min_score", min_score), ("max_distance", max_distance)):
        if value is not None and not (_is_number(value) and abs(value) <= sys.float_info.max):
            raise errors.InvalidInput(f"{name} is {value!r}; expected a number")
    distances = [each for each in (max_distance, None if min_score is None else 1 - min_score) if each is not None]
    return float(min(distances)) if distances else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
