"""Hits that differ from each other: maximal marginal relevance.

*Source:* Carbonell and Goldstein, The Use of MMR, Diversity-Based Reranking, SIGIR 1998.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from searchapp.vectors import Array


def most_marginal(relevance: npt.NDArray[np.float64], embeddings: Array, diversity: float, count: int) -> list[int]:
    """Choose hits one after the other: each time the one with the largest
    ``(1 - diversity) * relevance - diversity * its largest cosine with those chosen``, of equal ones the first.

    :param relevance: of each hit, best first, shape (n_hits,).
    :param embeddings: of each hit, shape (n_hits, dimensions); one of zeros is like none.
    :param diversity: 0, which keeps the order, to 1.
    :param count: how many are chosen, or all.
    :return: their places.
    """
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    units = embeddings / np.where(lengths > 0, lengths, 1)
    likest = np.full(len(units), -np.inf)
    marginal = (1 - diversity) * relevance
    chosen: list[int] = []
    for _ in range(min(count, len(units))):
        place = int(np.argmax(marginal))
        chosen.append(place)
        likest = np.maximum(likest, units @ units[place])
        marginal = (1 - diversity) * relevance - diversity * likest
        marginal[chosen] = -np.inf
    return chosen
