"""Documents as they come in: one row of a source, or one object of a caller, checked and made storable."""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from searchapp import values
from searchapp.values import InvalidValue, quote

DEFAULT_KEYS = ("id", "_id", "key")
DEFAULT_TITLE = "title"
DEFAULT_TEXT = ("text",)
# An entry of a B-tree holds 2,704 bytes, the collection's id and the entry's own header among them.
MAX_KEY_BYTES = 2_000


@dataclass(slots=True)
class Document:
    """One thing to be found: its key, its text as it came, its title or None, and metadata of JSON values.

    ``embedding`` is what a document brings of its own, to be stored as it is; None in one that is read.
    """

    key: str
    text: str
    title: str | None
    metadata: dict[str, Any]
    embedding: Any = dataclasses.field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a row mean what.

    ``key`` None is the first of ``id``, ``_id`` and ``key`` that a row has; ``title`` None is ``title``; ``text`` () is
    ``text``, and several are joined by a blank line; ``metadata`` None is every field that is none of these;
    ``embedding`` is the field of the documents' own embeddings.
    """

    key: str | None = None
    title: str | None = None
    text: tuple[str, ...] = ()
    metadata: tuple[str, ...] | None = None
    embedding: str | None = None

    def named(self) -> list[str]:
        """List every field that is named here, each once."""
        singles = [name for name in (self.key, self.title, self.embedding) if name is not None]
        return list(dict.fromkeys([*singles, *self.text, *(self.metadata or ())]))


DEFAULT_FIELDS = Fields()
# What the Python door takes: a document's own words, and its metadata apart.
_OBJECT_FIELDS = Fields(key="key", title="title", text=("text",), metadata=())
_OBJECT_NAMES = ("key", "text", "title", "metadata")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A faulty row: where it stands, why it cannot be a document, and its key where that could be read.

    ``line`` is the line, or the row of a Parquet file, that it begins at, from 1; None where the row is a whole file.
    """

    place: str
    line: int | None
    reason: str
    key: str | None


