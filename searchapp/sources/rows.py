"""The rows of a source's table, as they are now.

A key is text: that of the key's column, or of an array of several columns'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

from psycopg import sql
from sqlalchemy import Connection

from searchapp import database
from searchapp.ingest.documents import Document, Fields, from_row
from searchapp.sources.catalog import Source

# No columns are called so.
KEY, NONE = "", "\0"

Row = Mapping[str, Any]


def read(connection: Connection, source: Source, keys: Sequence[str]) -> dict[str, Row]:
    """The rows of some keys that are there and are meant by the source, by their keys."""
    statement = "SELECT {key}, {columns} FROM unnest($1::text[]) AS wanted (key) JOIN {table} AS t ON {same}{condition}"
    if len(source.key) == 1:  # an array of the key's own type uses the index, whatever the planner thinks of a join
        statement = "SELECT {key}, {columns} FROM {table} AS t WHERE {same}{condition}"
    names = (KEY, *_names(source))
    found = _run(connection, source, statement, [list(keys)], columns=_columns(source), same=_is_wanted(source))
    return {row[0]: dict(zip(names, row, strict=True)) for row in found}


def keys_after(connection: Connection, source: Source, after: str | None, limit: int) -> list[str]:
    """The keys that come after one, in the order of the key's columns.

    :param after: None: from the first on.
    """
    columns = sql.SQL(", ").join(sql.Identifier("t", name) for name in source.key)
    beyond: sql.Composable = sql.SQL("$1::text IS NULL")
    if after is not None:
        beyond = sql.SQL("({}) > ({})").format(columns, sql.SQL(", ").join(_parts(source, sql.SQL("$1::text"))))
    statement = "SELECT {key} FROM {table} AS t WHERE {beyond}{condition} ORDER BY {columns} LIMIT $2"
    return [row[0] for row in _run(connection, source, statement, [after, limit], columns=columns, beyond=beyond)]


def document(source: Source, row: Row) -> Document | None:
    """What a row becomes; None where it has no text.

    :raises searchapp.ingest.documents.InvalidRow: it cannot be a document.
    """
    if all(not (row[name] or "").strip() for name in source.text):
        return None
    return from_row(
        row, Fields(key=KEY, title=source.title or KEY + "title", text=source.text, metadata=source.metadata)
    )


def table(source: Source) -> sql.Identifier:
    """The name of a source's table."""
    return sql.Identifier(source.table_schema, source.table_name)


def key_of(source: Source) -> sql.Composable:
    """The key of a row of the table ``t``."""
    columns = [sql.SQL("{}::text").format(sql.Identifier("t", name)) for name in source.key]
    return columns[0] if len(columns) == 1 else sql.SQL("ARRAY[{}]::text").format(sql.SQL(", ").join(columns))


def _is_wanted(source: Source) -> sql.Composable:
    """Whether the key of a row is wanted, by its columns, so that their index is used. A key of an earlier type of the
    column is of no row."""
    if len(source.key) == 1:
        return sql.SQL(
            "{column} = ANY(ARRAY(SELECT k::{type} FROM unnest($1::text[]) k WHERE pg_input_is_valid(k, {name})))"
        ).format(
            column=sql.Identifier("t", source.key[0]),
            type=sql.SQL(source.key_types[0]),
            name=sql.Literal(source.key_types[0]),
        )
    columns = (sql.Identifier("t", name) for name in source.key)
    parts = _parts(source, sql.Identifier("wanted", "key"))
    return sql.SQL(" AND ").join(map(sql.SQL("{} = {}").format, columns, parts))


def _parts(source: Source, key: sql.Composable) -> list[sql.Composable]:
    """The values of the key's columns that a key is the text of."""
    if len(source.key) == 1:
        return [sql.SQL("{}::{}").format(key, sql.SQL(source.key_types[0]))]
    return [
        sql.SQL("(({}::text[])[{}])::{}").format(key, sql.Literal(place), sql.SQL(kind))
        for place, kind in enumerate(source.key_types, start=1)
    ]


def _names(source: Source) -> list[str]:
    return list(dict.fromkeys([*source.text, *([source.title] if source.title else []), *source.metadata]))


def _columns(source: Source) -> sql.Composable:
    return sql.SQL(", ").join(sql.Identifier("t", name) for name in _names(source))


def _run(
    connection: Connection, source: Source, statement: LiteralString, parameters: Sequence[Any], **parts: sql.Composable
) -> list[tuple[Any, ...]]:
    """Run a statement on a source's table; its condition is as PostgreSQL wrote it down when the source was added."""
    condition = "" if source.condition is None else f" AND ({source.condition})"
    composed = sql.SQL(statement).format(key=key_of(source), table=table(source), condition=sql.SQL(condition), **parts)
    return database.raw_cursor(database.driver_of(connection)).execute(composed, parameters).fetchall()
