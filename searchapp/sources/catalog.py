"""The sources of a database as its workers see them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, select, text, update

from searchapp import database, errors, models
from searchapp.encoders import weights


@dataclass(frozen=True, slots=True)
class Source:
    """A user's table, and what its rows become; as :class:`searchapp.models.Source`."""

    id: int
    name: str
    collection: str | None
    collection_id: int | None
    into_column: str | None
    model: str
    table_schema: str
    table_name: str
    key: tuple[str, ...]
    key_types: tuple[str, ...]
    title: str | None
    text: tuple[str, ...]
    metadata: tuple[str, ...]
    condition: str | None
    polled_by: str | None
    polled_until: str | None
    polled_latest: str | None
    polled_at: datetime | None
    backfilled: bool
    backfilled_until: str | None
    enqueued: int
    checked_at: datetime | None

    def __str__(self) -> str:
        return self.name


def running(connection: Connection) -> list[Source]:
    """The sources that are to be kept in step, in the order of their ids."""
    statement = select(models.Source).where(models.Source.state == "running").order_by(models.Source.id)
    return [_read(row) for row in connection.execute(statement).mappings()]


def by_id(connection: Connection, source_id: int) -> Source:
    """A source, whatever its state."""
    return _read(connection.execute(select(models.Source).where(models.Source.id == source_id)).mappings().one())


def require(connection: Connection, name: str) -> None:
    """Check that there is a source of that name.

    :raises errors.InvalidInput: there is none; names the near ones.
    """
    names = list(connection.scalars(select(models.Source.name).order_by(models.Source.name)))
    if name not in names:
        raise errors.InvalidInput(f"no source {name!r}; {database.near(name, names)}")


def problem(connection: Connection, source: Source) -> str | None:
    """What is in the way of reading a source's rows, None where nothing is."""
    statement = text("SELECT searchapp_private.source_problem(s) FROM searchapp_data.sources s WHERE s.id = :id")
    found: str | None = connection.scalar(statement, {"id": source.id})
    return found


def mark_broken(connection: Connection, source: Source, reason: str) -> None:
    """Leave a source alone, until somebody mends what is in its way and resumes it."""
    statement = update(models.Source).where(models.Source.id == source.id, models.Source.state == "running")
    connection.execute(statement.values(state="broken", reason=reason))


def _read(row: RowMapping) -> Source:
    values = {field.name: row[field.name] for field in dataclasses.fields(Source)}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return Source(**{**values, **lists, "model": row["model"] or weights.DEFAULT})
