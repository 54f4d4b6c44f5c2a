"""How good ranked lists are, by labelled data; computed by ir-measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

# Their names here, and as ir-measures writes them.
MEASURES = {"ndcg@10": "nDCG@10", "mrr@10": "RR@10", "map@100": "AP@100", "recall@100": "R@100"}
# So many hits are looked at.
DEPTH = 100


def measure(
    ranked: Mapping[str, Sequence[str]], grades: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, float]]:
    """Measure the ranked documents of each query; a query without any has 0.

    :param ranked: documents by query, best first.
    :param grades: by query and document; every query that is judged counts.
    :return: the measures of each query, by name.
    """
    import ir_measures  # not before something is evaluated

    measures = {ir_measures.parse_measure(written): name for name, written in MEASURES.items()}
    qrels = [
        ir_measures.Qrel(query, document, grade)
        for query, of_query in grades.items()
        for document, grade in of_query.items()
    ]
    run = [
        ir_measures.ScoredDoc(query, document, -float(rank))
        for query, documents in ranked.items()
        for rank, document in enumerate(documents)
    ]
    measured = {query: dict.fromkeys(MEASURES, 0.0) for query in grades}
    for found in ir_measures.iter_calc(list(measures), qrels, run) if run else ():
        measured[found.query_id][measures[found.measure]] = found.value
    return measured


def mean(measured: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean of each measure over the queries."""
    return {name: fmean(of_query[name] for of_query in measured.values()) for name in MEASURES}
