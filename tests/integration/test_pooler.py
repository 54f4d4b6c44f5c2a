"""Behind PgBouncer in transaction mode, where every transaction may get another of the server's sessions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from searchapp import database, embedded_files, errors, schema
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.search.hits import Hits
from searchapp.worker import Worker
from tests.acceptance.commands import run_command
from tests.made_up import driver_of, fill, random_vectors, unit
from tests.servers import temporary_server

PGBOUNCER = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed (Debian's package: pgbouncer)")

SESSIONS = 2  # of the server's, for all clients of the pooler
PORT = 6432  # names the socket in a folder of its own; nothing listens on a network
# What PgBouncer itself sets in a session to what the client has.
TRACKED = {"application_name", "client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings"}

VECTORS = random_vectors(400)
QUERIES = unit(VECTORS + 0.3 * random_vectors(400))  # each is nearest to the vector of its number


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder of the user who runs the server, and the pooler too: it refuses root."""
    folder = Path(tempfile.mkdtemp(prefix="searchapp-tests-pooler-"))
    user = embedded_files.server_user(folder / "no data yet")
    shutil.chown(folder, user.pw_uid, user.pw_gid)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def direct(folder: Path) -> Iterator[str]:
    """The address of a migrated database of a server that lets its own user in, for whom the pooler connects."""
    names = {folder.owner(), embedded_files.caller().pw_name}
    rules = write(folder / "pg_ident.conf", "".join(f'searchapp  "{name}"  all\n' for name in names))
    with temporary_server(jit="on", ident_file=str(rules)) as parameters:
        engine = database.create_engine(parameters)
        schema.upgrade(engine)
        engine.dispose()
        yield database.conninfo(parameters)


@pytest.fixture(scope="module")
def pooled(folder: Path, direct: str) -> Iterator[str]:
    """The address of the same database behind the pooler."""
    server = database.parse_url(direct)
    settings = write(
        folder / "pgbouncer.ini",
        f"[databases]\n* = host='{server['host']}' port={server['port']} user={server['user']}\n"
        f"[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\nunix_socket_dir = {folder}\nauth_type = any\n"
        f"pool_mode = transaction\ndefault_pool_size = {SESSIONS}\n",
    )
    url = database.conninfo({"host": str(folder), "port": PORT, "user": "ann", "dbname": server["dbname"]})
    with (folder / "pgbouncer.log").open("w+") as log:
        options = embedded_files.as_user(embedded_files.server_user(folder / "no data yet"))
        pooler = subprocess.Popen([str(PGBOUNCER), str(settings)], stdout=log, stderr=log, **options)
        try:
            for _ in range(500):
                if (folder / f".s.PGSQL.{PORT}").exists() or pooler.poll() is not None:
                    break
                time.sleep(0.01)
            assert pooler.poll() is None, (folder / "pgbouncer.log").read_text()
            yield url
        finally:
            pooler.terminate()
            pooler.wait()


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    shutil.chown(path, path.parent.owner(), path.parent.group())
    return path


@pytest.fixture(scope="module")
def engine(pooled: str) -> Iterator[Engine]:
    engine = database.create_engine(database.parse_url(pooled))
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def db(engine: Engine, registry: Registry) -> Client:
    """A handle behind the pooler on a collection, made and indexed through it, in which document i has vector i."""
    db = Client(engine, registry=registry)
    assert fill(db, "things", list(VECTORS[:, None])).indexed
    return db


def in_every_session(url: str, query: str) -> list[list[tuple[Any, ...]]]:
    """What a query gives in each of the server's sessions that the pooler has for its clients."""
    with ExitStack() as stack:
        held = [stack.enter_context(psycopg.connect(url, prepare_threshold=None)) for _ in range(SESSIONS)]
        pids = [connection.execute("SELECT pg_backend_pid()").fetchone() for connection in held]
        assert len(set(pids)) == SESSIONS
        return [connection.execute(query.encode()).fetchall() for connection in held]


