"""The way to PostgreSQL: addresses, the one pool, what the server must be, and its errors in our words."""

from __future__ import annotations

import difflib
import math
import re
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import psycopg
import psycopg.conninfo
import sqlalchemy
from psycopg import pq
from psycopg.rows import tuple_row
from sqlalchemy import Connection, Engine, PoolProxiedConnection, event

from searchapp import errors
from searchapp.wire import JsonLoader

# The migration that this code is written for; a test compares it with migrations/versions.
REVISION = "0008"
MINIMUM_POSTGRESQL = 16
# 0.8.2 mends CVE-2026-3172, a buffer overflow in parallel HNSW builds.
MINIMUM_PGVECTOR = (0, 8, 2)

Parameters = dict[str, Any]
# So many connections there are for those who ask at the same time; more wait. PostgreSQL itself takes 100 by default.
POOL_SIZE = 16
# So many of them may be kept ready for searches.
KEPT_READY = 8
# More rows than this are not kept in memory until the next search.
MANY_ROWS = 1000
# A connection that rested longer than this in the pool may have been forgotten by what stands between.
TRUSTED_SECONDS = 30.0

# Opens a transaction, which is committed at the end, and rolled back after an error.
Transaction = Callable[[], AbstractContextManager[Connection]]


@dataclass(frozen=True, slots=True)
class Server:
    """What a look at the database told.

    ``vector_schema`` is the schema that pgvector's types and operators stand in; ``revision`` the migration's, or None.
    """

    version: int
    vector_version: str | None
    vector_schema: str | None
    revision: str | None


def parse_url(url: str) -> Parameters:
    """Turn a database's address into libpq parameters; whatever it leaves out, libpq fills from the PG* variables.

    :param url: ``postgres://``, ``postgresql://``, ``postgresql+psycopg://``, or libpq's ``host=... dbname=...``.
    :raises errors.InvalidInput: it is none of these; the message does not repeat the password.

    >>> parse_url("postgresql+psycopg://ann@db.example:5433/shop")
    {'user': 'ann', 'dbname': 'shop', 'host': 'db.example', 'port': '5433'}
    """
    url = url.strip()
    if found := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", url):  # else libpq's, where :// may stand in a value
        if found[1] not in {"postgres", "postgresql", "postgresql+psycopg"}:
            raise errors.InvalidInput(
                f"DATABASE_URL begins with {found[0]}; expected postgresql://, postgres:// or postgresql+psycopg://"
            )
        url = f"postgresql://{url[found.end() :]}"
    try:
        parsed = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError as exc:
        reason = re.sub(r'".*"', '"..."', str(exc).strip().splitlines()[0])  # libpq quotes the text, password included
        raise errors.InvalidInput(
            f"the database's address cannot be read ({reason}); expected postgresql://user:password@host:5432/database"
        ) from exc
    if (found and url.count("@") > 1) or not re.fullmatch(r"[0-9,]*", str(parsed.get("port") or "")):
        # An @ or / in a password ends it, and the errors of connecting would show the rest as the host or the port.
        raise errors.InvalidInput(
            "the database's address has a second @, or a port that is no number; in a password @ is written %40, / %2F"
        )
    return {name: value for name, value in parsed.items() if value is not None}


def conninfo(parameters: Mapping[str, str | int]) -> str:
    """The libpq string for these parameters, which psql takes as it is.

    >>> conninfo({"host": "db.example", "dbname": "my shop"})
    "host=db.example dbname='my shop'"
    """
    return psycopg.conninfo.make_conninfo("", **{name: str(value) for name, value in parameters.items()})


def create_engine(parameters: Mapping[str, str | int]) -> Engine:
    """Make the engine, and with it the one pool of connections, for these libpq parameters."""
    settled = {"fallback_application_name": "searchapp", **parameters}
    if not any(option.keyword == b"connect_timeout" and option.val for option in pq.Conninfo.get_defaults()):
        settled.setdefault("connect_timeout", 10)  # psycopg's own is 130 seconds; PGCONNECT_TIMEOUT goes before ours

    def connect() -> psycopg.Connection[Any]:
        connection = psycopg.connect(**settled)  # type: ignore[arg-type]  # libpq's parameters, whatever they are
        _set_up(connection)
        return connection

    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=connect, pool_size=POOL_SIZE, max_overflow=0, pool_use_lifo=True
    )
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", _try_after_rest)
    return engine


