"""How the commands print: JSON for programs, something readable for people."""

from __future__ import annotations

import csv
import dataclasses
import json
import locale
import re
import sys
from collections.abc import Iterable
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from searchapp import errors
from searchapp.ingest.documents import Document
from searchapp.search import showing
from searchapp.search.explanation import Explanation
from searchapp.search.hits import COLUMNS, Hit, Hits

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PASSAGE_LENGTH = 240
BAR_WIDTH = 6
BLOCKS = "▏▎▍▌▋▊▉█"  # an eighth of a cell to a full one


def print_json(value: Any) -> None:
    """Print one JSON value on one line."""
    print(json.dumps(value, ensure_ascii=False, default=str))


def check_form(as_json: bool, as_jsonl: bool, as_csv: bool) -> None:
    """Check that an answer is to be printed in one way.

    :raises errors.InvalidInput: in several.
    """
    if sum((as_json, as_jsonl, as_csv)) > 1:
        raise errors.InvalidInput("give one of --json, --jsonl and --csv")


def print_answer(hits: Hits, as_json: bool, as_jsonl: bool, as_csv: bool) -> None:
    """Print hits in one of the ways of the commands that search."""
    if as_json:
        print_json(hits_as_json(hits))
    elif as_jsonl:
        for hit in hits:
            print_json(hit_as_json(hit))
    elif as_csv:
        print_csv(hits)
    else:
        print_hits(hits)


def hits_as_json(hits: Hits) -> dict[str, Any]:
    """The object that ``search --json`` prints; ``groups`` only where these were asked for."""
    groups = [{"value": value, "hits": [hit_as_json(hit) for hit in members]} for value, members in hits.groups]
    return {
        "hits": [hit_as_json(hit) for hit in hits],
        **({"groups": groups} if groups else {}),
        "mode": hits.mode,
        "exact": hits.exact,
        "complete": hits.complete,
        "took_ms": dataclasses.asdict(hits.took_ms),
        "cursor": hits.cursor,
    }


def hit_as_json(hit: Hit) -> dict[str, Any]:
    """The object that a hit is; ``passages`` only where several were asked for."""
    told = hit._asdict()
    passages = [passage._asdict() for passage in told.pop("passages")]
    return {**told, **({"passages": passages} if passages else {})}


def shown_value(value: Any) -> str:
    """A value of the metadata on one line: a text as it is, others as JSON."""
    return one_line(showing.value_text(value))


def print_explanation(explanation: Explanation, *, as_json: bool) -> None:
    """Print how a search was answered: lines for people, or one JSON object, which has the server's plan as well."""
    if as_json:
        told = {"exact": explanation.exact, "rows_scanned": explanation.rows_scanned}
        print_json({**dataclasses.asdict(explanation), **told})
    else:
        print(printable(str(explanation)))


def print_csv(hits: Iterable[Hit]) -> None:
    """Print hits as CSV with a header; metadata is JSON in its column."""
    # Every text is quoted: else Python 3.11 leaves a lone carriage return bare, and its own reader ends the row there.
    writer = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(COLUMNS)
    for hit in hits:
        values = hit._asdict() | {"metadata": json.dumps(hit.metadata, ensure_ascii=False)}
        writer.writerow([values[name] for name in COLUMNS])


def print_hits(hits: Hits) -> None:
    """Print hits for people: rank, score and title, below them the passage and the metadata, and a line on how it went.

    A terminal gets a bar beside each score; in a pipe each of them is one line, whatever its length.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    digits = max(2, len(str(len(hits))))
    width = max((len(f"{hit.score:.3f}") for hit in hits), default=0)
    # a group's value stands above its first hit
    firsts = accumulate((len(group.hits) for group in hits.groups), initial=1)
    headings = {first: shown_value(group.value) for first, group in zip(firsts, hits.groups, strict=False)}
    for rank, (hit, share) in enumerate(zip(hits, showing.shares(hits), strict=True), 1):
        if rank in headings:
            _print_line(console, Text(headings[rank], style="bold underline"))
        # Not the stream's encoding, which is UTF-8 whatever the terminal's is.
        bar = f"{score_bar(share, locale.getencoding())} " if console.is_terminal else ""
        start = Text.assemble((f"{rank:{digits}}. ", "dim"), (f"{bar}{hit.score:{width}.3f}  ", "green"))
        for line in _lines(console, start, hit):
            _print_line(console, line)
    _print_line(console, Text(showing.summary(hits), style="dim"))


def _lines(console: Console, start: Text, hit: Hit) -> list[Text]:
    """A hit's lines; the first one begins with what is given, the others are indented to its width."""
    from rich.text import Text

    shown, beside = showing.heading(hit)
    title, key = Text(one_line(shown), style="bold"), Text(f"  {one_line(beside)}" if beside else "", style="dim")
    others = [each.text for each in hit.passages if each.text != hit.passage]
    shown_passages = [hit, *(hit._replace(passage=text, highlights=()) for text in others)]
    lines = [
        Text.assemble(
            *((printable(text), "bold" if found else "") for text, found in showing.excerpt(each, PASSAGE_LENGTH))
        )
        for each in shown_passages
    ]
    if console.is_terminal:
        room = console.width - start.cell_len
        title.truncate(max(room - key.cell_len, 20), overflow="ellipsis")
        lines = [line for each in lines for line in each.wrap(console, max(room, 20))]
    if hit.metadata:
        lines.append(Text(printable(showing.metadata(hit, PASSAGE_LENGTH)), style="dim"))
    indent = Text(" " * start.cell_len)
    return [start + title + key, *(indent + line for line in lines)]


def score_bar(share: float, encoding: str) -> str:
    """A bar for a share of 0 to 1, padded to the length of a full one; of blocks if the encoding has them.

    >>> score_bar(0.55, "utf-8"), score_bar(0.55, "latin-1"), score_bar(0, "utf-8")
    ('███▎  ', '###   ', '      ')
    """
    full, eighths = divmod(round(share * BAR_WIDTH * 8), 8)
    try:
        BLOCKS.encode(encoding)
    except UnicodeEncodeError:
        return ("#" * round(share * BAR_WIDTH)).ljust(BAR_WIDTH)
    return (BLOCKS[-1] * full + BLOCKS[:eighths][-1:]).ljust(BAR_WIDTH)


def _print_line(console: Console, line: Text) -> None:
    if console.is_terminal:
        console.print(line, no_wrap=True, overflow="ellipsis")
    else:
        print(line.plain)


def print_document(document: Document) -> None:
    """Print a document for people: key, title and metadata, a line each, and below them its text."""
    fields = [("key", document.key), ("title", document.title), *document.metadata.items()]
    for name, value in fields:
        if (name, value) != ("title", None):
            print(f"{one_line(name):<9} {one_line(showing.value_text(value))}")
    print(f"\n{printable(document.text)}")


def one_line(text: str) -> str:
    """The text on one line, as :func:`printable` makes it."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """The text with control characters made visible, so that stored text cannot steer the terminal.

    >>> printable("a\\x1b[31mb\\r\\nc")
    'a\\ufffd[31mb\\r\\nc'
    """
    return re.sub(r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", "\ufffd", text)


def print_table(rows: list[dict[str, Any]], none: str) -> None:
    """Print rows as a plain table, or what to say where there are none."""
    if not rows:
        print(none)
        return
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        print("  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip())


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "document"), counted(1200, "chunk")
    ('1 document', '1,200 chunks')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def human_bytes(size: float) -> str:
    """A size for people.

    >>> human_bytes(3 * 1024**2)
    '3.0 MB'
    """
    for unit in ("bytes", "kB", "MB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GB"
