"""The rows of a source's table, as they are now.

A key is text: that of the key's column, or of an array of several columns'.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, LiteralString

from psycopg import capabilities, sql
from sqlalchemy import Connection

from searchapp import database
from searchapp.ingest.documents import Document, Fields, InvalidRow, from_row
from searchapp.sources.catalog import Source

# No columns are called so: the key, a title that there is none of, and whether the vector column has a vector.
KEY, NONE, FILLED = "", "\0", "\0filled"
# So many rows are fetched at a time where they are many: their texts may be long.
FETCHED = 20

Row = Mapping[str, Any]


def read(connection: Connection, source: Source, keys: Sequence[str]) -> dict[str, Row]:
    """The rows of some keys that are there and are meant by the source, by their keys."""
    found = run(connection, source, "SELECT {key}, {columns} FROM {wanted}{condition}", [list(keys)])
    return {row[0]: _row(source, row) for row in found}


def existing(connection: Connection, source: Source, keys: Sequence[str], *, whichever: bool = False) -> set[str]:
    """Those of some keys that there are rows of.

    :param whichever: rows that the source does not mean, too.
    """
    statement: LiteralString = "SELECT {key} FROM {wanted}" if whichever else "SELECT {key} FROM {wanted}{condition}"
    return {row[0] for row in run(connection, source, statement, [list(keys)])}


def lock(connection: Connection, source: Source, keys: Sequence[str]) -> set[str]:
    """Lock rows against changes, whether the source means them or not: those that are there, and that nobody else has
    locked; nobody is waited for."""
    statement = "SELECT {key} FROM {wanted} FOR NO KEY UPDATE OF t SKIP LOCKED"
    return {row[0] for row in run(connection, source, statement, [list(keys)])}


def keys_after(connection: Connection, source: Source, after: str | None, limit: int) -> list[str]:
    """The keys that come after one, in the order of the key's columns.

    :param after: None: from the first on.
    """
    statement = "SELECT {key} FROM {table} AS t WHERE {beyond}{condition} ORDER BY {order} LIMIT $2"
    return [row[0] for row in run(connection, source, statement, [after, limit], **_beyond(source, after))]


def after(connection: Connection, source: Source, key: str | None, limit: int) -> Iterator[Row]:
    """The rows that come after a key, as :func:`keys_after` gives theirs, a few in memory at a time: nothing else may
    be asked meanwhile."""
    statement = "SELECT {key}, {columns} FROM {table} AS t WHERE {beyond}{condition} ORDER BY {order} LIMIT $2"
    composed = _compose(source, statement, **_beyond(source, key))
    cursor = database.raw_cursor(database.driver_of(connection))
    size = FETCHED if capabilities.has_stream_chunked() else 1  # a libpq before 17 gives one at a time
    for row in cursor.stream(composed, [key, limit], size=size):
        yield _row(source, row)


def document(source: Source, row: Row) -> Document | None:
    """What a row becomes; None where it has no text.

    :raises searchapp.ingest.documents.InvalidRow: it cannot be a document.
    """
    if all(not (row[name] or "").strip() for name in source.text):
        return None
    return from_row(row, Fields(key=KEY, title=source.title or NONE, text=source.text, metadata=source.metadata))


def documents(source: Source, found: Mapping[str, Row]) -> tuple[dict[str, Document], dict[str, str]]:
    """What rows become, by their keys, of those that have a text; and why others cannot be documents, by theirs."""
    made: dict[str, Document] = {}
    refused: dict[str, str] = {}
    for key, row in found.items():
        try:
            if (each := document(source, row)) is not None:
                made[key] = each
        except InvalidRow as exc:
            refused[key] = exc.reason
    return made, refused


def table(source: Source) -> sql.Identifier:
    """The name of a source's table."""
    return sql.Identifier(source.table_schema, source.table_name)


def key_of(source: Source) -> sql.Composable:
    """The key of a row of the table ``t``."""
    columns = [sql.SQL("{}::text").format(sql.Identifier("t", name)) for name in source.key]
    return columns[0] if len(columns) == 1 else sql.SQL("ARRAY[{}]::text").format(sql.SQL(", ").join(columns))


