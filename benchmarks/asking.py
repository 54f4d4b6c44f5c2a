"""The other ways to ask: like a document or examples, diverse, in groups, facets, context; against a plain query."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import timing
from benchmarks.bench import Bench, benchmark
from benchmarks.goals import Result
from benchmarks.words import abstracts

# Queries a round, and times that facets are asked for.
QUERIES = 200
FACETS = 10
CHUNK_TOKENS = 64
TOKEN_BUDGET = 2000


def ways(bench: Bench) -> Result:
    """Like a document, like examples, diverse hits, groups of a section: each against a plain query by vector."""
    name = bench.collection(bench.rows).name
    vectors = list(bench.corpus.query_vectors[: min(QUERIES, bench.sizes.searches)])
    keys = [document.key for document in bench.corpus.documents[: 4 * len(vectors) : 4]]
    fours = [keys[place : place + 4] for place in range(len(keys) - 3)]
    by_vector = partial(bench.db.search_by_vector, collection=name)
    by_examples = partial(bench.db.search_by_examples, collection=name)

    def p50(search: Callable[[Any], Any], asked: list[Any]) -> timing.Side:
        return lambda: timing.p50(search, asked)

    sides = {
        "plain": p50(by_vector, vectors),
        "similar": p50(lambda key: bench.db.similar(key, collection=name), keys),
        "average": p50(lambda four: by_examples(four[:3], four[3]), fours),
        "best score": p50(lambda four: by_examples(four[:3], four[3], strategy="best_score"), fours),
        "diverse": p50(lambda vector: by_vector(vector, diversity=0.5), vectors),
        "groups": p50(lambda vector: by_vector(vector, group_by="section", group_size=2, limit=4), vectors),
    }
    timing.warm_up(sides, bench.say)
    rounds = timing.take_turns(sides, bench.sizes.rounds, bench.say)
    return Result(
        {
            "similar: against a plain query": rounds.ratio("similar", "plain"),
            "examples: average of four": rounds.ratio("average", "plain"),
            "examples: best score of four": rounds.ratio("best score", "plain"),
            "diversity: of 100 candidates": rounds.ratio("diverse", "plain"),
            "groups: four of two": rounds.ratio("groups", "plain"),
        },
        {"documents": bench.rows, "queries a round": len(vectors), **rounds.details("ms, p50", 1e3)},
    )


def facets(bench: Bench) -> Result:
    """The documents of each section, of all that a filter keeps: half of them."""
    name = bench.labelled.name
    sides = {
        "facets": lambda: timing.p50(
            lambda _: bench.db.facets("section", collection=name, filter={"half": 0}), range(FACETS)
        )
    }
    timing.warm_up(sides, bench.say)
    rounds = timing.take_turns(sides, bench.sizes.rounds, bench.say)
    return Result(
        {"facets: of half the documents": rounds.median("facets") * 1e3},
        {"documents": bench.rows, **rounds.details("ms, p50", 1e3)},
    )


def context(bench: Bench) -> Result:
    """Context of 2,000 tokens from abstracts in chunks of 64, against a plain query, by the time in the database."""
    name = "context"
    documents = abstracts().documents[: bench.sizes.abstracts]
    bench.db.ingest(documents, collection=name, chunk_tokens=CHUNK_TOKENS)
    bench.checkpoint()
    queries = abstracts().queries[: bench.sizes.abstracts]
    for query in queries:  # encoded once: what is compared is the database's
        bench.db.search(query, collection=name)

    def database(ask: Callable[[str], Any]) -> float:
        return statistics.median(float(ask(query).took_ms.database) for query in queries)

    sides = {
        "plain": lambda: database(lambda query: bench.db.search(query, collection=name)),
        "context": lambda: database(lambda query: bench.db.context(query, collection=name, token_budget=TOKEN_BUDGET)),
    }
    timing.warm_up(sides, bench.say)
    rounds = timing.take_turns(sides, bench.sizes.rounds, bench.say)
    return Result(
        {"context: against a plain query": rounds.ratio("context", "plain")},
        {"documents": len(documents), "queries a round": len(queries), **rounds.details("ms in the database, p50")},
    )


BENCHMARKS = (
    benchmark(
        "ways to ask",
        ways,
        {
            "similar: against a plain query": ("<= 1.5", "x"),
            "examples: average of four": ("<= 5", "x"),
            "examples: best score of four": ("<= 5", "x"),
            "diversity: of 100 candidates": ("<= 5", "x"),
            "groups: four of two": ("<= 3", "x"),
        },
    ),
    benchmark("context", context, {"context: against a plain query": ("<= 3", "x")}),
)
# Of the collection with fields to filter by.
FACETS_OF_HALF = benchmark("facets", facets, {"facets: of half the documents": ("<= 40", "ms")})
