"""Evaluations: a run of all queries of a data set, stored with what was measured, and two of them compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, insert, select

from searchapp import errors
from searchapp.database import Transaction
from searchapp.evaluation import measures
from searchapp.evaluation.beir import Dataset
from searchapp.evaluation.measures import DEPTH
from searchapp.models import JudgedQuery, Run
from searchapp.search.answering import Answering, Typed
from searchapp.search.request import Request
from searchapp.spaces import Space

# Of the paired permutation test.
RESAMPLES = 9_999
# So many of the queries that moved most are told of.
MOVED = 10


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A run: the mean of each measure, and milliseconds that its searches took in the database."""

    run: int
    dataset: str
    collection: str
    model: str
    mode: str
    queries: int
    measures: dict[str, float]
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A measure of two runs; ``p`` is how likely a difference like theirs is between runs that do not differ."""

    measure: str
    one: float
    other: float
    difference: float
    p: float


@dataclass(frozen=True, slots=True)
class Moved:
    """A query whose nDCG@10 two runs disagree on."""

    query_id: str
    query: str
    one: float
    other: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs compared, the other against the one, on the same queries."""

    one: int
    other: int
    queries: int
    differences: tuple[Difference, ...]
    moved: tuple[Moved, ...]


def evaluate(
    transaction: Transaction,
    answering: Answering,
    space: Space,
    dataset: Dataset,
    mode: str | None,
    told: Callable[[int], None],
) -> Evaluated:
    """Ask all judged queries of a data set, measure the hits, and store the run.

    Marks in the queries are plain text: they were not written for this.

    :param mode: as of a search.
    :param told: told how many queries have been asked.
    :raises errors.WordsMissing: as a search raises it.
    """
    ranked: dict[str, list[str]] = {}
    took: list[float] = []
    used = ""
    for query, text in dataset.queries.items():
        hits = answering.ask(space.collection, Typed(text, mode, Request(DEPTH), marks=False))
        ranked[query] = [hit.key for hit in hits]
        took.append(hits.took_ms.database)
        used = hits.mode
        told(len(ranked))
    measured = measures.measure(ranked, dataset.grades)
    p50, p95 = (round(float(each), 3) for each in np.percentile(took, [50, 95]))
    means = measures.mean(measured)
    with transaction() as connection:
        run = insert(Run).values(
            dataset=dataset.name,
            collection=space.collection,
            model=space.model,
            mode=used,
            measures=means,
            p50=p50,
            p95=p95,
        )
        number = connection.scalars(run.returning(Run.id)).one()
        rows = [
            {"run_id": number, "query_id": query, "query": dataset.queries[query], "measures": of_query}
            for query, of_query in measured.items()
        ]
        connection.execute(insert(JudgedQuery), rows)
    return Evaluated(
        number, dataset.name, space.collection, space.model, used, len(measured), measures=means, p50=p50, p95=p95
    )


def compare(connection: Connection, one: int, other: int) -> Comparison:
    """Compare two runs of one data set, query by query.

    :raises errors.RunMissing: there is no such run.
    :raises errors.InvalidInput: they are of different data, or have no queries in common.
    """
    ones, others = _queries(connection, one), _queries(connection, other)
    datasets = connection.scalars(select(Run.dataset).where(Run.id.in_([one, other])).distinct()).all()
    if len(datasets) > 1:
        raise errors.InvalidInput(f"the runs {one} and {other} are of different data: {' and '.join(sorted(datasets))}")
    common = [query for query in ones if query in others]
    if not common:
        raise errors.InvalidInput(f"the runs {one} and {other} have no queries in common; compare runs of one data set")
    differences = []
    for name in measures.MEASURES:
        before, after = (np.array([of[query].measures[name] for query in common]) for of in (ones, others))
        means = float(before.mean()), float(after.mean())
        differences.append(Difference(name, *means, means[1] - means[0], _p_value(after - before)))
    moved = [
        Moved(query, ones[query].query, *(of[query].measures["ndcg@10"] for of in (ones, others))) for query in common
    ]
    moved.sort(key=lambda each: -abs(each.other - each.one))
    most = tuple(each for each in moved[:MOVED] if each.one != each.other)
    return Comparison(one, other, len(common), tuple(differences), most)


def _p_value(differences: npt.NDArray[np.float64]) -> float:
    """The p-value of a paired permutation test, two-sided: signs of differences are drawn, the same each time."""
    if not differences.any():
        return 1.0
    from scipy import stats

    tested = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        batch=100,  # all at once take gigabytes
        rng=np.random.default_rng(0),
    )
    return float(tested.pvalue)


def _queries(connection: Connection, run: int) -> dict[str, Any]:
    found = connection.execute(
        select(JudgedQuery.query_id, JudgedQuery.query, JudgedQuery.measures)
        .where(JudgedQuery.run_id == run)
        .order_by(JudgedQuery.query_id)
    ).all()
    if not found:
        known = connection.scalars(select(Run.id).order_by(Run.id.desc()).limit(MOVED)).all()
        told = f"the latest are: {', '.join(map(str, known))}" if known else "there are none yet: searchapp eval FOLDER"
        raise errors.RunMissing(f"no run {run}; {told}")
    return {row.query_id: row for row in found}
