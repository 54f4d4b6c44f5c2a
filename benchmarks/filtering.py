"""Asking with a filter: always full answers, near the truth, in bounded time, beside collections of other fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import sqlalchemy
from sqlalchemy.orm import Session

import searchapp
from benchmarks import bare, fields, judging, timing
from benchmarks.bare import Places
from benchmarks.bench import Bench, benchmark
from benchmarks.goals import Result
from benchmarks.judging import Judged
from searchapp.search.question import Question
from searchapp.search.request import Request
from searchapp.search.statements import statement_of
from searchapp.vectors import Array

# The share of the documents that a filter keeps, in words.
SHARES = {"50 %": 0.5, "10 %": 0.1, "1 %": 0.01, "0.1 %": 0.001}
# Queries a round: of random filters, and of those that take longer or are many.
QUERIES = 200
FEWER = 30
# Queries that each section is asked with in several ways: the sixth of a prepared statement may have a generic plan.
REPEATED = 8
# A section under a twentieth of the documents, 3,000 of 60,000, is small; one under ten documents is not asked for.
SMALL = 20
SMALLEST = 10


@dataclass(frozen=True, slots=True)
class Kept:
    """A filter, and the documents that it keeps, as rows of the corpus."""

    filter: dict[str, Any]
    rows: Places


def equality(bench: Bench) -> Result:
    """Random filters by equality, against the same queries unfiltered."""
    kept = {share: keep(bench, name, 1) for share, name in zip(SHARES, fields.RANDOM_FIELDS, strict=True)}
    vectors = bench.corpus.query_vectors[: min(QUERIES, bench.sizes.searches)]
    judged = judge_all(bench, kept, vectors)
    sides = {"unfiltered": timed(bench, None, vectors)}
    sides |= {share: timed(bench, each.filter, vectors) for share, each in kept.items()}
    rounds = timing.take_turns(sides, bench.sizes.rounds, bench.say)
    return Result(
        {
            "filter equality: full answers": min(each.full for each in judged.values()),
            **{f"filter equality: recall@10 at {share}": each.recall for share, each in judged.items()},
            **{
                f"filter equality: p95 at {share} against unfiltered": rounds.ratio(share, "unfiltered")
                for share in kept
            },
        },
        {"documents": bench.rows, "queries a round": len(vectors), **rounds.details("ms, p95", 1e3)},
    )


def section(bench: Bench) -> Result:
    """The sections of the packages, which correlate with the vectors, against an exact scan of all documents."""
    kept = sections(bench)
    small = [name for name, each in kept.items() if len(each.rows) * SMALL < bench.rows]
    vectors = bench.corpus.query_vectors[:FEWER]
    judged = judge_all(bench, kept, vectors)
    equal = equal_answers(bench, kept)
    sides = {"exact scan of all": timed(bench, None, vectors, exact=True)}
    sides |= {name: timed(bench, each.filter, vectors) for name, each in kept.items()}
    rounds = timing.take_turns(sides, bench.sizes.long_rounds, bench.say)
    ratios = {name: rounds.ratio(name, "exact scan of all") for name in kept}
    return Result(
        {
            "filter section: full answers": min(each.full for each in judged.values()),
            "filter section: recall@10 of each": min(each.recall for each in judged.values()),
            "filter section: recall@10 of each small one": min(judged[name].recall for name in small),
            "filter section: p95 of each against an exact scan": max(ratios.values()),
            "filter section: p95 of each small one against an exact scan": max(ratios[name] for name in small),
            "filter section: equal answers": equal,
        },
        {
            "documents": bench.rows,
            "sections": len(kept),
            "small ones": len(small),
            "queries a round": len(vectors),
            "slowest": slowest(kept, ratios),
            "slowest small one": slowest(kept, {name: ratios[name] for name in small}),
            **rounds.details("ms, p95", 1e3),
        },
    )


def by_range(bench: Bench) -> Result:
    """``$gte`` on a text's length, the field declared and not, against an exact scan of all documents."""
    bench.say("declaring a field")
    bench.db.add_field(bench.labelled.name, fields.DECLARED, "number")
    ranges = {
        declared: {f"{share}, {declared}": keep_longest(bench, name, part) for share, part in SHARES.items()}
        for declared, name in (("declared", fields.DECLARED), ("undeclared", fields.UNDECLARED))
    }
    kept = {side: each for sides in ranges.values() for side, each in sides.items()}
    vectors = bench.corpus.query_vectors[: bench.sizes.searches // 5]
    judged = judge_all(bench, kept, vectors)
    sides = {"unfiltered": timed(bench, None, vectors), "exact scan of all": timed(bench, None, vectors, exact=True)}
    sides |= {side: timed(bench, each.filter, vectors) for side, each in kept.items()}
    rounds = timing.take_turns(sides, bench.sizes.long_rounds, bench.say)
    measured = {"filter range: full answers": min(each.full for each in judged.values())}
    for declared, names in ranges.items():
        slowest_ratio = max(rounds.ratio(name, "exact scan of all") for name in names)
        measured[f"filter range: recall@10 of each, {declared}"] = min(judged[name].recall for name in names)
        measured[f"filter range: p95 of each against an exact scan, {declared}"] = slowest_ratio
    return Result(
        measured,
        {"documents": bench.rows, "queries a round": len(vectors), **rounds.details("ms, p95", 1e3)},
    )


def keep(bench: Bench, field: str, value: Any) -> Kept:
    """The documents whose field has a value."""
    matching = [document.metadata.get(field) == value for document in bench.labelled.documents]
    return Kept({field: value}, np.flatnonzero(matching))


def keep_longest(bench: Bench, field: str, share: float) -> Kept:
    """The documents whose field, a number, is among the greatest: this share of all, and what ties with them."""
    values = np.array([document.metadata[field] for document in bench.labelled.documents])
    least = int(np.quantile(values, 1 - share, method="higher"))
    return Kept({field: {"$gte": least}}, np.flatnonzero(values >= least))


def sections(bench: Bench) -> dict[str, Kept]:
    """The documents of each section, the largest first.

    :raises RuntimeError: the corpus has none.
    """
    counted = Counter(document.metadata.get("section") for document in bench.labelled.documents)
    found = [name for name, count in counted.most_common() if isinstance(name, str) and count >= SMALLEST]
    if not found:
        raise RuntimeError("the corpus has no field 'section'")
    return {name: keep(bench, "section", name) for name in found}


def slowest(kept: Mapping[str, Kept], ratios: Mapping[str, float]) -> str:
    """The section with the greatest ratio, in words."""
    name = max(ratios, key=ratios.__getitem__)
    return f"{name}, {len(kept[name].rows):,} documents: {ratios[name]:.3g} x"


def asking(bench: Bench, filter: dict[str, Any] | None, *, exact: bool = False) -> Callable[[Array], list[str]]:
    """The plain call with a filter: a function of a vector that gives the keys of ten hits."""
    name = bench.labelled.name

    def ask(vector: Array) -> list[str]:
        hits = bench.db.search_by_vector(vector, collection=name, limit=10, filter=filter, exact=exact)
        return [hit.key for hit in hits]

    return ask


def timed(bench: Bench, filter: dict[str, Any] | None, vectors: Array, *, exact: bool = False) -> timing.Side:
    """The side whose figure is the p95 of the plain call with a filter, in seconds."""
    ask = asking(bench, filter, exact=exact)
    return lambda: timing.p95(ask, vectors)


def judge_all(bench: Bench, kept: Mapping[str, Kept], vectors: Array) -> dict[str, Judged]:
    """Judge the answers with each filter, which warms it up as well."""
    judged = {}
    for name, each in kept.items():
        bench.say(f"judging {name}")
        judged[name] = judging.judge(bench, asking(bench, each.filter), vectors, rows=each.rows)
    return judged


def equal_answers(bench: Bench, kept: Mapping[str, Kept]) -> float:
    """The share of the questions that get the same hits in each way that they can be asked."""
    bench.say("comparing the ways to ask")
    vectors = bench.corpus.query_vectors[:REPEATED]
    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(bench.url))
    equal = 0
    with bare.Bare(bench.url) as same, Session(engine) as session:
        for each in kept.values():
            ways = ways_to_ask(bench, each.filter, same, session)
            for vector in vectors:
                first, *others = [ask(vector) for ask in ways]
                equal += all(answer == first for answer in others)
    engine.dispose()
    return equal / (len(kept) * len(vectors))


