"""Sources: what their triggers cost who writes to the table, and how quickly changes are found."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from benchmarks import timing
from benchmarks.bench import MODEL, Bench, benchmark
from benchmarks.goals import Result
from searchapp import database, embedded
from searchapp.encoders import Encoder, Model
from searchapp.encoders.registry import Registry
from searchapp.sources import log
from searchapp.sources.session import open_session
from searchapp.vectors import Array
from searchapp.worker import Worker

ROWS = 100_000
CLIENTS = 16
PGBENCH_SECONDS = 5
CHANGES_A_SECOND = 50
CHANGING_SECONDS = 20
KEPT_ROWS = 1500
EDITS = 10_000
WAIT_SECONDS = 0.2
SETTLE_SECONDS = 300

# As an application does it: a row is read, changed, and committed.
SCRIPT = """
\\set id random(1, {rows})
BEGIN;
SELECT body, note FROM public.{table} WHERE id = :id;
UPDATE public.{table} SET body = md5(random()::text) WHERE id = :id;
COMMIT;
"""
# Where a flush takes a millisecond, and where it is not waited for.
FLUSHES = {
    "1 ms a flush": "-c commit_delay=1000 -c commit_siblings=0",
    "free flush": "-c synchronous_commit=off",
}


@contextmanager
def table(bench: Bench, name: str, rows: int, *, model: str | None = None) -> Iterator[psycopg.Connection[Any]]:
    """A table of texts of some twenty tokens with a source, gone afterwards; a connection in autocommit."""
    texts = bench.corpus.documents
    with psycopg.connect(bench.url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE public.{name} (id int PRIMARY KEY, body text NOT NULL, note int)")
        with connection.cursor() as cursor, cursor.copy(f"COPY public.{name} (id, body) FROM STDIN") as copying:
            for row in range(1, rows + 1):
                copying.write_row((row, f"{texts[row % len(texts)].text[:90]} {row}"))
        connection.execute(f"VACUUM ANALYZE public.{name}")
        added = "SELECT searchapp.add_source(%s, %s::text::regclass, '{id}', '{body}', model => %s)"
        connection.execute(added, [name, f"public.{name}", model])
        try:
            yield connection
        finally:
            connection.execute("SELECT searchapp.remove_source(%s)", [name])
            connection.execute(f"DROP TABLE public.{name}")
            if name in (each.name for each in bench.db.collections()):
                bench.drop(name)


def watching(connection: psycopg.Connection[Any], name: str, *, watched: bool) -> None:
    """Let the triggers of a table fire, or not; the log is empty, and nothing is left to be vacuumed."""
    connection.execute(f"ALTER TABLE public.{name} {'ENABLE' if watched else 'DISABLE'} TRIGGER USER")
    connection.execute("TRUNCATE searchapp_data.changes")
    connection.execute(f"VACUUM public.{name}")
    connection.execute("CHECKPOINT")


def bulk(bench: Bench) -> Result:
    """An UPDATE of all rows of a table with a source against the same without, of watched columns and of others."""
    rows = int(ROWS * bench.sizes.share)
    statements = {"other": "UPDATE public.bulk SET note = coalesce(note, 0) + 1", "watched": ""}
    statements["watched"] = "UPDATE public.bulk SET body = md5(random()::text) || substr(body, 33)"
    with table(bench, "bulk", rows) as connection:

        def updated(statement: str, watched: bool) -> float:
            watching(connection, "bulk", watched=watched)
            return timing.seconds(lambda: connection.execute(statement))

        sides: dict[str, timing.Side] = {}
        for kind, statement in statements.items():
            sides[f"{kind}, without"] = partial(updated, statement, False)
            sides[f"{kind}, with"] = partial(updated, statement, True)
        timing.warm_up(sides, bench.say)
        rounds = timing.take_turns(sides, bench.sizes.rounds, bench.say)
    return Result(
        {
            f"source: bulk update, {kind} columns": rounds.ratio(f"{kind}, with", f"{kind}, without")
            for kind in statements
        },
        {"rows": rows, **rounds.details("s")},
    )


def commits(bench: Bench) -> Result:
    """Small transactions of 16 clients on a table with a source against the same without."""
    rows = int(ROWS * bench.sizes.share)
    script = bench.home / "commits.sql"
    script.write_text(SCRIPT.format(rows=rows, table="commits"))
    with table(bench, "commits", rows) as connection:

        def run(options: str, watched: bool) -> float:
            watching(connection, "commits", watched=watched)
            return 1 / _transactions_a_second(bench, script, options)

        sides: dict[str, timing.Side] = {}
        for flush, options in FLUSHES.items():
            sides[f"{flush}, without"] = partial(run, options, False)
            sides[f"{flush}, with"] = partial(run, options, True)
        rounds = timing.take_turns(sides, bench.sizes.rounds, bench.say)
    return Result(
        {f"source: commits, {flush}": rounds.ratio(f"{flush}, without", f"{flush}, with") for flush in FLUSHES},
        {"rows": rows, "clients": CLIENTS, **rounds.details("ms", 1e3)},
    )


def _transactions_a_second(bench: Bench, script: Path, options: str) -> float:
    """By pgbench; each is one statement."""
    program = str(embedded.binary(bench.home, "pgbench"))
    command = [
        program,
        "--no-vacuum",
        f"--client={CLIENTS}",
        "--jobs=2",
        f"--time={PGBENCH_SECONDS}",
        f"--file={script}",
    ]
    done = subprocess.run(
        [*command, bench.url], env={**os.environ, "PGOPTIONS": options}, capture_output=True, text=True, check=True
    )
    return next(float(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("tps"))


@contextmanager
def workers(bench: Bench, count: int) -> Iterator[None]:
    """Processes that work."""
    bench.encoder.encode_queries(["a"])  # so that its graph is exported already
    with ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, "-m", "searchapp", "worker"], env={**os.environ, "DATABASE_URL": bench.url}
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
        ready = "SELECT count(*) FROM searchapp.worker_status WHERE doing = 'answering' AND alive"
        with psycopg.connect(bench.url, autocommit=True) as connection:
            wait_for(lambda: _value(connection, ready) >= count)
        yield


def lag(bench: Bench) -> Result:
    """How long it takes until a committed change is found, at 50 changes a second."""
    with table(bench, "lag", KEPT_ROWS) as connection, workers(bench, 1):
        wait_for(lambda: _is_done(connection, "lag"))
        found = _Found(bench.url, bench.db.space("lag").collection_id)
        thread = threading.Thread(target=found.look)
        thread.start()
        changed = _change(connection, "lag", CHANGES_A_SECOND * CHANGING_SECONDS)
        wait_for(lambda: changed.keys() <= found.seen.keys())
        found.stop()
        thread.join()
    lags = [found.seen[key] - at for key, at in changed.items()]
    p50, p95 = (float(np.quantile(lags, share)) for share in (0.5, 0.95))
    return Result({"source: searchable after a change": p95}, {"changes": len(lags), "p50, s": p50, "p95, s": p95})


class _Found:
    """Looks which documents have been written, as often as it can; when each was first seen."""

    def __init__(self, url: str, collection_id: int) -> None:
        self.seen: dict[str, float] = {}
        self._url = url
        self._collection_id = collection_id
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def look(self) -> None:
        statement = (
            "SELECT d.text FROM searchapp_data.documents d JOIN searchapp_data.chunks c ON c.document_id = d.id"
            f" WHERE d.collection_id = {self._collection_id} AND d.text LIKE 'changed %'"
        )
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._stopped.wait(0.01):
                texts = [text for (text,) in connection.execute(statement)]
                now = time.perf_counter()
                for text in texts:
                    self.seen.setdefault(text, now)


def _change(connection: psycopg.Connection[Any], name: str, count: int) -> dict[str, float]:
    """Change rows, so many a second; when each was committed, by its new text."""
    changed: dict[str, float] = {}
    begun = time.perf_counter()
    for number in range(count):
        text = f"changed {number} by somebody who has another text for this row"
        connection.execute(f"UPDATE public.{name} SET body = %s WHERE id = %s", [text, number % KEPT_ROWS + 1])
        changed[text] = time.perf_counter()
        time.sleep(max(0.0, begun + (number + 1) / CHANGES_A_SECOND - time.perf_counter()))
    return changed


def look(bench: Bench) -> Result:
    """A worker's look that finds nothing."""
    engine = database.create_engine(database.parse_url(bench.url))
    with open_session(engine) as session:

        def run(_: int) -> None:
            with session.transaction() as connection:
                log.look(connection)

        p50 = statistics.median(timing.p50(run, range(200)) for _ in range(bench.sizes.rounds))
    engine.dispose()
    return Result({"source: a look that finds nothing": p50 * 1e3}, {"p50, ms": p50 * 1e3})


