"""Rows that could not be encoded: tried again after a while, then parked with their error."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from searchapp.sources import catalog
from searchapp.sources.catalog import Source

# Seconds until a row is tried again, by how often it has failed; after that it is parked.
DELAYS = (1, 10, 60, 600, 3600)
# One that is locked is not parked.
LOCKED_SECONDS = 60.0

# A row that is being tried again is marked by an endless delay; another failure of it counts on, while that of a row
# that has changed since begins anew.
_NOTE = text("""
INSERT INTO searchapp_data.failures AS f (source_id, key, attempts, retry_at, error)
SELECT :source_id, n.key, 1, CASE WHEN :final THEN NULL ELSE now() + make_interval(secs => :first) END, n.error
FROM unnest(CAST(:keys AS text[]), CAST(:errors AS text[])) n (key, error)
ON CONFLICT (source_id, key) DO UPDATE SET
  attempts = CASE WHEN f.retry_at = 'infinity' THEN f.attempts + 1 ELSE 1 END,
  retry_at = CASE WHEN :final THEN NULL ELSE now() + make_interval(secs => (CAST(:delays AS float8[]))[
    CASE WHEN f.retry_at = 'infinity' THEN f.attempts + 1 ELSE 1 END]) END,
  error = excluded.error, at = excluded.at
""")
# However often it was so: the longer a row is locked, the more rarely it is looked at.
_PUT_OFF = text("""
INSERT INTO searchapp_data.failures AS f (source_id, key, attempts, retry_at, error)
SELECT :source_id, k.key, 1, now() + make_interval(secs => 1), 'the row is locked by another transaction'
FROM unnest(CAST(:keys AS text[])) k (key)
ON CONFLICT (source_id, key) DO UPDATE SET
  attempts = f.attempts + 1, retry_at = now() + make_interval(secs => least(power(2, least(f.attempts, 10)), :longest)),
  error = excluded.error, at = excluded.at
""")
_CLEAR = text("DELETE FROM searchapp_data.failures WHERE source_id = :source_id AND key = ANY(:keys)")
_RETRY = """
WITH due AS (
  UPDATE searchapp_data.failures f SET retry_at = 'infinity' FROM searchapp_data.sources s
  WHERE s.id = f.source_id AND {which} RETURNING f.source_id, f.key
)
INSERT INTO searchapp_data.changes (source_id, lane, key)
SELECT d.source_id, searchapp_private.lane_of(d.key), d.key FROM due d
"""
_DUE = text(_RETRY.format(which="f.retry_at <= now() AND s.state = 'running'"))
_PARKED = text(_RETRY.format(which="f.retry_at IS NULL AND (CAST(:name AS text) IS NULL OR s.name = :name)"))


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that could not be encoded; ``retry_at`` is None where it is parked."""

    source: str
    key: str
    attempts: int
    retry_at: datetime | None
    error: str


def note(connection: Connection, source: Source, errors: Mapping[str, str], *, final: bool = False) -> None:
    """Note why rows could not be encoded, by their keys.

    :param final: trying again would be of no use.
    """
    if errors:
        values = {"keys": list(errors), "errors": list(errors.values()), "final": final}
        connection.execute(_NOTE, {"source_id": source.id, "first": DELAYS[0], "delays": list(DELAYS), **values})


def put_off(connection: Connection, source: Source, keys: Collection[str]) -> None:
    """Have rows looked at again a moment later, for somebody has locked them."""
    if keys:
        values = {"keys": list(keys), "longest": LOCKED_SECONDS}
        connection.execute(_PUT_OFF, {"source_id": source.id, **values})


def clear(connection: Connection, source: Source, keys: Sequence[str]) -> None:
    """Forget the failures of rows that have been written."""
    connection.execute(_CLEAR, {"source_id": source.id, "keys": list(keys)})


def retry_due(connection: Connection) -> int:
    """Have the rows looked at again whose time has come; how many these are."""
    return connection.execute(_DUE).rowcount


def retry_parked(connection: Connection, name: str | None = None) -> int:
    """Have parked rows looked at again; how many these are.

    :param name: of a source; None: those of all.
    :raises errors.InvalidInput: there is no such source.
    """
    if name is not None:
        catalog.require(connection, name)
    return connection.execute(_PARKED, {"name": name}).rowcount


def listed(connection: Connection, name: str | None = None) -> list[Failure]:
    """The rows that have failed, parked ones first.

    :param name: of a source; None: those of all.
    :raises errors.InvalidInput: there is no such source.
    """
    if name is not None:
        catalog.require(connection, name)
    statement = text(
        "SELECT s.name, f.key, f.attempts, nullif(f.retry_at, 'infinity'), f.error FROM searchapp_data.failures f"
        " JOIN searchapp_data.sources s ON s.id = f.source_id WHERE CAST(:name AS text) IS NULL OR s.name = :name"
        " ORDER BY f.retry_at IS NOT NULL, s.name, f.key"
    )
    return [Failure(*row) for row in connection.execute(statement, {"name": name})]
