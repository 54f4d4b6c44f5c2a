"""Asking for many hits, or for a page far down: always complete, and not much slower than an exact scan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks import bare, judging, timing
from benchmarks.bench import Bench, benchmark
from benchmarks.goals import Result
from searchapp.search.hits import Hits
from searchapp.vectors import Array

# Queries a round.
QUERIES = 10


@dataclass(frozen=True, slots=True)
class Page:
    """How many hits are asked for, behind how many."""

    limit: int
    offset: int = 0


PAGES = {"limit 1,000": Page(1000), "limit 10,000": Page(10_000), "offset 5,000": Page(10, offset=5000)}


def limit(bench: Bench) -> Result:
    """Many hits, and ten far down, each against an exact scan for the same."""
    vectors = bench.corpus.query_vectors[:QUERIES]
    sides: dict[str, timing.Side] = {}
    measured = {}
    details = {}
    for name, page in PAGES.items():
        bench.say(f"judging {name}")
        answers = [search(bench, page, vector) for vector in vectors]
        wanted = max(0, min(page.limit, bench.rows - page.offset))
        measured[f"limit: complete answers, {name}"] = sum(len(hits) == wanted for hits in answers) / len(vectors)
        measured[f"limit: recall, {name}"] = recall(bench, page, vectors, answers)
        details[f"answers by the exact rung, {name}"] = sum(hits.exact for hits in answers) / len(vectors)
        for side, exact in ((name, False), (f"{name}, exact", True)):
            sides[side] = partial(timing.p50, partial(search, bench, page, exact=exact), vectors)
    rounds = timing.take_turns(sides, bench.sizes.long_rounds, bench.say)
    for name in PAGES:
        measured[f"limit: time against an exact scan, {name}"] = rounds.ratio(name, f"{name}, exact")
    return Result(
        measured,
        {"documents": bench.rows, "queries a round": len(vectors), **details, **rounds.details("ms, p50", 1e3)},
    )


def search(bench: Bench, page: Page, vector: Array, *, exact: bool = False) -> Hits:
    """One page of the nearest."""
    name = bench.collection(bench.rows).name
    return bench.db.search_by_vector(vector, collection=name, limit=page.limit, offset=page.offset, exact=exact)


def recall(bench: Bench, page: Page, vectors: Array, answers: list[Hits]) -> float:
    """The share found of all documents as near as the last hit of a page, or nearer; over all queries.

    What stands before the page counts as found: a page does not show it, but has counted it.
    """
    _, cosines = bare.nearest_by_numpy(vectors, bench.corpus.vectors, bench.rows)
    found = there = 0
    for own, hits in zip(cosines, answers, strict=True):
        if hits:
            found += page.offset + len(hits)
            there += int(np.sum(own >= hits[-1].score - judging.TOLERANCE))
    return min(1.0, found / there) if there else 0.0


BENCHMARKS = (
    benchmark(
        "limit",
        limit,
        {
            f"limit: {what}, {page}": target
            for page in PAGES
            for what, target in (
                ("complete answers", (">= 1", "")),
                ("recall", (">= 0.97", "")),
                ("time against an exact scan", ("<= 1.5", "x")),
            )
        },
    ),
)