class InvalidRow(ValueError):  # named as those in errors.py are
    """A row or object that cannot be a document; ``key`` is its key where that could be read."""

    def __init__(self, reason: str, key: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.key = key


def from_row(row: Mapping[str, Any], fields: Fields = DEFAULT_FIELDS) -> Document:
    """Make a document of one row.

    :raises InvalidRow: no key, no text, or a value that the database cannot hold; the reason names the field.

    >>> from_row({"id": 7, "text": "Red shoes", "price": 80})
    Document(key='7', text='Red shoes', title=None, metadata={'price': 80})
    """
    key = read_key(row, fields)
    try:
        embedding = None if fields.embedding is None else row.get(fields.embedding)
        return Document(key, _text(row, fields), _title(row, fields), _metadata(row, fields), embedding)
    except InvalidValue as exc:
        raise InvalidRow(str(exc), key) from exc


def from_object(source: Any) -> Document:
    """Make a document of a mapping or object with ``key``, ``text``, and if it has them ``title`` and ``metadata``.

    :raises InvalidRow: as :func:`from_row`; also for a mapping with other keys than these.

    >>> from_object({"key": "a", "text": "Red shoes", "metadata": {"price": 80}}).metadata
    {'price': 80}
    """
    row = _as_row(source)
    key = read_key(row, _OBJECT_FIELDS)
    metadata = row.get("metadata")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise InvalidRow(f"metadata is {values.describe(metadata)}, expected a mapping", key)
    try:
        return Document(key, _text(row, _OBJECT_FIELDS), _title(row, _OBJECT_FIELDS), _checked(metadata or {}))
    except InvalidValue as exc:
        raise InvalidRow(str(exc), key) from exc


def read_key(row: Mapping[str, Any], fields: Fields = DEFAULT_FIELDS) -> str:
    """Return a row's key, which is text whatever it came as: 1 and "1" are one key.

    :raises InvalidRow: there is none, or it is nothing that can be a key.

    >>> read_key({"_id": 3.0, "text": "..."})
    '3'
    """
    name = _key_field(row, fields)
    if name is None:
        raise InvalidRow(f"no {quote(fields.key)}" if fields.key is not None else "no field 'id', '_id' or 'key'")
    try:
        key = values.check_text(_key_text(row[name], name), name)
    except InvalidValue as exc:
        raise InvalidRow(str(exc)) from exc
    if not key:
        raise InvalidRow("empty key")
    if len(key) > MAX_KEY_BYTES or len(key.encode()) > MAX_KEY_BYTES:
        raise InvalidRow(f"a key of {len(key.encode()):,} bytes; it may have {MAX_KEY_BYTES:,}")
    return key


def find_key(row: Mapping[str, Any], fields: Fields = DEFAULT_FIELDS) -> str | None:
    """Return a row's key, or None where it has none that can be one."""
    try:
        return read_key(row, fields)
    except InvalidRow:
        return None


def title_field(fields: Fields) -> str:
    """Name the field that is the title."""
    return DEFAULT_TITLE if fields.title is None else fields.title


def _key_field(row: Mapping[str, Any], fields: Fields) -> str | None:
    if fields.key is not None:
        return fields.key if fields.key in row else None
    return next((name for name in DEFAULT_KEYS if name in row), None)


def _key_text(value: Any, name: str) -> str:
    if type(value) is str:
        return value
    if type(value).__module__ == "numpy":
        value = values.to_json(value, name)
    match value:
        case str():
            return value
        case bool():
            pass
        case int():
            return str(values.to_json(value, name))
        case float() | Decimal():
            values.to_json(value, name)  # refuses NaN and what has too many digits
            if value == int(value):
                return str(int(value))
            raise InvalidValue(f"{quote(name)} is {value}; a key is text or a whole number")
        case uuid.UUID() | dt.date() | dt.time():
            return str(value)
    raise InvalidValue(f"{quote(name)} is {values.describe(value)}; a key is text or a whole number")


def _text(row: Mapping[str, Any], fields: Fields) -> str:
    names = fields.text or DEFAULT_TEXT
    if len(names) == 1 and type(text := row.get(names[0])) is str and text and not text.isspace():
        return values.check_text(text, names[0])
    found = [(name, row[name]) for name in names if row.get(name) is not None]
    if not found:
        raise InvalidValue(f"no field {' or '.join(repr(name) for name in names)}")
    for name, part in found:
        if not isinstance(part, str):
            raise InvalidValue(f"{quote(name)} is {values.describe(part)}, expected text")
    parts = [values.check_text(part, name) for name, part in found]
    parts = [part for part in parts if part and not part.isspace()]
    if not parts:
        raise InvalidValue("empty text")
    return "\n\n".join(parts)


def _title(row: Mapping[str, Any], fields: Fields) -> str | None:
    name = title_field(fields)
    title = row.get(name)
    if title is None:
        return None
    title = values.to_json(title, name)
    if isinstance(title, (list, dict)):
        raise InvalidValue(f"{quote(name)} is {values.describe(title)}, expected text")
    return None if title is None or title == "" else str(title)


def _metadata(row: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    if fields.metadata is not None:
        return _checked({name: row[name] for name in fields.metadata if name in row})
    used = {_key_field(row, fields), title_field(fields), fields.embedding, *(fields.text or DEFAULT_TEXT)}
    return _checked({name: value for name, value in row.items() if name not in used})


def _checked(metadata: Mapping[Any, Any]) -> dict[str, Any]:
    for name in metadata:
        if not isinstance(name, str):
            raise InvalidValue(f"a metadata field's name is {values.describe(name)}, expected text")
    return {values.check_text(name, name): values.to_json(value, name) for name, value in metadata.items()}


def _as_row(source: Any) -> Mapping[str, Any]:
    if type(source) is Document:
        return {"key": source.key, "text": source.text, "title": source.title, "metadata": source.metadata}
    if not isinstance(source, Mapping):
        row = {name: getattr(source, name) for name in _OBJECT_NAMES if hasattr(source, name)}
        if _is_catalogue(row.get("metadata")):
            del row["metadata"]
        if "key" in row and "text" in row:
            return row
        raise InvalidRow(f"a document is a mapping, or an object with key and text; got {type(source).__name__}")
    unknown = [name for name in source if name not in _OBJECT_NAMES]
    if unknown:
        names = ", ".join(repr(name) for name in unknown)
        raise InvalidRow(
            f"a document has key, text, title and metadata, not {names}; what else it has goes into metadata"
        )
    return source


def _is_catalogue(metadata: Any) -> bool:
    """Whether it is SQLAlchemy's: every ORM object has a ``metadata``, the catalogue of its tables."""
    return type(metadata).__name__ == "MetaData" and type(metadata).__module__.startswith("sqlalchemy.")
