"""``searchapp tune`` as a process, and what ``searchapp collection show`` says of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from searchapp.client import Client
from tests.acceptance import commands
from tests.conftest import Run
from tests.made_up import random_vectors


@pytest.fixture(autouse=True)
def no_models(tmp_path: Path) -> None:
    commands.forbid_models(tmp_path)


def load(db: Client, name: str, count: int) -> None:
    documents = [{"key": str(number), "text": f"text {number}"} for number in range(count)]
    db.load_vectors(documents, random_vectors(count), collection=name, model="all-MiniLM-L6-v2")


def test_recall_is_printed_against_latency_and_shown_with_the_collection(run: Run, db: Client) -> None:
    load(db, "things", 2000)
    lines = run("collection", "show", "things").stdout.splitlines()
    assert [line for line in lines if line.startswith(("ef_", "rec", "mea"))] == [
        "ef_search    100",
        "recall       not measured",
        "measured_at  not measured",
    ]

    done = run("tune", "--collection", "things", "--recall", "0.99")
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows, last = done.stdout.splitlines()
    assert re.split(r"  +", header) == ["ef_search", "recall@10", "p50 ms", "p95 ms"]
    assert {len(row) for row in rows[:-1]} == {len(header)}
    figures = [row.split() for row in rows]
    assert [len(row) for row in figures] == [4] * (len(rows) - 1) + [5]
    assert [float(row[1]) >= 0.99 for row in figures] == [False] * (len(rows) - 1) + [True]
    assert figures[-1][-1] == "chosen"
    chosen = figures[-1][0]
    assert last == f"things is searched with ef_search {chosen} from now on (before: 100; asked: 200 documents)"

    shown = json.loads(run("collection", "show", "things", "--json").stdout)
    assert (shown["ef_search"], f"{shown['recall']:.4f}") == (int(chosen), figures[-1][1])
    assert shown["measured_at"] > shown["created_at"]

    tuned = json.loads(run("tune", "-c", "things", "--recall", "0.99", "--json").stdout)
    assert tuned["measured"][-1] == tuned["chosen"]
    assert [str(each["ef_search"]) for each in tuned["measured"]] == [row[0] for row in figures]
    assert (tuned["collection"], tuned["wanted"], tuned["queries"]) == ("things", 0.99, 200)
    assert tuned["before"] == int(chosen)


def test_what_cannot_be_tuned_is_one_line(run: Run, db: Client) -> None:
    load(db, "single", 1)
    for recall in ("0", "1.5", "nan"):
        error = commands.error_of(run("tune", "-c", "single", "--recall", recall))
        assert error == f"recall is {float(recall)!r}; expected a number over 0 and at most 1, such as 0.99"
    assert commands.error_of(run("tune", "-c", "singel")) == "no collection 'singel'; did you mean single?"
    error = commands.error_of(run("tune", "-c", "single"))
    assert error == "single has a single document; recall is measured with two or more: ingest some first"
