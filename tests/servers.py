"""Embedded servers for tests and checks: each under a home of its own, gone afterwards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from searchapp import database, embedded

# Nobody waits for the disk: what a crash of the machine would lose is not worth keeping.
QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@contextmanager
def temporary_server(**settings: str) -> Iterator[database.Parameters]:
    """Start a server and give its libpq parameters; it ends with this process at the latest.

    :param settings: of the server, before those that make it quick.
    """
    home = Path(tempfile.mkdtemp(prefix="searchapp-tests-"))
    try:
        yield dict(embedded.start(home, follow_parent=True, settings={**QUICK, **settings}))
    finally:
        embedded.stop(home)
        location = embedded.folder(home)
        shutil.rmtree(home, ignore_errors=True)
        if location is not None:
            shutil.rmtree(location, ignore_errors=True)
