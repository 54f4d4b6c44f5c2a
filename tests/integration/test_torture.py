"""Sources under fire: writers on few keys, workers killed at random, and after each phase all must be exact.

``TORTURE_SECONDS`` says for how long, ``TORTURE_SEED`` repeats the writers' choices.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import psycopg
import pytest

from tests import waiting_encoder
from tests.waiting_encoder import POISON

SECONDS = float(os.environ.get("TORTURE_SECONDS", "10"))
SEED = int(os.environ.get("TORTURE_SEED", str(random.randrange(10**6))))
PHASE_SECONDS = 3.0
KEYS = 20
WRITERS = 4
WORKERS = 4
LONGEST_WAIT = 0.4
KILL_SECONDS = 60 / 55
SETTLE_SECONDS = 60.0

WORDS = ("amber", "basil", "cedars", "delta", "embers", "fjord", "groves", "haven", "ivory", "jumping")
TABLE = """
CREATE TABLE public.items (id int PRIMARY KEY, title text, body text, price int NOT NULL, note text);
SELECT searchapp.add_source('items', 'public.items', '{id}', '{body}', title => 'title', metadata => '{price}',
  "where" => 'price >= 0', model => 'waiting');
"""
# What each document must be, and what it is.
SOURCE = "SELECT id::text, title, body, price FROM public.items WHERE price >= 0 AND body ~ '\\S'"
DOCUMENTS = "SELECT key, title, text, (metadata ->> 'price')::int FROM searchapp_data.documents"
CHUNKS = """
SELECT d.key, c.start, c.length, length(d.text), concat_ws(' ', d.title, d.text), c.embedding::text
FROM searchapp_data.documents d FULL JOIN searchapp_data.chunks c ON c.document_id = d.id
"""
POSTINGS = """
WITH wanted AS (
  SELECT d.id, w.lexeme AS term, cardinality(w.positions) AS frequency,
    sum(cardinality(w.positions)) OVER (PARTITION BY d.id) AS length
  FROM searchapp_data.documents d CROSS JOIN LATERAL unnest(to_tsvector('english', concat_ws(' ', d.title, d.text))) w
), found AS (
  SELECT document_id AS id, term, frequency, document_length::bigint AS length FROM searchapp_data.postings
)
SELECT * FROM ((SELECT 'lacks', * FROM wanted EXCEPT ALL SELECT 'lacks', * FROM found)
  UNION ALL (SELECT 'has', * FROM found EXCEPT ALL SELECT 'has', * FROM wanted)) x
"""
COUNTS = """
SELECT coalesce(p.term, c.term), p.n, c.n FROM
  (SELECT term, count(*) AS n FROM searchapp_data.postings GROUP BY term) p FULL JOIN
  (SELECT term, sum(documents) AS n FROM searchapp_data.term_counts GROUP BY term HAVING sum(documents) <> 0) c
  ON c.term = p.term
