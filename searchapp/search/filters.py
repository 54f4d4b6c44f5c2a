"""Filters: what a hit's metadata must satisfy, as MongoDB's query language says it, compiled to jsonpath.

Each condition becomes ``metadata @? '$."field" ? (...)'``: it uses the GIN index where it tests for equality, never
raises on a value of another type, and is true or false but never null, so that ``$not`` is a plain NOT. As in MongoDB a
condition on a field that holds an array is met by any of its elements (jsonpath's lax mode), equality by the whole
array too; and a dot leads into an object, or into each object of an array: ``"author.name"``. Not as in MongoDB, a
field whose own name has the dot is found as well; a filter may also stand under ``$not``; and ``$contains`` asks for an
array that has the value, or each value of a list. Dates are compared as they are stored: as ISO 8601 texts.

A declared field is compared by the expression that its index is on, to the same effect; but not under a negation, for
that expression may be null.
*Source:* https://www.mongodb.com/docs/manual/reference/operator/query/
"""

from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ColumnElement,
    SQLColumnExpression,
    and_,
    case,
    cast,
    column,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH

from searchapp import errors, fields, values
from searchapp.fields import Field
from searchapp.wire import literally

MAX_DEPTH = 40
MAX_CONDITIONS = 1000
# Integers of more digits are in no document either.
MAX_DIGITS = 1000

