"""JSON Lines: one object a line."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from searchapp import errors
from searchapp.ingest import documents
from searchapp.ingest.documents import Document, InvalidRow, Rejected
from searchapp.ingest.readers import source, streams

# How much is read before the first document is given out: a field that no row has is an error before anything is
# written.
AHEAD_ROWS = 1_000
AHEAD_BYTES = 16 * 2**20
_KINDS = {list: "a JSON array", str: "a JSON string", bool: "true or false", type(None): "null"}


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    size: int
    values: dict[str, Any]


class JsonLines(source.Source):
    """A file of JSON Lines, or standard input. Its first rows are read ahead, to see which fields there are."""

    def _documents(self) -> Iterator[Document | Rejected]:
        with streams.open_stream(self.path, self.advance) as stream:
            rows = self._rows(stream)
            ahead, whole = _look_ahead(rows)
            self._check_fields(ahead, whole)
            for row in itertools.chain(ahead, rows):
                yield row if isinstance(row, Rejected) else self._document(row.line, row.values, self.fields)

    def _rows(self, stream: io.BufferedReader) -> Iterator[_Row | Rejected]:
        begun = False
        for number, line in streams.read_lines(stream):
            if line is None:
                yield self._rejected(number, f"a line of more than {streams.MAX_BYTES // 2**20} MB")
            elif line and not line.isspace():
                if not begun and line.strip() in (b"[", b"{"):  # each of its lines would be rejected
                    raise spread(self.label, array=line.startswith(b"["))
                begun = True
                yield self._row(number, line)

    def _row(self, number: int, line: bytes) -> _Row | Rejected:
        try:
            return _Row(number, len(line), parse(line))
        except InvalidRow as exc:
            return self._rejected(number, exc.reason, self._key_of(line))

    def _key_of(self, line: bytes) -> str | None:
        """Read the key of a faulty line, where all that is wrong with it is a byte that is not UTF-8, elsewhere."""
        try:
            return documents.find_key(_load(line.decode(errors="surrogateescape")), self.fields)
        except InvalidRow:
            return None

    def _check_fields(self, ahead: list[_Row | Rejected], whole: bool) -> None:
        rows = [row.values for row in ahead if isinstance(row, _Row)]
        if not rows:
            return
        names = dict.fromkeys(itertools.chain.from_iterable(rows))
        if not whole and self.path is not None:
            names |= dict.fromkeys(self._seen_later(self._rare(names)))
        source.require(self.fields, names, self.label, "no row" if whole else f"none of the first {len(rows):,} rows")

    def _rare(self, names: dict[str, None]) -> set[str]:
        """Those named fields that a document can do without and that no row had so far."""
        needed = {self.fields.key, *(self.fields.text if len(self.fields.text) == 1 else ())}
        return set(self.fields.named()) - needed - names.keys()

    def _seen_later(self, names: set[str]) -> set[str]:
        """Find which of these fields some row of the file has: one that only the millionth row has is no error.

        The whole file is searched for their names, and only the lines that hold one are parsed.
        """
        written = {name: {json.dumps(name).encode(), name.encode(errors="surrogatepass")} for name in names}
        found: set[str] = set()
        if not names:
            return found
        with streams.open_stream(self.path) as stream:
            for _, line in streams.read_lines(stream):
                likely = [name for name in names - found if line and any(form in line for form in written[name])]
                found |= {name for name in likely if name in _parse_or_nothing(line or b"")}
                if found == names:
                    break
        return found


def _look_ahead(rows: Iterator[_Row | Rejected]) -> tuple[list[_Row | Rejected], bool]:
    """Take the first rows, and say whether these were all."""
    ahead: list[_Row | Rejected] = []
    size = 0
    for row in rows:
        ahead.append(row)
        size += row.size if isinstance(row, _Row) else 0
        if len(ahead) >= AHEAD_ROWS or size >= AHEAD_BYTES:
            return ahead, False
    return ahead, True


def parse(line: bytes) -> dict[str, Any]:
    """Parse one line.

    :raises InvalidRow: it is not UTF-8, not JSON, or not an object.

    >>> parse(b'{"id": 1}')
    {'id': 1}
    """
    try:
        return _load(line.decode())
    except UnicodeDecodeError as exc:
        raise InvalidRow(streams.explain_encoding(exc)) from exc


def _load(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except RecursionError as exc:
        raise InvalidRow("malformed JSON: lists and objects too deep inside each other") from exc
    except json.JSONDecodeError as exc:
        column = min(exc.pos, len(text.rstrip())) + 1  # its own counts the line end, and begins again after it
        raise InvalidRow(f"malformed JSON: {exc.msg.removesuffix(' at')} at column {column}") from exc
    except ValueError as exc:  # Python reads no integer of more than 4,300 digits
        raise InvalidRow("malformed JSON: a number with too many digits") from exc
    if not isinstance(row, dict):
        raise InvalidRow(f"{_KINDS.get(type(row), 'a number')}, expected an object")
    return row


def _parse_or_nothing(line: bytes) -> dict[str, Any]:
    try:
        return parse(line)
    except InvalidRow:
        return {}


def spread(label: str, *, array: bool) -> errors.SourceUnreadable:
    """Make the error for a file that is one JSON value over many lines; it names the command that mends it."""
    kind, query = ("array", "'.[]'") if array else ("object over many lines", ".")
    return errors.SourceUnreadable(
        f"{label} is one JSON {kind}, expected one object a line; make it so: jq -c {query} FILE.json > FILE.jsonl"
    )
