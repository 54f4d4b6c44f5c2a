"""Exact search: one query against plain SQL, a batch against single queries and against numpy."""

from __future__ import annotations

import numpy as np

from benchmarks import bare, timing
from benchmarks.bench import Bench, benchmark
from benchmarks.goals import Result
from benchmarks.querying import BATCH
from searchapp.vectors import Array

# Single queries of a round.
SINGLE = 20


def exact(bench: Bench) -> Result:
    """Exact searches: one against plain SQL; a batch in one call against single ones, and against numpy."""
    name = bench.collection(bench.rows).name
    one = single_queries(bench, name)
    batch = batches(bench, name)
    return Result(
        {
            "exact: one query against bare SQL": one.ratio("searchapp", "bare SQL"),
            "exact: a batch of 256 against single ones": batch.ratio("one call", "single calls"),
            "exact: a batch of 256 against numpy": batch.ratio("one call", "numpy"),
        },
        {
            "documents": bench.rows,
            **one.details("ms, p50 of one query", 1e3),
            **batch.details("s, batch of 256"),
        },
    )


def single_queries(bench: Bench, name: str) -> timing.Rounds:
    """The p50 of single queries, in seconds."""
    statement = bare.exact_statement(bench.db.space(name))
    vectors = bench.corpus.query_vectors[:SINGLE]
    with bare.Bare(bench.url) as same:
        sides = {
            "searchapp": lambda: timing.p50(lambda vector: search(bench, name, vector), vectors),
            "bare SQL": lambda: timing.p50(lambda vector: same.rows(statement, vector), vectors),
        }
        timing.warm_up(sides, bench.say)
        return timing.take_turns(sides, bench.sizes.rounds, bench.say)


def batches(bench: Bench, name: str) -> timing.Rounds:
    """The seconds of a batch: in one call, one by one, and by numpy, which reads all rows first."""
    vectors = bench.corpus.query_vectors[np.arange(BATCH) % len(bench.corpus.query_vectors)]
    space = bench.db.space(name)

    def in_one_call() -> None:
        bench.db.search_many_by_vector(vectors, collection=name, limit=10, exact=True)

    def one_by_one() -> None:
        for vector in vectors:
            search(bench, name, vector)

    with bare.Bare(bench.url) as reader:

        def by_numpy() -> None:
            bare.nearest_by_numpy(vectors, bare.read_embeddings(reader.connection, space), 10)

        bench.say("warm-up")
        in_one_call()
        by_numpy()
        sides = {"one call": in_one_call, "numpy": by_numpy, "single calls": one_by_one}
        timed = {side: timing.timed(run) for side, run in sides.items()}
        return timing.take_turns(timed, bench.sizes.long_rounds, bench.say)


def search(bench: Bench, name: str, vector: Array) -> None:
    """One exact search."""
    bench.db.search_by_vector(vector, collection=name, limit=10, exact=True)


BENCHMARKS = (
    benchmark(
        "exact",
        exact,
        {
            "exact: one query against bare SQL": ("<= 1.15", "x"),
            "exact: a batch of 256 against single ones": ("<= 0.15", "x"),
            "exact: a batch of 256 against numpy": ("<= 3", "x"),
        },
    ),
)
