"""Context from hand-made passages: what fits into a budget, what is joined, what is left out, and in which order."""

from __future__ import annotations

import doctest
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchapp import errors
from searchapp.search import context
from searchapp.search.context import Candidate, Context, CountTokens, Span

WORDS = ("ant", "bee", "cat", "dog")


def count(text: str) -> int:
    return len(text.split())


def pieces(text: str) -> int:
    """As many as of four characters, and some more in all than one by one."""
    return -(-len(text) // 4) + text.count("\n\n")


def with_marks(text: str) -> int:
    """As a tokenizer that adds a mark at both ends."""
    return count(text) + 2


def assemble(found: list[Candidate], budget: int, counter: CountTokens) -> Context:
    return context.assemble(found, budget, counter)[0]


@dataclass(frozen=True)
class Made:
    """A document of some chunks of four words, with nothing or something between them."""

    rank: int
    chunks: int
    title: str | None = None
    gap: str = ""

    @property
    def pieces(self) -> list[str]:
        return [" ".join(f"{word}{self.rank}{chunk}" for word in WORDS) for chunk in range(self.chunks)]

    @property
    def text(self) -> str:
        return self.gap.join(self.pieces)

    def span(self, first: int, last: int) -> Span:
        starts = np.cumsum([0, *(len(piece) + len(self.gap) for piece in self.pieces)]).tolist()
        return Span(starts[first], self.text[starts[first] : starts[last] + len(self.pieces[last])])

    def passage(self, number: int, score: float, neighbours: int = 0, embedding: Any = None) -> Candidate:
        first, last = max(number - neighbours, 0), min(number + neighbours, self.chunks - 1)
        axis = np.eye(24, dtype=np.float32)[(self.rank * 6 + number) % 24]
        vector = axis if embedding is None else np.array(embedding, np.float32)
        alone, widened = self.span(number, number), self.span(first, last)
        return Candidate(self.rank, f"k{self.rank}", self.title, number, score, alone, widened, first, vector)


def keys(found: Context) -> list[tuple[str, int]]:
    return [(passage.key, passage.position) for passage in found.passages]


def heading(each: Any) -> str:
    return " ".join((each.title or each.key).split())


def written(found: Context) -> str:
    """What the text must be, by the passages."""
    sources = (f"[{number}] {heading(each)}\n{each.text.strip()}" for number, each in enumerate(found.passages, 1))
    return "\n\n".join(sources)


def test_the_examples_in_the_docstrings_are_true() -> None:
    assert doctest.testmod(context).failed == 0


@pytest.mark.parametrize(
    ("other", "joined"),
    [
        (Span(3, "defg"), Span(0, "abcdefg")),  # overlaps
        (Span(4, "efg"), Span(0, "abcdefg")),  # touches
        (Span(1, "bc"), Span(0, "abcd")),  # lies within
        (Span(0, "abcdef"), Span(0, "abcdef")),  # begins there too
        (Span(0, "ab"), Span(0, "abcd")),
        (Span(0, "abcd"), Span(0, "abcd")),
        (Span(5, "fg"), None),  # a character is between them
    ],
)
def test_spans_are_joined_where_they_overlap_or_touch(other: Span, joined: Span | None) -> None:
    assert Span(0, "abcd").joined(other) == other.joined(Span(0, "abcd")) == joined


def test_sources_are_numbered_and_named_by_title_or_key() -> None:
    found = assemble([Made(0, 1, "A title").passage(0, 0.9), Made(1, 1).passage(0, 0.8)], 100, count)
    assert found.text == f"[1] A title\n{Made(0, 1).text}\n\n[2] k1\n{Made(1, 1).text}" == str(found)
    assert [(each.title, each.score, each.text) for each in found.passages] == [
        ("A title", 0.9, Made(0, 1).text),
        (None, 0.8, Made(1, 1).text),
    ]
    assert found.tokens == 3 + 4 + 2 + 4


def test_nothing_found_is_an_empty_context() -> None:
    found = assemble([], 1, count)
    assert (found.passages, found.text, found.tokens) == ((), "", 0)


def test_a_passage_whose_neighbours_do_not_fit_stands_alone() -> None:
    passage = Made(0, 3).passage(1, 0.9, neighbours=1)
    assert assemble([passage], 100, count).passages[0].text == Made(0, 3).text
    narrow = assemble([passage], 10, count)
    assert (keys(narrow), narrow.passages[0].text) == ([("k0", 1)], Made(0, 3).pieces[1])


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 0, 1), (0, 1, 2), (1, 2, 0)])
def test_what_overlaps_or_touches_is_one_passage_with_the_best_score(order: tuple[int, ...]) -> None:
    made = Made(0, 5)
    found = assemble([made.passage(number, 0.9 - place / 10) for place, number in enumerate(order)], 100, count)
    assert (keys(found), found.passages[0].score) == ([("k0", 0)], 0.9)
    assert found.passages[0].text == "".join(made.pieces[:3])


def test_passages_with_a_gap_between_them_are_not_joined_and_stand_in_the_order_of_the_text() -> None:
    made, other = Made(0, 5, gap=" "), Made(1, 1)
    found = assemble([made.passage(3, 0.9), other.passage(0, 0.8), made.passage(0, 0.7)], 100, count)
    assert keys(found) == [("k0", 0), ("k0", 3), ("k1", 0)]
    assert [each.score for each in found.passages] == [0.7, 0.9, 0.8]


