"""Killing ``searchapp ingest`` and comparing what is left, after another run, with what an undisturbed run leaves."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from searchapp import database
from searchapp.client import Client
from searchapp.encoders.registry import Registry

WORDS = ("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "haven", "ivory")
DOCUMENTS = 1050  # more than one transaction takes


def write_source(folder: Path) -> Path:
    """A JSONL file of short documents, all different."""
    path = folder / "things.jsonl"
    with path.open("w") as file:
        for number in range(DOCUMENTS):
            text = " ".join(WORDS[number // 9**place % 9] for place in range(4))
            print(json.dumps({"id": number, "text": text, "number": number}), file=file)
    return path


def start_ingest(source: Path, url: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start the command in the background; it is its own process group."""
    return subprocess.Popen(
        [sys.executable, "-m", "searchapp", "ingest", str(source), "--collection", "things", "--json"],
        env={**os.environ, "DATABASE_URL": url, "OMP_NUM_THREADS": "1", **environment},
        cwd=source.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def rows(url: str) -> list[tuple[Any, ...]]:
    """All documents with their chunks, by key; the embedding last."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT d.key, d.title, d.text, d.metadata, d.content_hash,"
            " c.position, c.start, c.length, c.embedding::text"
            " FROM searchapp_data.documents d LEFT JOIN searchapp_data.chunks c ON c.document_id = d.id"
            " ORDER BY d.key, c.position"
        ).fetchall()


def assert_same_rows(found: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> None:
    assert [row[:-1] for row in found] == [row[:-1] for row in expected]
    ours, theirs = (np.array([json.loads(row[-1]) for row in each], dtype=np.float32) for each in (found, expected))
    assert np.abs(ours - theirs).max() < 1e-5  # the last bits depend on which texts were encoded together


@contextmanager
def searching(urls: list[str], registry: Registry) -> Iterator[list[int]]:
    """Search these databases all the time, in turn; the list grows by the number of hits of each search.

    A failing search fails the test.
    """
    found: list[int] = []
    failures: list[Exception] = []
    done = threading.Event()
    engines = [database.create_engine(database.parse_url(url)) for url in urls]

    def search() -> None:
        for engine in itertools.cycle(engines):
            if done.wait(0.05):
                return
            db = Client(engine, registry=registry)
            try:
                if "things" in [each.name for each in db.collections()]:
                    found.append(len(db.search("amber cedar ember", collection="things")))
            except Exception as exc:
                failures.append(exc)
                return

    thread = threading.Thread(target=search)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
        for engine in engines:
            engine.dispose()
        assert not failures, failures
