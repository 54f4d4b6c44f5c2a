"""The link: by it ``searchapp.embed()`` opens a second, short session on its own database, which asks a worker.

It is a foreign server and a user mapping of the owner's, with a random password for a role of this database that may
only ask. ``migrations/sql/0007/link.sql`` has what looks at it from within.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from psycopg import sql
from psycopg.errors import InsufficientPrivilege, UndefinedFunction, UndefinedObject
from psycopg.rows import class_row
from sqlalchemy import Connection, Engine

from searchapp import database, errors, roles

SCHEMA = "searchapp_private"
# What a role of this database's would else take from the settings of the database or the server.
SETTINGS = {
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    "synchronous_commit": "off",  # what is asked for need not outlive a crash
    "statement_timeout": "5s",
    "lock_timeout": "1s",  # whoever waits for it cannot be canceled meanwhile
    "search_path": "pg_catalog",
    "jit": "off",
}
# The advisory lock that those who make a link wait for.
LOCK = int.from_bytes(b"embed-li")

_PRIVATE = sql.SQL(SCHEMA)
_RESERVE = sql.SQL("GRANT pg_use_reserved_connections TO {}")
# What a statement fails with that needs more rights, or something that another one was to make.
_REFUSED = (InsufficientPrivilege, UndefinedFunction, UndefinedObject)

_LOOK = f"""
SELECT 'searchapp_asker_' || d.oid AS role, d.datname AS database, o.rolname AS owner, current_user AS me,
  current_setting('port')::int AS port,
  (SELECT setting FROM pg_settings WHERE name = 'unix_socket_directories') AS sockets,
  (SELECT e.extnamespace::regnamespace::text FROM pg_extension e WHERE e.extname = 'dblink') AS dblink_schema,
  EXISTS (SELECT FROM pg_available_extensions WHERE name = 'dblink') AS dblink_available,
  coalesce((
    SELECT has_foreign_data_wrapper_privilege(o.oid, w.oid, 'USAGE') FROM pg_foreign_data_wrapper w
    WHERE w.fdwname = 'dblink_fdw'), false) AS may_serve,
  coalesce((
    SELECT bool_and(has_function_privilege(o.oid, p.oid, 'EXECUTE'))
      FILTER (WHERE p.oid = to_regprocedure('{SCHEMA}.dblink(text, text)'))
      AND NOT bool_or(has_function_privilege('public', p.oid, 'EXECUTE'))
    FROM pg_proc p WHERE p.pronamespace = '{SCHEMA}'::regnamespace), false) AS guarded,
  a.oid IS NOT NULL AS role_exists,
  coalesce(pg_has_role(a.oid, 'SET'), (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user)) AS may_act,
  coalesce(pg_has_role(a.oid, 'pg_use_reserved_connections', 'USAGE'), false) AS reserved,
  has_database_privilege(coalesce(a.rolname, 'public'), d.oid, 'CONNECT') AS may_connect
