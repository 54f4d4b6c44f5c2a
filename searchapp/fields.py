"""Declared fields: metadata with an index of its own, by which it is compared instead of document by document.

The index is on an expression that never raises: the field's value where it is of the declared type, and a value above
all others where only a closer look tells, as in an array, any element of which may match. So a condition on it is
exact: what the index says, or what the closer look says of those in doubt. Values of other types have no entry.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Numeric,
    SQLColumnExpression,
    and_,
    case,
    cast,
    collate,
    column,
    func,
    literal_column,
    or_,
)
from sqlalchemy.dialects.postgresql import JSONB

from searchapp import errors
from searchapp.wire import RAW_DIALECT, literally

# A B-tree's entry holds 2.7 kB; a character takes up to four bytes.
TEXT_LENGTH = 500
MAX_NAME_LENGTH = 200


@dataclass(frozen=True, slots=True)
class _Type:
    """A type that a field can have.

    :param json: what jsonb_typeof says of its values.
    :param above_all: sorts behind every value, but for texts that begin with it.
    """

    json: str
    above_all: ColumnElement[Any]
    read: Callable[[SQLColumnExpression[Any], ColumnElement[str]], ColumnElement[Any]]
    write: Callable[[Any], ColumnElement[Any]]
    holds: Callable[[Any], bool]


def _text_of(parent: SQLColumnExpression[Any], name: ColumnElement[str]) -> ColumnElement[str]:
    # compared by code points, as jsonpath compares
    return collate(func.left(parent.op("->>")(name), literal_column(str(TEXT_LENGTH))), "C")


# Not float8, which takes 64-bit numbers for their neighbours, and is not enough for what JSON can hold.
_NUMBER = _Type(
    "number",
    cast(literally("NaN"), Numeric),
    read=lambda parent, name: cast(parent.op("->", return_type=JSONB())(name), Numeric),
    write=lambda value: cast(literally(json.dumps(value)), Numeric),
    holds=lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
)
_TEXT = _Type(
    "string",
    literally("\U0010ffff"),
    read=_text_of,
    write=literally,
    holds=lambda value: isinstance(value, str) and len(value) < TEXT_LENGTH and value < "\U0010ffff",
)
# Dates are stored as ISO 8601 texts, those with a time zone in UTC, and so they sort.
_TYPES: Mapping[str, _Type] = {"number": _NUMBER, "text": _TEXT, "date": _TEXT}


@dataclass(frozen=True, slots=True)
class Field:
    """A declared field: its name, which leads into objects by dots as in a filter, and its type."""

    name: str
    type: str

    def __str__(self) -> str:
        return f"{self.name}:{self.type}"


def declare(name: str, type: str) -> Field:
    """Make a field that can be declared.

    :raises errors.InvalidInput: an unknown type, or a name that no field can have.
    """
    if type not in _TYPES:
        raise errors.InvalidInput(f"unknown type {type!r} of the field {name!r}; there are: {', '.join(_TYPES)}")
    if not can_be_declared(name):
        raise errors.InvalidInput(
            f"{name[:60]!r} cannot be declared; expected a field's name of at most {MAX_NAME_LENGTH} characters"
        )
    return Field(name, type)


def can_be_declared(name: str) -> bool:
    """Whether a field of that name can be declared.

    >>> can_be_declared("year"), can_be_declared(""), can_be_declared("$gt")
    (True, False, False)
    """
    return 0 < len(name) <= MAX_NAME_LENGTH and name.isprintable() and not name.startswith("$")


def parse(text: str) -> Field:
    """Read a field as the command takes it.

    :raises errors.InvalidInput: it is not ``NAME:TYPE``, or as :func:`declare`.

    >>> parse("author.name:text")
    Field(name='author.name', type='text')
    """
    name, colon, type_ = text.rpartition(":")
    if not colon:
        raise errors.InvalidInput(f"a field is declared as NAME:TYPE, such as year:number; got {text!r}")
    return declare(name, type_)


def from_mapping(types: Mapping[str, str]) -> tuple[Field, ...]:
    """Fields of a mapping from their names to their types, in the order of their names.

    :raises errors.InvalidInput: one that cannot be declared.
    """
    return tuple(declare(name, type_) for name, type_ in sorted(types.items()))


def parse_all(texts: Iterable[str]) -> tuple[Field, ...]:
    """Read several fields.

    :raises errors.InvalidInput: as for :func:`parse`; one comes twice.
    """
    declared = tuple(map(parse, texts))
    names = [field.name for field in declared]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise errors.InvalidInput(f"the field {twice!r} is declared twice")
    return declared


def as_mapping(declared: Iterable[Field]) -> dict[str, str]:
    """Fields as a mapping from their names to their types."""
    return {field.name: field.type for field in declared}


def type_for(value: Any) -> str | None:
    """The type that a field of such values would be declared with; None where there is none.

    >>> type_for(2020), type_for("2020-01-31"), type_for("en"), type_for(True)
    ('number', 'date', 'text', None)
    """
    if isinstance(value, str):
        return "date" if re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value) else "text"
    return "number" if _NUMBER.holds(value) else None


def index_name(collection_id: int, name: str) -> str:
    """The name of a field's index."""
    return f"documents_{collection_id}_field_{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def index_expression(field: Field) -> str:
    """The SQL text of what a field's index is on."""
    expression = _expression(field, column("metadata", JSONB))
    return str(expression.compile(dialect=RAW_DIALECT, compile_kwargs={"literal_binds": True}))


def can_compare(field: Field, value: Any) -> bool:
    """Whether a field's index knows the documents whose value compares with this one."""
    return _TYPES[field.type].holds(value)


def condition(
    field: Field,
    metadata: SQLColumnExpression[Any],
    comparisons: Sequence[tuple[str, list[Any]]],
    closer_look: ColumnElement[bool],
) -> ColumnElement[bool]:
    """Whether a document's value meets all comparisons; true, or else false or null.

    :param comparisons: ``=`` and the values of which it is one; or ``<``, ``<=``, ``>`` or ``>=`` and a list of one;
        values such as :func:`can_compare` says yes to.
    :param closer_look: the same condition for any document.
    """
    type_ = _TYPES[field.type]
    value = _expression(field, metadata)
    certain: list[ColumnElement[bool]] = [
        value.in_([type_.write(each) for each in values])
        if operator == "="
        else value.bool_op(operator)(type_.write(values[0]))
        for operator, values in comparisons
    ]
    if all(operator in {">", ">="} for operator, _ in comparisons):
        certain.append(value < type_.above_all)
    return or_(and_(*certain), and_(value >= type_.above_all, closer_look))


def _expression(field: Field, metadata: SQLColumnExpression[Any]) -> ColumnElement[Any]:
    """What a field's index is on."""
    type_ = _TYPES[field.type]
    *outer, last = field.name.split(".")
    parent: SQLColumnExpression[Any] = metadata
    doubtful: list[ColumnElement[bool]] = []
    if outer:
        doubtful.append(metadata.bool_op("?")(literally(field.name)))  # a field that is called so
    for step in outer:
        parent = parent.op("->", return_type=JSONB())(literally(step))
        doubtful.append(func.jsonb_typeof(parent) == literally("array"))
    name = literally(last)
    found = case(
        (literally(type_.json), type_.read(parent, name)),
        (literally("array"), type_.above_all),
        value=func.jsonb_typeof(parent.op("->", return_type=JSONB())(name)),
    )
    return case((or_(*doubtful), type_.above_all), else_=found) if doubtful else found
