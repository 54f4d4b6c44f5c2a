"""The readable text of an HTML page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_UNSEEN = frozenset(("script", "style", "template", "noscript", "svg", "iframe", "object", "audio", "video", "canvas"))
_BLOCK_NAMES = (
    "address article aside blockquote body br button caption center dd details dialog dir div dl dt fieldset figcaption"
    " figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr legend li main menu nav ol option p pre search section"
    " select summary table tbody textarea tfoot thead tr ul"
)
_BLOCKS = frozenset(_BLOCK_NAMES.split())
_SPACES = re.compile(r"[ \t\n\r\f]+")


def read_html(page: str) -> tuple[str | None, str]:
    """Return a page's title, or None, and its visible text: a line a block, the rest run on as a browser does.

    >>> read_html("<title>Shoes</title><h1>Red  <b>shoes</b></h1><p>Size<br>40<script>track()</script>")
    ('Shoes', 'Red shoes\\nSize\\n40')
    """
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(page)
    heading = tree.css_first("head title")
    title = None if heading is None else _SPACES.sub(" ", heading.text()).strip()
    return title or None, "" if tree.body is None else "\n".join(_lines(tree.body))


def _lines(body: LexborNode) -> Iterator[str]:
    """Yield the lines of a page, from a stack of our own: pages nest deeper than Python recurses.

    On the stack a truth value marks the edge of a block, and says whether the text after it is preformatted.
    """
    stack: list[LexborNode | bool] = [body]
    run: list[str] = []
    preformatted = False
    while stack:
        node = stack.pop()
        if not isinstance(node, bool) and node.tag not in _BLOCKS:
            stack += _inline(node, run)
            continue
        if line := _join(run, preformatted):
            yield line
        run.clear()
        if isinstance(node, bool):
            preformatted = node
        elif "hidden" not in node.attributes:
            stack += [preformatted, *reversed(list(node.iter(include_text=True)))]
            preformatted = preformatted or node.tag == "pre"


def _inline(node: LexborNode, run: list[str]) -> list[LexborNode]:
    """Add what a node that is no block has to the run of text; return its children, last first."""
    if node.tag == "-text":
        run.append(node.text(deep=False))
        return []
    if node.tag in _UNSEEN or "hidden" in node.attributes:
        return []
    if node.tag in ("td", "th"):
        run.append(" ")
    return list(reversed(list(node.iter(include_text=True))))


def _join(run: list[str], preformatted: bool) -> str:
    text = "".join(run)
    return text.strip("\r\n").rstrip() if preformatted else _SPACES.sub(" ", text).strip(" ")