def _set_up(connection: psycopg.Connection[Any]) -> None:
    """Turn JIT off, which costs a search more than it gains; and prepare nothing where a pooler stands between.

    A pooler in transaction mode gives each transaction another session, where what was prepared or set is not, or is
    another client's. It shows by the process id that it invents for its clients.
    """
    connection.autocommit = True
    statement = "SELECT CASE WHEN pg_backend_pid() = %s THEN set_config('jit', 'off', false) END"
    row = connection.execute(statement, [connection.info.backend_pid], prepare=False).fetchone()
    if row is None or row[0] is None:
        connection.prepare_threshold = None
    connection.autocommit = False


def is_pooled(connection: Connection) -> bool:
    """Whether a pooler stands between this connection and the server."""
    return connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() != driver_of(connection).info.backend_pid


def _note_use(_: Any, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _try_after_rest(connection: psycopg.Connection[Any], record: Any, _: Any) -> None:
    """Let the pool drop its connections where the server has ended them meanwhile.

    It says so when it does, so mostly a look at the socket is enough: ``pool_pre_ping`` costs a round trip.
    """
    used = record.info.get("used")
    if used is None:
        return
    if time.monotonic() - used < TRUSTED_SECONDS and not _has_word(connection.fileno()):
        return
    try:
        connection.autocommit = True
        connection.execute("")
        connection.autocommit = False
    except psycopg.Error as exc:
        raise sqlalchemy.exc.InvalidatePoolError from exc


def _has_word(socket: int) -> bool:
    """Whether there is something to be read, or the other side has closed."""
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def adopt_engine(engine: Engine) -> Engine:
    """Check that a caller's engine is one that searchapp can use.

    :raises errors.InvalidInput: its driver is not psycopg 3.
    """
    if (engine.dialect.name, engine.dialect.driver) != ("postgresql", "psycopg"):
        raise errors.InvalidInput(
            f"the engine uses {engine.dialect.name}+{engine.dialect.driver}; expected postgresql+psycopg (psycopg 3)"
        )
    return engine


def adopt_connection(connection: Connection) -> Connection:
    """Check that a caller's connection is one that searchapp can use.

    :raises errors.InvalidInput: its driver is not psycopg 3, or it is in autocommit: then nothing happens at once.
    """
    adopt_engine(connection.engine)
    if getattr(connection.connection.driver_connection, "autocommit", False):
        raise errors.InvalidInput("the connection is in autocommit; expected one with transactions")
    return connection


def inspect_server(connection: Connection) -> Server:
    """Look at the server's version, pgvector's, and the migration it stands at."""
    version, vector_version, vector_schema, versions = connection.exec_driver_sql(
        "SELECT current_setting('server_version_num')::int, e.extversion, n.nspname,"
        " to_regclass('searchapp_data.alembic_version')"
        " FROM (SELECT) AS one LEFT JOIN pg_extension e ON e.extname = 'vector'"
        " LEFT JOIN pg_namespace n ON n.oid = e.extnamespace"
    ).one()
    revision = None
    if versions is not None:
        revision = connection.exec_driver_sql("SELECT version_num FROM searchapp_data.alembic_version").scalar()
    return Server(version, vector_version, vector_schema, revision)


def require_ready(server: Server) -> str:
    """Check that this code can work with that database.

    :return: the schema that pgvector stands in.
    :raises errors.DatabaseTooOld, errors.ExtensionMissing, errors.NotMigrated, errors.DatabaseTooNew: as they say.
    """
    require_versions(server)
    require_known(server)
    if server.revision != REVISION:
        state = "has no searchapp tables yet" if server.revision is None else f"stands at migration {server.revision}"
        raise errors.NotMigrated(f"the database {state}, this searchapp needs {REVISION}; run: searchapp db upgrade")
    if server.vector_schema is None:
        raise errors.ExtensionMissing("the database has lost the extension vector; run: CREATE EXTENSION vector")
    return server.vector_schema


def require_known(server: Server) -> None:
    """Check that no newer searchapp has migrated the database.

    :raises errors.DatabaseTooNew: one has.
    """
    if server.revision is not None and server.revision > REVISION:
        raise errors.DatabaseTooNew(
            f"the database stands at migration {server.revision}, this searchapp knows {REVISION}: "
            "a newer searchapp migrated it; upgrade this one (pip install --upgrade searchapp)"
        )


def require_versions(server: Server) -> None:
    """Check PostgreSQL's version, and pgvector's where it is there.

    :raises errors.DatabaseTooOld: one of them is too old; says which, and what to do.
    """
    if server.version < MINIMUM_POSTGRESQL * 10_000:
        raise errors.DatabaseTooOld(
            f"the server runs PostgreSQL {server.version // 10_000}; searchapp needs {MINIMUM_POSTGRESQL} or newer"
        )
    if server.vector_version is not None:
        found = tuple(int(part) for part in re.findall(r"\d+", server.vector_version))
        if found < MINIMUM_PGVECTOR:
            needed = ".".join(map(str, MINIMUM_PGVECTOR))
            raise errors.DatabaseTooOld(
                f"the database has pgvector {server.vector_version}; searchapp needs {needed} or newer "
                "(CVE-2026-3172); install it and run: ALTER EXTENSION vector UPDATE"
            )


_BY_SQLSTATE: dict[str, type[errors.DatabaseError]] = {
    "28000": errors.AuthenticationFailed,
    "28P01": errors.AuthenticationFailed,
    "3D000": errors.DatabaseMissing,
    "42501": errors.PermissionDenied,
    "53100": errors.DiskFull,
    "55P03": errors.LockNotAvailable,
    "57014": errors.QueryCanceled,
    "57P01": errors.DatabaseUnavailable,
    "57P02": errors.DatabaseUnavailable,
    "57P03": errors.DatabaseUnavailable,
    "57P05": errors.DatabaseUnavailable,
    "53300": errors.DatabaseUnavailable,
    # raised by our own migrations
    "SA010": errors.DatabaseTooOld,
    "SA011": errors.ExtensionMissing,
    "SA012": errors.PermissionDenied,
}
# A failed connect carries no SQLSTATE (libpq keeps it to itself), only the server's words.
_BY_WORDS: tuple[tuple[str, type[errors.DatabaseError]], ...] = (
    (r"authentication failed", errors.AuthenticationFailed),
    (r"no password supplied", errors.AuthenticationFailed),
    (r"pg_hba\.conf", errors.AuthenticationFailed),
    (r"role \".*\" (does not exist|is not permitted to log in)", errors.AuthenticationFailed),
    (r"database \".*\" does not exist", errors.DatabaseMissing),
    (r"permission denied for database", errors.PermissionDenied),
)
_ADVICE: dict[type[errors.DatabaseError], str] = {
    errors.AuthenticationFailed: "check the user and password in DATABASE_URL",
    errors.DatabaseMissing: "create it (createdb), or mend the name in DATABASE_URL",
    errors.DatabaseUnavailable: "is PostgreSQL running there? check DATABASE_URL",
    errors.PermissionDenied: "connect as a role that has this right",
    errors.LockNotAvailable: "another session holds it; try again",
    errors.QueryCanceled: "give it more time, or ask for less",
    errors.DiskFull: "make room on the server's disk and run it again; what was committed stays",
}


def translate(exc: psycopg.Error) -> errors.DatabaseError:
    """Say a driver's error in our words, by its SQLSTATE.

    :return: an exception of ours with a one-line message, to be raised ``from`` the driver's.
    """
    # what ended a connection, not that the rollback after it failed
    while isinstance(exc, psycopg.OperationalError) and not exc.sqlstate and isinstance(exc.__context__, psycopg.Error):
        exc = exc.__context__
    state = exc.sqlstate or ""
    _, refused, words = _first_line(exc).rpartition("FATAL:")
    words = " ".join(words.split())
    kind = errors.DatabaseUnavailable if state.startswith("08") else _BY_SQLSTATE.get(state, errors.DatabaseError)
    if not state and isinstance(exc, psycopg.OperationalError):
        kind = next((kind for said, kind in _BY_WORDS if re.search(said, words)), errors.DatabaseUnavailable)
    advice = "" if state.startswith("SA") else _ADVICE.get(kind, "")
    if kind is errors.DiskFull and "shared memory" in words:
        advice = "the server's /dev/shm is too small (docker run --shm-size)"
    if kind is errors.DatabaseUnavailable and (state or refused):
        advice = "try again in a moment"
    if state == "42501":
        return errors.PermissionDenied(f"{words}; {advice}", reason=words)
    return kind(f"{words}; {advice}" if advice else words)


def _first_line(exc: psycopg.Error) -> str:
    if exc.diag.message_primary:
        return exc.diag.message_primary
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    # several addresses tried give a heading and a line each; the first that says "failed:" is the telling one
    return next((line for line in lines if "failed:" in line), lines[0] if lines else type(exc).__name__)


@contextmanager
def translated() -> Iterator[None]:
    """Raise searchapp's errors instead of the driver's."""
    try:
        yield
    except sqlalchemy.exc.DBAPIError as exc:
        if isinstance(exc.orig, psycopg.Error):
            raise translate(exc.orig) from exc
        raise
    except psycopg.Error as exc:
        raise translate(exc) from exc
    except sqlalchemy.exc.TimeoutError as exc:
        raise errors.DatabaseUnavailable(
            "all connections of the pool are in use; raise its size, or try again"
        ) from exc


@dataclass(slots=True)
class _Lent:
    """A connection of the pool, made ready for statements that are a transaction each."""

    pooled: PoolProxiedConnection
    driver: psycopg.Connection[Any]
    cursor: psycopg.RawCursor[tuple[Any, ...]]
    autocommit: bool  # as it came
    used: float = 0.0


class Canceller:
    """Ends what another thread runs in the database, and whatever it would run after that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._driver: psycopg.Connection[Any] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Let the server end the statement that runs."""
        with self._lock:  # meanwhile its connection is not given back, and so cannot be another's
            self._cancelled = True
            if self._driver is not None:
                self._driver.cancel_safe()

    @contextmanager
    def watching(self, driver: psycopg.Connection[Any]) -> Iterator[None]:
        """Say which connection is in use.

        :raises errors.QueryCanceled: it has been cancelled already.
        """
        before = self._driver
        with self._lock:
            if self._cancelled:
                raise errors.QueryCanceled("canceled")
            self._driver = driver
        try:
            yield
        finally:
            with self._lock:
                self._driver = before


# Of the call that the present context belongs to, where somebody may cancel it.
CANCELLER: ContextVar[Canceller | None] = ContextVar("canceller", default=None)


def cancellable(driver: psycopg.Connection[Any]) -> AbstractContextManager[None]:
    """Let the present call be cancelled while it uses a connection."""
    canceller = CANCELLER.get()
    return nullcontext() if canceller is None else canceller.watching(driver)


class Reader:
    """Runs statements that only read.

    With an engine each is one round trip, outside of any transaction; where the server has ended the connection
    meanwhile it is run once more, on a new one. With a connection it is part of the caller's transaction. Safe for
    several threads, with an engine.

    :param kept: so many of the engine's connections are kept ready between statements: taking one from the pool and
        giving it back costs a twentieth of a search.
    """

    def __init__(self, source: Engine | Connection, kept: int = 0) -> None:
        self._source = source
        self._kept = kept
        self._ready: list[_Lent] = []

    def fetch(self, text: bytes, parameters: Sequence[Any], timeout: float | None = None) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows.

        :param text: SQL with ``$1``, ``$2``, ...
        :param parameters: what psycopg can send.
        :param timeout: seconds after which the server is to end it, which takes some more round trips; None: as is set
            there.
        :raises errors.QueryCanceled: the server has ended it.
        """
        with translated():
            if isinstance(self._source, Connection):
                driver = driver_of(self._source)
                with cancellable(driver), _limited(driver, timeout):
                    return raw_cursor(driver).execute(text, parameters).fetchall()
            lent = self._take(self._source)
            try:
                return self._run(lent, text, parameters, timeout)
            except psycopg.OperationalError:
                if not lent.driver.closed:
                    raise
            self.close()
            self._source.dispose()  # the others have been ended with it, as like as not
            return self._run(self._take(self._source), text, parameters, timeout)

    @contextmanager
    def snapshot(self, timeout: float | None = None) -> Iterator[Connection]:
        """A transaction whose statements all see one state of the database; a caller's connection has its own ways.

        :param timeout: seconds after which the server is to end each of them.
        """
        with translated():
            if isinstance(self._source, Connection):
                driver = driver_of(self._source)
                with cancellable(driver), _limited(driver, timeout):
                    yield self._source
                return
            options = {"isolation_level": "REPEATABLE READ"}
            with (
                self._source.connect().execution_options(**options) as connection,
                connection.begin(),
                cancellable(driver_of(connection)),
                _limited(driver_of(connection), timeout),
            ):
                yield connection

    def close(self) -> None:
        """Give the connections that are kept back to the pool."""
        while self._ready:
            with suppress(IndexError):  # another thread has taken it
                self._give_back(self._ready.pop())

    def _run(self, lent: _Lent, text: bytes, parameters: Sequence[Any], timeout: float | None) -> list[tuple[Any, ...]]:
        try:
            with cancellable(lent.driver), _limited(lent.driver, timeout):
                rows = lent.cursor.execute(text, parameters).fetchall()
        except BaseException:
            self._give_back(lent)
            raise
        if len(self._ready) < self._kept and len(rows) < MANY_ROWS:  # the cursor holds on to what it has fetched
            lent.used = time.monotonic()
            self._ready.append(lent)
        else:
            self._give_back(lent)
        return rows

    def _take(self, engine: Engine) -> _Lent:
        while self._ready:
            with suppress(IndexError):  # another thread has taken it
                lent = self._ready.pop()
                if time.monotonic() - lent.used < TRUSTED_SECONDS and not _has_word(lent.driver.fileno()):
                    return lent
                self._give_back(lent)  # the pool tries it, or drops it
        pooled = engine.raw_connection()
        driver = pooled.driver_connection
        assert isinstance(driver, psycopg.Connection)
        lent = _Lent(pooled, driver, raw_cursor(driver), driver.autocommit)
        driver.autocommit = True
        return lent

    def _give_back(self, lent: _Lent) -> None:
        if lent.driver.info.transaction_status == pq.TransactionStatus.IDLE:
            lent.driver.autocommit = lent.autocommit
        else:  # ended by the server, or interrupted in the middle
            lent.pooled.invalidate()
        lent.pooled.close()


def raw_cursor(driver: psycopg.Connection[Any]) -> psycopg.RawCursor[tuple[Any, ...]]:
    """A cursor for statements with ``$1``, which reads metadata the quick way."""
    cursor = psycopg.RawCursor(driver, row_factory=tuple_row)
    cursor.adapters.register_loader("jsonb", JsonLoader)
    return cursor


def _limited(driver: psycopg.Connection[Any], timeout: float | None) -> AbstractContextManager[None]:
    """Let the server end what runs over its time, where there is a limit."""
    return nullcontext() if timeout is None else _ending_in(driver, timeout)


@contextmanager
def _ending_in(driver: psycopg.Connection[Any], timeout: float) -> Iterator[None]:
    """Let the server end what takes longer; in a transaction, or in a savepoint of the caller's, undone by it."""
    with driver.transaction():
        before = driver.execute("SHOW statement_timeout", prepare=False).fetchone()
        setting = "SELECT set_config('statement_timeout', %s, true)"
        driver.execute(setting, [f"{math.ceil(timeout * 1000)}ms"])
        yield
        driver.execute(setting, before)


def driver_of(connection: Connection) -> psycopg.Connection[Any]:
    """The driver's connection under a caller's, in its transaction."""
    if not connection.in_transaction():
        connection.begin()
    driver: Any = connection.connection.dbapi_connection  # of a detached one, too
    assert isinstance(driver, psycopg.Connection)
    return driver


def user_of(source: Engine | Connection) -> str:
    """The role that a connection was opened as."""
    if isinstance(source, Connection):
        return driver_of(source).info.user
    with translated(), source.connect() as connection:
        return driver_of(connection).info.user


def near(name: str, names: list[str]) -> str:
    """Say which of ``names`` are near ``name``, for an error's end.

    >>> near("artikles", ["articles", "people"])
    'did you mean articles?'
    >>> near("zebra", ["articles", "people"])
    'there are: articles, people'
    """
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if not names:
        return "there are none yet"
    return f"there are: {', '.join(sorted(names)[:10])}{', ...' if len(names) > 10 else ''}"
