"""The schema's migrations, run from Python: what ``searchapp db upgrade|downgrade|current|check`` call.

Alembic is imported where it is used, not at the top: that takes as long as a search.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine

from searchapp import database, errors, models, roles

if TYPE_CHECKING:
    from alembic.config import Config


def folder() -> Path:
    """The migrations' folder: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    packaged = package / "migrations"
    return packaged if packaged.is_dir() else package.parent / "migrations"


# The tables, what analysts see, and what is the owner's alone.
SCHEMAS = (models.SCHEMA, "searchapp", "searchapp_private")
# CREATE SCHEMA IF NOT EXISTS would ask for the right to create one where an administrator has made it already.
_CREATE_SCHEMAS = """
DO $$
DECLARE
  wanted text;
  lacking text;
BEGIN
  FOREACH wanted IN ARRAY ARRAY[{wanted}] LOOP
    IF to_regnamespace(wanted) IS NULL THEN
      EXECUTE format('CREATE SCHEMA %I', wanted);
    END IF;
  END LOOP;
EXCEPTION WHEN insufficient_privilege THEN
  SELECT string_agg(format('CREATE SCHEMA %I AUTHORIZATION %I', s.name, current_user), '; ' ORDER BY s.place)
  INTO lacking FROM unnest(ARRAY[{all}]) WITH ORDINALITY s (name, place) WHERE to_regnamespace(s.name) IS NULL;
  IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'vector') THEN
    RAISE EXCEPTION 'role % may not create schemas in this database; ask an administrator to run: %',
      current_user, lacking USING ERRCODE = 'SA012';
  END IF;
  RAISE EXCEPTION 'role % may create neither extensions nor schemas in this database; ask an administrator to run: '
    'CREATE EXTENSION vector; %', current_user, lacking USING ERRCODE = 'SA011';
END $$
"""

# What a semicolon may stand in without ending a statement.
_QUOTED = re.compile(r"(\$\w*\$).*?\1|'[^']*'|--[^\n]*|(;)", re.DOTALL)
_COMMENT = re.compile(r"COMMENT ON (.+?)\s+IS\s", re.DOTALL)
# The files are written for psql and a pgvector in the schema public; where it stands is looked up by the server, for
# a script is written without one.
_RUN = """
DO $migration$
BEGIN
  EXECUTE replace($statement${statement}$statement$, 'public.', (
    SELECT quote_ident(n.nspname) || '.' FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'));
END $migration$
"""


def statements(revision: str, *names: str) -> Iterator[str]:
    """The statements of a migration's SQL files, each of which makes a function, a view or a comment.

    A function that changes later gets a file in the folder of the migration that changes it.

    :param names: of the files in ``migrations/sql/REVISION``, in their order, without ``.sql``.
    """
    for name in names:
        for statement in _split(_read(revision, name)):
            yield _escaped(_RUN.format(statement=statement))


def drops(revision: str, *names: str) -> Iterator[str]:
    """The statements that take away what a migration's SQL files make, the last first: each has a comment."""
    for name in reversed(names):
        for statement in reversed(list(_split(_read(revision, name)))):
            if found := _COMMENT.match(statement):
                yield _RUN.format(statement=f"DROP {found[1]}")


def _read(*place: str) -> str:
    return folder().joinpath("sql", *place).with_suffix(".sql").read_text(encoding="utf-8")


def _escaped(statement: str) -> str:
    return statement.replace(":", r"\:")  # which SQLAlchemy takes for a parameter


def _split(text: str) -> Iterator[str]:
    """The statements of a file.

    >>> list(_split("SELECT ';'; -- one; two\\nSELECT $$;$$;\\n"))
    ["SELECT ';'", '-- one; two\\nSELECT $$;$$']
    """
    start = 0
    for found in _QUOTED.finditer(text):
        if found[2]:
            yield text[start : found.start()].strip()
            start = found.end()


def standing(name: str) -> Iterator[str]:
    """The statements of a file that is no migration's, but run anew by each upgrade: ``roles`` or ``rights``."""
    yield from map(_escaped, _split(_read(name)))