def _row(source: Source, values: Sequence[Any]) -> Row:
    names = (KEY, *_names(source), *([] if source.into_column is None else [FILLED]))
    return dict(zip(names, values, strict=True))


def _beyond(source: Source, after: str | None) -> dict[str, sql.Composable]:
    """What comes after a key, and in which order."""
    order = sql.SQL(", ").join(sql.Identifier("t", name) for name in source.key)
    if after is None:
        return {"order": order, "beyond": sql.SQL("$1::text IS NULL")}
    key = sql.SQL(", ").join(parts(source, sql.SQL("$1::text")))
    return {"order": order, "beyond": sql.SQL("({}) > ({})").format(order, key)}


def _wanted(source: Source) -> sql.Composable:
    """The rows ``t`` of some keys, by the key's columns, so that their index is used. A key of an earlier type of the
    column is of no row."""
    if len(source.key) == 1:  # an array of the key's own type uses the index, whatever the planner thinks of a join
        return sql.SQL(
            "{table} AS t WHERE {column} ="
            " ANY(ARRAY(SELECT k::{type} FROM unnest($1::text[]) k WHERE pg_input_is_valid(k, {name})))"
        ).format(
            table=table(source),
            column=sql.Identifier("t", source.key[0]),
            type=sql.SQL(source.key_types[0]),
            name=sql.Literal(source.key_types[0]),
        )
    return sql.SQL("unnest($1::text[]) AS wanted (searchapp_key) JOIN {} AS t ON {} WHERE true").format(
        table(source), joined(source)
    )


def joined(source: Source) -> sql.Composable:
    """That a row ``t`` is the one of a row ``wanted`` with its ``searchapp_key``."""
    columns = (sql.Identifier("t", name) for name in source.key)
    wanted = parts(source, sql.Identifier("wanted", "searchapp_key"))
    return sql.SQL(" AND ").join(map(sql.SQL("{} = {}").format, columns, wanted))


def parts(source: Source, key: sql.Composable) -> list[sql.Composable]:
    """The values of the key's columns, for a key that is their text."""
    if len(source.key) == 1:
        return [sql.SQL("{}::{}").format(key, sql.SQL(source.key_types[0]))]
    return [
        sql.SQL("(({}::text[])[{}])::{}").format(key, sql.Literal(place), sql.SQL(kind))
        for place, kind in enumerate(source.key_types, start=1)
    ]


def _names(source: Source) -> list[str]:
    return list(dict.fromkeys([*source.text, *([source.title] if source.title else []), *source.metadata]))


def _columns(source: Source) -> sql.Composable:
    columns: list[sql.Composable] = [sql.Identifier("t", name) for name in _names(source)]
    if source.into_column is not None:
        columns.append(sql.SQL("{} IS NOT NULL").format(sql.Identifier("t", source.into_column)))
    return sql.SQL(", ").join(columns)


def run(
    connection: Connection, source: Source, statement: LiteralString, parameters: Sequence[Any], **parts: sql.Composable
) -> list[tuple[Any, ...]]:
    """Run a statement on a source's table ``t``; its rows, none of one that gives none.

    :param statement: with ``{key}``, ``{table}``, ``{wanted}``, ``{columns}``, ``{condition}`` and other parts.
    """
    cursor = database.raw_cursor(database.driver_of(connection))
    cursor.execute(_compose(source, statement, **parts), parameters)
    return cursor.fetchall() if cursor.description is not None else []


def _compose(source: Source, statement: LiteralString, **parts: sql.Composable) -> sql.Composed:
    """A statement; the source's condition is as PostgreSQL wrote it down when the source was added."""
    condition = "" if source.condition is None else f" AND ({source.condition})"
    return sql.SQL(statement).format(
        key=key_of(source),
        table=table(source),
        wanted=_wanted(source),
        columns=_columns(source),
        condition=sql.SQL(condition),
        **parts,
    )
