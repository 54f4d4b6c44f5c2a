"""``searchapp.connect()``: from an address, or from what the caller has, to a handle."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from searchapp import database, embedded, errors, link, schema, settings
from searchapp.client import Client
from searchapp.encoders.registry import shared

logger = logging.getLogger("searchapp")


def connect(url: str | None = None, *, engine: Engine | None = None, connection: Connection | None = None) -> Client:
    """Get a handle on a database, usable with or without ``with``.

    :param url: its address; without one ``DATABASE_URL`` counts, else the embedded server is started.
    :param engine: an engine of the caller's instead, whose pool is used.
    :param connection: a connection of the caller's instead: everything happens in its transaction, and nothing is
    committed.
    :raises errors.InvalidInput: more than one of them, or a driver other than psycopg 3.
    """
    if sum(given is not None for given in (url, engine, connection)) > 1:
        raise errors.InvalidInput("connect() takes one of url, engine and connection")
    registry = shared(settings.read().home)
    if connection is not None:
        database.adopt_connection(connection)
        return Client(connection=connection, registry=registry)
    if engine is not None:
        return Client(database.adopt_engine(engine), registry=registry)
    opened = open_engine() if url is None else database.create_engine(database.parse_url(url))
    return Client(opened, registry=registry, dispose=True)


def open_engine(*, migrate: bool = True) -> Engine:
    """The engine that the environment names: ``DATABASE_URL``, else the embedded server, started where it does not run.

    :param migrate: bring the embedded server's tables up to date, and say so; no other database is ever migrated by
    this.
    """
    read = settings.read()
    if read.database_url is not None:
        return database.create_engine(database.parse_url(read.database_url))
    engine = database.create_engine(embedded.start(read.home))
    if migrate:
        migrate_embedded(engine)
    return engine


@contextmanager
def opened(*, migrate: bool = True) -> Iterator[Engine]:
    """The engine that the environment names, as :func:`open_engine` gives it, disposed of at the end."""
    engine = open_engine(migrate=migrate)
    try:
        yield engine
    finally:
        engine.dispose()


def migrate_embedded(engine: Engine) -> None:
    """Bring the embedded server's tables up to date, and say so; see to the link that ``embed()`` asks by."""
    found = schema.current(engine)
    if found is None or found < database.REVISION:
        schema.upgrade(engine)
        logger.info("migrated the embedded database from %s to %s", found or "nothing", database.REVISION)
    if found is None or found <= database.REVISION:
        link_embedded(engine)


def link_embedded(engine: Engine) -> None:
    """Make the embedded server's link where it lacks; where that cannot be, say why."""
    try:
        link.ensure(engine)
    except errors.DatabaseError as exc:
        logger.warning("searchapp.embed() can ask no worker: %s", exc)
