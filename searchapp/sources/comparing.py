"""Comparing a source's table with what is stored of it, for there are changes that no trigger sees: partitions that are
attached or detached, triggers that are disabled, rewrites. What differs is put into the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
import sqlalchemy.exc
from sqlalchemy import Connection, func, text, update

from searchapp import database, models
from searchapp.sources import failures, log, rows
from searchapp.sources.catalog import Source
from searchapp.sources.rows import Row
from searchapp.sources.session import Session
from searchapp.sources.stored import Differences, Stored

logger = logging.getLogger("searchapp")

# "chec" in hexadecimal: the class of the advisory locks of those who compare a source, by its id.
CHECK_LOCK = 0x63686563
# Between comparisons of a source; nothing else finds what is deleted from a polled one.
SECONDS = 3600.0
POLLED_SECONDS = 300.0
# So many rows are compared in a transaction.
PAGE = 1000
# So many keys of each kind are told.
FEW = 5

_DUE = text("""
SELECT s.checked_at IS NULL AS resumed FROM searchapp_data.sources s
WHERE s.id = :source_id AND s.state = 'running' AND s.backfilled
  AND (s.checked_at IS NULL OR s.checked_at < now() - make_interval(secs => :seconds))
""")
_ENSURE_TRIGGERS = text(
    "SELECT searchapp_private.ensure_triggers(s) FROM searchapp_data.sources s WHERE s.id = :source_id"
)
_SETTLED = text("""
SELECT k.key FROM unnest(CAST(:keys AS text[])) k (key)
WHERE k.key IN (SELECT c.key FROM searchapp_data.changes c WHERE c.source_id = :source_id AND c.key IS NOT NULL)
  OR searchapp_private.lane_of(k.key) IN (
    SELECT c.lane FROM searchapp_data.changes c WHERE c.source_id = :source_id AND c.key IS NULL)
