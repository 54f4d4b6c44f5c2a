"""Partitions: a collection's of ``documents`` and ``postings``, a space's of ``chunks``. What the owner does to them.

They are made by functions of the owner, which a writer may call: migrations/sql/0005/collections.sql.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from psycopg import sql
from psycopg.errors import InsufficientPrivilege, LockNotAvailable
from sqlalchemy import Connection, CursorResult, text
from sqlalchemy.exc import DBAPIError

from searchapp import errors, models
from searchapp.database import Transaction
from searchapp.fields import Field, index_expression, index_name

# How long DDL waits for a lock before it lets others pass.
LOCK_TIMEOUT = "5s"
# How often a build is asked how far it is, in seconds.
WATCHING_INTERVAL = 0.2


def documents_table(collection_id: int) -> sql.Identifier:
    """The partition of a collection's documents."""
    return sql.Identifier(models.SCHEMA, f"documents_{collection_id}")


def postings_table(collection_id: int) -> sql.Identifier:
    """The partition of a collection's postings."""
    return sql.Identifier(models.SCHEMA, f"postings_{collection_id}")


def chunks_table(space_id: int) -> sql.Identifier:
    """The partition of a space's chunks."""
    return sql.Identifier(models.SCHEMA, f"chunks_{space_id}")


def create_field_index(connection: Connection, collection_id: int, field: Field, *, concurrently: bool) -> None:
    """Make the index of a declared field.

    :param concurrently: without keeping writers out; ``connection`` is in autocommit.
    """
    index = sql.Identifier(models.SCHEMA, index_name(collection_id, field.name))
    execute(
        connection,
        f"CREATE INDEX {'CONCURRENTLY ' if concurrently else ''}{{name}} ON {{table}} (({{expression}}))",
        name=sql.Identifier(index_name(collection_id, field.name)),
        table=documents_table(collection_id),
        expression=sql.SQL(index_expression(field)),  # its literals are quoted
    )
    # as for metadata
    execute(connection, "ALTER INDEX {index} ALTER COLUMN 1 SET STATISTICS 1000", index=index)


def drop_field_index(connection: Connection, index: str, *, concurrently: bool) -> None:
    """Drop the index of a declared field by its name, if it is there."""
    how = "CONCURRENTLY " if concurrently else ""
    execute(connection, f"DROP INDEX {how}IF EXISTS {{index}}", index=sql.Identifier(models.SCHEMA, index))


def field_indexes(connection: Connection) -> list[str]:
    """The names of all indexes of declared fields, unfinished ones among them."""
    statement = text(
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(:schema) AND relkind = 'i'"
        " AND relname ~ '^documents_[0-9]+_field_[0-9a-f]+$' ORDER BY relname"
    )
    return list(connection.scalars(statement, {"schema": models.SCHEMA}))


@contextmanager
def watching_index(
    transaction: Transaction, connection: Connection, told: Callable[[float], None] | None
) -> Iterator[None]:
    """Tell, from another thread and by another connection, how far the index is that ``connection`` builds.

    :param told: takes the share of the table that has been read, 0 to 1.
    """
    if told is None:
        yield
        return
    builder = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(WATCHING_INTERVAL):
            with suppress(errors.DatabaseError), transaction() as another:
                if done.is_set():  # this connection came late: the pool has had none to spare
                    return
                share = another.execute(
                    text(
                        "SELECT blocks_done::float8 / nullif(blocks_total, 0)"
                        " FROM pg_stat_progress_create_index WHERE pid = :pid"
                    ),
                    {"pid": builder},
                ).scalar()
                if share is not None and not done.is_set():
                    told(min(share, 1.0))

    watcher = threading.Thread(target=watch, name="searchapp-index-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join(WATCHING_INTERVAL)  # no longer: it may wait for the connection that is about to be given back


def estimated_rows(connection: Connection, table: sql.Identifier) -> float:
    """How many rows a table has by its statistics: -1 where it has none yet."""
    statement = "SELECT reltuples FROM pg_class WHERE oid = %(name)s::regclass"
    return float(connection.exec_driver_sql(statement, {"name": as_text(table)}).scalar() or 0)


def analyze(connection: Connection, table: sql.Identifier, columns: Sequence[str] = ()) -> bool:
    """ANALYZE a partition, or some columns of it.

    :return: False where another process holds it, to analyse it or to make an index of it, for which nobody waits; and
        where this role may not.
    """
    try:
        with connection.begin_nested():
            execute(connection, "LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE NOWAIT", table=table)
    except DBAPIError as exc:
        if isinstance(exc.orig, (LockNotAvailable, InsufficientPrivilege)):
            return False
        raise
    named = sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Identifier, columns))) if columns else sql.SQL("")
    execute(connection, "ANALYZE {table} {columns}", table=table, columns=named)
    return True


