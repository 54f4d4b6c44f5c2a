"""Hits for people: what a terminal and a notebook show alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from searchapp.search.explanation import counted
from searchapp.search.hits import Hit, Hits


def summary(hits: Hits) -> str:
    """How a search went, in one line."""
    how = "exact" if hits.exact else "approximate"
    found = counted(len(hits), "hit") if hits else "no hits"
    took = f"encode {hits.took_ms.encode:.1f} ms, database {hits.took_ms.database:.1f} ms"
    if hits.took_ms.rerank:
        took += f", rerank {hits.took_ms.rerank:.1f} ms"
    return f"{found} ({how}; {took})"


def shares(hits: Iterable[Hit]) -> list[float]:
    """The length of each hit's bar, 0 to 1: its score beside the best one; 0 where the score is not above 0."""
    scores = [max(hit.score, 0.0) for hit in hits]
    best = max(scores, default=0.0) or 1.0
    return [score / best for score in scores]


def heading(hit: Hit) -> tuple[str, str]:
    """The title, and the key beside it; without a title the key alone, and nothing beside it."""
    return hit.title or hit.key, hit.key if hit.title and hit.title != hit.key else ""


def excerpt(hit: Hit, length: int) -> list[tuple[str, bool]]:
    """A passage's pieces, and which of them are words of the query: from shortly before the first of these on; where it
    has none, from its beginning. White space is one space.

    :param length: about how many characters.

    >>> excerpt(Hit("1", None, "a fat\\ncat sat", 1, 0, {}, highlights=((2, 5),)), 10)
    [('a ', False), ('fat', True), (' cat', False), (' ...', False)]
    """
    shown: list[tuple[str, bool]] = []
    room = length
    for text, found in _pieces(hit, length):
        if len(text) > room:
            # A space far back is none to end at: not every language has them between words.
            cut = text.rfind(" ", max(room - length // 6, 0), room + 1)
            if cut < 0:
                cut = 0 if found and shown else room
            shown += [(text[:cut], found), (" ...", False)]
            break
        shown.append((text, found))
        room -= len(text)
    return [(text, found) for text, found in shown if text]


def _pieces(hit: Hit, length: int) -> Iterator[tuple[str, bool]]:
    start = 0
    if hit.highlights and hit.highlights[0][0] > length // 2:
        first = hit.highlights[0][0]
        near = first - length // 3
        start = max(hit.passage.find(" ", near, near + length // 6), near)
        yield "...", False
    for begin, end in hit.highlights:
        yield _spaced(hit.passage[start:begin]), False
        yield _spaced(hit.passage[begin:end]), True
        start = end
    yield _spaced(hit.passage[start : start + 4 * length]), False


def _spaced(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def metadata(hit: Hit, length: int) -> str:
    """The metadata in one line of at most so many characters, or nothing where there is none.

    >>> metadata(Hit("1", None, "", 1, 0, {"section": "fonts", "years": [2020]}), 80)
    'section: fonts · years: [2020]'
    """
    line = " · ".join(" ".join(f"{name}: {value_text(value)}".split()) for name, value in hit.metadata.items())
    return line if len(line) <= length else f"{line[: length - 4]} ..."


def value_text(value: Any) -> str:
    """A value of metadata to read: a text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