def test_documents_stand_in_the_order_of_their_best_passages() -> None:
    first, second = Made(0, 3, gap=" "), Made(1, 3, gap=" ")
    found = assemble([second.passage(2, 0.9), first.passage(0, 0.8), second.passage(0, 0.1)], 100, count)
    assert keys(found) == [("k1", 0), ("k1", 2), ("k0", 0)]


@pytest.mark.parametrize(("cosine", "kept"), [(0.96, 1), (0.9501, 1), (0.9499, 2), (0.0, 2), (-1.0, 2)])
def test_what_says_the_same_in_another_document_is_left_out(cosine: float, kept: int) -> None:
    beside = [3 * cosine, 3 * (1 - cosine**2) ** 0.5]  # of whatever length
    found = assemble([Made(0, 1).passage(0, 0.9, 0, [1, 0]), Made(1, 1).passage(0, 0.8, 0, beside)], 100, count)
    assert [each.key for each in found.passages] == ["k0", "k1"][:kept]


def test_what_did_not_fit_does_not_keep_what_says_the_same_out() -> None:
    long, short = Made(0, 1, "a title of many words").passage(0, 0.9, 0, [1, 0]), Made(1, 1).passage(0, 0.8, 0, [1, 0])
    assert keys(assemble([long, short], 6, count)) == [("k1", 0)]


def test_a_budget_that_no_passage_fits_into_is_refused_with_the_shortest_one() -> None:
    found = [Made(0, 3, "A title").passage(1, 0.9, 1), Made(1, 2).passage(0, 0.8, 1)]
    with pytest.raises(
        errors.InvalidInput, match=r"^no passage fits into 5 tokens; the shortest that was found takes 6$"
    ):
        assemble(found, 5, count)
    assert keys(assemble(found, 6, count)) == [("k1", 0)]


def test_the_only_passage_that_fits_is_found_behind_many_that_do_not() -> None:
    long = [Made(number, 1, "a title of many words").passage(0, 0.9) for number in range(30)]
    short = Made(30, 1).passage(0, 0.1)
    assert keys(assemble([*long, short], 8, count)) == [("k30", 0)]
    with pytest.raises(errors.InvalidInput, match=r"the shortest that was found takes 6$"):
        assemble([*long, short], 5, count)


def test_marks_that_a_counter_adds_to_any_text_take_no_room_for_passages() -> None:
    found = [Made(number, 1).passage(0, 0.9) for number in range(4)]
    assert assemble(found, 4 * 6 + 2, with_marks).tokens == 26


def test_a_large_budget_is_filled_without_counting_all_again_each_time() -> None:
    counted: list[int] = []

    def counter(text: str) -> int:
        counted.append(len(text))
        return count(text)

    passage = Made(0, 1).passage(0, 0.9)
    found = [
        replace(passage, document=rank, embedding=vector) for rank, vector in enumerate(np.eye(200, dtype=np.float32))
    ]
    whole = assemble(found, 10_000, counter)
    assert len(whole.passages) == 200
    assert sum(counted) < 5 * len(whole.text)


@st.composite
def candidates(draw: st.DrawFn) -> tuple[list[Candidate], dict[str, str]]:
    """Passages of some documents, best first, and the texts of these."""
    gaps, titles = st.sampled_from(["", " ", "\n\n"]), st.sampled_from([None, "", "A\n[2] title"])
    documents = [
        Made(rank, draw(st.integers(1, 6)), draw(titles), draw(gaps)) for rank in range(draw(st.integers(1, 4)))
    ]
    found = [
        made.passage(number, draw(st.integers(0, 9)) / 10, draw(st.integers(0, 2)))
        for made in documents
        for number in draw(st.sets(st.integers(0, made.chunks - 1)))
    ]
    best_first = sorted(found, key=lambda each: (-each.score, each.document, each.position))
    return best_first, {f"k{made.rank}": made.text for made in documents}


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(candidates(), st.integers(1, 60), st.sampled_from([count, len, pieces, with_marks]))
def test_a_context_is_its_passages_within_the_budget(
    made_up: tuple[list[Candidate], dict[str, str]], budget: int, counter: Any
) -> None:
    found, texts = made_up
    try:
        made = assemble(found, budget, counter)
    except errors.InvalidInput:
        assert found
        assert all(counter(f"[1] {heading(each)}\n{each.alone.text.strip()}") > budget for each in found)
        return
    assert bool(made.passages) == bool(found)
    assert made.text == written(made)
    assert made.tokens == (counter(made.text) if found else 0) <= budget
    best: dict[str, float] = {}
    for passage in made.passages:
        assert passage.text in texts[passage.key]
        assert passage.score in {each.score for each in found if each.key == passage.key}
        best[passage.key] = max(passage.score, best.get(passage.key, 0))
    assert list(best.values()) == sorted(best.values(), reverse=True)
    ordered = [(list(best).index(each.key), each.position) for each in made.passages]
    assert ordered == sorted(set(ordered))
