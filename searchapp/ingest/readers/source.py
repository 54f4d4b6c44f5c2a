"""What every source has in common: documents one after another, how far it is, and which fields it must have."""

from __future__ import annotations

import dataclasses
import difflib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from searchapp import errors
from searchapp.ingest import documents
from searchapp.ingest.documents import Document, Fields, Rejected
from searchapp.ingest.readers import streams

_LISTED = 20


class Source(ABC):
    """A file, a folder or standard input as a stream of documents, opened when the iteration begins.

    Faulty rows come as ``Rejected``, in their place. ``total_bytes`` is None where nobody knows (standard input);
    ``position`` is how many of them have been read so far, for a progress bar: packed bytes where the file is packed.
    The iteration raises ``errors.InvalidInput``, before its first document, where the source lacks a field; and
    ``errors.SourceUnreadable`` wherever reading fails.
    """

    def __init__(self, name: str, path: Path | None, fields: Fields, total_bytes: int | None) -> None:
        self.name = streams.printable(name)
        self.path = path
        self.fields = fields
        self.total_bytes = total_bytes
        self.position = 0
        self._last: tuple[str, int | None] = (self.name, None)

    def __iter__(self) -> Iterator[Document | Rejected]:
        self.position = 0
        with streams.reading(self.label):
            yield from self._documents()

    @property
    def label(self) -> str:
        """How an error calls the source: the path as it was given."""
        return self.name if self.path is None else str(self.path)

    def advance(self, count: int) -> None:
        """Note that so many bytes more have been read."""
        self.position += count

    def reject_last(self, reason: str, key: str) -> Rejected:
        """Reject the row that came last, which was a sound document."""
        place, line = self._last
        return Rejected(place, line, reason, key)

    @abstractmethod
    def _documents(self) -> Iterator[Document | Rejected]: ...

    def _document(self, line: int, row: Mapping[str, Any], fields: Fields) -> Document | Rejected:
        self._last = (f"{self.name}:{line}", line)
        try:
            return documents.from_row(row, fields)
        except documents.InvalidRow as exc:
            return self._rejected(line, exc.reason, exc.key)

    def _rejected(self, line: int, reason: str, key: str | None = None) -> Rejected:
        return Rejected(f"{self.name}:{line}", line, reason, key)


def require(fields: Fields, names: Collection[str], source: str, rows: str = "no row") -> None:
    """Check that a source's rows have the fields that are named, and without names those that a document needs.

    :param names: the fields that there are.
    :param rows: which rows have none but these.
    :raises errors.InvalidInput: a field is missing; the message names those that there are.

    >>> require(Fields(title="name"), ["id", "text"], "a.csv")
    Traceback (most recent call last):
        ...
    searchapp.errors.InvalidInput: a.csv: no row has a field 'name'; the fields are: id, text
    """
    missing = [repr(name) + _suggest(name, names) for name in fields.named() if name not in names]
    if fields.key is None and not any(name in names for name in documents.DEFAULT_KEYS):
        missing.append("'id', '_id' or 'key' (name the one that is the key with --key)")
    if not fields.text and not any(name in names for name in documents.DEFAULT_TEXT):
        missing.append("'text' (name the one that is the text with --text)")
    if missing:
        raise errors.InvalidInput(
            f"{source}: {rows} has a field {'; nor a field '.join(missing)}; the fields are: {_list(names)}"
        )


def settle_key(fields: Fields, names: Collection[str]) -> Fields:
    """Name the field that is the key, where every row has the same fields: a short row must not take another for it.

    >>> settle_key(Fields(), ["key", "text", "id"]).key
    'id'
    """
    if fields.key is not None:
        return fields
    return dataclasses.replace(fields, key=next(name for name in documents.DEFAULT_KEYS if name in names))


def check_header(names: list[str], label: str) -> None:
    """Check that the columns of a table can be told apart.

    :raises errors.SourceUnreadable: one has no name, or two have the same.
    """
    for number, name in enumerate(names, start=1):
        if not name:
            raise errors.SourceUnreadable(f"{label}: column {number} of the header has no name")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise errors.SourceUnreadable(f"{label}: {count} columns of the header are called {name!r}")


def _suggest(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _list(names: Collection[str]) -> str:
    listed = [name if name.isprintable() else repr(name) for name in list(names)[:_LISTED]]
    more = len(names) - len(listed)
    return ", ".join(listed) + (f" and {more} more" if more else "")
