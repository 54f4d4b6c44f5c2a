"""What finds changes that no trigger tells of: polling sources, and comparing them with their tables now and then."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime

import sqlalchemy.exc

from searchapp.sources import backfill, comparing
from searchapp.sources.catalog import Source
from searchapp.sources.comparing import CHECK_LOCK, Comparison
from searchapp.sources.polling import POLL_LOCK, Poller
from searchapp.sources.session import Locks, Session
from searchapp.sources.writing import Target

logger = logging.getLogger("searchapp")


class Watch:
    """The sources that one session polls and compares: each in one hand at a time, by a lock that the session keeps."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pollers: dict[int, Poller] = {}
        self._comparisons: dict[int, Comparison] = {}
        self._locks: dict[tuple[int, int], Locks] = {}

    def poll(self, source: Source) -> bool:
        """Go on polling a source, if it is polled and no other session does; whether changes were found."""
        if source.polled_by is None:
            return False
        if source.polled_until is None:  # resumed: its column may have another type now
            self._pollers.pop(source.id, None)
        if source.id not in self._pollers:
            if not self._take(POLL_LOCK, source):
                return False
            self._pollers[source.id] = Poller(self._session, source)
        poller = self._pollers.pop(source.id)
        found = poller.advance(source)
        self._pollers[source.id] = poller  # not if that has failed: what it remembers may not be in the log
        return found

    def compare(self, source: Source, target: Callable[[], Target]) -> bool:
        """Compare the next page of a source, if it is time, unless enough waits in the log or another session is at it;
        whether one was compared."""
        if source.id not in self._comparisons and not (self._is_due(source) and self._begin(source, target)):
            return False
        comparison = self._comparisons[source.id]
        with self._session.transaction() as connection:
            if backfill.waiting(connection, source) >= backfill.WAITING:
                return False
        comparing.repair(self._session, source, comparison)
        if comparison.is_done:
            comparing.finish(self._session, source)
            self._release(CHECK_LOCK, source.id)
            del self._comparisons[source.id]
            if comparison.differs:
                logger.warning("the source %s differed from its table: %s; that is put right", source, comparison)
        return True

    def leave(self, running: Collection[int]) -> None:
        """Have nothing to do with sources any more that are not running."""
        for kind, source_id in [each for each in self._locks if each[1] not in running]:
            self._pollers.pop(source_id, None)
            self._comparisons.pop(source_id, None)
            self._release(kind, source_id)

    def _is_due(self, source: Source) -> bool:
        """Whether it may be time, by this machine's clock: the database is asked only then."""
        if not source.backfilled or source.checked_at is None:
            return source.backfilled
        return (datetime.now(UTC) - source.checked_at).total_seconds() > comparing.seconds_between(source)

    def _begin(self, source: Source, target: Callable[[], Target]) -> bool:
        if not self._take(CHECK_LOCK, source):
            return False
        if not comparing.begin(self._session, source):
            self._release(CHECK_LOCK, source.id)
            return False
        self._comparisons[source.id] = Comparison(target().stored)
        return True

    def _take(self, kind: int, source: Source) -> bool:
        locks = self._locks.setdefault((kind, source.id), Locks(self._session.connection, kind))
        return bool(locks.held) or locks.take(source.id)

    def _release(self, kind: int, source_id: int) -> None:
        with suppress(sqlalchemy.exc.DBAPIError):  # the session has ended, and its locks
            self._locks.pop((kind, source_id)).release()
