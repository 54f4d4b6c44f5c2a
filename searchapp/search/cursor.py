"""Cursors: where a page of an answer ended, so that the next one begins there.

A cursor is opaque text. It is bound to the question it was given for, to the space that answered and to the query's
very embedding, of which another machine may make one that differs in its last bits; and it has a checksum: against
mistakes, not against ill will, for whoever may ask with a cursor may ask without one.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from searchapp import errors
from searchapp.search.matrix import Row
from searchapp.search.question import Question
from searchapp.search.request import VECTOR
from searchapp.spaces import Space
from searchapp.vectors import Array

_CHECKSUM = 8  # bytes


class Position(NamedTuple):
    """Behind the last hit of a page.

    :param place: its distance; in the modes ``text`` and ``hybrid`` its score.
    :param key: its key, and in these modes its document's id.
    :param tied: how many with that distance were shown, all of them before ``key``.
    :param exact: whether the page was asked for exactly.
    :param candidates: of a hybrid: how many each leg gave.
    :param everything: whether the list that the pages are of has everything that fits.
    """

    space_id: int
    vector: str
    place: float
    key: str
    tied: int
    exact: bool = True
    candidates: int = 0
    everything: bool = True


def digest(vector: Array | None) -> str:
    """A digest of a query's embedding; empty where there is none."""
    return "" if vector is None else hashlib.sha256(vector.tobytes()).hexdigest()[:16]


def after(
    rows: Sequence[Row],
    space: Space,
    vector: Array | None,
    question: Question,
    before: Position | None,
    *,
    everything: bool,
) -> Position:
    """The position behind a page.

    :param rows: at least one.
    :param vector: what they are near to.
    :param before: where the page began.
    """
    by_distance = question.mode == VECTOR
    places = [row[4] if by_distance else row[6] for row in rows]
    tied = places.count(places[-1])
    if before is not None and before.place == places[-1]:
        tied += before.tied
    return Position(
        space_id=space.id,
        vector=digest(vector),
        place=places[-1],
        key=rows[-1][0] if by_distance else str(rows[-1][7]),
        tied=tied,
        exact=question.request.exact,
        candidates=question.candidates,
        everything=everything,
    )


def write(position: Position, question: bytes) -> str:
    """A cursor for a position.

    :param question: see :func:`digest_of`.
    """
    content = json.dumps(position, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_checksum(content, question) + content).decode().rstrip("=")


def read(cursor: str, question: bytes) -> Position:
    """The position that a cursor is of.

    :raises errors.InvalidCursor: it is of another question, or no cursor at all.
    """
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        checksum, content = packed[:_CHECKSUM], packed[_CHECKSUM:]
        if checksum != _checksum(content, question):
            raise ValueError
        return Position(*json.loads(content))
    except (ValueError, TypeError) as exc:
        raise errors.InvalidCursor(
            "the cursor is not of this search; give the query, collection, mode, filter and thresholds it came with"
        ) from exc


def digest_of(collection: str, asked: bytes, question: Question) -> bytes:
    """A digest of what a search is for; the pages of one may be of any length.

    :param asked: the query's text or the vector.
    """
    request, fusion = question.request, question.fusion
    told: list[Any] = [collection, question.mode, request.filter, [fusion.method, fusion.vector, fusion.text]]
    told += [request.reach] if question.mode == VECTOR else [request.min_score, request.max_distance]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode() + b"\0" + asked).digest()


def _checksum(content: bytes, question: bytes) -> bytes:
    return hashlib.sha256(question + content).digest()[:_CHECKSUM]
