"""A worker's connection to the database: its locks are the session's, and what was read and written by it belongs
together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy.exc
from sqlalchemy import Connection, Engine, text

from searchapp import database, errors
from searchapp.sources import loaders

# A worker that hangs loses its session, and with it its locks; so does one whose host is gone. Row-level security would
# make rows look deleted; with this they are an error. An open TRUNCATE of somebody's is not waited for for long. Values
# are written alike whoever reads them: what a polled column was like is kept as text, and some metadata is.
_SET_UP = (
    "SET row_security = off",
    "SET datestyle = ISO",
    "SET intervalstyle = postgres",
    "SET timezone = UTC",
    "SET lock_timeout = '1s'",
    "SET idle_session_timeout = '10min'",
    "SET idle_in_transaction_session_timeout = '5min'",
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
)


class Locks:
    """Advisory locks of one class, held by a session."""

    def __init__(self, connection: Connection, kind: int) -> None:
        self._connection = connection
        self._kind = kind
        self.held: list[int] = []

    def take(self, key: int) -> bool:
        """Take one, unless another session has it; whether that was so."""
        with self._connection.begin():
            taken = self._connection.scalar(
                text("SELECT pg_try_advisory_lock(:kind, :key)"), {"kind": self._kind, "key": key}
            )
        if taken:
            self.held.append(key)
        return bool(taken)

    def release(self) -> None:
        """Give back all that are held."""
        if not self.held or self._connection.invalidated:  # the session has ended, and its locks
            return
        statement = text("SELECT pg_advisory_unlock(:kind, k) FROM unnest(CAST(:keys AS int[])) k")
        with self._connection.begin():
            self._connection.execute(statement, {"kind": self._kind, "keys": self.held})


class Session:
    """One session, which is never opened anew: where it ends, what was begun in it fails.

    :param vector_schema: the schema that pgvector stands in.
    """

    def __init__(self, connection: Connection, vector_schema: str) -> None:
        self.connection = connection
        self.vector_schema = vector_schema
        self._driver = database.driver_of(connection)
        loaders.register(self._driver.adapters)
        connection.commit()

    @property
    def is_over(self) -> bool:
        """Whether the server has ended it, or the way there is lost."""
        return self.connection.invalidated or self._driver.closed

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction of its own, at READ COMMITTED."""
        with self.connection.begin():
            yield self.connection

    @contextmanager
    def locks(self, kind: int) -> Iterator[Locks]:
        """Advisory locks of a class, given back at the end."""
        locks = Locks(self.connection, kind)
        try:
            yield locks
        finally:
            with suppress(sqlalchemy.exc.DBAPIError):  # what ended the session is being raised
                locks.release()


@contextmanager
def open_session(engine: Engine) -> Iterator[Session]:
    """Open a session, to a server itself and not to a pooler, which would give its locks to others.

    :raises errors.DatabaseError: it cannot be had, or the database is not as this code needs it.
    """
    with database.translated(), engine.connect() as connection:
        connection.execution_options(isolation_level="READ COMMITTED")
        vector_schema = database.require_ready(database.inspect_server(connection))
        require_direct(connection)
        for statement in _SET_UP:
            connection.exec_driver_sql(statement)
        connection.detach()  # what is set in it is not for others
        yield Session(connection, vector_schema)


def require_direct(connection: Connection) -> None:
    """Check that no pooler stands between.

    :raises errors.InvalidInput: one does.
    """
    if database.is_pooled(connection):
        raise errors.InvalidInput(
            "this address seems to be a pooler's, which would give a worker's locks to others; let DATABASE_URL name "
            "the server itself for it"
        )