_TOO_LARGE = 10**MAX_DIGITS
_COMPARISONS = {"$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">="}
_OPERATORS = ("$eq", "$ne", *_COMPARISONS, "$in", "$nin", "$contains", "$exists", "$not")


def parse(text: str) -> dict[str, Any]:
    """Read a filter from JSON.

    :raises errors.InvalidFilter: it is not JSON, or no object.

    >>> parse('{"year": {"$gte": 2020}}')
    {'year': {'$gte': 2020}}
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise errors.InvalidFilter(f'the filter is not JSON ({exc}); expected such as {{"lang": "en"}}') from exc
    if not isinstance(value, dict):
        raise errors.InvalidFilter('the filter is no JSON object; expected such as {"lang": "en"}')
    return value


def condition_of(
    filter: Mapping[str, Any] | None,
    where: ColumnElement[bool] | Sequence[ColumnElement[bool]],
    metadata: SQLColumnExpression[Any],
    declared: Sequence[Field] = (),
) -> ColumnElement[bool] | None:
    """What a builder's ``filter`` and ``where`` mean together; None where they keep all.

    :raises errors.InvalidFilter: as :func:`compile_filter`.
    """
    conditions = list(where) if isinstance(where, Sequence) else [where]
    if filter:
        conditions.append(compile_filter(filter, metadata, declared))
    return and_(*conditions) if conditions else None


def compile_filter(
    filter: Mapping[str, Any], metadata: SQLColumnExpression[Any], declared: Sequence[Field] = ()
) -> ColumnElement[bool]:
    """Build the condition that a filter means for the column ``metadata``.

    Its values are literals that the dialect quotes: as parameters, a generic plan took one per cent for all of them.

    :param declared: the fields that have an index.
    :raises errors.InvalidFilter: an unknown operator, or a value that cannot be.
    """
    return _Compiler(metadata, declared).conjunction(_as_json(filter))


def path_to(field: str, metadata: SQLColumnExpression[Any]) -> ColumnElement[Any]:
    """The jsonpath to the values of a field, those of an array one by one."""
    whole, *inner = (literally(f"{path}[*]") for path in _paths(field))
    path = case((metadata.bool_op("?")(literally(field)), whole), else_=inner[0]) if inner else whole
    return cast(path, JSONPATH)


def undeclared(filter: Mapping[str, Any], declared: Sequence[Field]) -> tuple[Field, ...]:
    """The fields that a filter compares, and that could be declared, with the types that its values have.

    :raises errors.InvalidFilter: as for :func:`compile_filter`.
    """
    compiler = _Compiler(column("metadata", JSONB), declared)
    compiler.conjunction(_as_json(filter))
    return tuple(Field(name, type_) for name, type_ in compiler.undeclared.items() if fields.can_be_declared(name))


class _Compiler:
    """Takes filters of JSON's own types, as ``_as_json`` makes them.

    :ivar undeclared: the fields that were compared and could have been by an index, with their types.
    """

    def __init__(self, metadata: SQLColumnExpression[Any], declared: Sequence[Field]) -> None:
        self._metadata = metadata
        self._declared = {field.name: field for field in declared}
        self._negated = False
        self._conditions = 0
        self.undeclared: dict[str, str] = {}

    def conjunction(self, filter: Any) -> ColumnElement[bool]:
        if not isinstance(filter, dict):
            raise errors.InvalidFilter(f'a filter is {_show(filter)}; expected an object such as {{"lang": "en"}}')
        return and_(true(), *(self._entry(name, value) for name, value in filter.items()))

    def _entry(self, name: str, value: Any) -> ColumnElement[bool]:
        if name in {"$and", "$or"}:
            if not isinstance(value, list) or not value:
                raise errors.InvalidFilter(f"{name} needs a list of filters that is not empty, got {_show(value)}")
            parts = [self.conjunction(part) for part in value]
            return and_(*parts) if name == "$and" else or_(*parts)
        if name == "$not":
            return self._not(lambda: self.conjunction(value))
        if name.startswith("$"):
            raise errors.InvalidFilter(_unknown(name, ["$and", "$or", "$not"]))
        return self._operators(name, value) if _has_operators(value) else self._among(name, [value])

    def _operators(self, field: str, value: dict[str, Any]) -> ColumnElement[bool]:
        ranges = {name: operand for name, operand in value.items() if name in _COMPARISONS}
        parts = [self._operator(field, name, operand) for name, operand in value.items() if name not in ranges]
        return and_(*parts, *([self._compare(field, ranges)] if ranges else []))

    def _operator(self, field: str, name: str, operand: Any) -> ColumnElement[bool]:
        match name:
            case "$eq":
                return self._among(field, [operand])
            case "$ne":
                return self._not(lambda: self._among(field, [operand]))
            case "$in":
                return self._among(field, _list(field, name, operand))
            case "$nin":
                return self._not(lambda: self._among(field, _list(field, name, operand)))
            case "$contains":
                return self._contains(field, operand if isinstance(operand, list) else [operand])
            case "$exists":
                return self._exists(field, operand)
            case "$not":
                if not _has_operators(operand):
                    raise errors.InvalidFilter(
                        f'$not of {field!r} needs operators such as {{"$gt": 5}}, got {_show(operand)}'
                    )
                return self._not(lambda: self._operators(field, operand))
        raise errors.InvalidFilter(_unknown(name, _OPERATORS))

    def _not(self, condition: Callable[[], ColumnElement[bool]]) -> ColumnElement[bool]:
        before, self._negated = self._negated, True
        negated = not_(condition())
        self._negated = before
        return negated

    def _among(self, field: str, values: list[Any]) -> ColumnElement[bool]:
        """Whether a field is one of the values, or an array that has one of them."""
        self._count(len(values))
        scalars = [value for value in values if not isinstance(value, (dict, list))]
        parts = [self._finds(field, value, ("", "[*]")) for value in values if isinstance(value, (dict, list))]
        if scalars:
            by_path = self._path(field, " || ".join(f"@ == {_literal(value)}" for value in scalars))
            parts.append(self._by_index(field, [("=", scalars)], by_path))
        if None in scalars:  # MongoDB: null means null or missing
            parts.append(not_(self._path(field)))
        return or_(false(), *parts)

    def _finds(self, field: str, value: Any, places: Iterable[str]) -> ColumnElement[bool]:
        """Equality with an object or array, which jsonpath cannot express.

        :param places: what of the field is compared: itself (empty), its elements (``[*]``), or either.
        """
        literal = cast(literally(_literal(value)), JSONB)
        found = []
        for path in _paths(field):
            for place in places:
                # lax mode takes what is no array for an array of one, and a missing field for none: it never raises
                each = func.jsonb_path_query(self._metadata, cast(literally(path + place), JSONPATH), type_=JSONB)
                value_found = each.column_valued()
                found.append(select(literal_column("1")).where(value_found == literal).exists())
        return or_(*found)

    def _contains(self, field: str, values: list[Any]) -> ColumnElement[bool]:
        """Whether a field is an array that has each of the values."""
        self._count(max(len(values), 1))
        array = or_(*(self._holds(f'$ ? (@{path[1:]}.type() == "array")') for path in _paths(field)))
        parts = [
            self._finds(field, value, ("[*]",))
            if isinstance(value, (dict, list))
            else self._path(field, f"@ == {_literal(value)}")
            for value in values
        ]
        return and_(array, *parts)

    def _compare(self, field: str, ranges: dict[str, Any]) -> ColumnElement[bool]:
        """All comparisons of a field at once: taken for independent of each other, they would be misjudged."""
        for name, value in ranges.items():
            if not isinstance(value, (int, float, str)) or isinstance(value, bool):
                raise errors.InvalidFilter(f"{name} of {field!r} compares with a number or a text, got {_show(value)}")
        self._count(len(ranges))
        comparisons = [(_COMPARISONS[name], value) for name, value in ranges.items()]
        by_path = and_(*(self._path(field, f"@ {operator} {_literal(value)}") for operator, value in comparisons))
        return self._by_index(field, [(operator, [value]) for operator, value in comparisons], by_path)

    def _by_index(
        self, name: str, comparisons: list[tuple[str, list[Any]]], by_path: ColumnElement[bool]
    ) -> ColumnElement[bool]:
        """The condition as a declared field's index knows it, or as it is."""
        if self._negated:
            return by_path
        if (field := self._declared.get(name)) is None:
            types = [fields.type_for(value) for _, values in comparisons for value in values]
            if type_ := next(filter(None, types), None):
                self.undeclared.setdefault(name, type_)
            return by_path
        if not all(fields.can_compare(field, value) for _, values in comparisons for value in values):
            return by_path
        return fields.condition(field, self._metadata, comparisons, closer_look=by_path)

    def _exists(self, field: str, wanted: Any) -> ColumnElement[bool]:
        if not isinstance(wanted, bool):
            raise errors.InvalidFilter(f"$exists of {field!r} is true or false, got {_show(wanted)}")
        self._count(1)
        return self._path(field) if wanted else not_(self._path(field))

    def _path(self, field: str, condition: str | None = None) -> ColumnElement[bool]:
        # lax mode unwraps the field's array and then, for the comparison, an array in it; MongoDB only the first
        met = "" if condition is None else f' ? (({condition}) && @.type() != "array")'
        return or_(*(self._holds(path + met) for path in _paths(field)))

    def _holds(self, path: str) -> ColumnElement[bool]:
        return self._metadata.bool_op("@?")(cast(literally(path), JSONPATH))

    def _count(self, conditions: int) -> None:
        self._conditions += conditions
        if self._conditions > MAX_CONDITIONS:
            raise errors.InvalidFilter(f"the filter has over {MAX_CONDITIONS:,} conditions")


def _as_json(value: Any, depth: int = 0) -> Any:
    """Return a filter, or what stands in one, in JSON's own types, all of which PostgreSQL can hold.

    :raises errors.InvalidFilter: a part of it has no place in JSON or in PostgreSQL, or it is nested too deep.
    """
    if depth > MAX_DEPTH:
        raise errors.InvalidFilter(f"the filter is nested deeper than {MAX_DEPTH} levels")
    match value:
        case Mapping():
            return {_as_name(name): _as_json(each, depth + 1) for name, each in value.items()}
        case list() | tuple():
            return [_as_json(each, depth + 1) for each in value]
        case str() if "\0" in value or (not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value)):
            raise errors.InvalidFilter("a filter's text has a NUL or a lone surrogate, which no stored text has")
        case int() if abs(value) >= _TOO_LARGE:
            raise errors.InvalidFilter(f"a filter's number has over {MAX_DIGITS:,} digits")
        case float() if not math.isfinite(value):
            raise errors.InvalidFilter(f"a filter's number is {value}; JSON has finite ones only")
        case None | str() | int() | float():
            return value
        case dt.date() | dt.time() | dt.timedelta() | Decimal() | uuid.UUID():
            return _as_json(_as_stored(value), depth)
    raise errors.InvalidFilter(f"a filter's value is of type {type(value).__name__}; expected what JSON has")