FROM pg_database d
JOIN pg_proc f ON f.oid = to_regprocedure('searchapp.embed(text, text)')
JOIN pg_roles o ON o.oid = f.proowner
LEFT JOIN pg_roles a ON a.rolname = 'searchapp_asker_' || d.oid
WHERE d.datname = current_database()
"""


@dataclass(frozen=True, slots=True)
class Link:
    """What was made: the role that asks, whose mapping has its password, and where it connects to."""

    role: str
    owner: str
    database: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class _Found:
    """What a link needs, as a look at the database shows it."""

    role: str
    database: str
    owner: str
    me: str
    port: int
    sockets: str | None
    dblink_schema: str | None
    dblink_available: bool
    may_serve: bool
    guarded: bool
    role_exists: bool
    may_act: bool
    reserved: bool
    may_connect: bool

    def hosts(self, ours: str) -> list[str]:
        """Where the server may take connections of its own host's, the likeliest first.

        :param ours: where this connection found it.
        """
        folders = [each.strip().strip('"') for each in (self.sockets or "").split(",") if each.strip()]
        places = [*folders, ours, "localhost"] if ours.startswith("/") else [*folders, "localhost", ours]
        return list(dict.fromkeys(places))


def make(engine: Engine, *, host: str | None = None, port: int | None = None) -> Link:
    """Make the link, or make it anew, with another password.

    :param host, port: where the server itself finds this database; default: its socket, else ``localhost``.
    :raises errors.PermissionDenied: an administrator must run something first; the message has the statements.
    :raises errors.ExtensionMissing: there can be no dblink.
    :raises errors.DatabaseError: the role cannot log in; says why, and what to do.
    """
    user = partial(database.user_of, engine)
    with roles.needed(roles.OWNER, user), database.translated(), engine.connect() as connection:
        database.require_ready(database.inspect_server(connection))
        found = _prepared(connection)
        reasons = []
        for place in [host] if host else found.hosts(database.driver_of(connection).info.host):
            made = Link(found.role, found.owner, found.database, place, port or found.port)
            _write(connection, made)
            connection.commit()
            reason = connection.exec_driver_sql(f"SELECT {SCHEMA}.try_link()").scalar()
            if reason is None:
                return made
            connection.rollback()
            reasons.append(" ".join(str(reason).split()))
        _drop(connection)
        connection.commit()
    raise errors.DatabaseError(
        f"the role {found.role} cannot log in: {'; '.join(reasons)}; let it in with a password, by the line"
        f' "local all /^searchapp_asker_ scram-sha-256" before others in pg_hba.conf, or give --host and --port'
    )


def ensure(engine: Engine) -> None:
    """Make the link where it is absent, or leads to where the server is not any more."""
    with database.translated(), engine.connect() as connection:
        driver = database.driver_of(connection)
        statement = (
            f"SELECT {SCHEMA}.link_problem() IS NULL"
            " AND EXISTS (SELECT FROM pg_foreign_server WHERE srvname = 'searchapp_self' AND srvoptions @> %s)"
        )
        host, port = driver.info.host, driver.info.port
        row = driver.execute(statement.encode(), [[f"host={host}", f"port={port}"]]).fetchone()
    if row is None or not row[0]:
        make(engine, host=host, port=port)


def _look(connection: Connection) -> _Found:
    with database.driver_of(connection).cursor(row_factory=class_row(_Found)) as cursor:
        found = cursor.execute(_LOOK.encode()).fetchone()
    assert found is not None
    return found


def _prepared(connection: Connection) -> _Found:
    """What there is once all has been run that needs an administrator's rights, as far as this role has them.

    :raises errors.PermissionDenied: it has not.
    """
    driver = database.driver_of(connection)
    driver.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    found = _look(connection)
    if not found.dblink_available:
        raise errors.ExtensionMissing(
            "the server has no extension dblink, so embed() can ask for nothing new; install it (PostgreSQL's contrib),"
            " or fill the cache, outside of a transaction: CALL searchapp.embed_query(text, collection)"
        )
    if found.dblink_schema not in {None, SCHEMA}:
        raise errors.DatabaseError(
            f"the extension dblink stands in the schema {found.dblink_schema}, from where others could use the link; "
            f"an administrator can move it: ALTER EXTENSION dblink SET SCHEMA {SCHEMA}; then again: "
            "searchapp db embed-link"
        )
    needed = list(_preparations(found))
    for statement in needed:
        with suppress(*_REFUSED), driver.transaction():
            driver.execute(statement)
    if not found.reserved:  # not needed, but where all connections are taken it gets one
        with suppress(*_REFUSED), driver.transaction():
            driver.execute(_RESERVE.format(sql.Identifier(found.role)))
    now = _look(connection)
    if list(_preparations(now)):
        words = "; ".join(statement.as_string(driver) for statement in needed)
        raise errors.PermissionDenied(
            f"the role {found.me} may not make all of the link; ask an administrator to run in the database "
            f"{found.database}: {words}; then again: searchapp db embed-link"
        )
    return now


def _preparations(found: _Found) -> Iterator[sql.Composed]:
    """The statements that an administrator runs, as far as they are needed, in their order."""
    role, owner, me = sql.Identifier(found.role), sql.Identifier(found.owner), sql.Identifier(found.me)
    if found.dblink_schema is None:
        yield sql.SQL("CREATE EXTENSION dblink SCHEMA {}").format(_PRIVATE)
    if not found.may_serve:
        yield sql.SQL("GRANT USAGE ON FOREIGN DATA WRAPPER dblink_fdw TO {}").format(owner)
    if not found.guarded:
        yield sql.SQL("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA {} FROM PUBLIC").format(_PRIVATE)
        yield sql.SQL("GRANT EXECUTE ON FUNCTION {}.dblink(text, text) TO {}").format(_PRIVATE, owner)
    if not found.role_exists:
        yield sql.SQL("CREATE ROLE {} LOGIN CONNECTION LIMIT 5").format(role)
        yield _RESERVE.format(role)
    if not found.may_act:
        yield sql.SQL("GRANT {} TO {} WITH SET TRUE, INHERIT FALSE").format(role, me)
    if not found.may_connect:
        yield sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(found.database), role)


def _write(connection: Connection, link: Link) -> None:
    """Give the role a new password, and store it in the user mapping of a foreign server that leads to ``link``."""
    driver = database.driver_of(connection)
    role, owner, password = sql.Identifier(link.role), sql.Identifier(link.owner), secrets.token_urlsafe(32)
    # no password is guessed that is as long as a key, and each connect takes 3 ms less
    driver.execute("SET LOCAL scram_iterations = 1")
    verifier = driver.pgconn.encrypt_password(password.encode(), link.role.encode(), b"scram-sha-256").decode()
    _drop(connection)
    options = {
        "host": link.host,
        "port": str(link.port),
        "dbname": link.database,
        "application_name": "searchapp embed",
        "connect_timeout": "5",
        "gssencmode": "disable",
    }
    statements: tuple[sql.SQL | sql.Composed, ...] = (
        sql.SQL("SET LOCAL ROLE {}").format(role),
        sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, verifier),
        *(sql.SQL("ALTER ROLE {} SET {} = {}").format(role, sql.Identifier(each), SETTINGS[each]) for each in SETTINGS),
        sql.SQL("RESET ROLE"),
        sql.SQL("GRANT USAGE ON SCHEMA searchapp TO {}").format(role),
        sql.SQL("GRANT EXECUTE ON ROUTINE searchapp.ask, searchapp.answer, searchapp.embed_query TO {}").format(role),
        sql.SQL("SET LOCAL ROLE {}").format(owner),
        sql.SQL("CREATE SERVER searchapp_self FOREIGN DATA WRAPPER dblink_fdw {}").format(_options(options)),
        sql.SQL("CREATE USER MAPPING FOR {} SERVER searchapp_self {}").format(
            owner, _options({"user": link.role, "password": password})
        ),
        sql.SQL("RESET ROLE"),
    )
    for statement in statements:
        driver.execute(statement)


def _options(values: dict[str, str]) -> sql.Composed:
    named = [sql.Identifier(name) + sql.SQL(" ") + sql.Literal(value) for name, value in values.items()]
    return sql.SQL("OPTIONS ({})").format(sql.SQL(", ").join(named))


def _drop(connection: Connection) -> None:
    connection.exec_driver_sql("DROP SERVER IF EXISTS searchapp_self CASCADE")