class Sleeping:
    """An encoder that only waits; how many texts it was given."""

    def __init__(self, encoder: Encoder, seconds: float) -> None:
        self.model = encoder.model
        self.dimensions = encoder.dimensions
        self.max_tokens = encoder.max_tokens
        self.tokenizer = encoder.tokenizer
        self.texts = 0
        self._seconds = seconds

    def encode_documents(self, texts: Sequence[str]) -> Array:
        time.sleep(self._seconds * len(texts) / 16)
        self.texts += len(texts)
        return np.eye(self.dimensions, dtype=np.float32)[np.arange(len(texts)) % self.dimensions]

    def encode_queries(self, texts: Sequence[str]) -> Array:
        return np.eye(self.dimensions, dtype=np.float32)[[0] * len(texts)]


class SleepingRegistry(Registry):
    """Whose encoder only waits."""

    def __init__(self, bench: Bench, seconds: float) -> None:
        super().__init__(bench.home)
        self.sleeping = Sleeping(bench.encoder, seconds)

    def model(self, _: str) -> Model:
        return super().model(MODEL)

    def encoder(self, _: str) -> Encoder:
        return self.sleeping


@contextmanager
def sleepers(bench: Bench, count: int) -> Iterator[None]:
    """Workers whose encoders only wait, in threads."""
    engine = database.create_engine(database.parse_url(bench.url))
    made = [Worker(engine, SleepingRegistry(bench, WAIT_SECONDS)) for _ in range(count)]
    threads = [threading.Thread(target=worker.run) for worker in made]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for worker, thread in zip(made, threads, strict=True):
            worker.stop()
            thread.join()
        engine.dispose()


