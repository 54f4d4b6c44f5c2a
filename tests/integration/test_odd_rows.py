"""Rows of sources that are not like others: values of all types, rows that cannot be read, keys of any length."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine

from searchapp.sources import checking
from tests.sources import SQL, keep, keys, value
from tests.waiting_encoder import WaitingRegistry

TYPES = """
CREATE TYPE public.mood AS ENUM ('sad', 'glad');
CREATE TYPE public.pair AS (number int, word text);
CREATE DOMAIN public.positive AS int CHECK (value > 0);
"""
# What a value becomes; what is refused, with the reason.
VALUES: list[tuple[str, str, Any]] = [
    ("numeric", "1.50", 1.5),
    ("numeric", "1e30", 10**30),
    ("float8", "0.1", 0.1),
    ("bool", "true", True),
    ("timestamptz", "'2024-05-01 12:00+02'", "2024-05-01T10:00:00+00:00"),
    ("timestamptz", "'infinity'", "infinity"),
    ("timestamptz", "'20000-01-01 12:00+02'", "20000-01-01 10:00:00+00"),
    ("timestamp", "'-infinity'", "-infinity"),
    ("timestamptz[]", "'{infinity,2024-05-01 12:00+02}'", ["infinity", "2024-05-01T10:00:00+00:00"]),
    ("date", "'2024-05-01'", "2024-05-01"),
    ("date", "'0044-03-15 BC'", "0044-03-15 BC"),
    ("time", "'24:00'", "24:00:00"),
    ("timetz", "'24:00+02'", "24:00:00+02"),
    ("interval", "'1 day 1.5 s'", "PT86401.5S"),
    ("interval", "'100000000 years'", "100000000 years"),
    ("int4range", "'[1,5)'", "[1,5)"),
    ("tstzrange", "'(,infinity)'", "(,infinity)"),
    ("int4multirange", "'{[1,5),[7,9)}'", "{[1,5),[7,9)}"),
    ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
    ("cidr[]", "'{10.0.0.0/8}'", ["10.0.0.0/8"]),
    ("bytea", r"'\xdead'", "3q0="),
    ("json", """'{"a": [1, null]}'""", {"a": [1, None]}),
    ("jsonb", "'null'", None),
    ("int[]", "'{{1,2},{3,NULL}}'", [[1, 2], [3, None]]),
    ("text[]", "'{a,\"b,c\"}'", ["a", "b,c"]),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("bit(3)", "'101'", "101"),
    ("point", "'(1,2)'", "(1,2)"),
    ("tsvector", "'b a:1'", "'a':1 'b'"),
    ("vector", "'[1,2]'", "[1,2]"),
    ("public.mood", "'sad'", "sad"),
    ("public.pair", "'(1,x)'", "(1,x)"),
    ("public.positive", "3", 3),
]
REFUSED = [
    ("numeric", "'NaN'", "NaN in field 'v0'; null says that a number is missing"),
    ("float8", "'-Infinity'", "an infinite number, or one beyond 1.8e308, in field 'v1'"),
    ("numeric[]", "'{1,NaN}'", "NaN in field 'v2'; null says that a number is missing"),
    ("json", "'1e999'", "an infinite number, or one beyond 1.8e308, in field 'v3'"),
    ("json", r"""'"\u0000"'""", "NUL in field 'v4'"),
]


@pytest.fixture
def waiting() -> WaitingRegistry:
    return WaitingRegistry()


def make(sql: SQL, types: list[str]) -> str:
    """A table of columns v0, v1, ... of some types, with a source that has them as metadata; their names."""
    names = [f"v{number}" for number in range(len(types))]
    columns = ", ".join(map(" ".join, zip(names, types, strict=True)))
    sql.execute(f"CREATE TABLE public.odd (id int PRIMARY KEY, body text DEFAULT 'a text', {columns})".encode())
    added = "SELECT searchapp.add_source('odd', 'public.odd', '{id}', '{body}', metadata => %s, model => 'waiting')"
    sql.execute(added, [names])
    return ", ".join(names)


def test_metadata_may_be_of_any_type(sql: SQL, engine: Engine, waiting: WaitingRegistry) -> None:
    sql.execute(TYPES)
    names = make(sql, [kind for kind, _, _ in VALUES])
    written = ", ".join(each for _, each, _ in VALUES)
    sql.execute(f"INSERT INTO public.odd (id, {names}) VALUES (1, {written})".encode())
    keep(engine, waiting)
    assert sql.execute("SELECT error FROM searchapp_data.failures").fetchall() == []
    metadata = value(sql, "SELECT metadata FROM searchapp_data.documents")
    assert metadata == {f"v{number}": expected for number, (_, _, expected) in enumerate(VALUES)}
    assert not checking.check(engine, waiting, "odd").comparison.differs


def test_values_that_json_has_no_place_for_are_refused_and_hold_up_no_other_row(
    sql: SQL, engine: Engine, waiting: WaitingRegistry
) -> None:
    make(sql, [kind for kind, _, _ in REFUSED])
    for number, (_, written, _) in enumerate(REFUSED):
        sql.execute(f"INSERT INTO public.odd (id, v{number}) VALUES ({number}, {written})".encode())
    sql.execute("INSERT INTO public.odd (id) VALUES (99)")
    keep(engine, waiting)
    found = sql.execute("SELECT key, error, retry_at FROM searchapp_data.failures ORDER BY key").fetchall()
    assert found == [(str(number), reason, None) for number, (_, _, reason) in enumerate(REFUSED)]
    assert keys(sql) == ["99"]


@pytest.mark.parametrize(
    ("kind", "written", "expected"),
    [
        ("int", "7", "7"),
        ("numeric", "1.50", "1.5"),
        ("timestamptz", "'infinity'", "infinity"),
        ("date", "'2024-05-01'", "2024-05-01"),
        ("inet", "'::1'", "::1"),
        ("text", "''", None),
    ],
)
def test_a_title_may_be_of_another_type(
    sql: SQL, engine: Engine, waiting: WaitingRegistry, kind: str, written: str, expected: str | None
) -> None:
    sql.execute(f"CREATE TABLE public.odd (id int PRIMARY KEY, body text, name {kind})".encode())
    sql.execute(f"INSERT INTO public.odd VALUES (1, 'a text', {written})".encode())
    sql.execute(
        "SELECT searchapp.add_source('odd', 'public.odd', '{id}', '{body}', title => 'name', model => 'waiting')"
    )
    keep(engine, waiting)
    assert sql.execute("SELECT title FROM searchapp_data.documents").fetchall() == [(expected,)]


def test_a_row_that_cannot_be_read_holds_up_no_other(sql: SQL, engine: Engine, waiting: WaitingRegistry) -> None:
    """Here the condition fails for it; nothing but reading it tells."""
    sql.execute("CREATE TABLE public.odd (id int PRIMARY KEY, body text, n int)")
    sql.execute(
        "SELECT searchapp.add_source('odd', 'public.odd', '{id}', '{body}', \"where\" => '100 / n > 1',"
        " model => 'waiting')"
    )
    keep(engine, waiting)
    sql.execute(
        "INSERT INTO public.odd SELECT i, 'text ' || i, CASE i WHEN 20 THEN 0 ELSE 1 END FROM generate_series(1, 40) i"
    )
    keep(engine, waiting)
    assert len(keys(sql)) == 39
    assert sql.execute("SELECT key, error FROM searchapp_data.failures").fetchall() == [
        ("20", "DivisionByZero: division by zero")
    ]


def test_keys_that_no_index_holds_hold_up_no_other_row(
    sql: SQL, engine: Engine, waiting: WaitingRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    sql.execute("CREATE TABLE public.odd (id text PRIMARY KEY, body text)")
    sql.execute("SELECT searchapp.add_source('odd', 'public.odd', '{id}', '{body}', model => 'waiting')")
    longest = "SELECT string_agg(chr(35 + abs(hashtext(i::text)) % 55), '') FROM generate_series(1, 2690) i"
    sql.execute(f"INSERT INTO public.odd VALUES (({longest}), 'long'), ('a', 'short')".encode())
    keep(engine, waiting)
    assert keys(sql) == ["a"]
    assert value(sql, "SELECT count(*) FROM searchapp_data.changes") == 0
    assert "its key is too long" in caplog.text