""")
_FAILED = text("SELECT f.key FROM searchapp_data.failures f WHERE f.source_id = :source_id AND f.key = ANY(:keys)")
_FAILED_AFTER = text(
    "SELECT f.key FROM searchapp_data.failures f WHERE f.source_id = :source_id AND f.key > :after"
    " ORDER BY f.key LIMIT :limit"
)


@dataclass(slots=True)
class Found:
    """How many keys there are of a kind, and the first few of them."""

    count: int = 0
    keys: list[str] = field(default_factory=list)

    def add(self, keys: Sequence[str]) -> None:
        self.count += len(keys)
        self.keys.extend(keys[: FEW - len(self.keys)])


class Comparison:
    """A comparison that goes on page by page: first the table's rows are looked for among what is stored, then what is
    stored among these, and rows that have failed too. It holds a place and the first few keys that differ, no more."""

    def __init__(self, stored: Stored) -> None:
        self.rows = 0
        self.missing, self.changed, self.gone = Found(), Found(), Found()
        self._stored = stored
        self._passes = [self._rows, self._keys, self._failures]
        self._after: Any = None

    @property
    def is_done(self) -> bool:
        return not self._passes

    @property
    def differs(self) -> bool:
        return bool(self.missing.count or self.changed.count or self.gone.count)

    def __str__(self) -> str:
        return f"{self.missing.count:,} missing, {self.changed.count:,} changed, {self.gone.count:,} gone"

    def advance(self, connection: Connection, source: Source) -> list[str]:
        """Compare the next page; the keys that are to be looked at.

        :param connection: at the beginning of a transaction. It sees one state of all, in which a change of a row is
            stored or waits in the log.
        """
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        differences, forgotten = self._passes[0](connection, source)
        if self._after is None:
            del self._passes[0]
        self.missing.add(differences.missing)
        self.changed.add(differences.changed)
        self.gone.add(differences.gone)
        return [*differences.keys, *forgotten]

    def _rows(self, connection: Connection, source: Source) -> tuple[Differences, list[str]]:
        counted = _Counted(rows.after(connection, source, self._after, PAGE))
        differences = self._stored.compare(connection, counted)
        self.rows += counted.count
        self._after = counted.last if counted.count == PAGE else None
        return _worth_telling(connection, source, differences), []

    def _keys(self, connection: Connection, source: Source) -> tuple[Differences, list[str]]:
        stored = self._stored.keys_after(connection, self._after, PAGE)
        keys = list(stored)
        self._after = stored[keys[-1]] if len(keys) == PAGE else None
        there = rows.existing(connection, source, keys)
        differences = Differences(gone=[key for key in keys if key not in there])
        return _worth_telling(connection, source, differences), []

    def _failures(self, connection: Connection, source: Source) -> tuple[Differences, list[str]]:
        """Failures of rows that are gone: nobody wants to know of these."""
        values = {"source_id": source.id, "after": self._after or "", "limit": PAGE}
        keys = list(connection.scalars(_FAILED_AFTER, values))
        self._after = keys[-1] if len(keys) == PAGE else None
        there = rows.existing(connection, source, keys)
        return Differences(), [key for key in keys if key not in there]


class _Counted:
    """Rows that are counted while they are gone through."""

    def __init__(self, found: Iterator[Row]) -> None:
        self._found = found
        self.count = 0
        self.last: str | None = None

    def __iter__(self) -> Iterator[Row]:
        for row in self._found:
            self.count += 1
            self.last = row[rows.KEY]
            yield row


def _worth_telling(connection: Connection, source: Source, differences: Differences) -> Differences:
    """Leave out what waits in the log, and rows that have failed: they are tried again when they change, or when
    somebody asks for it."""
    if not (keys := differences.keys):
        return differences
    values = {"source_id": source.id, "keys": keys}
    settled = set(connection.scalars(_SETTLED, values))
    return differences.without(settled, set(connection.scalars(_FAILED, values)))


def seconds_between(source: Source) -> float:
    """How long after a comparison of a source the next one begins."""
    return SECONDS if source.polled_by is None else POLLED_SECONDS


def begin(session: Session, source: Source) -> bool:
    """Whether it is time to compare a source; triggers that it lacks are made first, so that from here on all is noted.

    :param session: has the source's lock of the class ``CHECK_LOCK``.
    """
    seconds = seconds_between(source)
    with session.transaction() as connection:
        due = connection.execute(_DUE, {"source_id": source.id, "seconds": seconds}).one_or_none()
        if due is not None and due.resumed:  # resumed once more meanwhile, it is NULL again, and all is compared anew
            connection.execute(update(models.Source).where(models.Source.id == source.id).values(checked_at="epoch"))
            failures.retry_parked(connection, source.name)  # nobody knows which have changed
    if due is not None:
        _ensure_triggers(session, source)
    return due is not None


def repair(session: Session, source: Source, comparison: Comparison) -> None:
    """Compare the next page, and put what differs into the log."""
    with session.transaction() as connection:
        log.append(connection, source, comparison.advance(connection, source))


def finish(session: Session, source: Source) -> None:
    """Note that all of a source has been compared."""
    mine = models.Source.id == source.id, models.Source.checked_at.is_not(None)
    with session.transaction() as connection:
        connection.execute(update(models.Source).where(*mine).values(checked_at=func.now()))


def _ensure_triggers(session: Session, source: Source) -> None:
    try:
        with session.transaction() as connection:
            made = connection.scalar(_ENSURE_TRIGGERS, {"source_id": source.id})
    except sqlalchemy.exc.DBAPIError as exc:
        if not isinstance(exc.orig, psycopg.errors.InsufficientPrivilege | psycopg.errors.LockNotAvailable):
            raise
        logger.warning(
            "triggers that the table of the source %s lacks cannot be made: %s", source, database.translate(exc.orig)
        )
        return
    if made:
        logger.info("made %d triggers that the table of the source %s lacked", made, source)
