"""What a worker does for collections now and then: indexes, statistics, and the removal of what is retired."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection, Engine

from searchapp import database, errors, maintenance, partitions, spaces
from searchapp.sources import catalog
from searchapp.sources.catalog import Source
from searchapp.sources.session import Session
from searchapp.sources.targets import CollectionTarget
from searchapp.sources.writing import Target
from searchapp.spaces import Space

logger = logging.getLogger("searchapp")

# Between refreshments of a collection's statistics, and between removals of what is retired.
SECONDS = 60.0


class Refreshing:
    """What one thread has to refresh: it knows how many rows it wrote."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._written: dict[int, int] = {}  # since their statistics were refreshed, by the ids of sources
        self._since: dict[int, float] = {}  # when the first of these were written
        self._refreshed: dict[int, float] = {}
        self._removed = time.monotonic()

    def note(self, source: Source, rows: int) -> None:
        """Note that rows of a source were written."""
        self._since.setdefault(source.id, time.monotonic())
        self._written[source.id] = self._written.get(source.id, 0) + rows

    def refresh(
        self, session: Session, target: Callable[[Source], Target], *, idle: bool, at_once: bool = False
    ) -> None:
        """Refresh what depends on how many documents were written.

        :param idle: nothing waits: indexes are built, too.
        :param at_once: though it was done a moment ago.
        """
        now = time.monotonic()
        due = [each for each in self._written if at_once or self._is_due(each, now, idle)]
        if not due:
            return
        with session.transaction() as connection:
            sources = {each.id: each for each in catalog.running(connection)}
        for source_id in due:
            written = self._written.pop(source_id)
            self._since.pop(source_id, None)
            self._refreshed[source_id] = now
            source = sources.get(source_id)
            if source is not None and source.into_column is None:
                self._refresh(session, source, target, written, idle)

    def _is_due(self, source_id: int, now: float, idle: bool) -> bool:
        refreshed = self._refreshed.get(source_id, now - SECONDS)
        return now - (refreshed if idle else max(refreshed, self._since.get(source_id, now))) >= SECONDS

    def _refresh(
        self, session: Session, source: Source, target: Callable[[Source], Target], written: int, idle: bool
    ) -> None:
        try:
            with database.translated(), suppress(errors.CollectionMissing):
                found = target(source)
                assert isinstance(found, CollectionTarget)
                refresh(self._engine, session, found.space, written, index=idle)
                if not found.space.indexed:  # unless it is now, it is tried again
                    self._written[source.id] = 0
        except errors.DatabaseError as exc:
            if session.is_over:
                raise
            logger.warning("the statistics of the source %s are not refreshed: %s", source, exc)
            self._written[source.id] = written

    def remove_retired(self) -> None:
        """Remove now and then what is left of collections that were dropped."""
        now = time.monotonic()
        if now - self._removed < SECONDS:
            return
        self._removed = now
        with suppress(errors.DatabaseError), database.translated(), self._engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            maintenance.drop_retired(connection)


def refresh(engine: Engine, session: Session, space: Space, written: int, *, index: bool) -> None:
    """Refresh the statistics of a space.

    :param written: how many of its documents were written since that was done.
    :param index: build its index, too, where it has none yet.
    """

    @contextmanager
    def transaction() -> Iterator[Connection]:
        with database.translated(), session.transaction() as connection:
            yield connection

    if index and not space.indexed:
        spaces.build_index(transaction, space)
    with transaction() as connection:
        fresh = spaces.refresh_statistics(connection, space, written)
    if fresh and space.language is not None:
        with engine.connect() as connection:
            partitions.vacuum_postings(connection.execution_options(isolation_level="AUTOCOMMIT"), space.collection_id)
