"""What the tests of migrations share: an engine on an empty database, and ways to look at what stands in one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine

from searchapp import database

_numbers = itertools.count(1)


@pytest.fixture
def empty(empty_url: str) -> Iterator[Engine]:
    """An engine on an empty database."""
    engine = database.create_engine(database.parse_url(empty_url))
    yield engine
    engine.dispose()


@pytest.fixture
def role(server: database.Parameters) -> str:
    """A role without rights, whose name needs quotes."""
    name = f'My "role" {next(_numbers)}'
    with psycopg.connect(**server) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    return name


def as_role(url: str, role: str) -> str:
    """The address of the same database for another role."""
    return database.conninfo({**database.parse_url(url), "user": role})


def execute(url: str, *statements: str | sql.Composed) -> list[Any]:
    """Run statements as the superuser; return the rows of the last one."""
    rows: list[Any] = []
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode() if isinstance(statement, str) else statement)
            rows = cursor.fetchall() if cursor.description else []
    return rows


def scalar(url: str, statement: str) -> Any:
    return execute(url, statement)[0][0]


def tables(url: str) -> set[str]:
    """The tables in our schema."""
    statement = (
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('searchapp_data') AND relkind IN ('r', 'p')"
    )
    return {name for (name,) in execute(url, statement)}


TABLES = {
    "alembic_version",
    "models",
    "collections",
    "spaces",
    "documents",
    "chunks",
    "postings",
    "term_counts",
    "runs",
    "judged_queries",
    "workers",
    "sources",
    "source_rows",
    "failures",
    "changes",
}
