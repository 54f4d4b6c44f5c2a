"""What the environment says: read only by the edges (the command, and ``connect()`` without a URL)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the database is, and where searchapp keeps its own files.

    ``database_url`` is None where the embedded server is to be used; ``home`` is an absolute path.
    """

    database_url: str | None
    home: Path


def read() -> Settings:
    """Read ``DATABASE_URL`` and ``SEARCHAPP_HOME``; an empty variable counts as unset."""
    home = os.environ.get("SEARCHAPP_HOME") or platformdirs.user_data_dir("searchapp", appauthor=False)
    return Settings(
        database_url=os.environ.get("DATABASE_URL") or None,
        home=Path(home).expanduser().absolute(),
    )
