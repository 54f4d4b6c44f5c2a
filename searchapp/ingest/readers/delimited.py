"""CSV and TSV: a header, then a row a record; fields may be quoted, and a quoted field may hold line ends."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from searchapp import errors, values
from searchapp.ingest import documents
from searchapp.ingest.documents import Document, Fields, Rejected
from searchapp.ingest.readers import source, streams

if TYPE_CHECKING:
    from _csv import Reader  # which the module csv names only from Python 3.13 on

# The csv module keeps a field it is reading at four bytes a character. A quote that is never closed makes the rest of
# the file one field; this many characters of it are enough.
MAX_FIELD = 64 * 2**20


class Delimited(source.Source):
    """A file of CSV or TSV. Every value is text."""

    def __init__(self, name: str, path: Path, fields: Fields, total_bytes: int, *, delimiter: str) -> None:
        super().__init__(name, path, fields, total_bytes)
        self.delimiter = delimiter

    def _documents(self) -> Iterator[Document | Rejected]:
        # The limit is the whole process's, and 131,072 where nobody sets it: a long article is longer.
        csv.field_size_limit(MAX_FIELD)
        with streams.open_stream(self.path, self.advance) as stream:
            # surrogateescape lets one row that is not UTF-8 be found and rejected alone.
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
            records = self._records(csv.reader(self._lines(text), delimiter=self.delimiter, strict=True))
            header = self._header(records)
            fields = source.settle_key(self.fields, header)
            for line, record in records:
                yield self._read(line, record, header, fields)

    def _lines(self, text: io.TextIOWrapper) -> Iterator[str]:
        while line := text.readline(MAX_FIELD + 1):
            if len(line) > MAX_FIELD:
                raise errors.SourceUnreadable(f"{self.label}: a line of more than {MAX_FIELD:,} characters")
            yield line

    def _records(self, reader: Reader) -> Iterator[tuple[int, list[str] | str]]:
        """Yield every record with the line it begins at; for a malformed one, what is wrong. Blank lines are none."""
        while True:
            line = reader.line_num + 1
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as exc:
                yield line, self._explain(exc, line)
            else:
                if record:
                    yield line, record

    def _explain(self, exc: csv.Error, line: int) -> str:
        if "field larger" in str(exc):
            raise errors.SourceUnreadable(
                f"{self.label}:{line}: a field of more than {MAX_FIELD:,} characters; is a closing quote missing?"
            ) from exc
        hint = "; a quote is never closed" if "unexpected end" in str(exc) else ""
        return f"malformed CSV: {exc}{hint}"

    def _header(self, records: Iterator[tuple[int, list[str] | str]]) -> list[str]:
        _, header = next(records, (0, "there is none"))
        if isinstance(header, str):
            raise errors.SourceUnreadable(f"{self.label}: its header cannot be read: {header}")
        if reason := _explain_encoding(header, header):
            raise errors.SourceUnreadable(f"{self.label}: its header is {reason}")
        source.check_header(header, self.label)
        source.require(self.fields, header, self.label)
        return header

    def _read(self, line: int, record: list[str] | str, header: list[str], fields: Fields) -> Document | Rejected:
        if isinstance(record, str):
            return self._rejected(line, record)
        row = dict(zip(header, record, strict=False))  # a short record lacks its last fields
        reason = _explain_encoding(record, header)
        if len(record) > len(header):
            reason = f"{len(record)} fields, but the header has {len(header)}"
        if reason is not None:
            return self._rejected(line, reason, documents.find_key(row, fields))
        return self._document(line, row, fields)


def _explain_encoding(record: list[str], header: list[str]) -> str | None:
    """Say which byte of a record is not UTF-8; None where all are."""
    for name, field in zip(header, record, strict=False):
        if not field.isascii():
            try:
                field.encode()
            except UnicodeEncodeError as exc:
                byte = ord(field[exc.start]) - 0xDC00  # surrogateescape put byte b at U+DC00 + b
                return f"not UTF-8 (byte 0x{byte:02x} in {values.quote(name)})"
    return None
