"""Asking by the index: one query, eight clients, many queries in one call."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

import numpy as np

from benchmarks import bare, judging, timing
from benchmarks.bench import Bench, benchmark
from benchmarks.goals import Result
from searchapp.search.hits import Hits
from searchapp.vectors import Array

T = TypeVar("T")

CLIENTS = 8
BATCH = 256


def query(bench: Bench) -> Result:
    """One query after the other, against the same statement and against a plain table, by psycopg alone."""
    name = bench.collection(bench.rows).name
    space = bench.db.space(name)
    statement = bare.search_statement(space)
    vectors = bench.corpus.query_vectors[: bench.sizes.searches]
    with bare.Bare(bench.url) as same, bare.Bare(bench.url) as plain:
        bench.say("making the plain table and its index")
        index_seconds = timing.seconds(lambda: bare.make_plain_table(plain.connection, space))
        bare.set_ef_search(plain.connection, space.ef_search)
        bench.checkpoint()

        def ours(vector: Array) -> list[str]:
            return [hit.key for hit in bench.db.search_by_vector(vector, collection=name, limit=10)]

        sides = {
            "searchapp": lambda: timing.p50(ours, vectors),
            "same statement": lambda: timing.p50(lambda vector: same.rows(statement, vector), vectors),
            "plain table": lambda: timing.p50(lambda vector: plain.rows(bare.PLAIN, vector), vectors),
        }
        timing.warm_up(sides, bench.say)
        rounds = timing.take_turns(sides, bench.sizes.rounds, bench.say)
        recalled = recall(bench, bench.rows, ours, vectors)
        recalled_plain = recall(
            bench, bench.rows, lambda vector: [key for (key,) in plain.rows(bare.PLAIN, vector)], vectors
        )
    return Result(
        {
            "query: against bare psycopg": rounds.ratio("searchapp", "same statement"),
            "query: against one plain table": rounds.ratio("searchapp", "plain table"),
            "query: recall@10": recalled,
        },
        {
            "documents": bench.rows,
            "queries a round": len(vectors),
            "ef_search": space.ef_search,
            "recall@10 of the plain table": recalled_plain,
            "plain table filled and indexed, s": index_seconds,
            **rounds.details("ms, p50", 1e3),
        },
    )


def recall(bench: Bench, rows: int, search: Callable[[Array], list[str]], vectors: Array) -> float:
    """The share of the ten truly nearest of the first ``rows`` documents that a search finds, over all queries."""
    return judging.judge(bench, search, vectors, rows=np.arange(rows)).recall


def throughput(bench: Bench) -> Result:
    """Eight threads that share one client, against eight with a connection of psycopg's each."""
    name = bench.collection(bench.rows).name
    statement = bare.search_statement(bench.db.space(name))
    each = np.array_split(np.concatenate([bench.corpus.query_vectors[: bench.sizes.searches]] * 2), CLIENTS)

    def ours(vectors: Array) -> None:
        for vector in vectors:
            bench.db.search_by_vector(vector, collection=name, limit=10)

    def theirs(part: tuple[bare.Bare, Array]) -> None:
        connection, vectors = part
        for vector in vectors:
            connection.rows(statement, vector)

    with ExitStack() as stack:
        connected = [(stack.enter_context(bare.Bare(bench.url)), vectors) for vectors in each]
        sides = {"searchapp": lambda: together(ours, each), "same statement": lambda: together(theirs, connected)}
        timing.warm_up(sides, bench.say)
        rounds = timing.take_turns(sides, bench.sizes.rounds, bench.say)
    queries = sum(map(len, each))
    return Result(
        {"throughput": rounds.ratio("same statement", "searchapp")},
        {
            "clients": CLIENTS,
            "queries a round": queries,
            "searchapp, queries/s": queries / rounds.median("searchapp"),
            "same statement, queries/s": queries / rounds.median("same statement"),
            **rounds.details("s"),
        },
    )


def together(run: Callable[[T], None], parts: Sequence[T]) -> float:
    """The seconds from when ``run`` begins with all parts, in a thread each, until the last has ended."""
    ready = threading.Barrier(len(parts) + 1)

    def begin(part: T) -> None:
        ready.wait()
        run(part)

    with ThreadPoolExecutor(len(parts)) as pool:
        running = [pool.submit(begin, part) for part in parts]
        ready.wait()
        started = time.perf_counter()
        for each in running:
            each.result()
        return time.perf_counter() - started


def many(bench: Bench) -> Result:
    """Queries in one call against as many calls, by the time in the database."""
    name = bench.collection(bench.rows).name
    vectors = bench.corpus.query_vectors[np.arange(BATCH) % len(bench.corpus.query_vectors)]

    def in_one_call() -> float:
        return database_seconds(bench.db.search_many_by_vector(vectors, collection=name, limit=10))

    def one_by_one() -> float:
        return database_seconds(bench.db.search_by_vector(each, collection=name, limit=10) for each in vectors)

    sides = {"one call": in_one_call, "single calls": one_by_one}
    timing.warm_up(sides, bench.say)
    rounds = timing.take_turns(sides, bench.sizes.rounds, bench.say)
    return Result(
        {"many queries": rounds.ratio("one call", "single calls")},
        {"queries": BATCH, "documents": bench.rows, **rounds.details("s in the database")},
    )


def database_seconds(searches: Iterable[Hits]) -> float:
    """How long searches took in the database, all together."""
    return math.fsum(hits.took_ms.database for hits in searches) / 1e3


BENCHMARKS = (
    benchmark(
        "query",
        query,
        {
            "query: against bare psycopg": ("<= 1.15", "x"),
            "query: against one plain table": ("<= 1.5", "x"),
            "query: recall@10": (">= 0.97", ""),
        },
    ),
    benchmark("throughput", throughput, {"throughput": (">= 0.9", "x")}),
    benchmark("many queries", many, {"many queries": ("<= 0.85", "x")}),
)
