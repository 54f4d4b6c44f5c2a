"""Comparing a source with its table as a whole, for whoever asks."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text, update

from searchapp import errors, models
from searchapp.encoders.registry import Registry
from searchapp.sources import backfill, catalog, log, targets
from searchapp.sources.catalog import Source
from searchapp.sources.comparing import Comparison, Found
from searchapp.sources.session import Session, open_session

_FIND = text("SELECT (searchapp_private.find_source(:name)).id")


@dataclass(frozen=True, slots=True)
class Checked:
    """What a comparison found; ``put`` keys of it were put into the log. Where it is not ``complete``, the log had no
    room for others: a worker is to compare all by itself."""

    comparison: Comparison
    put: int
    complete: bool

    @property
    def kinds(self) -> dict[str, Found]:
        found = self.comparison
        return {"missing": found.missing, "changed": found.changed, "gone": found.gone}


def check(engine: Engine, registry: Registry, name: str, *, repair: bool = False) -> Checked:
    """Compare a source with its table.

    :param repair: put what differs into the log, as much as may wait there.
    :raises errors.InvalidInput: its table cannot be read, or is being read for the first time.
    """
    with open_session(engine) as session:
        with session.transaction() as connection:
            source = _find(connection, name)
            comparison = Comparison(targets.open_stored(connection, session.vector_schema, registry, source))
        put, complete = 0, True
        while not comparison.is_done:
            with session.transaction() as connection:
                keys = comparison.advance(connection, source)
                if repair and keys:
                    room = backfill.WAITING - backfill.waiting(connection, source)
                    log.append(connection, source, keys[: max(room, 0)])
                    put += min(len(keys), max(room, 0))
                    complete = complete and len(keys) <= room
        if repair and not complete:
            _have_compared(session, source)
    return Checked(comparison, put, complete)


def _find(connection: Connection, name: str) -> Source:
    """The source, whose table can be read, and has been.

    :raises errors.InvalidInput: that is not so.
    """
    found = catalog.by_id(connection, connection.scalar(_FIND, {"name": name}) or 0)
    if (reason := catalog.problem(connection, found)) is not None:
        raise errors.InvalidInput(f"the source {name} cannot be compared: {reason}")
    if not found.backfilled:
        raise errors.InvalidInput(
            f"the source {name} is being read for the first time; compare it after that: searchapp source status {name}"
        )
    return found


def _have_compared(session: Session, source: Source) -> None:
    with session.transaction() as connection:
        connection.execute(update(models.Source).where(models.Source.id == source.id).values(checked_at=None))