def _as_stored(value: Any) -> Any:
    """What ingest makes of a value that JSON lacks."""
    try:
        return values.to_json(value, "")
    except values.InvalidValue:  # a decimal only
        return float(value) if not value.is_finite() else _TOO_LARGE  # which are refused, too


def _as_name(name: Any) -> Any:
    if not isinstance(name, str):
        raise errors.InvalidFilter(f"a filter's field is of type {type(name).__name__}; expected text")
    return _as_json(name)


def _has_operators(value: Any) -> bool:
    return isinstance(value, dict) and any(name.startswith("$") for name in value)


def _list(field: str, name: str, operand: Any) -> list[Any]:
    if not isinstance(operand, list):
        raise errors.InvalidFilter(f"{name} of {field!r} needs a list, got {_show(operand)}")
    return operand


def _paths(field: str) -> list[str]:
    """Where a field stands: under its name, and where that has dots, in the objects that they lead into.

    >>> _paths("author.name")
    ['$."author.name"', '$."author"."name"']
    """
    whole = f"$.{_literal(field)}"
    steps = field.split(".")
    return [whole] if len(steps) == 1 else [whole, "$" + "".join(f".{_literal(step)}" for step in steps)]


def _literal(value: Any) -> str:
    """A value as JSON, which is how jsonpath writes its literals too."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _unknown(name: str, known: Iterable[str]) -> str:
    return f"unknown operator {name!r} in the filter; there are: {', '.join(known)}"


def _show(value: Any) -> str:
    # what would act on a terminal is escaped
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in _literal(value))
    return text if len(text) <= 60 else f"{text[:60]}..."