def ways_to_ask(
    bench: Bench, filter: dict[str, Any], same: bare.Bare, session: Session
) -> list[Callable[[Array], list[str]]]:
    """The plain call, the builder in a Session, and the plain call's statement, prepared and not."""
    space = bench.db.space(bench.labelled.name)
    statement = statement_of(space, Question(Request(limit=10, filter=filter))).text.decode()

    def by_builder(vector: Array) -> list[str]:
        return keys(session.execute(searchapp.nearest(space, vector, limit=10, filter=filter)))

    return [
        asking(bench, filter),
        by_builder,
        lambda vector: keys(same.rows(statement, vector)),
        lambda vector: keys(same.rows(statement, vector, prepare=False)),
    ]


def keys(rows: Iterable[Any]) -> list[str]:
    """The first column, which is the key."""
    return [row[0] for row in rows]


BENCHMARKS = (
    benchmark(
        "filter equality",
        equality,
        {
            "filter equality: full answers": (">= 1", ""),
            "filter equality: recall@10 at 50 %": (">= 0.98", ""),
            "filter equality: recall@10 at 10 %": (">= 0.98", ""),
            "filter equality: recall@10 at 1 %": (">= 1", ""),
            "filter equality: recall@10 at 0.1 %": (">= 1", ""),
            **{f"filter equality: p95 at {share} against unfiltered": ("<= 4", "x") for share in SHARES},
        },
    ),
    benchmark(
        "filter section",
        section,
        {
            "filter section: full answers": (">= 1", ""),
            "filter section: recall@10 of each": (">= 0.97", ""),
            "filter section: recall@10 of each small one": (">= 1", ""),
            "filter section: p95 of each against an exact scan": ("<= 1.5", "x"),
            "filter section: p95 of each small one against an exact scan": ("<= 1", "x"),
            "filter section: equal answers": (">= 1", ""),
        },
    ),
    benchmark(
        "filter range",
        by_range,
        {
            "filter range: full answers": (">= 1", ""),
            "filter range: recall@10 of each, declared": (">= 0.97", ""),
            "filter range: p95 of each against an exact scan, declared": ("<= 1", "x"),
            "filter range: recall@10 of each, undeclared": (">= 0.97", ""),
            "filter range: p95 of each against an exact scan, undeclared": ("<= 1", "x"),
        },
    ),
)
