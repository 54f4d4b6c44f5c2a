"""What has no goal and is drawn: recall against latency, and how all grows with the rows."""

from __future__ import annotations

import statistics
from typing import Any

import psycopg

import searchapp
from benchmarks import timing
from benchmarks.bench import Bench, benchmark
from benchmarks.goals import Result
from benchmarks.querying import recall
from searchapp.spaces import Space
from searchapp.vectors import Array

EF_SEARCH = (20, 40, 60, 100, 200, 400)
# The smaller collections, as shares of the largest: of 60,000 these are 1,000 and 10,000.
SHARES = (60, 6, 1)


def curves(bench: Bench) -> Result:
    """Recall and latency by ef_search; time and size by rows."""
    by_rows = [at_rows(bench, bench.rows // share) for share in SHARES]
    space = bench.db.space(bench.collection(bench.rows).name)
    try:
        by_ef_search = [at_ef_search(bench, space, ef_search) for ef_search in EF_SEARCH]
    finally:
        set_ef_search(bench.url, space, space.ef_search)
    return Result({}, {"by rows": by_rows, "by ef_search": by_ef_search})


def at_rows(bench: Bench, rows: int) -> dict[str, Any]:
    """A collection of so many rows: what loading, indexing and asking take, and how large it is."""
    loaded = bench.collection(rows)
    bench.say(f"asking {rows:,} documents")
    return {
        "rows": rows,
        "load, s": loaded.seconds,
        "index, s": loaded.index_seconds,
        "query p50, ms": query_p50(bench, bench.db, loaded.name) * 1e3,
        "size, MB": bench.db.describe(loaded.name).bytes / 1e6,
    }


def at_ef_search(bench: Bench, space: Space, ef_search: int) -> dict[str, Any]:
    """The largest collection, with so many candidates looked at in its index."""
    bench.say(f"recall and latency at ef_search {ef_search}")
    set_ef_search(bench.url, space, ef_search)
    with searchapp.connect(bench.url) as db:  # a new handle, which has not seen the space before

        def search(vector: Array) -> list[str]:
            return [hit.key for hit in db.search_by_vector(vector, collection=space.collection, limit=10)]

        found = recall(bench, bench.rows, search, bench.corpus.query_vectors[: bench.sizes.searches])
        return {"ef_search": ef_search, "recall@10": found, "p50, ms": query_p50(bench, db, space.collection) * 1e3}


def set_ef_search(url: str, space: Space, ef_search: int) -> None:
    """Change how many candidates the searches of a space look at."""
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE searchapp_data.spaces SET ef_search = %s WHERE id = %s", [ef_search, space.id])


def query_p50(bench: Bench, db: searchapp.Client, name: str) -> float:
    """The p50 of a search, in seconds: the median of some rounds, after one that does not count."""
    vectors = bench.corpus.query_vectors[: bench.sizes.searches]
    passes = [
        timing.p50(lambda vector: db.search_by_vector(vector, collection=name, limit=10), vectors)
        for _ in range(bench.sizes.rounds + 1)
    ]
    return statistics.median(passes[1:])


BENCHMARKS = (benchmark("curves", curves, {}),)
