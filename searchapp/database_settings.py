"""Settings of a database, which every session of it begins with, and what the collections' views need of them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, func, select, text, true

from searchapp import database
from searchapp.wire import quote


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that a database should have.

    :param reason: what happens without it.
    :param found: what a new session has; None: nothing.
    :param statement: what gives it to the database.
    """

    name: str
    value: str
    reason: str
    found: str | None
    statement: str

    @property
    def is_set(self) -> bool:
        """Whether the database has it."""
        return self.found == self.value


# A view cannot set it for itself.
_WANTED = {
    "hnsw.iterative_scan": (
        "strict_order",
        "with ORDER BY embedding <=> ... LIMIT a collection's view may give fewer rows than the limit",
    )
}


def settings(engine: Engine) -> list[Setting]:
    """What the collections' views need, and what a new session of the database has."""
    with database.translated(), engine.connect() as connection:
        name = connection.scalar(text("SELECT quote_ident(current_database())"))
        return [
            Setting(
                setting,
                value,
                reason,
                connection.scalar(select(func.current_setting(setting, true()))),
                f"ALTER DATABASE {name} SET {setting} = '{value}'",
            )
            for setting, (value, reason) in _WANTED.items()
        ]


def apply(engine: Engine, setting: Setting) -> None:
    """Let the database have a setting, in sessions that begin from now on.

    :raises errors.PermissionDenied: this role does not own the database.
    """
    with database.translated(), engine.begin() as connection:
        schema = database.require_ready(database.inspect_server(connection))
        # a setting that the session does not know, only a superuser may give
        connection.exec_driver_sql(f"SELECT '[1]'::{quote(schema)}.vector")
        connection.exec_driver_sql(setting.statement.replace("%", "%%"))
