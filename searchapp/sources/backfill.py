"""The first reading of a source's rows: their keys are put into the log, page by page, and from there they take the way
of every change. It goes on where it stood, whoever goes on."""

from __future__ import annotations

from sqlalchemy import Connection, func, select, update

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
                    models.Source.id == source.id, models.Source.state == "running", ~models.Source.backfilled
                )
            ).one_or_none()
            if until is None or _waiting(connection, source) >= WAITING:
                return False
            keys = rows.keys_after(connection, source, until.backfilled_until, PAGE)
            log.append(connection, source, keys)
            _note(connection, source, keys)
        return True


def _note(connection: Connection, source: Source, keys: list[str]) -> None:
    done = len(keys) < PAGE
    values = {"enqueued": models.Source.enqueued + len(keys), "backfilled": done}
    if keys:
        values["backfilled_until"] = keys[-1]
    connection.execute(update(models.Source).where(models.Source.id == source.id).values(values))


def _waiting(connection: Connection, source: Source) -> int:
    first = select(models.changes.c.id).where(models.changes.c.source_id == source.id).limit(WAITING)
    return connection.scalar(select(func.count()).select_from(first.subquery())) or 0
