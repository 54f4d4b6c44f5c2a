"""Maximal marginal relevance, against plain Python and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from searchapp.search.diversity import most_marginal


def cosine(one: list[float], other: list[float]) -> float:
    return float(np.dot(one, other)) / math.hypot(*one) / math.hypot(*other)


def plainly(relevance: list[float], embeddings: list[list[float]], diversity: float, count: int) -> list[int]:
    """As the paper says it; of equal ones the first."""
    chosen: list[int] = []
    left = list(range(len(relevance)))
    while left and len(chosen) < count:

        def marginal(place: int) -> float:
            likest = max((cosine(embeddings[place], embeddings[other]) for other in chosen), default=0.0)
            return (1 - diversity) * relevance[place] - diversity * likest

        best = max(left, key=marginal)
        chosen.append(best)
        left.remove(best)
    return chosen


@pytest.mark.parametrize("diversity", [0, 0.1, 0.5, 0.9, 1])
@pytest.mark.parametrize("count", [1, 7, 30, 31, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_hits_are_chosen_as_by_plain_python(diversity: float, count: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    embeddings = chance.standard_normal((30, 6)).astype(np.float32) * chance.uniform(0.1, 9, (30, 1)).astype(np.float32)
    relevance = np.sort(chance.uniform(-1, 1, 30))[::-1].copy()
    expected = plainly(relevance.tolist(), embeddings.tolist(), diversity, count)
    assert most_marginal(relevance, embeddings, diversity, count) == expected
    assert sorted(expected) == sorted(set(expected))


def test_without_diversity_the_order_is_kept() -> None:
    relevance = np.array([0.5, 0.5, 0.5, -0.2, -0.2])
    assert most_marginal(relevance, np.ones((5, 2), np.float32), 0, 5) == [0, 1, 2, 3, 4]


def test_what_says_the_same_comes_last() -> None:
    """Two twins, one that is somewhat like them, and one that has nothing to do with them."""
    relevance = np.array([0.9, 0.89, 0.8, 0.6])
    embeddings = np.array([[1, 0, 0], [2, 0, 0], [0.6, 0.8, 0], [0, 0, 3]], np.float32)
    # the third has 0.4 - 0.5 * 0.6 = 0.1, the twin 0.445 - 0.5 = -0.055, the last 0.3
    assert most_marginal(relevance, embeddings, 0.5, 4) == [0, 3, 2, 1]
    # 0.72 - 0.06 = 0.66, 0.801 - 0.1 = 0.701, 0.54
    assert most_marginal(relevance, embeddings, 0.1, 4) == [0, 1, 2, 3]
    assert most_marginal(relevance, embeddings, 1, 2) == [0, 3]


def test_what_has_no_embedding_is_like_none() -> None:
    embeddings = np.array([[1, 0], [1, 0], [0, 0], [0, 0]], np.float32)
    assert most_marginal(np.array([0.9, 0.8, 0.4, 0.1]), embeddings, 0.5, 4) == [0, 2, 3, 1]


def test_of_no_hits_none_is_chosen() -> None:
    assert most_marginal(np.empty(0), np.empty((0, 3), np.float32), 0.5, 10) == []
