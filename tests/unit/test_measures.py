"""Measures of ranked lists, against figures computed by hand; and how likely a difference is by chance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from searchapp.evaluation import measures, runs

GRADED = {"a": 3, "b": 2, "c": 0, "d": 1}


def of(ranked: list[str], grades: dict[str, int]) -> dict[str, float]:
    return measures.measure({"q": ranked}, {"q": grades})["q"]


def test_ndcg_counts_grades_and_where_they_stand() -> None:
    gained = 2 / math.log2(3) + 3 / math.log2(5)
    best = 3 + 2 / math.log2(3) + 1 / math.log2(4)
    assert of(["c", "b", "unknown", "a"], GRADED)["ndcg@10"] == pytest.approx(gained / best)
    assert of(["a", "b", "d", "c"], GRADED)["ndcg@10"] == pytest.approx(1)
    assert of([*(f"wrong {number}" for number in range(10)), "a"], GRADED)["ndcg@10"] == 0


def test_mrr_is_of_the_first_that_is_right_among_ten() -> None:
    assert of(["c", "x", "d", "a"], GRADED)["mrr@10"] == pytest.approx(1 / 3)
    wrong = [f"wrong {number}" for number in range(10)]
    assert of([*wrong[:9], "a"], GRADED)["mrr@10"] == pytest.approx(1 / 10)
    assert of([*wrong, "a"], GRADED)["mrr@10"] == 0


def test_map_is_the_mean_precision_where_something_is_right() -> None:
    assert of(["c", "b", "unknown", "a"], GRADED)["map@100"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert of(["a", "b", "d"], GRADED)["map@100"] == pytest.approx(1)


def test_recall_is_of_a_hundred() -> None:
    hundred = ["b", *(f"wrong {number}" for number in range(98)), "a", "d"]
    assert of(hundred, GRADED)["recall@100"] == pytest.approx(2 / 3)
    assert of(hundred[:50], GRADED)["recall@100"] == pytest.approx(1 / 3)


def test_a_query_without_hits_or_without_anything_right_counts_as_0() -> None:
    grades = {"found": {"a": 1}, "nothing": {"a": 1}, "empty": {"a": 1}, "all wrong": {"a": 0}}
    measured = measures.measure({"found": ["a"], "empty": [], "all wrong": ["a"]}, grades)
    assert measured == {query: dict.fromkeys(measures.MEASURES, 1.0 if query == "found" else 0.0) for query in grades}
    assert measures.mean(measured) == dict.fromkeys(measures.MEASURES, 0.25)
    assert measures.measure({}, {"q": {"a": 1}}) == {"q": dict.fromkeys(measures.MEASURES, 0.0)}


@pytest.mark.parametrize("names", ["abcdefghij", "jihgfedcba"])
def test_the_order_is_the_one_given_whatever_the_names(names: str) -> None:
    ranked = list(names)
    for place, name in enumerate(ranked, 1):
        assert of(ranked, {name: 1})["mrr@10"] == pytest.approx(1 / place)


def test_a_mean_is_over_all_queries() -> None:
    measured = {query: dict.fromkeys(measures.MEASURES, value) for query, value in {"a": 0.25, "b": 1.0}.items()}
    assert measures.mean(measured) == dict.fromkeys(measures.MEASURES, 0.625)


def test_what_does_not_differ_has_p_1() -> None:
    assert runs._p_value(np.zeros(50)) == 1.0


def test_what_differs_in_one_direction_is_not_by_chance() -> None:
    assert runs._p_value(np.full(40, 0.1)) < 0.001
    assert runs._p_value(np.full(40, -0.1)) < 0.001
    assert runs._p_value(np.full(5, 0.1)) == pytest.approx(2 / 2**5)  # all signs that there are, counted


def test_what_differs_in_both_directions_alike_is_by_chance() -> None:
    assert runs._p_value(np.array([0.5, -0.5] * 30)) == pytest.approx(1)
    assert runs._p_value(np.array([1.0, *[0.0] * 30])) == pytest.approx(1)


def test_a_p_value_is_the_same_each_time() -> None:
    differences = np.random.default_rng(3).normal(0.2, 1, 60)
    first, second = runs._p_value(differences), runs._p_value(differences)
    assert first == second
    assert 0.001 < first < 0.5
