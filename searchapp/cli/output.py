"""How the commands print: JSON for programs, something readable for people."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from searchapp import errors
from searchapp.ingest.documents import Document
from searchapp.search.explanation import Explanation
from searchapp.search.hits import Hit, Hits

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PASSAGE_LENGTH = 240


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
            print_json(hit._asdict())
    elif as_csv:
        print_csv(hits)
    else:
        print_hits(hits)


def hits_as_json(hits: Hits) -> dict[str, Any]:
    """The object that ``search --json`` prints."""
    return {
        "hits": [hit._asdict() for hit in hits],
        "mode": hits.mode,
        "exact": hits.exact,
        "complete": hits.complete,
        "took_ms": dataclasses.asdict(hits.took_ms),
        "cursor": hits.cursor,
    }


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
    names = [name for name in Hit._fields if name != "highlights"]
    writer.writerow(names)
    for hit in hits:
        values = hit._asdict() | {"metadata": json.dumps(hit.metadata, ensure_ascii=False)}
        writer.writerow([values[name] for name in names])


def print_hits(hits: Hits) -> None:
    """Print hits for people: rank, score and title, the passage below, and a line on how it went.

    In a pipe each of them is one line, whatever its length.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    digits = max(2, len(str(len(hits))))
    indent = " " * (digits + 9)
    for rank, hit in enumerate(hits, 1):
        rank_and_score = Text.assemble((f"{rank:{digits}}. ", "dim"), (f"{hit.score:.3f}  ", "green"))
        title = Text(one_line(hit.title or hit.key), style="bold")
        key = Text(f"  {one_line(hit.key)}" if hit.title and hit.title != hit.key else "", style="dim")
        passage = marked(hit)
        lines = [passage]
        if console.is_terminal:
            room = console.width - rank_and_score.cell_len - key.cell_len
            title.truncate(max(room, 20), overflow="ellipsis")
            lines = list(passage.wrap(console, max(console.width - len(indent), 20)))
        for line in [rank_and_score + title + key, *(Text(indent) + line for line in lines)]:
            _print_line(console, line)
    _print_line(console, Text(summary(hits), style="dim"))


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
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            print(f"{one_line(name):<9} {one_line(shown)}")
    print(f"\n{printable(document.text)}")


def summary(hits: Hits) -> str:
    """How a search went, in one line."""
    how = "exact" if hits.exact else "approximate"
    found = counted(len(hits), "hit") if hits else "no hits"
    return f"{found} ({how}; encode {hits.took_ms.encode:.1f} ms, database {hits.took_ms.database:.1f} ms)"


def marked(hit: Hit) -> Text:
    """A passage on one line, from shortly before the first word of the query on, with these in bold; where it has none,
    its beginning."""
    from rich.text import Text

    start = 0
    if hit.highlights and hit.highlights[0][0] > PASSAGE_LENGTH // 2:
        start = hit.passage.find(" ", hit.highlights[0][0] - PASSAGE_LENGTH // 3) + 1
    line, position = Text("... " if start else ""), start
    for begin, end in hit.highlights:
        if len(line) > PASSAGE_LENGTH:
            break
        line.append(_spaced(hit.passage[position:begin])).append(_spaced(hit.passage[begin:end]), "bold")
        position = end
    line.append(_spaced(hit.passage[position : position + 4 * PASSAGE_LENGTH]))
    if len(line) > PASSAGE_LENGTH:
        cut = line.plain.rfind(" ", 0, PASSAGE_LENGTH + 1)
        line = line[: cut if cut > 0 else PASSAGE_LENGTH].append(" ...")
    return line


def _spaced(text: str) -> str:
    return printable(re.sub(r"\s+", " ", text))


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
