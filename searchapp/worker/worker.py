"""A worker process: one thread answers queries, others keep sources in step with their tables."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import psycopg
from sqlalchemy import Engine

from searchapp import database, errors, roles
from searchapp.encoders.registry import Registry
from searchapp.sources.session import require_direct
from searchapp.worker.encoding import Loading, QueriesFirst
from searchapp.worker.keeping import POLL_SECONDS, Keeper, Rates
from searchapp.worker.queries import Asked, Queries

logger = logging.getLogger("searchapp")

LOOK_SECONDS = 0.2  # between looks for queries, where no notification comes
BEAT_SECONDS = 5.0  # between signs of life; who shows none for a minute counts as gone
TIDY_SECONDS = 60.0
TIDY_QUERIES = 1000
RETRY_SECONDS = 0.5
# So many embeddings of queries are kept, 1.5 kB each at 384 dimensions; the oldest go first.
KEPT = 100_000
# So long a query waits for a worker that has its model.
OTHERS_SECONDS = 0.5
# So long a batch of rows may go on when the worker is stopped; after that it is left to another.
STOP_SECONDS = 10.0

# What a worker outlives.
PASSING = (errors.DatabaseUnavailable, errors.LockNotAvailable, errors.QueryCanceled, errors.DiskFull)


@dataclass(frozen=True, slots=True)
class Done:
    """What a worker did: how many ``queries`` it answered, and how many ``rows`` of sources it dealt with."""

    queries: int
    rows: int


class Worker:
    """Does what is to be done in one database. One thread calls ``run``; ``stop`` is for any, signal handlers too.

    :param kept: how many embeddings of queries are kept.
    :param concurrency: how many batches of sources' rows are under way at a time; 0: none, queries are answered alone.
    :param poll_interval: seconds between looks for what has changed.
    """

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        *,
        kept: int = KEPT,
        concurrency: int = 1,
        poll_interval: float = POLL_SECONDS,
    ) -> None:
        self._engine = engine
        self._kept = kept
        self._stopped = threading.Event()
        self._loading = Loading(registry)
        self._turns = QueriesFirst()
        self._rates = Rates()
        self._id: int | None = None
        self._keepers = [
            Keeper(engine, registry, self._loading, self._turns, self._stopped, self._rates, poll_interval)
            for _ in range(concurrency)
        ]

    def stop(self) -> None:
        """Let ``run`` return once what it has taken is done."""
        self._stopped.set()

    def run(self) -> None:
        """Work until it is stopped, whatever becomes of the database meanwhile.

        :raises errors.DatabaseError: the database cannot be had at the beginning, or is not as this code needs it.
        """
        threads: list[threading.Thread] = []
        try:
            while not self._stopped.is_set():
                try:
                    with self._session() as queries:
                        if not threads:
                            logger.info("worker %d answers; Ctrl-C ends it", queries.id)
                            threads = self._begin()
                        self._serve(queries)
                except PASSING as exc:
                    if not threads:
                        raise
                    logger.warning("%s; the worker goes on when it can", exc)
                    self._stopped.wait(RETRY_SECONDS)
        finally:
            self._stopped.set()
            _join(threads)

    def run_once(self) -> Done:
        """Do what waits now.

        :raises errors.DatabaseError: the database cannot be had, or is not as this code needs it.
        """
        answered = 0
        with self._session() as queries:
            while not self._stopped.is_set():
                asked = queries.asked_models()
                for each in asked:
                    with suppress(Exception):  # whoever asks is told
                        self._loading.wait(each.model)
                done = sum(self._answer(queries, each, 0.0) for each in asked)
                if not done:
                    break
                answered += done
            queries.tidy(self._kept)
            rows = self._keepers[0].run_once() if self._keepers else 0
        return Done(answered, rows)

    def _begin(self) -> list[threading.Thread]:
        """Start the threads that keep sources in step."""
        threads = [
            threading.Thread(target=keeper.run, name=f"searchapp-keeper-{number}", daemon=True)
            for number, keeper in enumerate(self._keepers, start=1)
        ]
        for thread in threads:
            thread.start()
        return threads

    def _serve(self, queries: Queries) -> None:
        for asked in queries.used_models():
            self._loading.begin(asked.model)
        beaten, tidied, written, told = 0.0, 0.0, 0, ""
        while not self._stopped.is_set():
            now = time.monotonic()
            if now - beaten > BEAT_SECONDS or told != self._loading.doing():
                told = self._loading.doing()
                queries.beat(told, self._rates.latest())
                beaten = now
            if now - tidied > TIDY_SECONDS or written >= TIDY_QUERIES:
                queries.tidy(self._kept)
                tidied, written = now, 0
            answered = sum(self._answer(queries, asked, OTHERS_SECONDS) for asked in queries.asked_models())
            written += answered
            if not answered:
                queries.wait(LOOK_SECONDS)

    def _answer(self, queries: Queries, asked: Asked, patience: float) -> int:
        """Answer queries by one model; how many: none while it is being loaded.

        :param patience: where it cannot be loaded, only those that have waited for so long.
        """
        try:
            encoder = self._loading.get(asked.model)
        except Exception as exc:  # whatever it is, whoever asks is to know
            return queries.refuse(asked, errors.in_a_line(exc), patience)
        if encoder is None:
            return 0
        with self._turns.query():
            return queries.answer(asked, encoder)

    @contextmanager
    def _session(self) -> Iterator[Queries]:
        user = partial(database.user_of, self._engine)
        with roles.needed(roles.OWNER, user), database.translated(), self._engine.connect() as connection:
            database.require_ready(database.inspect_server(connection))
            if self._keepers:
                require_direct(connection)
            connection.rollback()
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            connection.detach()  # what is set in it is not for others
            driver.autocommit = True
            queries = Queries(driver, self._id)
            queries.beat(self._loading.doing(), self._rates.latest())
            self._id = queries.id
            try:
                yield queries
            finally:
                with suppress(psycopg.Error):
                    queries.leave()


def _join(threads: list[threading.Thread]) -> None:
    """Wait for threads to finish their batches; those that do not are left behind, and their sessions end with us."""
    deadline = time.monotonic() + STOP_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            logger.warning("a batch of rows was given up; the next worker does it")
