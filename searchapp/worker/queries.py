"""The queries that are asked for from SQL, by ``searchapp.embed()`` and ``searchapp.search()``.

A worker locks the rows of the queries that it takes, so that no other takes them, and writes their embeddings in the
same transaction: of one that dies, they are another's at once.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import psycopg

from searchapp import database, errors
from searchapp.encoders import Encoder
from searchapp.encoders.weights import EXTERNAL
from searchapp.wire import Parameter
from searchapp.worker.encoding import Known

# So many queries are encoded together: each of them waits for all.
BATCH = 32
# A worker that hangs in the middle of a batch loses it.
_SET_UP = (
    "SET synchronous_commit = off",
    "SET idle_in_transaction_session_timeout = '5min'",
    "LISTEN searchapp_queries",
)
_REQUESTS = "searchapp_private.query_requests"
_EMBEDDINGS = "searchapp_private.query_embeddings"
_MODELS = "SELECT m.id, m.name, m.revision FROM searchapp_data.models m WHERE "
_ASKED_MODELS = f"{_MODELS} EXISTS (SELECT FROM {_REQUESTS} r WHERE r.model_id = m.id)"
_USED_MODELS = (
    f"{_MODELS} m.provider <> '{EXTERNAL}' AND EXISTS (SELECT FROM searchapp_data.collections c"
    " JOIN searchapp_data.spaces s ON s.id = c.active_space WHERE s.model_id = m.id AND c.state = 'ready')"
)
_TAKE = (
    f"DELETE FROM {_REQUESTS} r WHERE r.ctid = ANY (ARRAY(SELECT o.ctid FROM {_REQUESTS} o"
    " WHERE o.model_id = $1 AND o.asked_at <= clock_timestamp() - make_interval(secs => $2)"
    " ORDER BY o.asked_at LIMIT $3 FOR UPDATE SKIP LOCKED))"
    f" RETURNING r.text_hash, r.text, EXISTS (SELECT FROM {_EMBEDDINGS} q WHERE q.model_id = r.model_id"
    " AND q.text_hash = r.text_hash AND q.error IS NULL)"
)
_WRITE = (
    f"INSERT INTO {_EMBEDDINGS} (model_id, text_hash, embedding, error) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT (model_id, text_hash) DO UPDATE"
    " SET embedding = excluded.embedding, error = excluded.error, made_at = excluded.made_at"
)
_TIDY = (
    f"DELETE FROM {_REQUESTS} WHERE ctid = ANY (ARRAY("
    f"SELECT r.ctid FROM {_REQUESTS} r WHERE r.asked_at < now() - interval '1 hour' FOR UPDATE SKIP LOCKED))",
    f"DELETE FROM {_EMBEDDINGS} WHERE (model_id, text_hash) IN ("
    f"SELECT q.model_id, q.text_hash FROM {_EMBEDDINGS} q WHERE q.made_at < ("
    f"SELECT n.made_at FROM {_EMBEDDINGS} n ORDER BY n.made_at DESC OFFSET $1 LIMIT 1) FOR UPDATE SKIP LOCKED)",
    "DELETE FROM searchapp_data.workers WHERE seen_at < now() - interval '1 day'",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A model that queries are encoded by, and the id of its row."""

    id: int
    model: Known


class Queries:
    """The worker's connection, in autocommit.

    :param known: the number of the worker, where it has one from an earlier session.
    """

    def __init__(self, driver: psycopg.Connection[Any], known: int | None) -> None:
        self._driver = driver
        self._cursor = database.raw_cursor(driver)
        self._known = known
        for statement in _SET_UP:
            driver.execute(statement.encode())

    @property
    def id(self) -> int:
        assert self._known is not None
        return self._known

    def beat(self, doing: str, rates: Mapping[int, float]) -> None:
        """Show that the worker is alive, what it does, and how many rows a second it wrote of each source lately."""
        seen = (
            "UPDATE searchapp_data.workers SET seen_at = clock_timestamp(), doing = $2, rates = $3::jsonb WHERE id = $1"
        )
        told = [doing, json.dumps(rates)]
        if self._known is None or not self._run(seen, [self._known, *told]).rowcount:
            begun = "INSERT INTO searchapp_data.workers (host, doing, rates) VALUES ($1, $2, $3::jsonb) RETURNING id"
            row = self._run(begun, [socket.gethostname(), *told]).fetchone()
            assert row is not None
            (self._known,) = row

    def leave(self) -> None:
        """Take the worker's row away, so that nobody waits for it."""
        self._run("DELETE FROM searchapp_data.workers WHERE id = $1", [self.id])

    def used_models(self) -> list[Asked]:
        """The models that collections are searched by."""
        return [Asked(row[0], Known(*row[1:])) for row in self._run(_USED_MODELS, [])]

    def asked_models(self) -> list[Asked]:
        """The models that queries wait for."""
        return [Asked(row[0], Known(*row[1:])) for row in self._run(_ASKED_MODELS, [])]

    def wait(self, seconds: float) -> None:
        """Wait until something is asked for, or so long."""
        for _ in self._driver.notifies(timeout=seconds, stop_after=1):
            pass

    def answer(self, asked: Asked, encoder: Encoder) -> int:
        """Encode the oldest of the queries that wait for a model, all together; how many."""
        with self._driver.transaction():
            count, texts = self._take(asked, 0.0)
            outcomes = _encode(encoder, list(texts.values()))
            for text_hash, outcome in sorted(zip(texts, outcomes, strict=True), key=itemgetter(0)):
                self._write(asked, text_hash, outcome)
        return count

    def refuse(self, asked: Asked, reason: str, waited: float) -> int:
        """Say to those who wait for a model that it cannot be had; to how many.

        :param waited: seconds that they must have waited: another worker may have the model.
        """
        reason = f"a worker on {socket.gethostname()} cannot encode by {asked.model.name}: {reason}"
        with self._driver.transaction():
            count, texts = self._take(asked, waited)
            for text_hash in sorted(texts):
                self._write(asked, text_hash, reason)
        return count

    def _take(self, asked: Asked, waited: float) -> tuple[int, dict[bytes, str]]:
        """Take requests away; how many, and the texts that have no embedding yet, by their hashes."""
        rows = self._run(_TAKE, [asked.id, waited, BATCH]).fetchall()
        return len(rows), {text_hash: text for text_hash, text, known in rows if not known}

    def _write(self, asked: Asked, text_hash: bytes, outcome: Parameter | str) -> None:
        refused = isinstance(outcome, str)
        self._run(_WRITE, [asked.id, text_hash, None if refused else outcome, outcome if refused else None])

    def tidy(self, kept: int) -> None:
        """Forget the oldest embeddings, what nobody waits for any more, and workers that are long gone."""
        for statement in _TIDY:
            self._run(statement, [kept - 1] if "$1" in statement else [])

    def _run(self, statement: str, parameters: Sequence[Any]) -> psycopg.RawCursor[tuple[Any, ...]]:
        return self._cursor.execute(statement.encode(), parameters)


def _encode(encoder: Encoder, texts: list[str]) -> list[Parameter | str]:
    """The embedding of each text, or what is in its way."""
    if not texts:
        return []
    try:
        return [Parameter(vector) for vector in encoder.encode_queries(texts)]
    except Exception as exc:  # of one of them, perhaps
        if len(texts) == 1:
            return [errors.in_a_line(exc)]
    return [outcome for text in texts for outcome in _encode(encoder, [text])]
