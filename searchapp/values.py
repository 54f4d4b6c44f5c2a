"""Values that PostgreSQL can hold: text without what ``text`` refuses, and metadata that is JSON."""

from __future__ import annotations

import base64
import datetime as dt
import math
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

MAX_DEPTH = 100
MAX_DIGITS = 1_000
_TOO_LARGE = 10**MAX_DIGITS


class InvalidValue(ValueError):  # named as those in errors.py are
    """A value that the database cannot hold; the message names its field."""


def is_storable(text: str) -> bool:
    """Whether the database can hold a text, and so be asked for it.

    >>> is_storable("plain"), is_storable("a\\0b")
    (True, False)
    """
    try:
        check_text(text, "")
    except InvalidValue:
        return False
    return True


def check_text(text: str, field: str) -> str:
    r"""Return the text itself, a plain ``str``, if PostgreSQL's ``text`` can hold it.

    :raises InvalidValue: a NUL, or half of a surrogate pair (neither is to be had in a UTF-8 database).

    >>> check_text("caf\u00e9", "title")
    'caf\xe9'
    """
    if "\0" in text:
        raise InvalidValue(f"NUL in {quote(field)}")
    if not text.isascii():  # a flag of the string, not a scan
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise InvalidValue(f"a lone surrogate in {quote(field)}") from exc
    return text if type(text) is str else str.__str__(text)


def quote(field: str) -> str:
    r"""Name a field in a message, printable whatever it is called.

    >>> quote("a\0b")
    "field 'a\\x00b'"
    """
    return f"field {(field if len(field) <= 80 else field[:77] + '...')!r}"


def describe(value: Any) -> str:
    """Name the kind of a value, in the words of JSON where it has one.

    >>> describe(3.5), describe(None), describe(b"x")
    ('a number', 'null', 'of type bytes')
    """
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float() | Decimal():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case _:
            return f"of type {type(value).__name__}"


def to_json(value: Any, field: str, depth: int = 0) -> Any:
    """Turn a value into one of JSON's: dates become ISO 8601 text (in UTC where they have a zone), bytes
    base64, decimals numbers, arrays lists.

    :param field: the metadata field it stands in, for messages.
    :param depth: how many lists and objects it stands in already.
    :raises InvalidValue: it has no place in JSON, or PostgreSQL's ``jsonb`` would refuse it.

    >>> to_json({"price": Decimal("9.50"), "on": dt.date(2024, 5, 1), "sizes": (1, 2)}, "offer")
    {'price': 9.5, 'on': '2024-05-01', 'sizes': [1, 2]}
    """
    if isinstance(value, str):
        return check_text(value, field)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _integer(value, field)
    if isinstance(value, float):
        return _number(value, field)
    if isinstance(value, (dict, list, tuple, Mapping)):
        return _container(value, field, depth)
    return to_json(_plain(value, field), field, depth)


def _integer(value: int, field: str) -> int:
    if not -_TOO_LARGE < value < _TOO_LARGE:
        raise InvalidValue(f"a number of more than {MAX_DIGITS:,} digits in {quote(field)}")
    return int(value)


def _number(value: float, field: str) -> float:
    if math.isfinite(value):
        return float(value)
    if math.isnan(value):
        raise InvalidValue(f"NaN in {quote(field)}; null says that a number is missing")
    raise InvalidValue(f"an infinite number, or one beyond 1.8e308, in {quote(field)}")


def _container(value: Mapping[Any, Any] | list[Any] | tuple[Any, ...], field: str, depth: int) -> Any:
    if depth >= MAX_DEPTH:
        raise InvalidValue(f"more than {MAX_DEPTH} lists and objects inside each other in {quote(field)}")
    if not isinstance(value, Mapping):
        return [to_json(item, field, depth + 1) for item in value]
    for name in value:
        if not isinstance(name, str):
            raise InvalidValue(f"a name that is {describe(name)}, expected text, in {quote(field)}")
    return {check_text(name, field): to_json(item, field, depth + 1) for name, item in value.items()}


def _plain(value: Any, field: str) -> Any:
    """Turn what Parquet files and Python callers bring into a type that JSON knows."""
    match value:
        case Decimal():
            return _decimal(value, field)
        case dt.datetime() if value.tzinfo is not None:
            return value.astimezone(dt.UTC).isoformat()  # in one zone, so that they compare as texts
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat()
        case dt.timedelta():
            # ISO 8601 again, as PostgreSQL's interval reads it.
            return f"PT{value / dt.timedelta(seconds=1):.6f}".rstrip("0").rstrip(".") + "S"
        case uuid.UUID():
            return str(value)
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode()
    if type(value).__module__ == "numpy":
        return _from_numpy(value, field)
    raise InvalidValue(f"{quote(field)} is {describe(value)}, which JSON has no place for")


def _decimal(value: Decimal, field: str) -> int | float:
    if not value.is_finite():
        return float(value)
    if value.adjusted() >= MAX_DIGITS:  # before int() makes a billion digits of 1E+999999999
        raise InvalidValue(f"a number of more than {MAX_DIGITS:,} digits in {quote(field)}")
    return int(value) if value == value.to_integral_value() else float(value)


def _from_numpy(value: Any, field: str) -> Any:
    import numpy as np

    if getattr(value, "dtype", None) is None:
        raise InvalidValue(f"{quote(field)} is {describe(value)}, which JSON has no place for")
    if value.dtype.kind == "M":  # tolist() makes a bare integer of a date in nanoseconds
        if np.isnat(value).any():
            raise InvalidValue(f"a date that is missing (NaT) in {quote(field)}; null says so")
        return np.datetime_as_string(value).tolist()
    plain = value.tolist()
    return float(plain) if type(plain) is type(value) else plain  # a long double stays one
