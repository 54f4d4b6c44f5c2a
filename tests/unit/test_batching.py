"""Dealing texts into batches by their tokens."""

from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from searchapp.encoders import batching
from searchapp.encoders.batching import batches


@given(st.lists(st.integers(1, 60), max_size=80), st.integers(1, 200))
def test_each_text_is_in_one_batch_and_no_batch_over_the_budget(lengths: list[int], budget: int) -> None:
    dealt = [batch.tolist() for batch in batches(lengths, budget)]
    assert sorted(place for batch in dealt for place in batch) == list(range(len(lengths)))
    for batch in dealt:
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= budget


def test_texts_of_like_length_are_together() -> None:
    assert [batch.tolist() for batch in batches([9, 1, 9, 1], 18)] == [[1, 3], [0, 2]]


def test_the_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(batching).failed == 0
