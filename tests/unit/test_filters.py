"""Filters without a database: which are refused and in what words, and the SQL that the others become."""

from __future__ import annotations

import datetime as dt
import doctest
import enum
import json
from collections import OrderedDict
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from sqlalchemy import Column, column
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB

from searchapp import errors
from searchapp.search import filters

METADATA: Column[Any] = column("metadata", JSONB)  # type: ignore[assignment]  # a column without a table is one too
NOT_AN_ARRAY = '&& @.type() != "array"'


def sql(filter: Any, how: str = "render_postcompile") -> str:
    """The condition as it is sent, its literals filled in."""
    dialect = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's dialects have no types
    compiled = filters.compile_filter(filter, METADATA).compile(dialect=dialect, compile_kwargs={how: True})
    assert not compiled.params or how == "literal_binds"
    return str(compiled)


def refusal(filter: Any) -> str:
    with pytest.raises(errors.InvalidFilter) as caught:
        filters.compile_filter(filter, METADATA)
    return str(caught.value)


def nested(levels: int, *, name: str = "$not", value: Any = "x") -> Any:
    for _ in range(levels):
        value = {name: value}
    return value


def test_the_examples_in_the_docstrings_are_true() -> None:
    assert doctest.testmod(filters).failed == 0


# What is refused


@pytest.mark.parametrize("text", ["", "{", "lang=en", "{'lang': 'en'}", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidFilter, match=r'^the filter is not JSON \(.+\); expected such as {"lang": "en"}$'):
        filters.parse(text)


@pytest.mark.parametrize("text", ["[]", "null", "1", '"lang"', "true", "NaN"])
def test_json_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidFilter, match="the filter is no JSON object; expected such as"):
        filters.parse(text)


@pytest.mark.parametrize(
    ("filter", "shown"),
    [([], "[]"), (None, "null"), ("lang", '"lang"'), (0, "0"), (False, "false"), ([{"a": 1}], '[{"a": 1}]')],
)
def test_a_filter_that_is_no_object_is_refused_wherever_it_stands(filter: Any, shown: str) -> None:
    for whole in (filter, {"$and": [filter]}, {"$or": [{}, filter]}, {"$not": filter}):
        assert refusal(whole) == f'a filter is {shown}; expected an object such as {{"lang": "en"}}'


@pytest.mark.parametrize("name", ["$nor", "$expr", "$text", "$eq", "$AND", "$", "$and "])
def test_an_unknown_operator_between_filters_is_refused(name: str) -> None:
    assert refusal({name: [{"a": 1}]}) == f"unknown operator {name!r} in the filter; there are: $and, $or, $not"


@pytest.mark.parametrize("operators", [{"$regex": "x"}, {"$eq": 1, "$size": 1}, {"$and": [{}]}, {"$": 1}])
@pytest.mark.parametrize("place", ["%s", '{"$not": %s}'])
def test_an_unknown_operator_of_a_field_is_refused(operators: dict[str, Any], place: str) -> None:
    name = list(operators)[-1]
    assert refusal({"a": json.loads(place % json.dumps(operators))}) == (
        f"unknown operator {name!r} in the filter; there are: $eq, $ne, $lt, $lte, $gt, $gte, $in, $nin, $contains,"
        " $exists, $not"
    )


@pytest.mark.parametrize("value", [{"$gt": 1, "b": 2}, {"b": 2, "$gt": 1}, {"": 2, "$gt": 1}])
def test_operators_beside_plain_fields_are_refused(value: dict[str, Any]) -> None:
    plain = next(name for name in value if not name.startswith("$"))
    assert refusal({"a": value}).startswith(f"unknown operator {plain!r} in the filter")
    assert refusal({"a": {"$not": value}}).startswith(f"unknown operator {plain!r} in the filter")


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        ({"$and": []}, "$and needs a list of filters that is not empty, got []"),
        ({"$or": []}, "$or needs a list of filters that is not empty, got []"),
        ({"$or": {"a": 1}}, '$or needs a list of filters that is not empty, got {"a": 1}'),
        ({"$and": None}, "$and needs a list of filters that is not empty, got null"),
        ({"a": {"$in": "en"}}, "$in of 'a' needs a list, got \"en\""),
        ({"a": {"$nin": {"b": None}}}, "$nin of 'a' needs a list, got {\"b\": null}"),
        ({"a": {"$exists": 1}}, "$exists of 'a' is true or false, got 1"),
        ({"a": {"$exists": "true"}}, "$exists of 'a' is true or false, got \"true\""),
        ({"a": {"$gt": None}}, "$gt of 'a' compares with a number or a text, got null"),
        ({"a": {"$gte": True}}, "$gte of 'a' compares with a number or a text, got true"),
        ({"a": {"$lt": [1]}}, "$lt of 'a' compares with a number or a text, got [1]"),
        ({"it's": {"$lte": {}}}, '$lte of "it\'s" compares with a number or a text, got {}'),
        ({"a": {"$not": 5}}, "$not of 'a' needs operators such as {\"$gt\": 5}, got 5"),
        ({"a": {"$not": {}}}, "$not of 'a' needs operators such as {\"$gt\": 5}, got {}"),
        ({"a": {"$not": {"b": 1}}}, '$not of \'a\' needs operators such as {"$gt": 5}, got {"b": 1}'),
        ({"a": {"$not": [{"$gt": 1}]}}, '$not of \'a\' needs operators such as {"$gt": 5}, got [{"$gt": 1}]'),
    ],
)
def test_an_operand_that_cannot_be_is_named(filter: dict[str, Any], message: str) -> None:
    assert refusal(filter) == message