def create_schemas(*names: str) -> str:
    """The statement that makes schemas where they are absent, or says what an administrator must run."""
    wanted, every = (", ".join(f"'{name}'" for name in each) for each in (names, SCHEMAS))
    return _CREATE_SCHEMAS.format(wanted=wanted, all=every)


def upgrade(engine: Engine, revision: str = "head") -> str | None:
    """Migrate forward.

    :return: the revision that the database stood at before, None where it had none.
    :raises errors.DatabaseTooNew: a newer searchapp migrated it.
    """
    before = _run(engine, "upgrade", revision)
    engine.dispose()  # connections opened before the extension existed know nothing of its types
    return before


def downgrade(engine: Engine, revision: str) -> None:
    """Migrate backward to ``revision``; ``base`` takes away all tables and what they hold."""
    _run(engine, "downgrade", revision)


def current(engine: Engine) -> str | None:
    """The revision that the database stands at, None where it has none."""
    with _reading(engine) as connection:
        return database.inspect_server(connection).revision


def differences(engine: Engine) -> list[str]:
    """What a migration would have to do to make the database as the models are, such as "remove column spaces.note"."""
    with _reading(engine) as connection:
        database.require_ready(database.inspect_server(connection))
    import alembic.util

    try:
        _run(engine, "check")
    except alembic.util.AutogenerateDiffsDetected as exc:
        return [_in_words(each) for each in exc.diffs]
    return []


def script(revision: str, *, downgrade: bool = False) -> str:
    """The SQL that migrates, for a database administrator to read and run; nothing is connected to.

    :param revision: where to: ``head``, a revision, or ``from:to``; backward it must be ``from:to``.
    """
    import alembic.command
    import alembic.util

    output = io.StringIO()
    command = alembic.command.downgrade if downgrade else alembic.command.upgrade
    try:
        command(_config(output), revision, sql=True)
    except alembic.util.CommandError as exc:
        raise errors.InvalidInput(str(exc)) from exc
    return output.getvalue()


def require_known(connection: Connection) -> str | None:
    """Check that this code's migrations can run on that database.

    :return: the revision that it stands at, None where it has none.
    :raises errors.DatabaseTooNew, errors.DatabaseTooOld: as they say.
    """
    server = database.inspect_server(connection)
    database.require_versions(server)
    database.require_known(server)
    return server.revision


def _in_words(difference: Any) -> str:
    """Say one of Alembic's differences: a tuple, or, where it is of a column's properties, a list of them."""
    if isinstance(difference, list):
        return ", ".join(f"{verb.replace('_', ' ')} {table}.{column}" for verb, _, table, column, *_ in difference)
    verb, *place, changed = difference
    table = f"{place[1]}." if place else ""
    return f"{verb.replace('_', ' ')} {table}{changed.name}"


def _run(engine: Engine, command: str, *arguments: str) -> str | None:
    """Run a command of Alembic's; return the revision that the database stood at before."""
    import alembic.command
    import alembic.util

    config = _config(io.StringIO())
    role = roles.READER if command == "check" else roles.OWNER
    with _needing(role, engine), database.translated(), engine.connect() as connection:
        config.attributes["connection"] = connection
        try:
            getattr(alembic.command, command)(config, *arguments)
        except alembic.util.AutogenerateDiffsDetected:
            raise
        except alembic.util.CommandError as exc:
            raise errors.InvalidInput(f"{exc}; see: searchapp db current") from exc
    before: str | None = config.attributes["before"]
    return before


@contextmanager
def _reading(engine: Engine) -> Iterator[Connection]:
    with _needing(roles.READER, engine), database.translated(), engine.connect() as connection:
        yield connection


def _needing(role: str, engine: Engine) -> AbstractContextManager[None]:
    return roles.needed(role, lambda: database.user_of(engine))


def _config(output: io.StringIO) -> Config:
    from alembic.config import Config

    config = Config(output_buffer=output, stdout=io.StringIO())
    options: dict[str, Any] = {"script_location": folder(), "path_separator": "os"}
    for name, value in options.items():
        config.set_main_option(name, str(value).replace("%", "%%"))
    return config
