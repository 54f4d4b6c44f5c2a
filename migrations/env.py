"""How Alembic runs searchapp's migrations: online (``searchapp db``, ``alembic``) and offline (``--sql``)."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from alembic import context
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from searchapp import connecting, database, errors, models, schema

logger = logging.getLogger("searchapp")

# "searchapp" in hexadecimal, cut to 63 bits: the advisory lock that racing deployments wait for.
LOCK = 0x7365617263686170
LOCK_WAIT_SECONDS = 600
LOCK_TIMEOUT = "5s"  # how long a statement may wait for a table before it gives way to the application

SET_LOCK_TIMEOUT = f"SET lock_timeout = '{LOCK_TIMEOUT}'"
# Alembic compares a column's type by its name, and finds that of a vector only in the search path.
FIND_VECTOR = """
SELECT set_config('search_path', concat_ws(', ', quote_ident(n.nspname), 'public'), false)
FROM (SELECT) AS one LEFT JOIN pg_extension e ON e.extname = 'vector' LEFT JOIN pg_namespace n ON n.oid = e.extnamespace
"""


def include_name(name: str | None, kind: str, _parents: Any) -> bool:
    """Leave out other schemas, and the partitions: those are data, made by searchapp.spaces."""
    if kind == "schema":
        return name == models.SCHEMA
    return not (kind == "table" and re.fullmatch(r"(documents|postings|chunks)_\d+", name or ""))


def drop_version_table(ctx: MigrationContext, heads: set[str], **_: Any) -> None:
    """At the base nothing of ours stays; the script that comes from there creates the table without looking."""
    if not heads:
        ctx.execute(f"DROP TABLE {models.SCHEMA}.alembic_version")


OPTIONS: dict[str, Any] = {
    "target_metadata": models.Base.metadata,
    "version_table_schema": models.SCHEMA,
    "include_schemas": True,
    "include_name": include_name,
    "compare_server_default": True,
    "autogenerate_plugins": ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"],
    "on_version_apply": drop_version_table,
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


@contextmanager
def session(connection: Connection) -> Iterator[None]:
    """Set what migrations need of the session; afterwards it is as before, whatever happened."""
    default = connection.dialect.default_schema_name
    driver = database.driver_of(connection)
    # Alembic takes the default schema's tables for nameless ones; a role's search_path may make ours the default.
    connection.dialect.default_schema_name = "public"
    driver.add_notice_handler(warn)
    try:
        connection.exec_driver_sql(SET_LOCK_TIMEOUT)
        connection.exec_driver_sql(FIND_VECTOR)
        connection.commit()
        yield
    finally:
        connection.dialect.default_schema_name = default
        driver.remove_notice_handler(warn)
        connection.rollback()
        connection.exec_driver_sql("RESET lock_timeout")
        connection.exec_driver_sql("RESET search_path")
        connection.commit()


def warn(told: psycopg.errors.Diagnostic) -> None:
    """Pass on what the server warns of, such as what this role may not do."""
    if told.severity_nonlocalized == "WARNING":
        logger.warning("%s", told.message_primary)


def migrate(connection: Connection) -> None:
    """Run what Alembic's command asks for on this connection; leave what was found before in ``attributes``."""
    if database.is_pooled(connection):
        logger.warning(
            "this address seems to be a pooler's; in transaction mode the migration's lock and settings would stay in "
            "its sessions: migrate with the server's own address"
        )
    connection.commit()
    with deployment_lock(connection):
        context.config.attributes["before"] = schema.require_known(connection)
        connection.commit()
        with session(connection):
            context.configure(connection=connection, **OPTIONS)
            run()


def script() -> None:
    """Write the migrations as SQL."""
    context.configure(dialect_name="postgresql", literal_binds=True, dialect_opts={"paramstyle": "named"}, **OPTIONS)
    context.execute(SET_LOCK_TIMEOUT)
    run()


def run() -> None:
    """Run the migrations in one transaction, online and offline alike; then give all that is there its rights."""
    with context.begin_transaction():
        context.execute(schema.create_schemas(models.SCHEMA))
        context.run_migrations()
        if "destination_rev" in context.get_context().opts:  # a check changes nothing
            for statement in (*schema.standing("roles"), *schema.standing("rights")):
                context.execute(statement)


if context.is_offline_mode():
    script()
elif (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    with connecting.opened(migrate=False) as engine, engine.connect() as opened:
        migrate(opened)