RECURSIVE: list[Any] = []
RECURSIVE.append(RECURSIVE)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "a filter's number is nan; JSON has finite ones only"),
        (float("-inf"), "a filter's number is -inf; JSON has finite ones only"),
        pytest.param(10**1000, "a filter's number has over 1,000 digits", id="1,001 digits"),
        pytest.param(-(10**5000), "a filter's number has over 1,000 digits", id="5,000 digits"),
        ("a\0b", "a filter's text has a NUL or a lone surrogate, which no stored text has"),
        ("é\ud800", "a filter's text has a NUL or a lone surrogate, which no stored text has"),
        ({1, 2}, "a filter's value is of type set; expected what JSON has"),
        (b"en", "a filter's value is of type bytes; expected what JSON has"),
        (Decimal("NaN"), "a filter's number is nan; JSON has finite ones only"),
        (Decimal("1e5000"), "a filter's number has over 1,000 digits"),
        (range(3), "a filter's value is of type range; expected what JSON has"),
        ({1: 2}, "a filter's field is of type int; expected text"),
        ({(1, 2): 3}, "a filter's field is of type tuple; expected text"),
        (RECURSIVE, "the filter is nested deeper than 40 levels"),
    ],
)
def test_a_value_that_json_or_postgresql_lacks_is_refused_wherever_it_stands(value: Any, message: str) -> None:
    wholes: list[Any] = [value, {"a": value}, {"a": [{"b": value}]}, {"$and": value}, {"$not": value}]
    wholes += [{"a": {name: value}} for name in ("$eq", "$ne", "$gt", "$in", "$exists", "$not", "$other")]
    wholes += [{"a": {"$in": [value]}}, {"$or": [{"a": {"$not": {"$nin": [1, value]}}}]}]
    for whole in wholes:
        assert refusal(whole) == message


@pytest.mark.parametrize("name", ["a\0", "\udfff", "$\0"])
def test_a_name_that_postgresql_lacks_is_refused_wherever_it_stands(name: str) -> None:
    for filter in (
        {name: 1},
        {"$not": {name: 1}},
        {"a": {"b": {name: 1}}},
        {"a": {name: 1}},
        {"a": {"$not": {name: 1}}},
    ):
        assert "NUL or a lone surrogate" in refusal(filter)


def test_a_long_operand_is_cut_in_the_message() -> None:
    shown = json.dumps("x\n" * 1000)[:60]
    assert refusal({"a": {"$in": "x\n" * 1000}}) == f"$in of 'a' needs a list, got {shown}..."


@pytest.mark.parametrize(
    "deep",
    [
        lambda levels: nested(levels, value={}),
        lambda levels: {"a": nested(levels - 2, value={"$gt": 1})},
        lambda levels: {"a": nested(levels - 1, name="b", value={})},
    ],
    ids=["filters", "operators", "objects"],
)
def test_a_filter_may_be_nested_forty_levels_deep(deep: Any) -> None:
    sql(deep(40))
    assert refusal(deep(41)) == "the filter is nested deeper than 40 levels"
    assert refusal(deep(100_000)) == "the filter is nested deeper than 40 levels"


@pytest.mark.parametrize(
    "many",
    [
        lambda number: {"a": {"$in": list(range(number))}},
        lambda number: {"a": {"$nin": [[n] for n in range(number)]}},
        lambda number: {"a": {"$in": [{"n": n} for n in range(number)]}},
        lambda number: {"a": {"$in": [None] * number}},
        lambda number: {"$or": [{"a": n} for n in range(number)]},
        lambda number: {"$or": [{"a": [n]} for n in range(number)]},
        lambda number: {str(n): {"$exists": False} for n in range(number)},
        lambda number: {str(n): {"$gt": n} for n in range(number)},
        lambda number: {"a": {"$contains": list(range(number))}},
    ],
    ids=["numbers", "lists", "objects", "nulls", "filters", "filters of lists", "exists", "comparisons", "contains"],
)
def test_a_filter_may_have_a_thousand_conditions(many: Any) -> None:
    filters.compile_filter(many(1000), METADATA)
    assert refusal(many(1001)) == "the filter has over 1,000 conditions"


