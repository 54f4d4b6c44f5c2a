"""Hits in the order of other scores, and what cannot be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from searchapp import errors
from searchapp.search import reranking
from searchapp.search.hits import Hit, Hits, Took
from searchapp.search.request import request
from searchapp.search.reranking import Reranking
from searchapp.vectors import Array

FOUND = Hits(
    tuple(
        Hit(key, title, f"passage {key}", 0.5, 0.5, {}, 0.5)
        for key, title in zip("abcd", ["A", None, "", "D"], strict=True)
    ),
    mode="vector",
    exact=True,
    complete=False,
    took_ms=Took(1.0, 2.0),
    cursor="next",
)


def test_hits_are_ordered_by_score_and_equal_ones_keep_their_order() -> None:
    read: list[str] = []

    def scores(query: str, passages: Sequence[str]) -> Array:
        assert query == "a query"
        read.extend(passages)
        return np.array([1, 3, 1, 3], dtype=np.float32)

    ranked = reranking.rerank(FOUND, "a query", Reranking(scores, 1, 2))
    assert read == ["A passage a", "passage b", "passage c", "D passage d"]
    assert [(hit.key, hit.score, hit.rerank_score, hit.vector_score) for hit in ranked] == [
        ("d", 3, 3, 0.5),
        ("a", 1, 1, 0.5),
    ]
    assert (ranked.mode, ranked.exact, ranked.complete, ranked.cursor) == ("vector", True, False, None)


@pytest.mark.parametrize(
    ("top", "limit", "offset", "scored"), [(50, 10, 0, 50), (5, 10, 3, 13), (1, 1, 0, 1), (1000, 999, 1, 1000)]
)
def test_as_many_are_scored_as_are_asked_for_and_at_least_the_page(
    top: int, limit: int, offset: int, scored: int
) -> None:
    asked = request(limit, offset, {"lang": "en"}, min_score=0.1)
    widened = reranking.candidates(asked, "a model", top)
    assert (widened.limit, widened.offset, widened.filter, widened.min_score) == (scored, 0, {"lang": "en"}, 0.1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *(({"top": top}, "rerank_top is .*; expected 1 to 1,000") for top in (0, -1, 1001, True, 2.5, "50", None)),
        *(
            ({"model": model}, "rerank is .*; expected a cross-encoder's folder or name")
            for model in ("", " ", "a\0b", 5)
        ),
        ({"cursor": "next"}, "a reranked search takes no cursor; ask for its next page by offset"),
        ({"request": request(1000, 1)}, "offset and limit reach hit 1,001; at most 1,000 can be reranked"),
    ],
)
def test_what_cannot_be_reranked_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.InvalidInput, match=f"^{said}$"):
        reranking.candidates(**{"request": request(10), "model": "a model", **change})
