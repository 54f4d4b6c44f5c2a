"""The worker: encodes the queries that are asked for from SQL, by ``searchapp.embed()`` and ``searchapp.search()``.

Several may run, on one host or many. Each locks the rows of the queries that it takes, so that no other takes them, and
writes their embeddings in the same transaction: of one that dies, they are another's at once.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import psycopg
from sqlalchemy import Engine

from searchapp import database, errors, roles
from searchapp.encoders import Encoder
from searchapp.encoders.registry import Registry
from searchapp.encoders.weights import EXTERNAL
from searchapp.wire import Parameter

logger = logging.getLogger("searchapp")

LOOK_SECONDS = 0.2  # between looks, where no notification comes
BEAT_SECONDS = 5.0  # between signs of life; who shows none for a minute counts as gone
TIDY_SECONDS = 60.0
TIDY_QUERIES = 1000
RETRY_SECONDS = 0.5
# So many queries are encoded together: each of them waits for all.
BATCH = 32
# So many embeddings are kept, 1.5 kB each at 384 dimensions; the oldest go first.
KEPT = 100_000
# So long a model that could not be loaded is not tried again; and so long a query waits for a worker that has it.
FAILED_SECONDS = 10.0
OTHERS_SECONDS = 0.5

# What a worker outlives.
_PASSING = (errors.DatabaseUnavailable, errors.LockNotAvailable, errors.QueryCanceled, errors.DiskFull)
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
class _Model:
    """A model as its row says."""

    id: int
    name: str
    revision: str


class Worker:
    """Answers what is asked for in one database. One thread calls ``run``; ``stop`` is for any, signal handlers too.

    :param kept: how many embeddings are kept.
    """

    def __init__(self, engine: Engine, registry: Registry, *, kept: int = KEPT) -> None:
        self._engine = engine
        self._kept = kept
        self._stopped = False
        self._encoders = _Encoders(registry)
        self._id: int | None = None

    def stop(self) -> None:
        """Let ``run`` return once it has answered what it has taken."""
        self._stopped = True

    def run(self) -> None:
        """Answer until it is stopped, whatever becomes of the database meanwhile.

        :raises errors.DatabaseError: the database cannot be had at the beginning, or is not as this code needs it.
        """
        begun = False
        while not self._stopped:
            try:
                with self._session() as session:
                    if not begun:
                        logger.info("worker %d answers; Ctrl-C ends it", session.id)
                    begun = True
                    self._serve(session)
            except _PASSING as exc:
                if not begun:
                    raise
                logger.warning("%s; the worker goes on when it can", exc)
                time.sleep(RETRY_SECONDS)

    def run_once(self) -> int:
        """Answer what waits now; how many queries that were.

        :raises errors.DatabaseError: the database cannot be had, or is not as this code needs it.
        """
        answered = 0
        with self._session() as session:
            while not self._stopped:
                models = session.asked_models()
                for model in models:
                    self._encoders.wait(model)
                done = sum(self._answer(session, model, 0.0) for model in models)
                if not done:
                    break
                answered += done
            session.tidy(self._kept)
        return answered

    def _serve(self, session: _Session) -> None:
        for model in session.used_models():
            self._encoders.begin(model)
        beaten, tidied, written, told = 0.0, 0.0, 0, ""
        while not self._stopped:
            now = time.monotonic()
            if now - beaten > BEAT_SECONDS or told != self._encoders.doing():
                told = self._encoders.doing()
                session.beat(told)
                beaten = now
            if now - tidied > TIDY_SECONDS or written >= TIDY_QUERIES:
                session.tidy(self._kept)
                tidied, written = now, 0
            answered = sum(self._answer(session, model, OTHERS_SECONDS) for model in session.asked_models())
            written += answered
            if not answered:
                session.wait(LOOK_SECONDS)

    def _answer(self, session: _Session, model: _Model, patience: float) -> int:
        """Answer queries by one model; how many: none while it is being loaded.

        :param patience: where it cannot be loaded, only those that have waited for so long.
        """
        self._encoders.begin(model)
        try:
            encoder = self._encoders.get(model)
        except Exception as exc:  # whatever it is, whoever asks is to know
            return session.refuse(model, _in_a_line(exc), patience)
        return 0 if encoder is None else session.answer(model, encoder)

    @contextmanager
    def _session(self) -> Iterator[_Session]:
        user = partial(database.user_of, self._engine)
        with roles.needed(roles.OWNER, user), database.translated(), self._engine.connect() as connection:
            database.require_ready(database.inspect_server(connection))
            connection.rollback()
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            connection.detach()  # what is set in it is not for others
            driver.autocommit = True
            session = _Session(driver, self._id)
            session.beat(self._encoders.doing())
            self._id = session.id
            try:
                yield session
            finally:
                with suppress(psycopg.Error):
                    session.leave()


class _Encoders:
    """The models that were asked for, each loaded in the background: that may take a minute, and others go on."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="searchapp-loader")
        self._loading: dict[_Model, Future[Encoder]] = {}
        self._failed: dict[_Model, float] = {}

    def begin(self, model: _Model) -> None:
        """Begin to load a model, unless that was begun; one that failed, after a while."""
        if time.monotonic() - self._failed.get(model, time.monotonic()) > FAILED_SECONDS:
            del self._failed[model], self._loading[model]
        if model not in self._loading:
            self._loading[model] = self._loader.submit(self._load, model)

    def get(self, model: _Model) -> Encoder | None:
        """A model that was begun, None while it is being loaded; raises what was raised in loading it."""
        loading = self._loading[model]
        if not loading.done():
            return None
        if loading.exception() is not None:
            self._failed.setdefault(model, time.monotonic())
        return loading.result()

    def wait(self, model: _Model) -> None:
        """Wait until a model is loaded, or could not be."""
        self.begin(model)
        self._loading[model].exception()

    def doing(self) -> str:
        """What the worker does, for people."""
        names = [model.name for model, loading in self._loading.items() if not loading.done()]
        return f"loading {', '.join(names)}" if names else "answering"

    def _load(self, model: _Model) -> Encoder:
        encoder = self._registry.encoder(model.name)
        if encoder.model.revision != model.revision:
            raise errors.ModelMismatch(
                f"other weights of {model.name} are here ({encoder.model.revision[:12]}) than those that collections "
                f"were made with ({model.revision[:12]})"
            )
        encoder.encode_queries(["a"])  # the first takes longer
        return encoder