def sharing(bench: Bench) -> Result:
    """Two workers against one, with the real encoder and with one that only waits."""
    measured, details = {}, {}
    for name, start in {"the encoder": workers, "an encoder that waits": sleepers}.items():
        with table(bench, "shared", KEPT_ROWS) as connection:
            with start(bench, 1):
                wait_for(lambda connection=connection: _is_done(connection, "shared"))
            sides: dict[str, timing.Side] = {}
            for count in (1, 2):
                sides[f"{name}, {count}"] = partial(_seconds_to_keep, connection, partial(start, bench, count))
            rounds = timing.take_turns(sides, bench.sizes.long_rounds, bench.say)
        measured[f"source: two workers against one, {name}"] = rounds.ratio(f"{name}, 1", f"{name}, 2")
        details[name] = {"rows": KEPT_ROWS, **rounds.details("s")}
    return Result(measured, details)


def _seconds_to_keep(connection: psycopg.Connection[Any], start: Any) -> float:
    """How long it takes until all rows, which have changed, are in step again."""
    changing = "UPDATE public.shared SET body = md5(random()::text) || ' ' || substr(body, 33)"
    with start():
        time.sleep(1)
        connection.execute(changing)
        return timing.seconds(lambda: wait_for(lambda: _is_done(connection, "shared"), pause=0.01))


def edits(bench: Bench) -> Result:
    """How often a row is encoded that was edited ten thousand times while no worker ran."""
    registry = SleepingRegistry(bench, 0.0)
    engine = database.create_engine(database.parse_url(bench.url))
    with table(bench, "edited", 10) as connection:
        Worker(engine, registry).run_once()
        registry.sleeping.texts = 0
        for number in range(EDITS):
            connection.execute("UPDATE public.edited SET body = %s WHERE id = 1", [f"edit {number}"])
        Worker(engine, registry).run_once()
    engine.dispose()
    return Result({"source: encodings of 10,000 edits": float(registry.sleeping.texts)}, {"edits": EDITS})


def wait_for(condition: Any, pause: float = 0.05) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the workers have not come to an end")
        time.sleep(pause)


def _is_done(connection: psycopg.Connection[Any], name: str) -> bool:
    statement = f"SELECT backfilled AND pending = 0 FROM searchapp.source_status WHERE name = '{name}'"
    return bool(_value(connection, statement))


def _value(connection: psycopg.Connection[Any], statement: str) -> Any:
    row = connection.execute(statement).fetchone()
    return None if row is None else row[0]


BENCHMARKS = (
    benchmark(
        "source: bulk update",
        bulk,
        {
            "source: bulk update, other columns": ("<= 1.2", "x"),
            "source: bulk update, watched columns": ("<= 3.5", "x"),
        },
    ),
    benchmark(
        "source: commits",
        commits,
        {"source: commits, 1 ms a flush": (">= 0.93", "x"), "source: commits, free flush": (">= 0.7", "x")},
    ),
    benchmark("source: lag", lag, {"source: searchable after a change": ("<= 1", "s")}),
    benchmark("source: look", look, {"source: a look that finds nothing": ("<= 1", "ms")}),
    benchmark(
        "source: two workers",
        sharing,
        {
            "source: two workers against one, the encoder": (">= 1", "x"),
            "source: two workers against one, an encoder that waits": (">= 1.6", "x"),
        },
    ),
    benchmark("source: edits", edits, {"source: encodings of 10,000 edits": ("<= 1", "")}),
)
