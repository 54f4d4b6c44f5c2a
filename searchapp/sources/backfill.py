"""The first reading of a source's rows: their keys are put into the log, page by page, and from there they take the way
of every change. It goes on where it stood, whoever goes on."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, case, func, or_, select, update

from searchapp import models
from searchapp.sources import log, rows
from searchapp.sources.catalog import Source
from searchapp.sources.session import Session

# "fill" in hexadecimal: the class of the advisory locks of those who fill the log of a source, by its id.
FILL_LOCK = 0x66696C6C
PAGE = 1000
# So many keys may wait: what changes meanwhile waits for no more than these.
WAITING = 2000


def advance(session: Session, source: Source) -> bool:
    """Put the next keys into the log, unless enough wait there or another worker is at it; whether some were put."""
    with session.locks(FILL_LOCK) as locks:
        if not locks.take(source.id):
            return False
        with session.transaction() as connection:  # later than the lock
            until = connection.execute(
                select(models.Source.backfilled_until).where(
                    models.Source.id == source.id,
                    models.Source.state == "running",
                    ~models.Source.backfilled,
                    # what changes from here on is to be noted
                    or_(models.Source.polled_by.is_(None), models.Source.polled_until.is_not(None)),
                )
            ).one_or_none()
            if until is None or waiting(connection, source) >= WAITING:
                return False
            keys = rows.keys_after(connection, source, until.backfilled_until, PAGE)
            log.append(connection, source, keys)
            _note(connection, source, keys, first=until.backfilled_until is None)
        return True


def _note(connection: Connection, source: Source, keys: list[str], *, first: bool) -> None:
    done = len(keys) < PAGE
    values: dict[str, Any] = {"enqueued": models.Source.enqueued + len(keys), "backfilled": done}
    if keys:
        values["backfilled_until"] = keys[-1]
    # All is compared once it has been read, unless it was noted from the beginning: who resumes a source in between
    # leaves a NULL, and a polled one has changes that were committed late.
    if first and source.polled_by is None:
        values["checked_at"] = func.now() if done else "epoch"
    elif done:
        values["checked_at"] = case((models.Source.checked_at.is_not(None), func.now()))
    connection.execute(update(models.Source).where(models.Source.id == source.id).values(values))


def waiting(connection: Connection, source: Source) -> int:
    """How many rows of the log wait, up to ``WAITING``."""
    first = select(models.changes.c.id).where(models.changes.c.source_id == source.id).limit(WAITING)
    return connection.scalar(select(func.count()).select_from(first.subquery())) or 0