# What the others become


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({}, "true"),
        ({"$not": {}}, "false"),
        ({"a": {"$in": []}}, "false"),
        ({"a": {"$nin": []}}, "true"),
        ({"a": 1}, f"""metadata @? CAST('$."a" ? ((@ == 1) {NOT_AN_ARRAY})' AS JSONPATH)"""),
        ({"a": {"$eq": "x"}}, f"""metadata @? CAST('$."a" ? ((@ == "x") {NOT_AN_ARRAY})' AS JSONPATH)"""),
        ({"a": {"$gte": -1.5}}, f"""metadata @? CAST('$."a" ? ((@ >= -1.5) {NOT_AN_ARRAY})' AS JSONPATH)"""),
        (
            {"a": {"$in": [1, "x", True]}},
            f"""metadata @? CAST('$."a" ? ((@ == 1 || @ == "x" || @ == true) {NOT_AN_ARRAY})' AS JSONPATH)""",
        ),
        (
            {"a.b": 1},
            f"""(metadata @? CAST('$."a.b" ? ((@ == 1) {NOT_AN_ARRAY})' AS JSONPATH))"""
            f""" OR (metadata @? CAST('$."a"."b" ? ((@ == 1) {NOT_AN_ARRAY})' AS JSONPATH))""",
        ),
        (
            {"a": {"$contains": ["x"]}},
            """(metadata @? CAST('$ ? (@."a".type() == "array")' AS JSONPATH))"""
            f""" AND (metadata @? CAST('$."a" ? ((@ == "x") {NOT_AN_ARRAY})' AS JSONPATH))""",
        ),
        (
            {"a": {"$lt": dt.date(2026, 1, 1)}},
            f"""metadata @? CAST('$."a" ? ((@ < "2026-01-01") {NOT_AN_ARRAY})' AS JSONPATH)""",
        ),
        (
            {"a": dt.datetime(2026, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2)))},
            f"""metadata @? CAST('$."a" ? ((@ == "2025-12-31T23:00:00+00:00") {NOT_AN_ARRAY})' AS JSONPATH)""",
        ),
        ({"a": Decimal("1.5")}, f"""metadata @? CAST('$."a" ? ((@ == 1.5) {NOT_AN_ARRAY})' AS JSONPATH)"""),
        ({"a": {"$exists": True}}, """metadata @? CAST('$."a"' AS JSONPATH)"""),
        ({"a": {"$exists": False}}, """NOT (metadata @? CAST('$."a"' AS JSONPATH))"""),
    ],
)
def test_a_filter_becomes_jsonpath(filter: dict[str, Any], expected: str) -> None:
    assert sql(filter) == expected


def test_fields_and_operators_side_by_side_must_all_hold() -> None:
    assert sql({"a": {"$gt": 1, "$lt": 5}, "b": 2}) == sql({"$and": [{"a": {"$gt": 1}}, {"a": {"$lt": 5}}, {"b": 2}]})


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("it's", "\"it''s\""),
        ("'; DROP TABLE documents; --", "\"''; DROP TABLE documents; --\""),
        ("100 % of %(x)s", '"100 %% of %%(x)s"'),
        (":x ? $1 {0}", '":x ? $1 {0}"'),
        ("__[POSTCOMPILE_param_1]", '"__[POSTCOMPILE_param_1]"'),
        ("naïve 🐘", '"naïve 🐘"'),
        ("", '""'),
    ],
)
def test_names_and_values_are_quoted(text: str, literal: str) -> None:
    assert sql({text: text}) == f"metadata @? CAST('$.{literal} ? ((@ == {literal}) {NOT_AN_ARRAY})' AS JSONPATH)"
    assert sql({text: {text: [text]}}).count(f"{{{literal}: [{literal}]}}") == 2


def test_literal_binds_render_the_same_as_what_is_sent() -> None:
    filter = {"it's": "100 %", "$or": [{"a": {"$in": [1, None, [2]]}}, {"b": {"$not": {"$lte": "x"}}}]}
    assert sql(filter, "literal_binds").split() == sql(filter).split()


def test_any_mapping_sequence_and_subtype_is_taken_for_what_it_is_in_json() -> None:
    class Kind(enum.IntEnum):
        BOOK = 3

    class Language(enum.StrEnum):
        EN = "en"

    filter = MappingProxyType(
        {
            "kind": Kind.BOOK,
            Language.EN: MappingProxyType({"$in": (Language.EN, (1, 2))}),
            "size": OrderedDict(width=MappingProxyType({"cm": 3})),
        }
    )
    assert sql(filter) == sql({"kind": 3, "en": {"$in": ["en", [1, 2]]}, "size": {"width": {"cm": 3}}})
