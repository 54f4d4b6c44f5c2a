"""What the tests share: one embedded server a run, and a migrated database of its own for each test."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from searchapp import database, schema
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from tests import forking
from tests.servers import temporary_server
from tests.sources import SQL, QuickRegistry

os.environ["HF_HUB_OFFLINE"] = "1"
for _name in [name for name in os.environ if name.startswith("PG")] + ["DATABASE_URL", "SEARCHAPP_HOME"]:
    os.environ.pop(_name, None)
# One home for all processes of a run, so that the model's graph is exported once; the first of them deletes it.
if "SEARCHAPP_TESTS_HOME" not in os.environ:
    os.environ["SEARCHAPP_TESTS_HOME"] = tempfile.mkdtemp(prefix="searchapp-tests-home-")
    atexit.register(shutil.rmtree, os.environ["SEARCHAPP_TESTS_HOME"], ignore_errors=True)
HOME = Path(os.environ["SEARCHAPP_TESTS_HOME"])
os.environ["SEARCHAPP_HOME"] = str(HOME)
if "PYTEST_XDIST_WORKER" in os.environ:  # each core has a process already, and torch's threads wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[database.Parameters]:
    """libpq parameters of the run's own embedded server."""
    with temporary_server() as parameters:
        yield parameters


@pytest.fixture(scope="session")
def template(server: database.Parameters) -> str:
    """The name of a migrated database to copy."""
    _administer(server, "CREATE DATABASE template_searchapp")
    engine = database.create_engine({**server, "dbname": "template_searchapp"})
    schema.upgrade(engine)
    engine.dispose()
    return "template_searchapp"


@pytest.fixture
def empty_url(server: database.Parameters) -> Iterator[str]:
    """A libpq string for an empty database."""
    with temporary_database(server, "template1") as url:
        yield url


@pytest.fixture
def url(server: database.Parameters, template: str) -> Iterator[str]:
    """A libpq string for a migrated database without collections."""
    with temporary_database(server, template) as url:
        yield url


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    with engine_on(url) as engine:
        yield engine


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The real model, loaded once a run."""
    return Registry(HOME)


@pytest.fixture
def db(engine: Engine, registry: Registry) -> Client:
    """A handle on a migrated database without collections."""
    return Client(engine, registry=registry)


@pytest.fixture
def sql(url: str) -> Iterator[SQL]:
    """A connection of the user's own to this test's database, in autocommit."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def quick(registry: Registry) -> QuickRegistry:
    """Models whose default one takes no time."""
    return QuickRegistry(registry)


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(url: str, tmp_path: Path) -> Run:
    """Runs the command ``searchapp`` as a process, in an empty folder, on this test's database."""

    def run(
        *arguments: str, stdin: str | bytes = "", timeout: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        given = {**os.environ, "DATABASE_URL": url, **environment}
        return forking.run_command(arguments, folder=tmp_path, environment=given, stdin=data, timeout=timeout)

    return run


@contextmanager
def temporary_database(server: database.Parameters, template: str) -> Iterator[str]:
    """A copy of a database, dropped afterwards; its libpq string."""
    name = f"test_{next(_numbers)}"
    _administer(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield database.conninfo({**server, "dbname": name})
    _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


def shared_database() -> tuple[Any, Any]:
    """The fixtures ``engine`` and ``db`` for a module whose tests share one database: what one makes, the others find.

    Put into the module under their names, they stand in for those of each test.
    """

    @pytest.fixture(scope="module")
    def engine(server: database.Parameters, template: str) -> Iterator[Engine]:
        with temporary_database(server, template) as url, engine_on(url) as engine:
            yield engine

    @pytest.fixture(scope="module")
    def db(engine: Engine, registry: Registry) -> Client:
        return Client(engine, registry=registry)

    return engine, db


def shared_address() -> tuple[Any, Any]:
    """The fixtures ``url`` and ``db`` for a module whose tests share one database; as :func:`shared_database`."""

    @pytest.fixture(scope="module")
    def url(server: database.Parameters, template: str) -> Iterator[str]:
        with temporary_database(server, template) as url:
            yield url

    @pytest.fixture(scope="module")
    def db(url: str, registry: Registry) -> Iterator[Client]:
        with engine_on(url) as engine:
            yield Client(engine, registry=registry)

    return url, db


@contextmanager
def engine_on(url: str) -> Iterator[Engine]:
    """An engine on a database, its connections closed afterwards."""
    engine = database.create_engine(database.parse_url(url))
    yield engine
    engine.dispose()


def _administer(server: database.Parameters, statement: str) -> None:
    with psycopg.connect(**server, autocommit=True) as connection:
        connection.execute(statement.encode())