def left_in_sessions(url: str) -> list[set[str]]:
    """What clients have left in each of the server's sessions: settings by their names, and advisory locks."""
    query = (
        "SELECT name FROM pg_settings WHERE source = 'session'"
        " UNION SELECT locktype FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    )
    return [{name for (name,) in rows} - TRACKED for rows in in_every_session(url, query)]


def told(hits: Hits) -> list[tuple[str, float | None]]:
    return [(hit.key, hit.distance) for hit in hits]


def test_eight_threads_get_right_answers_while_one_of_them_ingests(db: Client) -> None:
    texts = [f"{color} shoes, size {size}" for color in ("red", "green", "blue") for size in range(80)]
    ingested = threading.Event()

    def ingest() -> None:
        try:
            db.ingest(({"key": text, "text": text} for text in texts), collection="things")
        finally:
            ingested.set()

    def work(thread: int) -> int:
        if thread == 0:
            ingest()
        asked = 0
        while asked < 25 or not ingested.is_set():
            number = (25 * thread + asked) % len(QUERIES)
            assert db.search_by_vector(QUERIES[number], collection="things")[0].key == f"{number:04}"
            asked += 1
        return asked

    with ThreadPoolExecutor(8) as pool:
        assert min(pool.map(work, range(8))) >= 25
    assert db.count(collection="things") == len(VECTORS) + len(texts)
    assert db.search("blue shoes, size 7", collection="things")[0].key == "blue shoes, size 7"


@pytest.mark.parametrize("exact", [False, True])
def test_many_vectors_are_answered_as_one_by_one(db: Client, exact: bool) -> None:
    many = db.search_many_by_vector(QUERIES[:40], collection="things", exact=exact)
    single = [db.search_by_vector(query, collection="things", exact=exact) for query in QUERIES[:40]]
    assert [told(hits) for hits in many] == [told(hits) for hits in single]
    assert [hits[0].key for hits in many] == [f"{number:04}" for number in range(40)]
    assert {hits.exact for hits in many} == {exact}


def test_the_command_ingests_and_searches(pooled: str, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"id": 1, "text": "Red running shoes"}\n{"id": 2, "text": "A blue hat"}\n')
    done = run_command(pooled, tmp_path, "ingest", "texts.jsonl", "--collection", "texts")
    assert (done.returncode, done.stderr) == (0, "")
    done = run_command(pooled, tmp_path, "search", "crimson sneakers", "--collection", "texts", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert [hit["key"] for hit in json.loads(done.stdout)["hits"]] == ["1", "2"]


def test_nothing_is_prepared_behind_the_pooler(
    db: Client, engine: Engine, pooled: str, direct: str, registry: Registry
) -> None:
    straight = database.create_engine(database.parse_url(direct))
    for each, threshold in ((db, None), (Client(straight, registry=registry), 5)):
        for query in QUERIES[:20]:
            each.search_by_vector(query, collection="things")
        with driver_of(engine if each is db else straight) as driver:
            assert driver.prepare_threshold == threshold
    straight.dispose()
    assert in_every_session(pooled, "SELECT statement FROM pg_prepared_statements") == [[], []]


def test_no_setting_is_left_in_the_servers_sessions(pooled: str, db: Client) -> None:
    """Others who share these sessions find them as the server's administrator wants them."""
    for limit in (10, 200):
        db.search_by_vector(QUERIES[0], collection="things", limit=limit, filter={"a": {"$exists": False}})
    db.search_many_by_vector(QUERIES[:40], collection="things", exact=True)
    assert left_in_sessions(pooled) == [set(), set()]
    shown = "SELECT current_setting('jit'), current_setting('hnsw.iterative_scan'), '[1]'::vector"
    assert in_every_session(pooled, shown) == [[("on", "strict_order", "[1]")]] * 2


def test_dropping_beside_searches_leaves_nothing_in_the_servers_sessions(pooled: str, db: Client) -> None:
    """A lock that stays in one of them would let later drops free no room, for as long as the session lives."""
    dropped = threading.Event()

    def search() -> None:
        while not dropped.is_set():
            db.search_by_vector(QUERIES[0], collection="things")

    with ThreadPoolExecutor(7) as pool:
        searching = [pool.submit(search) for _ in range(7)]
        try:
            for number in range(8):
                db.create_collection(f"brief_{number}")
                db.drop_collection(f"brief_{number}")
        finally:
            dropped.set()
        for each in searching:
            each.result()
    assert left_in_sessions(pooled) == [set(), set()]


def test_a_worker_wants_the_server_itself(engine: Engine, registry: Registry) -> None:
    """Its locks are the session's, which behind it is anybody's."""
    with pytest.raises(errors.InvalidInput, match="let DATABASE_URL name the server itself"):
        Worker(engine, registry).run()


def test_fields_are_declared_and_dropped_behind_it(db: Client, pooled: str) -> None:
    db.create_collection("declared")
    db.add_field("declared", "year", "number")
    assert db.describe("declared").fields == {"year": "number"}
    db.drop_field("declared", "year")
    assert db.describe("declared").fields == {}
    assert left_in_sessions(pooled) == [set()] * SESSIONS
    db.drop_collection("declared")