class _Session:
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

    def beat(self, doing: str) -> None:
        """Show that the worker is alive, and what it does."""
        seen = "UPDATE searchapp_data.workers SET seen_at = clock_timestamp(), doing = $2 WHERE id = $1"
        if self._known is None or not self._run(seen, [self._known, doing]).rowcount:
            begun = "INSERT INTO searchapp_data.workers (host, doing) VALUES ($1, $2) RETURNING id"
            row = self._run(begun, [socket.gethostname(), doing]).fetchone()
            assert row is not None
            (self._known,) = row

    def leave(self) -> None:
        """Take the worker's row away, so that nobody waits for it."""
        self._run("DELETE FROM searchapp_data.workers WHERE id = $1", [self.id])

    def used_models(self) -> list[_Model]:
        """The models that collections are searched by."""
        return [_Model(*row) for row in self._run(_USED_MODELS, [])]

    def asked_models(self) -> list[_Model]:
        """The models that queries wait for."""
        return [_Model(*row) for row in self._run(_ASKED_MODELS, [])]

    def wait(self, seconds: float) -> None:
        """Wait until something is asked for, or so long."""
        for _ in self._driver.notifies(timeout=seconds, stop_after=1):
            pass

    def answer(self, model: _Model, encoder: Encoder) -> int:
        """Encode the oldest of the queries that wait for a model, all together; how many."""
        with self._driver.transaction():
            asked, texts = self._take(model, 0.0)
            outcomes = _encode(encoder, list(texts.values()))
            for text_hash, outcome in sorted(zip(texts, outcomes, strict=True), key=itemgetter(0)):
                self._write(model, text_hash, outcome)
        return asked

    def refuse(self, model: _Model, reason: str, waited: float) -> int:
        """Say to those who wait for a model that it cannot be had; to how many.

        :param waited: seconds that they must have waited: another worker may have the model.
        """
        reason = f"a worker on {socket.gethostname()} cannot encode by {model.name}: {reason}"
        with self._driver.transaction():
            asked, texts = self._take(model, waited)
            for text_hash in sorted(texts):
                self._write(model, text_hash, reason)
        return asked

    def _take(self, model: _Model, waited: float) -> tuple[int, dict[bytes, str]]:
        """Take requests away; how many, and the texts that have no embedding yet, by their hashes."""
        rows = self._run(_TAKE, [model.id, waited, BATCH]).fetchall()
        return len(rows), {text_hash: text for text_hash, text, known in rows if not known}

    def _write(self, model: _Model, text_hash: bytes, outcome: Parameter | str) -> None:
        refused = isinstance(outcome, str)
        self._run(_WRITE, [model.id, text_hash, None if refused else outcome, outcome if refused else None])

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
            return [_in_a_line(exc)]
    return [outcome for text in texts for outcome in _encode(encoder, [text])]


def _in_a_line(exc: Exception) -> str:
    words = " ".join(str(exc).split())
    return words if isinstance(exc, errors.SearchAppError) and words else f"{type(exc).__name__}: {words}"
