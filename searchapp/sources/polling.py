"""Looking for changed rows by a column that grows with each change, where there are no triggers: in views, in tables of
other servers, in those that one may not alter. What is found is put into the log; what is deleted is found by the
comparison."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString

from psycopg import sql
from sqlalchemy import Connection, func, select, text, update

from searchapp import models
from searchapp.sources import backfill, log, rows
from searchapp.sources.catalog import Source
from searchapp.sources.session import Session

# "poll" in hexadecimal: the class of the advisory locks of those who poll a source, by its id.
POLL_LOCK = 0x706F6C6C
SECONDS = 2.0
# A look that takes long, for the column has no index, comes the more rarely.
SHARE = 20
# A transaction that lasts no longer than this is found, though others with a later time were committed before it.
OVERLAP_SECONDS = 30.0
PAGE = 1000
# So many rows of the overlap are remembered, so that they are put into the log once; beyond, they are twice.
REMEMBERED = 100_000

_TYPE = text(
    "SELECT format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL) FROM searchapp_data.sources s"
    " JOIN pg_attribute a ON a.attrelid = searchapp_private.table_of(s) AND a.attname = s.polled_by"
    " JOIN pg_type t ON t.oid = a.atttypid WHERE s.id = :source_id"
)


class Poller:
    """Goes through a source's rows in the order of the column, again and again from where it was some time ago: in
    between, rows may have been committed later than those with a later time.

    That place is a value that was seen so long ago, not one that is computed, so that any type that grows will do. What
    has failed is to be begun anew, from what the database knows.

    :param session: has the source's lock of the class ``POLL_LOCK``, for as long as this is used.
    """

    def __init__(self, session: Session, source: Source) -> None:
        self._session = session
        self._until = source.polled_until  # all up to here has been found; "": there was nothing
        self._latest, self._at = source.polled_latest, source.polled_at  # the next such place, and when it was seen
        self._noted: dict[str, str] = {}  # what the round before put into the log, or had found there
        self._found: dict[str, str] = {}  # by this round
        self._cursor: tuple[str, str] | None = None  # the value and the key that this round has come to
        self._began: datetime | None = None  # this round, by the database's clock
        self._due = 0.0
        with session.transaction() as connection:
            self._type: str = connection.scalar(_TYPE, {"source_id": source.id}) or "text"

    def advance(self, source: Source) -> bool:
        """Put the next page of changed rows into the log, if it is time and not enough wait there; whether there was
        one."""
        if self._cursor is None and time.monotonic() < self._due:
            return False
        began = time.monotonic()
        with self._session.transaction() as connection:
            if self._until is None:
                self._begin(connection, source)
                return False
            if backfill.waiting(connection, source) >= backfill.WAITING:
                return False
            found = self._page(connection, source)
            news = self._news(found)
            log.append(connection, source, news)
            self._cursor = (found[-1][1], found[-1][0]) if found else self._cursor
            if len(found) < PAGE:
                self._end_round(connection, source)
        if self._cursor is None:
            now = time.monotonic()
            self._due = now + max(SECONDS, SHARE * (now - began))
        return bool(news)

    def _begin(self, connection: Connection, source: Source) -> None:
        """Begin where the table ends: what it has is read for the first time after this."""
        latest = self._run(connection, source, "SELECT max({column})::text FROM {table} AS t WHERE {bound}", [])
        self._until = latest[0][0] or ""
        self._note(connection, source, None)

    def _page(self, connection: Connection, source: Source) -> list[tuple[str, str]]:
        """Keys and values of the next rows, in the order of the values."""
        if self._cursor is None:
            self._began, self._found = connection.scalar(select(func.clock_timestamp())), {}
        order = [_column(source), *(sql.Identifier("t", name) for name in source.key)]
        beyond, after = self._beyond(source, order)
        statement = (
            "SELECT {key}, {column}::text FROM {table} AS t WHERE {beyond} AND {bound} ORDER BY {order} LIMIT {page}"
        )
        parts = {"beyond": beyond, "order": sql.SQL(", ").join(order), "page": sql.Literal(PAGE)}
        return [(key, value) for key, value in self._run(connection, source, statement, after, **parts)]

    def _beyond(self, source: Source, order: Sequence[sql.Composable]) -> tuple[sql.Composable, Sequence[str]]:
        """What comes after the place that was come to, with its parameters."""
        value = sql.SQL("$1::text::{}").format(sql.SQL(self._type))
        if self._cursor is not None:
            place = [value, *rows.parts(source, sql.SQL("$2::text"))]
            return sql.SQL("({}) > ({})").format(sql.SQL(", ").join(order), sql.SQL(", ").join(place)), self._cursor
        if not self._until:
            return sql.SQL("true"), []
        return sql.SQL("{} > {}").format(order[0], value), [self._until]

    def _news(self, found: Sequence[tuple[str, str]]) -> list[str]:
        """Those keys that were not put into the log with the same value before."""
        news = [key for key, value in found if self._noted.get(key) != value]
        if len(self._found) < REMEMBERED:
            self._found.update(found)
        return news

    def _end_round(self, connection: Connection, source: Source) -> None:
        """Note where the next round begins, and where one some time later will."""
        latest = self._cursor[0] if self._cursor is not None else None
        self._cursor, self._noted = None, self._found
        assert self._began is not None
        before = self._until, self._latest
        if self._at is not None and self._at <= self._began - timedelta(seconds=OVERLAP_SECONDS):
            self._until, self._latest, self._at = self._latest, None, None
        if self._latest is None and latest != self._until:
            self._latest = latest
        if (self._until, self._latest) != before:
            self._note(connection, source, before[0])

    def _note(self, connection: Connection, source: Source, before: str | None) -> None:
        """Note the places, unless the source was resumed meanwhile: then all begins anew."""
        at = None if self._latest is None else self._at or func.clock_timestamp()
        mine = models.Source.id == source.id, models.Source.polled_until.is_not_distinct_from(before)
        statement = update(models.Source).where(*mine)
        values = {"polled_until": self._until, "polled_latest": self._latest, "polled_at": at}
        self._at = connection.scalar(statement.values(values).returning(models.Source.polled_at))

    def _run(
        self,
        connection: Connection,
        source: Source,
        statement: LiteralString,
        parameters: Sequence[str],
        **parts: sql.Composable,
    ) -> list[tuple[Any, ...]]:
        column = _column(source)
        bound = sql.SQL("{} IS NOT NULL")
        if self._type.startswith("timestamp"):  # rows of the far future would hide all others behind them
            bound = sql.SQL("{} <= clock_timestamp() + interval '1 day'")
        return rows.run(connection, source, statement, parameters, column=column, bound=bound.format(column), **parts)


def _column(source: Source) -> sql.Identifier:
    assert source.polled_by is not None
    return sql.Identifier("t", source.polled_by)
