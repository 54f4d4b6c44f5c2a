"""Where a query's words stand in the passages of its hits."""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Iterator

from searchapp.database import Reader
from searchapp.search.hits import Hits
from searchapp.spaces import Space

# PostgreSQL leaves out what is too long for a word, 2 kB; nobody asks for that.
_LONG = re.compile(r"<[^>]{500,}>|\S{500,}")
# Every word of the query is marked, whether or not all of them stand in the passage.
_MARKING = """
WITH words AS (
  SELECT CAST(coalesce(string_agg(quote_literal(w.lexeme), ' | '), '') AS tsquery) AS any
  FROM unnest(to_tsvector(CAST($1 AS regconfig), $2)) w
)
SELECT ts_headline(CAST($1 AS regconfig), p.passage, words.any, $3)
FROM unnest(CAST($4 AS text[])) WITH ORDINALITY p (passage, place) CROSS JOIN words ORDER BY p.place
"""


def highlight(reader: Reader, space: Space, text: str, hits: Hits) -> Hits:
    """The same hits with their highlights, in a round trip of its own.

    :param text: whose words are looked for.
    """
    if not hits or space.language is None:
        return hits
    start, stop = f"<{secrets.token_hex(8)}>", f"</{secrets.token_hex(8)}>"  # which no passage has
    options = f'HighlightAll=true, StartSel="{start}", StopSel="{stop}"'
    passages = [_LONG.sub(_short_words, hit.passage) for hit in hits]
    marked = reader.fetch(_MARKING.encode(), [space.language, text, options, passages])
    return dataclasses.replace(
        hits,
        hits=tuple(
            hit._replace(highlights=tuple(_in_short_words(hit.passage, spans(passage, start, stop))))
            for hit, (passage,) in zip(hits, marked, strict=True)
        ),
    )


def _short_words(long: re.Match[str]) -> str:
    return (" z" * len(long[0]))[: len(long[0]) - 1] + " "


def _in_short_words(passage: str, found: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    long = [each.span() for each in _LONG.finditer(passage)]
    return (span for span in found if not any(start <= span[0] < end for start, end in long))


def spans(marked: str, start: str, stop: str) -> list[tuple[int, int]]:
    """Where the marked words stand in the text without the marks.

    >>> spans("a [fat] cat", "[", "]")
    [(2, 5)]
    """
    found = []
    first, *others = marked.split(start)
    position = len(first)
    for each in others:
        word, _, rest = each.partition(stop)
        found.append((position, position + len(word)))
        position += len(word) + len(rest)
    return found
