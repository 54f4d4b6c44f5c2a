"""Cutting texts by the model's own tokenizer."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from searchapp.encoders import weights
from searchapp.ingest.chunking import Chunker, Passage
from searchapp.spaces import Chunking

MAX_TOKENS = 256


def load_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(weights.locate(weights.DEFAULT) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


TOKENIZER = load_tokenizer()


def cut(text: str, tokens: int, overlap: int = 0, title: str | None = None) -> list[Passage]:
    return Chunker(TOKENIZER, MAX_TOKENS, Chunking(tokens, overlap)).passages(title, text)


def count(text: str) -> int:
    return len(TOKENIZER.encode(text, add_special_tokens=False))


def test_short_text_is_one_passage() -> None:
    assert cut("A cat sat on the mat.", 16) == [Passage(0, 21, "A cat sat on the mat.")]


def test_title_stands_before_each_passage() -> None:
    passages = cut("one two three four five six seven eight nine ten", 8, title="Numbers")
    assert [passage.encoded for passage in passages] == [
        "Numbers one two three four five six seven eight",
        "Numbers nine ten",
    ]
    assert [(passage.start, passage.length) for passage in passages] == [(0, 39), (40, 8)]


def test_neighbours_overlap() -> None:
    passages = cut("one two three four five six seven eight nine ten", 8, overlap=2)
    assert [passage.encoded for passage in passages] == [
        "one two three four five six seven eight",
        "seven eight nine ten",
    ]


def test_words_are_not_cut() -> None:
    words = ["internationalization", "electroencephalography", "mat"] * 40
    for passage in cut(" ".join(words), 16, 2):
        assert set(passage.encoded.split()) <= set(words)


def test_a_word_longer_than_a_passage_is_cut() -> None:
    word = "9" * 90  # a token every digit or two, one word
    passages = cut(word, 16, 2)
    assert len(passages) > 1
    assert all(count(passage.encoded) <= 18 for passage in passages)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400), st.integers(8, 40), st.booleans(), st.none() | st.text(min_size=1, max_size=60))
def test_passages_cover_the_whole_text_and_fit_the_model(
    text: str, tokens: int, overlapping: bool, title: str | None
) -> None:
    passages = cut(text, tokens, tokens // 8 if overlapping else 0, title)
    assert passages[0].start == 0
    assert passages[-1].start + passages[-1].length == len(text)
    for before, after in itertools.pairwise(passages):
        assert before.start < after.start
        between = text[before.start + before.length : after.start]
        assert count(between) == 0  # nothing that the model reads is left out
    for passage in passages:
        assert passage.encoded.endswith(text[passage.start : passage.start + passage.length])


def test_a_long_text_is_tokenised_in_slices_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "the quick brown fox jumps over the lazy dog, again and again; " * 200
    whole = cut(text, 32, 4)
    monkeypatch.setattr("searchapp.ingest.chunking.SLICE", 1000)
    assert cut(text, 32, 4) == whole


def test_without_chunking_the_passage_is_what_the_model_reads() -> None:
    text = "the quick brown fox jumps over the lazy dog " * 100
    [passage] = cut(text, 0, title="Fox")
    assert passage.start == 0
    assert count(passage.encoded) == MAX_TOKENS - 2
    assert text.startswith(passage.encoded.removeprefix("Fox "))


def test_without_chunking_a_short_text_is_its_own_passage() -> None:
    assert cut("hello  ", 0) == [Passage(0, 7, "hello  ")]


def test_a_title_longer_than_half_the_window_is_cut_for_encoding() -> None:
    [passage] = cut("the text itself", 254, title="long " * 500)
    assert passage.encoded.endswith(" the text itself")
    assert count(passage.encoded) <= 130
