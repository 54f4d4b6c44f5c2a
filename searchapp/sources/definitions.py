"""What people say of sources: they add, pause, resume and remove them, and ask how far these are.

All of it is functions and views of the database, so that SQL and migrations say the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Connection, Engine, text

from searchapp import database, errors, roles
from searchapp.encoders import Model
from searchapp.sources import catalog, columns

# Somebody's transaction has the table: each attempt waits for two seconds and gives way to those who would wait for it.
ATTEMPTS = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Definition:
    """What a source is to be; as ``searchapp.add_source`` takes it."""

    name: str
    table: str
    key: Sequence[str]
    text: Sequence[str]
    title: str | None = None
    metadata: Sequence[str] = ()
    where: str | None = None
    collection: str | None = None
    into_column: str | None = None
    model: str | None = None
    poll: str | None = None


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """A source as it was added, and its state, with the reason where it is broken."""

    name: str
    table: str
    collection: str | None
    into_column: str | None
    key: list[str]
    title: str | None
    text: list[str]
    metadata: list[str]
    where: str | None
    polled_by: str | None
    state: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How far a source is.

    ``pending`` changes wait, the oldest since ``oldest``. Of some ``rows``, ``read`` have been taken up for the
    first time; all, where it is ``backfilled``. ``retrying`` rows are tried again, ``failed`` ones are not. ``rate`` is
    rows a second, lately, by all ``workers`` that are alive.
    """

    name: str
    state: str
    reason: str | None
    backfilled: bool
    rows: int
    read: int
    pending: int
    retrying: int
    failed: int
    oldest: timedelta | None
    rate: float | None
    time_left: timedelta | None
    checked_at: datetime | None
    workers: int

    @property
    def is_done(self) -> bool:
        """Whether all that is known of is written, or has failed."""
        return self.backfilled and not self.pending


def add(engine: Engine, definition: Definition, model: Model | None = None) -> None:
    """Let workers keep a table in step.

    :param model: that of the definition, where it names one.
    :raises errors.InvalidInput: there is no such table; names the near ones.
    :raises columns.ColumnUnfit: the vector column cannot hold what the model makes.
    :raises errors.DatabaseError: the database refuses it, and says why; nothing is left of it.
    """
    statement = text(
        "SELECT searchapp.add_source(:name, CAST(:table AS regclass), :key, :text, :title, :metadata, :where,"
        " :collection, :into_column, :model, :poll)"
    )
    values = dataclasses.asdict(definition)
    lists = {name: list(values[name]) for name in ("key", "text", "metadata")}

    def run(connection: Connection) -> None:
        _require_table(connection, definition.table)
        added = connection.scalar(statement, {**values, **lists}) or 0
        if definition.into_column is not None and model is not None:
            columns.check(connection, catalog.by_id(connection, added), model)

    _persistently(engine, run)


def pause(engine: Engine, name: str, *, drop_triggers: bool = False) -> None:
    """Let workers leave a source alone.

    :param drop_triggers: so that watched columns may be changed; what changes meanwhile is then found by comparing.
    """
    statement = text("SELECT searchapp.pause_source(:name, :drop_triggers)")
    _persistently(engine, lambda each: each.execute(statement, {"name": name, "drop_triggers": drop_triggers}))


def resume(engine: Engine, name: str) -> None:
    """Let workers go on with a source, and compare it with its table as a whole."""
    _persistently(engine, lambda each: each.execute(text("SELECT searchapp.resume_source(:name)"), {"name": name}))


def remove(engine: Engine, name: str) -> str | None:
    """Take a source and its triggers away; the collection that it was kept in, None where that was a column."""

    def run(connection: Connection) -> str | None:
        kept = connection.scalar(text("SELECT collection FROM searchapp.sources WHERE name = :name"), {"name": name})
        connection.execute(text("SELECT searchapp.remove_source(:name)"), {"name": name})
        return kept if kept is None else str(kept)

    return _persistently(engine, run)


def listed(connection: Connection) -> list[SourceInfo]:
    """All sources, by name."""
    return _rows(connection, SourceInfo, "sources")


def status(connection: Connection, name: str | None = None) -> list[SourceStatus]:
    """How far sources are, by name.

    :param name: of one of them.
    :raises errors.InvalidInput: there is none of that name; names the near ones.
    """
    if name is not None:
        catalog.require(connection, name)
    return [each for each in _rows(connection, SourceStatus, "source_status") if name in (None, each.name)]


def workers(connection: Connection) -> int:
    """How many workers are alive."""
    return connection.scalar(text("SELECT count(*) FROM searchapp.worker_status WHERE alive")) or 0


def feeding(connection: Connection, collection: str) -> str | None:
    """The source that a collection is kept by, None where it is kept by none."""
    statement = text("SELECT name FROM searchapp_data.sources WHERE collection = :collection")
    found: str | None = connection.scalar(statement, {"collection": collection})
    return found


def _rows(connection: Connection, kind: type[T], view: str) -> list[T]:
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]  # they are dataclasses
    columns = ", ".join(f'v."{name}"' for name in names)
    found = connection.execute(text(f"SELECT {columns} FROM searchapp.{view} v ORDER BY v.name"))
    return [kind(*row) for row in found]


def _require_table(connection: Connection, name: str) -> None:
    """Check that a table is there, as PostgreSQL reads its name."""
    statement = text("SELECT to_regclass(:name) IS NOT NULL")
    if connection.scalar(statement, {"name": name}):
        return
    every = connection.scalars(
        text(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition"
            " AND n.nspname NOT LIKE 'searchapp%' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
            " ORDER BY 1 LIMIT 1000"
        )
    )
    raise errors.InvalidInput(f"no table {name}; {database.near(name, list(every))}")


def _persistently(engine: Engine, run: Callable[[Connection], T]) -> T:
    """Run something in a transaction, again where somebody has the table."""
    with roles.needed(roles.OWNER, lambda: database.user_of(engine)):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with database.translated(), engine.begin() as connection:
                    return run(connection)
            except errors.LockNotAvailable as exc:
                if attempt == ATTEMPTS:
                    raise errors.LockNotAvailable(
                        "somebody's transaction has the table; nothing was done, try again when that has ended"
                    ) from exc
    raise AssertionError  # the last attempt returns or raises
