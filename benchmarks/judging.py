"""Answers against the truth: the nearest by numpy, of all documents or of those that a filter keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import bare
from benchmarks.bare import Places
from benchmarks.bench import Bench
from searchapp.vectors import Array

# What float32 leaves open of a cosine.
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Judged:
    """Shares: of the answers with as many hits as there can be, and of the truly nearest that were found."""

    full: float
    recall: float


def judge(
    bench: Bench,
    search: Callable[[Array], Sequence[str]],
    vectors: Array,
    *,
    limit: int = 10,
    rows: Places | None = None,
) -> Judged:
    """Compare what a search finds, all queries together, with the truly nearest.

    By distance: of equally far documents any will do. A hit that may not be found, or comes twice, counts for nothing.

    :param search: gives the keys of the hits.
    :param limit: how many hits were asked for.
    :param rows: the documents that may be found, as rows of the corpus; None: all.
    """
    embeddings = bench.corpus.vectors if rows is None else bench.corpus.vectors[rows]
    allowed = np.ones(bench.rows, bool) if rows is None else np.isin(np.arange(bench.rows), rows)
    wanted = min(limit, len(embeddings))
    _, nearest = bare.nearest_by_numpy(vectors, embeddings, wanted)
    full = found = 0
    for vector, similarities in zip(vectors, nearest, strict=True):
        hits = np.unique(np.array([bench.places[key] for key in search(vector)], dtype=np.intp))
        hits = hits[allowed[hits]]
        full += len(hits) == wanted
        found += int(np.sum(cosines(bench, vector, hits) >= similarities.min() - TOLERANCE))
    return Judged(full / len(vectors), found / (wanted * len(vectors)))


def cosines(bench: Bench, vector: Array, hits: Places) -> Array:
    """The cosines of a vector, shape (384,), with documents, in no order."""
    if not len(hits):
        return np.empty(0, np.float32)
    return bare.nearest_by_numpy(vector[None, :], bench.corpus.vectors[hits], len(hits))[1]
