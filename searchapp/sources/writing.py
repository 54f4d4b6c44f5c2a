"""What a source is kept in, as those who write to it see it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection

from searchapp.sources.rows import Row
from searchapp.sources.session import Session
from searchapp.sources.stored import Stored


@dataclass(frozen=True, slots=True)
class Written:
    """What became of rows: how many were ``written`` or deleted, why others are ``refused``, by their keys, and which
    are ``put_off``, for somebody's transaction has locked them."""

    written: int
    refused: dict[str, str]
    put_off: Collection[str] = ()


class Prepared(Protocol):
    """Rows that are encoded, and ready to be written."""

    def write(self, connection: Connection) -> Written:
        """Write them in a transaction, or find that they are as they were."""
        ...


class Target(Protocol):
    """What a source is kept in."""

    @property
    def collection_id(self) -> int | None:
        """Of the collection that is fed; None where it is a column."""
        ...

    @property
    def stored(self) -> Stored:
        """What is there, to be compared with the rows."""
        ...

    def prepare(self, session: Session, keys: Sequence[str], found: Mapping[str, Row]) -> Prepared:
        """Encode rows, outside of any transaction.

        :param keys: of which those that are not ``found`` are gone.
        """
        ...
