"""The log of what has changed in the tables of sources: triggers append to it, and so does whoever compares.

The keys of a source are dealt into lanes by their hashes. Who takes from a lane holds its advisory lock from before it
looks what is there until that is written, so that a key is in one hand at a time. It is a lock of the session: that of
a worker that dies is free at once.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from searchapp import errors
from searchapp.sources.catalog import Source
from searchapp.sources.session import Session

# "lane" in hexadecimal: the class of the lanes' advisory locks.
LANE_LOCK = 0x6C616E65
LANES = 16
# So many keys are taken together, by at most so many rows of the log; many edits of one row are one.
BATCH_KEYS = 64
MOST_ROWS = 20_000

# Skips from one lane that has rows to the next, so it costs as much as there are such lanes.
_LOOK = text("""
WITH RECURSIVE lanes AS (
  (SELECT source_id, lane FROM searchapp_data.changes ORDER BY source_id, lane LIMIT 1)
  UNION ALL
  SELECT n.source_id, n.lane FROM lanes l CROSS JOIN LATERAL (
    SELECT c.source_id, c.lane FROM searchapp_data.changes c
    WHERE (c.source_id, c.lane) > (l.source_id, l.lane) ORDER BY c.source_id, c.lane LIMIT 1
  ) n
)
SELECT l.source_id, l.lane FROM lanes l JOIN searchapp_data.sources s ON s.id = l.source_id WHERE s.state = 'running'
""")
_OLDEST = text(
    "SELECT id, key FROM searchapp_data.changes WHERE source_id = :source_id AND lane = :lane ORDER BY id LIMIT :limit"
)
# It must be all of them: fewer would mean that somebody else has taken some. Never by the largest id: a smaller one may
# be committed later.
_DELETE = text(
    "DELETE FROM searchapp_data.changes WHERE source_id = :source_id AND lane = ANY(:lanes) AND id = ANY(:ids)"
)
_APPEND = text(
    "INSERT INTO searchapp_data.changes (source_id, lane, key)"
    " SELECT :source_id, searchapp_private.lane_of(k.key), k.key FROM unnest(CAST(:keys AS text[])) k (key)"
)
# All rows of a lane that are known of: of a collection, or of a column.
_EXPAND = text("""
INSERT INTO searchapp_data.changes (source_id, lane, key)
SELECT :source_id, CAST(:lane AS smallint), k.key FROM (
  SELECT d.key FROM searchapp_data.documents d WHERE d.collection_id = :collection_id
  UNION
  SELECT r.key FROM searchapp_data.source_rows r WHERE r.source_id = :source_id
  UNION
  SELECT f.key FROM searchapp_data.failures f WHERE f.source_id = :source_id
) k WHERE searchapp_private.lane_of(k.key) = :lane
""")


class TakenByAnother(errors.SearchAppError):
    """Rows of the log that were taken are gone: what was read for them may be older than what was written."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Rows of the log: ids by the keys that they are about. ``emptied`` are those that say that a lane was emptied, by
    lanes."""

    source_id: int
    ids: dict[str, list[int]] = field(default_factory=dict)
    lanes: dict[str, int] = field(default_factory=dict)
    emptied: dict[int, list[int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.ids or self.emptied)

    @property
    def keys(self) -> list[str]:
        return list(self.ids)


def look(connection: Connection) -> dict[int, list[int]]:
    """The lanes that have something, by the ids of running sources."""
    lanes: dict[int, list[int]] = {}
    for source_id, lane in connection.execute(_LOOK):
        lanes.setdefault(source_id, []).append(lane)
    return lanes


@contextmanager
def taking(session: Session, source: Source, lanes: Sequence[int], keys: int = BATCH_KEYS) -> Iterator[Taken]:
    """Take the oldest rows of lanes that nobody else has, as many as it takes for so many keys; nothing is deleted yet.

    :param lanes: that have something; they are taken in any order, so that workers do not meet in the first one.
    """
    taken = Taken(source.id)
    with session.locks(LANE_LOCK) as locks:
        for lane in random.sample(list(lanes), len(lanes)):
            if locks.take(source.id * LANES + lane):
                with session.transaction() as connection:  # later than the lock
                    _take(connection, taken, lane, keys - len(taken.ids))
                if len(taken.ids) >= keys:
                    break
        yield taken


def _take(connection: Connection, taken: Taken, lane: int, keys: int) -> None:
    limit = 4 * keys
    while True:
        found = connection.execute(_OLDEST, {"source_id": taken.source_id, "lane": lane, "limit": limit}).all()
        if len(found) < limit or len({key for _, key in found}) >= keys or limit >= MOST_ROWS:
            break
        limit *= 4
    by_key: dict[str | None, list[int]] = {}
    for row_id, key in found:
        by_key.setdefault(key, []).append(row_id)
    if emptied := by_key.pop(None, None):
        taken.emptied[lane] = emptied
    for key, ids in itertools.islice(by_key.items(), keys):
        assert key is not None
        taken.ids[key], taken.lanes[key] = ids, lane


def delete(connection: Connection, taken: Taken, keys: Sequence[str]) -> None:
    """Delete the rows that were taken for some keys.

    :raises TakenByAnother: some are gone; the transaction must not be committed.
    """
    ids = [row_id for key in keys for row_id in taken.ids[key]]
    _delete(connection, taken.source_id, sorted({taken.lanes[key] for key in keys}), ids)


def _delete(connection: Connection, source_id: int, lanes: list[int], ids: list[int]) -> None:
    deleted = connection.execute(_DELETE, {"source_id": source_id, "lanes": lanes, "ids": ids})
    if deleted.rowcount != len(ids):
        raise TakenByAnother("rows of the log were taken by another worker")


def expand(connection: Connection, taken: Taken, collection_id: int | None) -> None:
    """Put a row for each key that is known of in the place of those that say that a lane was emptied.

    Each lane by who holds it: were it done for all at once, a document that another is writing just now would stay.

    :param collection_id: of the collection that is fed; None where it is a column.
    """
    for lane, ids in taken.emptied.items():
        values = {"source_id": taken.source_id, "lane": lane, "collection_id": collection_id}
        connection.execute(_EXPAND, values)
        _delete(connection, taken.source_id, [lane], ids)


def append(connection: Connection, source: Source, keys: Sequence[str]) -> None:
    """Have some rows looked at."""
    if keys:
        connection.execute(_APPEND, {"source_id": source.id, "keys": list(keys)})
