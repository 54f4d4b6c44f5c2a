"""``searchapp search`` as a process: what each way of printing gives, on one collection."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from searchapp import database
from searchapp.cli import output
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.ingest.documents import Document
from searchapp.search.hits import Hit, Hits, Took
from tests import conftest
from tests.acceptance import commands

STEERING = "\x1b[2J\x1b]0;title\x07\x9b31m\x08\r"
DOCUMENTS = [
    Document("shoes", "Red running shoes", None, {"kind": "clothes", "price": 80}),
    Document("hat", 'A "blue",\r\nwoollen hat', "Hat, blue", {"kind": "clothes", "price": 19.99}),
    Document("cat\t1", f"A cat sat on {STEERING} the mat", f"Felix {STEERING}\nthe cat", {STEERING: [STEERING, None]}),
    Document("日本 🎉", "\ufeff社會科學院語學研究所\u2028\u202e", "'\"; DROP TABLE", {"kind": "naughty", "deep": {"a": [1]}}),
    *(Document(f"filler {number:02}", "word " * 400, None, {"kind": "filler"}) for number in range(15)),
]


class Answers(NamedTuple):
    """What the processes printed."""

    json: commands.Done
    csv: commands.Done
    people: commands.Done
    first_line: bytes
    said: bytes


@pytest.fixture(scope="module")
def url(server: database.Parameters, template: str, registry: Registry) -> Iterator[str]:
    with conftest.temporary_database(server, template) as url:
        engine = database.create_engine(database.parse_url(url))
        Client(engine, registry=registry).ingest(DOCUMENTS, collection="things", chunk_tokens=64)
        engine.dispose()
        yield url


@pytest.fixture(scope="module")
def answers(url: str, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    folder = tmp_path_factory.mktemp("search")
    search = ["search", "crimson sneakers", "--collection", "things"]
    calls = [
        [*search, "--json", "--limit", "100000", "--exact", "--filter", '{"kind": {"$ne": "filler"}}'],
        [*search, "--csv", "-n", "4"],
        [*search, "--limit", "19"],
    ]
    with ThreadPoolExecutor(1) as pool:
        broken = pool.submit(read_first_line, [*search, "--jsonl", "--limit", "100"], url, folder)
        return Answers(*commands.run_all(url, folder, calls), *broken.result())


def read_first_line(arguments: list[str], url: str, folder: Path) -> tuple[bytes, bytes]:
    """Read what ``head -1`` would of the command's output, and all that it says besides."""
    process = subprocess.Popen(
        [sys.executable, "-m", "searchapp", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={**os.environ, "DATABASE_URL": url, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    return line, said


def test_x(answers):
    for x in answers: print(x)
    assert 0
