"""How Alembic runs searchapp's migrations: online (``searchapp db``, ``alembic``) and offline (``--sql``)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from searchapp import client, errors, models

# "searchapp" in hexadecimal, cut to 63 bits: the advisory lock that racing deployments wait for.
LOCK = 0x7365617263686170
LOCK_WAIT_SECONDS = 600
LOCK_TIMEOUT = "5s"  # how long a statement may wait for a table before it gives way to the application

PREPARE = (
    f"SET lock_timeout = '{LOCK_TIMEOUT}'",
    f"CREATE SCHEMA IF NOT EXISTS {models.SCHEMA}",
)


def include_name(name: str | None, kind: str, _parents: Any) -> bool:
    """Leave out other schemas, and the partitions: those are data, made by searchapp.spaces."""
    if kind == "schema":
        return name == models.SCHEMA
    return not (kind == "table" and re.fullmatch(r"(documents|chunks)_\d+", name or ""))


OPTIONS: dict[str, Any] = {
    "target_metadata": models.Base.metadata,
    "version_table_schema": models.SCHEMA,
    "include_schemas": True,
    "include_name": include_name,
    "compare_server_default": True,
}


@contextmanager
def deployment_lock(connection: Connection) -> Iterator[None]:
    """Hold the lock that lets one deployment migrate at a time.

    It is polled, outside any transaction: waiting in ``pg_advisory_lock`` holds a snapshot, with which the other
    deployment's CREATE INDEX CONCURRENTLY would deadlock.
    """
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while not _ask(connection, "SELECT pg_try_advisory_lock(:key)"):
        if time.monotonic() > deadline:
            raise errors.LockNotAvailable(
                "another deployment has been migrating this database for ten minutes; try later"
            )
        time.sleep(0.2)
    try:
        yield
    finally:
        connection.rollback()
        _ask(connection, "SELECT pg_advisory_unlock(:key)")


def _ask(connection: Connection, statement: str) -> Any:
    answer = connection.execute(text(statement), {"key": LOCK}).scalar()
    connection.commit()
    return answer


def migrate(connection: Connection) -> None:
    """Run what Alembic's command asks for on this connection."""
    with deployment_lock(connection):
        for statement in PREPARE:
            connection.exec_driver_sql(statement)
        connection.commit()
        search_path = connection.exec_driver_sql(
            "SELECT set_config('search_path', concat_ws(', ', 'public', quote_ident(n.nspname)), false)"
            " FROM (SELECT) AS one LEFT JOIN pg_extension e ON e.extname = 'vector'"
            " LEFT JOIN pg_namespace n ON n.oid = e.extnamespace"
        ).scalar()
        assert search_path is not None
        connection.commit()
        context.configure(connection=connection, **OPTIONS)
        try:
            with context.begin_transaction():
                context.run_migrations()
        finally:
            connection.rollback()
            connection.exec_driver_sql("RESET lock_timeout")
            connection.exec_driver_sql("RESET search_path")
            connection.commit()


def script() -> None:
    """Write the migrations as SQL."""
    context.configure(dialect_name="postgresql", literal_binds=True, dialect_opts={"paramstyle": "named"}, **OPTIONS)
    for statement in PREPARE:
        context.execute(statement)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    script()
elif (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    with client.open_engine().connect() as opened:
        migrate(opened)
