"""Searches from SQL against the same by Python, and ``searchapp.embed()`` with a worker beside it."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg

from benchmarks import bare, timing, words
from benchmarks.bench import Bench, benchmark
from benchmarks.goals import Result
from searchapp import database, link
from searchapp.search.request import MODES
from searchapp.wire import Parameter

TEXTS = 100
ROWS = 20_000
WORKER_SECONDS = 60


@contextmanager
def worker(bench: Bench) -> Iterator[None]:
    """A process that answers, and the link by which it is asked."""
    bench.encoder.encode_queries(["a"])  # so that its graph is exported already
    engine = database.create_engine(database.parse_url(bench.url))
    link.make(engine)
    engine.dispose()
    process = subprocess.Popen(
        [sys.executable, "-m", "searchapp", "worker"],
        env={**os.environ, "DATABASE_URL": bench.url},
    )
    try:
        _wait_until_ready(bench)
        yield
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(bench: Bench) -> None:
    ready = "SELECT 1 FROM searchapp.worker_status WHERE doing = 'answering' AND seen_at > now() - interval '1 s'"
    deadline = time.monotonic() + WORKER_SECONDS
    with psycopg.connect(bench.url, autocommit=True) as connection:
        while not connection.execute(ready).fetchone():
            if time.monotonic() > deadline:
                raise RuntimeError("the worker has not begun")
            time.sleep(0.1)


def embed(bench: Bench) -> Result:
    """A new text by embed() against the encoder alone; a known one; all rows of a collection against a vector given."""
    name = bench.collection(bench.rows).name
    space = bench.db.space(name)
    rows = min(ROWS, bench.rows)
    numbers = itertools.count(1)
    queries = bench.corpus.queries[:TEXTS]
    one = f"SELECT searchapp.embed($1, '{name}')"
    known, vector = queries[0], bench.corpus.query_vectors[0]

    def new(query: str) -> str:
        return f"{query} {next(numbers)}"

    def scan(against: str) -> str:
        return (
            f"SELECT max(embedding <=> {against}) FROM"
            f" (SELECT embedding FROM searchapp_data.chunks WHERE space_id = {space.id} LIMIT {rows}) AS c"
        )

    with worker(bench), bare.Bare(bench.url) as sql:

        def scanned(statement: str, parameter: Callable[[], object], level: str) -> timing.Side:
            def run() -> float:
                sql.connection.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
                seconds = timing.seconds(lambda: sql.run(statement, [parameter()]))
                sql.connection.execute("COMMIT")
                return seconds

            return run

        by_text, by_vector = (
            scan(f"searchapp.embed($1, '{name}')"),
            scan(f"$1::{space.vector_schema}.vector"),
        )
        sides = {
            "encoder": lambda: timing.p50(lambda query: bench.encoder.encode_queries([new(query)]), queries),
            "new": lambda: timing.p50(lambda query: sql.run(one, [new(query)]), queries),
            "known": lambda: timing.p50(lambda _: sql.run(one, [known]), range(TEXTS)),
            "rows by a vector": scanned(by_vector, lambda: Parameter(vector), "READ COMMITTED"),
            "rows by a new text": scanned(by_text, lambda: new(known), "READ COMMITTED"),
            "rows by a new text in a snapshot": scanned(by_text, lambda: new(known), "REPEATABLE READ"),
        }
        timing.warm_up(sides, bench.say)
        rounds = timing.take_turns(sides, bench.sizes.rounds, bench.say)
    return Result(
        {
            "embed: a new text, beyond the encoder": added(rounds, "new", "encoder") * 1e3,
            "embed: a known text": rounds.median("known") * 1e3,
            "embed: in each of 20,000 rows": added(rounds, "rows by a new text", "rows by a vector"),
        },
        {"texts a round": len(queries), "rows": rows, **rounds.details("ms", 1e3)},
    )


def added(rounds: timing.Rounds, side: str, other: str) -> float:
    """How much more a side is than another: the median of the rounds' differences."""
    return statistics.median(
        one - another for one, another in zip(rounds.figures[side], rounds.figures[other], strict=True)
    )


def search(bench: Bench) -> Result:
    """``searchapp.search()`` against the time that the same search takes in the database, asked for from Python."""
    measured: dict[str, float] = {}
    details: dict[str, Any] = {}
    with worker(bench), bare.Bare(bench.url) as sql:
        for texts in (each.part(bench.sizes.share) for each in (words.abstracts(), words.descriptions())):
            name = words.collection(bench, texts).collection
            queries = texts.queries[:TEXTS]
            sides: dict[str, timing.Side] = {}
            for mode in MODES:
                sides[f"{mode}, Python"] = partial(_in_database, bench, name, mode, queries)
                sides[f"{mode}, SQL"] = partial(_from_sql, sql, name, mode, queries)
            timing.warm_up(sides, bench.say)
            rounds = timing.take_turns(sides, bench.sizes.rounds, bench.say)
            for mode in MODES:
                ratio = rounds.ratio(f"{mode}, SQL", f"{mode}, Python")
                measured[f"search from SQL: {mode}, {texts.name}"] = ratio
            details[texts.name] = {"queries a round": len(queries), **rounds.details("ms", 1e3)}
    return Result(measured, details)


def _in_database(bench: Bench, name: str, mode: str, queries: Sequence[str]) -> float:
    asked = (bench.db.search(query, collection=name, mode=mode) for query in queries)
    return statistics.median(hits.took_ms.database for hits in asked) / 1e3


def _from_sql(sql: bare.Bare, name: str, mode: str, queries: Sequence[str]) -> float:
    statement = "SELECT * FROM searchapp.search($1, $2, 10, NULL, $3)"
    return timing.p50(lambda query: sql.run(statement, [query, name, mode]), queries)


BENCHMARKS = (
    benchmark(
        "search from SQL",
        search,
        {
            f"search from SQL: {mode}, {texts}": ("<= 1.5", "x")
            for texts in ("abstracts", "descriptions")
            for mode in MODES
        },
    ),
    benchmark(
        "embed from SQL",
        embed,
        {
            "embed: a new text, beyond the encoder": ("<= 15", "ms"),
            "embed: a known text": ("<= 1", "ms"),
            "embed: in each of 20,000 rows": ("<= 0.5", "s"),
        },
    ),
)
