"""Cursors: where a page of an exact answer ended, so that the next one begins there.

A cursor is opaque text. It is bound to the question it was given for, to the space that answered and to the query's
very embedding, of which another machine may make one that differs in its last bits; and it has a checksum: against
mistakes, not against ill will, for whoever may ask with a cursor may ask without one.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from searchapp import errors
from searchapp.search.hits import Hit
from searchapp.search.request import Request
from searchapp.vectors import Array

_CHECKSUM = 8  # bytes


@dataclass(frozen=True, slots=True)
class Position:
    """Behind the last hit of a page: those equally far that were shown are ``tied``, and come before ``key``."""

    space_id: int
    vector: str
    distance: float
    key: str
    tied: int


def digest(vector: Array) -> str:
    """A digest of a query's embedding."""
    return hashlib.sha256(vector.tobytes()).hexdigest()[:16]


def after(hits: Sequence[Hit], space_id: int, vector: Array, before: Position | None) -> Position:
    """The position behind a page's hits.

    :param hits: at least one.
    :param vector: what they are near to.
    :param before: where the page began.
    """
    last = hits[-1]
    tied = sum(hit.distance == last.distance for hit in hits)
    if before is not None and before.distance == last.distance:
        tied += before.tied
    return Position(space_id, digest(vector), last.distance, last.key, tied)


def write(position: Position, question: bytes) -> str:
    """A cursor for a position.

    :param question: see :func:`question_of`.
    """
    content = json.dumps(dataclasses.astuple(position), ensure_ascii=False, separators=(",", ":")).encode()
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
            "the cursor is not of this search; give the query, collection, filter and thresholds that it came with"
        ) from exc


def question_of(collection: str, asked: bytes, request: Request) -> bytes:
    """A digest of what a search is for; the pages of one may be of any length.

    :param asked: the query's text or the vector.
    """
    told = json.dumps([collection, request.filter, request.max_distance], sort_keys=True, default=str)
    return hashlib.sha256(told.encode() + b"\0" + asked).digest()


def _checksum(content: bytes, question: bytes) -> bytes:
    return hashlib.sha256(question + content).digest()[:_CHECKSUM]
