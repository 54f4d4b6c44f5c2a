"""Questions by words without a database: what marks mean, how two scores may be fused, where highlights stand."""

from __future__ import annotations

import doctest
import math
from typing import Any

import numpy as np
import pytest

from searchapp import errors
from searchapp.search import highlighting, hybrid, query


def test_the_examples_in_the_docstrings_are_true() -> None:
    assert [doctest.testmod(each).failed for each in (query, hybrid, highlighting)] == [0, 0, 0]


# What marks mean


@pytest.mark.parametrize(
    ("typed", "text", "phrases"),
    [
        ('"top speed"', "top speed", ("top speed",)),
        ('jaguar "top speed" car', "jaguar top speed car", ("top speed",)),
        ('"a b" "c d"', "a b c d", ("a b", "c d")),
        ('"a b""c d"', 'a b "c d"', ("a b",)),
        ("“top speed” jaguar", "top speed jaguar", ("top speed",)),
        ('“the "so called" best”', 'the "so called" best', ('the "so called" best',)),
        ('"  top speed\n"', "top speed", ("top speed",)),
        ('"cat"s', "cat s", ("cat",)),
        ('"日本 🎉" x', "日本 🎉 x", ("日本 🎉",)),
    ],
)
def test_what_stands_in_quotes_is_a_phrase_and_part_of_the_text(typed: str, text: str, phrases: tuple[str]) -> None:
    assert query.read(typed) == query.Query(text, phrases)


@pytest.mark.parametrize(
    ("typed", "text", "excluded"),
    [
        ("jaguar -car", "jaguar", ("car",)),
        ("-car jaguar\t-boat", "jaguar", ("car", "boat")),
        ('jaguar -"sports car"', "jaguar", ("sports car",)),
        ("jaguar -“sports car” cat", "jaguar cat", ("sports car",)),
        ("jaguar -e-type", "jaguar", ("e-type",)),
        ('jaguar -""', "jaguar", ()),
    ],
)
def test_what_follows_a_hyphen_is_excluded_and_no_part_of_the_text(typed: str, text: str, excluded: tuple[str]) -> None:
    assert query.read(typed) == query.Query(text, (), excluded)


@pytest.mark.parametrize(
    "typed",
    [
        "plain words",
        "  two  spaces ",
        'a 12" record and a 14" screen',
        'an "open quote',
        "an “open quote",
        'an “open quote"',
        '-"open',
        "state-of-the-art well-known",
        "jaguar - car",
        "jaguar -- car",
        "jaguar --car",
        "trailing -",
        'x-"y z"',
        "it's",
    ],
)
def test_other_quotes_and_hyphens_are_text(typed: str) -> None:
    assert query.read(typed) == query.Query(typed)


@pytest.mark.parametrize("typed", ["-car", '-"sports car" -boat', '""', "“”", '" "', '-""', '"" -car'])
def test_a_question_that_asks_for_nothing_is_refused(typed: str) -> None:
    with pytest.raises(errors.InvalidInput, match=r"^the query has nothing to look for; add words beside"):
        query.read(typed)


@pytest.mark.parametrize("mark", ["-word{}", '"a phrase {}"', '-"a phrase {}"'])
def test_too_many_marks_are_refused(mark: str) -> None:
    marks = [mark.format(number) for number in range(query.MAX_MARKS)]
    query.read(" ".join(["word", *marks]))
    with pytest.raises(errors.InvalidInput, match=r"^the query has 101 phrases and exclusions; at most 100 can be"):
        query.read(" ".join(["word", *marks, mark]))


# Fusion


def test_each_method_has_weights_of_its_own() -> None:
    convex = hybrid.Fusion("convex", 0.8, 0.2)
    assert hybrid.fusion() == hybrid.fusion("convex") == hybrid.DEFAULT_FUSION == convex
    assert hybrid.fusion("rrf") == hybrid.Fusion("rrf", 1.0, 1.0)


@pytest.mark.parametrize("weights", [("1", " 2 "), (1, 2), [1.0, 2.0], np.array([1.0, 2.0])])
def test_weights_are_two_numbers_in_any_form(weights: Any) -> None:
    assert hybrid.fusion("rrf", weights) == hybrid.Fusion("rrf", 1.0, 2.0)


def test_one_weight_may_be_zero() -> None:
    assert hybrid.fusion(weights=(0, 1)) == hybrid.Fusion("convex", 0.0, 1.0)


@pytest.mark.parametrize("method", ["RRF", "sum", "rrf ", "\x1b[2J"])
def test_an_unknown_method_is_refused(method: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        hybrid.fusion(method)
    assert str(caught.value) == f"fusion is {method!r}; expected one of: convex, rrf"


@pytest.mark.parametrize(
    "weights", [(), (1,), (1, 2, 3), ("a", "b"), ("", ""), ("0.8",), (None, 1), ("0,8", "0,2"), (10**400, 1)]
)
def test_weights_that_are_not_two_numbers_are_refused(weights: Any) -> None:
    with pytest.raises(errors.InvalidInput, match=r"^weights are .+; expected two numbers, such as 0\.8 and 0\.2$"):
        hybrid.fusion(weights=weights)


@pytest.mark.parametrize(
    "weights", [(math.nan, 1), (1, math.nan), (math.inf, 1), (-math.inf, 1), (-0.1, 1), (1, -1), (0, 0), ("nan", "1")]
)
def test_weights_that_cannot_be_are_refused(weights: Any) -> None:
    with pytest.raises(errors.InvalidInput, match=r"^weights are .+; expected none below 0, and one over it$"):
        hybrid.fusion(weights=weights)


# Candidates


@pytest.mark.parametrize(
    ("limit", "offset", "exact", "candidates"),
    [(1, 0, False, 100), (10, 90, False, 100), (10, 0, True, 300), (10, 290, True, 300), (5000, 0, False, 5000)],
)
def test_each_leg_gives_as_many_candidates_as_are_looked_at(
    limit: int, offset: int, exact: bool, candidates: int
) -> None:
    assert hybrid.candidates_for(limit, offset, exact=exact) == candidates


@pytest.mark.parametrize(("limit", "offset", "exact"), [(10, 91, False), (10, 291, True), (1000, 1, False)])
def test_a_page_behind_the_candidates_is_refused(limit: int, offset: int, exact: bool) -> None:
    with pytest.raises(errors.InvalidInput, match=f"^offset and limit reach {offset + limit:,}; "):
        hybrid.candidates_for(limit, offset, exact=exact)


# Highlights


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("", ()),
        ("no cat", ()),
        ("[cat]", ((0, 3),)),
        ("a [fat] cat [sat]", ((2, 5), (10, 13))),
        ("[fat][cat]", ((0, 3), (3, 6))),
        ("日本 🎉 [語学]\n[x]", ((5, 7), (8, 9))),
    ],
)
def test_spans_are_of_the_text_without_the_marks(marked: str, expected: tuple[tuple[int, int], ...]) -> None:
    plain = marked.replace("[", "").replace("]", "")
    assert highlighting.spans(marked, "[", "]") == list(expected)
    assert [f"[{plain[start:end]}]" in marked for start, end in expected] == [True] * len(expected)
