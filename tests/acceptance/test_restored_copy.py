"""A copy by pg_dump and pg_restore answers as its original does, once it has a link of its own."""

from __future__ import annotations

import subprocess
from typing import Any

import psycopg
import pytest

from searchapp import database
from searchapp.client import Client
from tests.acceptance.commands import programs
from tests.conftest import Run
from tests.workers import worker_process

TEXTS = ("red running shoes", "a woollen hat", "winter boots of leather", "a lamp to read by", "shoes of wood")
QUESTIONS = {
    "search": "SELECT * FROM searchapp.search('warm shoes', 'things', 3)",
    "filtered": "SELECT * FROM searchapp.search('shoes -wood', 'things', 3, '{\"n\": {\"$gt\": 0}}', 'text')",
    "vector": "SELECT * FROM searchapp.search('light', 'things', 2, mode => 'vector')",
    "similar": "SELECT * FROM searchapp.similar('things', 'k0', 3)",
    "by vector": "SELECT * FROM searchapp.search_by_vector((SELECT embedding FROM searchapp.things"
    " WHERE key = 'k1'), 'things', 3)",
    "view": "SELECT * FROM searchapp.things ORDER BY embedding <=> searchapp.embed('a new text', 'things') LIMIT 3",
    "embed with": "SELECT searchapp.embed_with('another text', 'all-MiniLM-L6-v2')",
    "collections": "SELECT name, model, documents, chunks, indexed, language, created_at FROM searchapp.collections",
    "spaces": "SELECT id, collection, state, active, chunks FROM searchapp.spaces",
    "models": "SELECT * FROM searchapp.models",
}


def answers(url: str) -> dict[str, list[Any]]:
    with psycopg.connect(url, autocommit=True, options="-c searchapp.timeout=60s") as connection:
        return {name: connection.execute(question.encode()).fetchall() for name, question in QUESTIONS.items()}


def test_a_restored_copy_gives_the_same_answers(url: str, empty_url: str, db: Client, run: Run) -> None:
    rows = [{"key": f"k{n}", "title": f"T{n}", "text": text, "metadata": {"n": n}} for n, text in enumerate(TEXTS)]
    db.ingest(rows, collection="things")
    assert run("db", "embed-link").returncode == 0
    with worker_process(url):
        expected = answers(url)
    tools = programs(url)
    dump = subprocess.run([str(tools / "pg_dump"), "--format=custom", url], capture_output=True, check=True).stdout
    name = str(database.parse_url(empty_url)["dbname"])
    command = [str(tools / "pg_restore"), "--exit-on-error", f"--dbname={empty_url}"]
    subprocess.run(command, input=dump, capture_output=True, check=True)
    with psycopg.connect(empty_url, autocommit=True) as connection, worker_process(empty_url):
        assert connection.info.dbname == name
        with pytest.raises(psycopg.Error, match="searchapp db embed-link"):
            connection.execute("SELECT searchapp.embed('something new', 'things')")
        done = run("db", "embed-link", DATABASE_URL=empty_url)
        assert done.returncode == 0, done.stderr
        assert answers(empty_url) == expected
    with worker_process(url):  # which nobody took anything from
        assert answers(url) == expected