def vacuum_postings(connection: Connection, collection_id: int) -> None:
    """Note which pages of a collection's postings all see, so that searches read their index alone.

    Another process that is at it does as well, and so does autovacuum, later.

    :param connection: in autocommit.
    """
    execute(connection, "VACUUM (SKIP_LOCKED) {table}", table=postings_table(collection_id))


def analyze_ids(connection: Connection) -> None:
    """Let the planner know that the ids of documents are unique, once for all.

    It estimates joins by the statistics of the partitioned table itself, which autovacuum never makes. Without them it
    took a filter that keeps 600 of 60,000 documents for one that keeps 184,000.
    """
    known = text(
        "SELECT EXISTS (SELECT FROM pg_stats WHERE schemaname = :schema AND tablename = 'documents'"
        " AND attname = 'id' AND inherited), current_setting('server_version_num')::int >= 180000"
    )
    done, has_only = connection.execute(known, {"schema": models.SCHEMA}).one()
    if not done:
        only = "ONLY " if has_only else ""  # else all partitions are analysed, too
        execute(connection, f"ANALYZE (SKIP_LOCKED) {only}searchapp_data.documents (id)")


def finish_detaching(connection: Connection) -> None:
    """Finish interrupted detaches first: a table takes no other while one is pending."""
    pending = text(
        "SELECT p.relname AS parent, c.relname AS partition FROM pg_inherits i"
        " JOIN pg_class p ON p.oid = i.inhparent JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhdetachpending AND p.relnamespace = to_regnamespace(:schema)"
    )
    for parent, partition in connection.execute(pending, {"schema": models.SCHEMA}).all():
        execute(
            connection,
            "ALTER TABLE {parent} DETACH PARTITION {partition} FINALIZE",
            parent=sql.Identifier(models.SCHEMA, parent),
            partition=sql.Identifier(models.SCHEMA, partition),
        )


def drop_partition(connection: Connection, parent: str, partition: str, *, concurrently: bool) -> None:
    """Detach and drop a partition, or what an earlier call has left of it.

    :param concurrently: without a lock that searches would wait for; ``connection`` is in autocommit.
    """
    attached = text("SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(:name))")
    table = sql.Identifier(models.SCHEMA, partition)
    if connection.scalar(attached, {"name": f"{models.SCHEMA}.{partition}"}):
        of = sql.Identifier(models.SCHEMA, parent)
        how = " CONCURRENTLY" if concurrently else ""
        execute(connection, "ALTER TABLE {of} DETACH PARTITION {table}" + how, of=of, table=table)
    execute(connection, "DROP TABLE IF EXISTS {table}", table=table)


def execute(connection: Connection, statement: str, **parts: sql.Composable) -> CursorResult[Any]:
    """Run a statement with identifiers and literals put in."""
    written = as_text(sql.SQL(statement).format(**parts))
    return connection.exec_driver_sql(
        written.replace("%", "%%")
    )  # which psycopg takes for a % though there is no value


def as_text(composed: sql.Composable) -> str:
    """The SQL text of an identifier."""
    return composed.as_string(None)
