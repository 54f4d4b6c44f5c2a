"""Which texts are encoded together: those of like length, as many as a budget of tokens allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt


def batches(lengths: Sequence[int], budget: int) -> Iterator[npt.NDArray[np.intp]]:
    """Deal texts into batches, shortest first; all texts of a batch are padded to its longest.

    :param lengths: each text's tokens.
    :param budget: at most so many tokens a batch, padding counted in; a longer text is a batch of its own.
    :return: arrays of places in ``lengths``, together each place once.

    >>> [batch.tolist() for batch in batches([5, 2, 9, 2], 10)]
    [[1, 3], [0], [2]]
    """
    order = np.argsort(np.asarray(lengths), kind="stable")
    first = 0
    for place in range(1, len(order) + 1):
        if place == len(order) or (place + 1 - first) * lengths[order[place]] > budget:
            yield order[first:place]
            first = place