WHERE p.n IS DISTINCT FROM c.n
"""


class Writer:
    """Changes the table at random, a transaction at a time."""

    def __init__(self, url: str, seed: int) -> None:
        self._random = random.Random(seed)
        self._url = url

    def run(self, stopped: threading.Event) -> None:
        with psycopg.connect(self._url) as connection:
            while not stopped.is_set():
                try:
                    self._transaction(connection)
                except (psycopg.errors.UniqueViolation, psycopg.OperationalError):
                    connection.rollback()  # a key that is taken, or a deadlock or a conflict among writers

    def _transaction(self, connection: psycopg.Connection[Any]) -> None:
        if self._random.random() < 0.1:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for _ in range(self._random.choice((1, 1, 1, 2, 5))):
            self._statement(connection)
        # log rows are numbered now, and committed later
        time.sleep(self._random.choice((0, 0, 0.005, 0.05, 0.3)))
        connection.rollback() if self._random.random() < 0.1 else connection.commit()

    def _statement(self, connection: psycopg.Connection[Any]) -> None:
        key, other = self._random.randrange(KEYS), self._random.randrange(KEYS)
        values = {
            "key": key,
            "other": other,
            "body": self._text(),
            "title": self._text(),
            "price": self._random.randrange(-2, 9),
        }
        kind = self._random.choices(
            ("upsert", "edit", "price", "note", "rename", "delete", "truncate"), (30, 30, 10, 5, 10, 14, 1)
        )[0]
        connection.execute(_STATEMENTS[kind], values)

    def _text(self) -> str | None:
        if self._random.random() < 0.05:
            return self._random.choice((None, " ", f"a {POISON} text"))
        return " ".join(self._random.choices(WORDS, k=self._random.randrange(1, 8)))


_STATEMENTS = {
    "upsert": (
        "INSERT INTO public.items VALUES (%(key)s, %(title)s, %(body)s, %(price)s)"
        " ON CONFLICT (id) DO UPDATE SET title = excluded.title, body = excluded.body"
    ),
    "edit": "UPDATE public.items SET body = %(body)s WHERE id IN (%(key)s, %(other)s)",
    "price": "UPDATE public.items SET price = %(price)s WHERE id = %(key)s",
    "note": "UPDATE public.items SET note = %(body)s",
    "rename": "UPDATE public.items SET id = %(other)s WHERE id = %(key)s",
    "delete": "DELETE FROM public.items WHERE id IN (%(key)s, %(other)s)",
    "truncate": "TRUNCATE public.items",
}


@pytest.fixture
def sql(sql: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    sql.execute(TABLE)
    return sql


class LastActs:
    """What a phase ends with: changes that nothing later hides the loss of."""

    def __init__(self, url: str, seed: int) -> None:
        self._random = random.Random(seed)
        self._url = url

    def edit(self) -> None:
        """Rows whose log rows are committed in another order than they were numbered in: who deletes up to the largest
        number loses some."""
        with ExitStack() as stack:
            connections = [stack.enter_context(psycopg.connect(self._url)) for _ in range(WRITERS)]
            for place, connection in enumerate(connections):
                self._put(connection, range(place, KEYS, WRITERS))
            for connection in self._random.sample(connections, WRITERS):
                connection.commit()
                time.sleep(self._random.uniform(0, LONGEST_WAIT))

    def truncate(self) -> None:
        """While rows are encoded that were not there before: who looks what is there, while another has yet to write
        it, leaves that."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("DELETE FROM public.items")
            time.sleep(2 * LONGEST_WAIT)
            self._put(connection, range(KEYS))
            time.sleep(self._random.uniform(0.1, LONGEST_WAIT))
            connection.execute("TRUNCATE public.items")

    def _put(self, connection: psycopg.Connection[Any], keys: range) -> None:
        for key in keys:
            body = " ".join(self._random.choices(WORDS, k=3))
            connection.execute(_STATEMENTS["upsert"], {"key": key, "title": None, "body": body, "price": 1})


def test_all_is_exact_after_each_phase(sql: psycopg.Connection[Any], url: str) -> None:
    print(f"TORTURE_SEED={SEED}")
    deadline = time.monotonic() + SECONDS
    phase = 0
    with _workers(url) as kill:
        while phase < 2 or time.monotonic() < deadline:
            _write(url, SEED + 100 * phase, kill)
            acts = LastActs(url, SEED + phase)
            for act in (acts.edit, acts.truncate):
                act()
                _settle(sql)
            phase += 1


def _write(url: str, seed: int, kill: Callable[[], None]) -> None:
    """Let the writers write for a phase, and workers be killed meanwhile."""
    stopped = threading.Event()
    writers = [threading.Thread(target=Writer(url, seed + number).run, args=(stopped,)) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    deadline = time.monotonic() + PHASE_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, random.uniform(0, 2 * KILL_SECONDS)))
        kill()
    stopped.set()
    for writer in writers:
        writer.join()


def _settle(sql: psycopg.Connection[Any]) -> None:
    """Wait until nothing is left to do, and see that it was done."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        with sql.transaction():
            sql.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            left = sql.execute("SELECT source_id, lane, key FROM searchapp_data.changes").fetchall()
            if not left:
                _compare(sql)
                return
        assert time.monotonic() < deadline, f"the log is not worked off: {left[:5]}"
        time.sleep(0.05)


def _compare(sql: psycopg.Connection[Any]) -> None:
    failed = {key for (key,) in sql.execute("SELECT key FROM searchapp_data.failures")}
    source = {row[0]: row for row in sql.execute(SOURCE)}
    poisonous = {key for key, row in source.items() if POISON in f"{row[1]} {row[2]}"}
    assert failed == poisonous
    documents = {row[0]: row for row in sql.execute(DOCUMENTS) if row[0] not in poisonous}
    assert documents == {key: row for key, row in source.items() if key not in poisonous}
    for key, start, length, whole, encoded, vector in sql.execute(CHUNKS):
        assert (start, length) == (0, whole), key
        assert np.allclose(np.fromstring(vector[1:-1], sep=","), waiting_encoder.embedding(encoded), atol=1e-6), key
    assert sql.execute(POSTINGS).fetchall() == []
    assert sql.execute(COUNTS).fetchall() == []


@contextmanager
def _workers(url: str) -> Iterator[Callable[[], None]]:
    """Workers; and what kills one of them and starts another."""
    processes: list[BaseProcess] = [waiting_encoder.start(url, LONGEST_WAIT) for _ in range(WORKERS)]

    def kill() -> None:
        place = random.randrange(WORKERS)
        processes[place].kill()
        processes[place].join()
        processes[place] = waiting_encoder.start(url, LONGEST_WAIT)

    try:
        yield kill
    finally:
        for process in processes:
            process.kill()
            process.join()
