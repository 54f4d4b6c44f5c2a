"""Hits as HTML, for notebooks.

Styles are inline, since notebooks drop or share style sheets; and they name no colours but translucent ones, so that a
light theme and a dark one both stay readable.
"""

from __future__ import annotations

from html import escape

from searchapp.search import showing
from searchapp.search.hits import Hit, Hits

PASSAGE_LENGTH = 600
_CELL = "text-align:left;vertical-align:top;white-space:normal;overflow-wrap:anywhere"
_NUMBER = "text-align:right;vertical-align:top;white-space:nowrap"
_BAR = "height:.35em;background:currentColor;opacity:.5"
_MARK = "color:inherit;background:rgba(255,190,0,.35)"
_DIM = "opacity:.7;font-size:smaller"


def table(hits: Hits) -> str:
    """A table with a row a hit, and below it a line on how the search went."""
    rows = [_row(rank, hit, share) for rank, (hit, share) in enumerate(zip(hits, showing.shares(hits), strict=True), 1)]
    shown = f"<table><tbody>{''.join(rows)}</tbody></table>" if rows else ""
    return f'<div>{shown}<div style="{_DIM}">{escape(showing.summary(hits))}</div></div>'


def _row(rank: int, hit: Hit, share: float) -> str:
    title, key = showing.heading(hit)
    passage = "".join(
        f'<mark style="{_MARK}">{escape(text)}</mark>' if found else escape(text)
        for text, found in showing.excerpt(hit, PASSAGE_LENGTH)
    )
    metadata = showing.metadata(hit, PASSAGE_LENGTH)
    # Each text has a direction of its own, so that one from right to left turns nothing beside it around.
    return (
        f'<tr><td style="{_NUMBER}">{rank}</td>'
        f'<td style="{_NUMBER}">{hit.score:.3f}'
        f'<div style="width:5em"><div style="width:{share:.1%};{_BAR}"></div></div></td>'
        f'<td style="{_CELL}"><div><b><bdi>{escape(title)}</bdi></b> <bdi style="{_DIM}">{escape(key)}</bdi></div>'
        f'<div dir="auto" style="{_CELL}">{passage}</div>'
        f'<div dir="auto" style="{_CELL};{_DIM}">{escape(metadata)}</div></td></tr>'
    )
