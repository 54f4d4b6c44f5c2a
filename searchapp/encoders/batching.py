"""Which texts are encoded together: those of like length, and a query with each of its passages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

# Of a text of a pair, for each token that the model reads; plain text has four or five. A tokenizer makes encodings of
# all that it cuts off, each piece of one text with each of the other: a gigabyte a pair, were a query so long.
CHARACTERS = 16


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


def pairs(query: str, passages: Sequence[str], max_tokens: int) -> list[tuple[str, str]]:
    """A query with each passage, without what is surely behind the end of what the model reads.

    >>> pairs("a", ["b", 40 * "c"], 2)
    [('a', 'b'), ('a', 'cccccccccccccccccccccccccccccccc')]
    """
    room = CHARACTERS * max_tokens
    return [(query[:room], passage[:room]) for passage in passages]
