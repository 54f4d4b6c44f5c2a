"""Workers for tests: one in a thread of this process, or, where it is to be killed, a process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from searchapp import database
from searchapp.encoders.registry import Registry
from searchapp.worker import Worker


@contextmanager
def working(url: str, registry: Registry, *, kept: int = 1000) -> Iterator[Worker]:
    """A worker of this process, which has begun; what it raises, the test fails with."""
    engine = database.create_engine(database.parse_url(url))
    worker = Worker(engine, registry, kept=kept)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as exc:
            raised.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_for(lambda: raised or workers(url))
        yield worker
    finally:
        worker.stop()
        thread.join()
        engine.dispose()
        if raised:
            raise raised[0]


@contextmanager
def worker_process(url: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The command ``searchapp worker``, which has begun; it is killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "searchapp", "worker"],
        env={**os.environ, "DATABASE_URL": url, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: process.poll() is not None or workers(url, doing="answering"), seconds=60)
        yield process
    finally:
        process.kill()
        process.communicate()


def workers(url: str, *, doing: str | None = None) -> int:
    """How many workers have a row.

    :param doing: what they do; None: whatever it is, loading models too.
    """
    with psycopg.connect(url) as connection:
        statement = "SELECT count(*) FROM searchapp.worker_status WHERE %s::text IS NULL OR doing = %s"
        row = connection.execute(statement, [doing, doing]).fetchone()
    assert row is not None
    return int(row[0])


def wait_for(condition: Callable[[], Any], *, seconds: float = 20) -> Any:
    """Wait until a condition holds; what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.02)
    return found
