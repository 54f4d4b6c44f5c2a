"""Cutting texts into passages that fit a model, by the model's own tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from searchapp.spaces import Chunking

# A long text is tokenised in slices: the tokenizer's own objects take some 200 bytes a token.
SLICE = 100_000

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a text: ``start`` and ``length`` in code points, and what is encoded (title, a space, the piece)."""

    start: int
    length: int
    encoded: str


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Where each token of a text starts and ends, in code points, and whether a word begins with it."""

    starts: Integers
    ends: Integers
    begins_word: npt.NDArray[np.bool_]


class Chunker:
    """Cuts documents for one space.

    :param tokenizer: the model's, neither padding nor cutting.
    :param max_tokens: what the model reads, special tokens counted in.
    :param prefix: what the encoder will put before each passage.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, chunking: Chunking, prefix: str = "") -> None:
        self._tokenizer = tokenizer
        self._chunking = chunking
        special = tokenizer.num_special_tokens_to_add(False)
        self._room = max_tokens - special - self._count(prefix)

    def passages(self, title: str | None, text: str) -> list[Passage]:
        """Cut one document: at least one passage, in the order of the text, together covering all of it
        (without chunking: only its beginning, as far as the model reads)."""
        heading = self._heading(title)
        if _surely_fits(heading + text, min(self._room, self._chunking.tokens or self._room)):
            return [Passage(0, len(text), heading + text)]
        room = self._room - self._count(heading)
        if not self._chunking.tokens:
            return [Passage(0, end, heading + text[:end]) for end in [self._end_of_first(text, room)]]
        size = min(self._chunking.tokens, room)
        overlap = min(self._chunking.overlap, size // 2)
        spans = windows(self._tokenize(text), len(text), size, overlap)
        return [Passage(start, end - start, heading + text[start:end]) for start, end in spans]

    def _heading(self, title: str | None) -> str:
        """The title and a space; one that would fill over half of the model's window is cut for the encoding."""
        if not title:
            return ""
        if _surely_fits(title, self._room // 2):
            return f"{title} "
        tokens = self._tokenizer.encode(title[:SLICE], add_special_tokens=False)
        if len(tokens) > self._room // 2:
            title = title[: tokens.offsets[self._room // 2 - 1][1]]
        return f"{title} "

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False)) if text else 0

    def _end_of_first(self, text: str, room: int) -> int:
        """Where the first ``room`` tokens end, the last word whole; the encoder itself cuts between tokens."""
        seen = 0
        for offset, piece in _slices(text, min(SLICE, 64 * room)):
            tokens = self._tokens_of(piece, offset)
            if seen + len(tokens.starts) > room:
                after = np.flatnonzero(tokens.begins_word[room - seen :])
                return int(tokens.ends[room - seen + after[0] - 1] if len(after) else tokens.ends[-1])
            seen += len(tokens.starts)
        return len(text)

    def _tokenize(self, text: str) -> _Tokens:
        parts = [self._tokens_of(piece, offset) for offset, piece in _slices(text, SLICE)]
        if len(parts) == 1:
            return parts[0]
        return _Tokens(
            np.concatenate([part.starts for part in parts]),
            np.concatenate([part.ends for part in parts]),
            np.concatenate([part.begins_word for part in parts]),
        )

    def _tokens_of(self, piece: str, offset: int) -> _Tokens:
        encoding = self._tokenizer.encode(piece, add_special_tokens=False)
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2) + offset
        words = np.array([-1 if word is None else word for word in encoding.word_ids], dtype=np.int64)
        return _Tokens(offsets[:, 0], offsets[:, 1], np.diff(words, prepend=-2) != 0)


def _surely_fits(text: str, tokens: int) -> bool:
    """Whether a text has no more tokens than that, seen without a tokenizer: no ASCII character is two tokens.

    (Others may be: a ligature is spelt out. And some tokenizers put a mark of their own in front.)
    """
    return len(text) < tokens and text.isascii()


def windows(tokens: _Tokens, length: int, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """The spans of a text's passages, at most ``size`` tokens each, cut between words (save within very long ones).

    :param length: the text's, in code points; the first span begins at 0, the last ends there.
    """
    count = len(tokens.starts)
    first = 0
    while count - first > size:
        last = _last_word(tokens, first + size // 2 + 1, first + size) or first + size
        yield (int(tokens.starts[first]) if first else 0), int(tokens.ends[last - 1])
        first = _last_word(tokens, max(last - 2 * overlap, first + 1), last - overlap) or last
    yield (int(tokens.starts[first]) if first else 0), length


def _last_word(tokens: _Tokens, lowest: int, highest: int) -> int | None:
    """The last token from ``lowest`` to ``highest`` that begins a word."""
    found = np.flatnonzero(tokens.begins_word[lowest : highest + 1])
    return lowest + int(found[-1]) if len(found) else None


def _slices(text: str, size: int) -> Iterator[tuple[int, str]]:
    """Pieces of a text of at most ``size`` code points, cut before whitespace if their second half has some."""
    start = 0
    while len(text) - start > size:
        half = start + size // 2
        gaps = [gap.start() for gap in re.finditer(r"\s", text[half : start + size])]
        end = half + gaps[-1] if gaps else start + size
        yield start, text[start:end]
        start = end
    yield start, text[start:]
