"""A batch: some keys are taken from the log, their rows read as they are now, encoded, and written."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import psycopg
import sqlalchemy.exc

from searchapp import errors, faults
from searchapp.sources import catalog, failures, log, rows
from searchapp.sources.catalog import Source
from searchapp.sources.log import Taken
from searchapp.sources.session import Session
from searchapp.sources.writing import Target

logger = logging.getLogger("searchapp")

# Classes of SQLSTATE that say something of a row: data, constraints, limits, what a trigger on a table with a vector
# column raises, and what the server did not expect.
_OF_ROWS = ("22", "23", "54", "P0", "XX")


def work_off(session: Session, source: Source, target: Target, lanes: Sequence[int]) -> int:
    """Bring the oldest changes of some lanes to where the source is kept.

    :param lanes: that have something; those that another worker has are left to it.
    :return: how many keys were dealt with; 0 where nothing was to be had.
    :raises errors.DatabaseError: the database cannot be had; what was taken is there for the next.
    """
    with log.taking(session, source, lanes) as taken:
        if taken.emptied:
            with session.transaction() as connection:
                log.expand(connection, taken, target.collection_id)
            return len(taken.emptied)
        if taken.ids:
            _settle(session, source, target, taken, taken.keys)
        return len(taken.ids)


def _settle(session: Session, source: Source, target: Target, taken: Taken, keys: Sequence[str]) -> None:
    """Write some of the taken rows; of those that cannot be together, the halves, down to the one that fails."""
    try:
        _write(session, source, target, taken, keys)
    except Exception as exc:
        if not _is_of_rows(exc):
            raise
        if len(keys) == 1:
            logger.warning(
                "the row %s of the source %s cannot be encoded: %s", _short(keys[0]), source, errors.in_a_line(exc)
            )
            _give_up(session, source, taken, keys[0], errors.in_a_line(exc))
            return
        half = len(keys) // 2
        for part in (keys[:half], keys[half:]):
            _settle(session, source, target, taken, part)


def _write(session: Session, source: Source, target: Target, taken: Taken, keys: Sequence[str]) -> None:
    with session.transaction() as connection:  # a later one than that which took: it sees what was committed
        found = rows.read(connection, source, keys)
    faults.point("rows-are-read")
    prepared = target.prepare(session, keys, found)
    faults.point("rows-are-encoded")
    with session.transaction() as connection:
        log.delete(connection, taken, keys)
        written = prepared.write(connection)
        left = written.refused.keys() | set(written.put_off)
        failures.clear(connection, source, [key for key in keys if key not in left])
        failures.note(connection, source, written.refused, final=True)
        failures.put_off(connection, source, written.put_off)
        faults.point("before-commit")


def _give_up(session: Session, source: Source, taken: Taken, key: str, error: str) -> None:
    with session.transaction() as connection:
        log.delete(connection, taken, [key])
        try:
            with connection.begin_nested():
                failures.note(connection, source, {key: error})
        except sqlalchemy.exc.OperationalError as exc:
            if not isinstance(exc.orig, psycopg.errors.ProgramLimitExceeded):
                raise
            logger.warning("that cannot be noted, for its key is too long; it is left alone until it changes")


def _is_of_rows(exc: Exception) -> bool:
    """Whether it is the matter with a row, not with the database or the model."""
    cause = exc.orig if isinstance(exc, sqlalchemy.exc.DBAPIError) else exc
    if isinstance(cause, psycopg.Error):
        return isinstance(cause, psycopg.DataError) or (cause.sqlstate or "").startswith(_OF_ROWS)
    return not isinstance(exc, errors.SearchAppError | sqlalchemy.exc.SQLAlchemyError)


def _short(key: str) -> str:
    return key if len(key) <= 80 else f"{key[:77]}..."


def explain(session: Session, source: Source) -> bool:
    """Mark a source as broken where something is in the way of reading its rows; whether that is so."""
    with session.transaction() as connection:
        reason = catalog.problem(connection, source)
        if reason is not None:
            logger.warning(
                "the source %s is broken: %s; mend that, then: searchapp source resume %s", source, reason, source
            )
            catalog.mark_broken(connection, source, reason)
    return reason is not None
