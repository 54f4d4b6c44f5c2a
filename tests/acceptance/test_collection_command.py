"""``searchapp collection`` and ``searchapp get`` as processes, and what the command says of itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import searchapp
from searchapp.client import Client
from searchapp.ingest.documents import Document
from tests.acceptance import commands
from tests.conftest import Run


@pytest.fixture(autouse=True)
def no_models(tmp_path: Path) -> None:
    commands.forbid_models(tmp_path)


def test_collections_are_created_listed_shown_and_dropped(run: Run, db: Client) -> None:
    done = run("collection", "list")
    assert (done.returncode, done.stdout) == (0, "no collections yet; make one: searchapp ingest FILE -c NAME\n")
    assert run("collection", "list", "--json").stdout == "[]\n"

    done = run("collection", "create", "things", "--chunk-tokens", "100")
    assert (
        done.stdout
        == "created things (all-MiniLM-L6-v2, 384 dimensions; 100 tokens, 12 of them overlapping; words: english)\n"
    )
    again = run("collection", "create", "things")
    assert commands.error_of(again) == "the collection things exists already"
    db.ingest([Document("a", "word " * 200, None, {})], collection="things")

    done = run("collection", "list")
    header, row = done.stdout.splitlines()
    assert header.split() == ["name", "documents", "chunks", "model", "size"]
    assert row.split()[:4] == ["things", "1", "3", "all-MiniLM-L6-v2"]
    shown = json.loads(run("collection", "show", "things", "--json").stdout)
    assert [shown] == json.loads(run("collection", "list", "--json").stdout)
    assert shown.pop("created_at")
    assert shown.pop("bytes") > 8192
    assert shown == {
        "name": "things",
        "model": "all-MiniLM-L6-v2",
        "dimensions": 384,
        "chunking": "100 tokens, 12 of them overlapping",
        "fields": {},
        "language": "english",
        "words_complete": True,
        "documents": 1,
        "chunks": 3,
        "indexed": True,
        "ef_search": 100,
        "recall": None,
        "measured_at": None,
    }
    lines = run("collection", "show", "things").stdout.splitlines()
    assert lines[0] == "name         things"
    assert len(lines) == 14

    done = run("collection", "drop", "things")
    assert (done.returncode, done.stdout, done.stderr) == (0, "dropped things with its 1 document\n", "")
    assert db.collections() == []


def test_get_prints_a_document_without_what_steers_a_terminal(run: Run, db: Client) -> None:
    document = Document(
        "a\x1b[1m", "two\r\nlines\x07 \x9b1m", "T\rtitle", {"price": 80, "tags": ["é", None], "note\n": "\x1b[2J"}
    )
    db.ingest([document], collection="things")
    done = run("get", document.key, "--collection", "things")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n") == [
        "key       a\ufffd[1m",
        "title     T title",
        'tags      ["é", null]',
        "note      \ufffd[2J",
        "price     80",
        "",
        "two\r",
        "lines\ufffd \ufffd1m",
        "",
    ]
    assert Document(**json.loads(run("get", document.key, "-c", "things", "--json").stdout)) == document


def test_the_version_is_the_packages(run: Run) -> None:
    script = Path(sys.executable).with_name("searchapp")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == run("--version").stdout == f"searchapp {searchapp.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["ingest"], ["search"], ["delete"], ["tune"], ["collection", "create"], ["similar"], ["facets"], ["context"]],
)
def test_help_fits_a_terminal_and_says_what_each_option_is(run: Run, arguments: list[str]) -> None:
    done = run(*arguments, "--help", COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(" ".join(["Usage: searchapp", *arguments, "[OPTIONS]"]))
    assert max(map(len, lines)) <= 80
    options = [line for line in lines if re.match(r"  (-\w, )?--\w", line)]
    assert "--help" in options[-1]
    assert all(re.search(r"\S {2,}\S", line.strip()) for line in options)


def test_without_a_command_it_shows_the_help(run: Run) -> None:
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == run("--help").stdout


def test_fields_are_declared_and_dropped(run: Run, db: Client) -> None:
    done = run("collection", "create", "things", "--field", "year:number", "--field", "a:b:text")
    assert done.returncode == 0
    assert "fields       a:b:text, year:number" in run("collection", "show", "things").stdout.splitlines()
    done = run("collection", "field", "add", "things", "day:date")
    assert (done.returncode, done.stdout, done.stderr) == (0, "declared day:date of things\n", "")
    assert db.describe("things").fields == {"a:b": "text", "day": "date", "year": "number"}
    done = run("collection", "field", "drop", "things", "year")
    assert (done.returncode, done.stdout, done.stderr) == (0, "year of things is no longer declared\n", "")
    assert json.loads(run("collection", "show", "things", "--json").stdout)["fields"] == {"a:b": "text", "day": "date"}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["create", "more", "--field", "year"], "a field is declared as NAME:TYPE, such as year:number; got 'year'"),
        (
            ["create", "more", "--field", "year:int"],
            "unknown type 'int' of the field 'year'; there are: number, text, date",
        ),
        (["create", "more", "--field", "a:number", "--field", "a:text"], "the field 'a' is declared twice"),
        (["field", "add", "things", "n:number"], "the field n of things is declared already, as number"),
        (["field", "add", "things", "n:text"], "the field n of things is declared already, as number"),
        (["field", "add", "thing", "m:text"], "no collection 'thing'; did you mean things?"),
        (["field", "drop", "things", "m"], "things has no declared field 'm'; there are: n"),
    ],
)
def test_a_field_that_cannot_be_is_refused(run: Run, db: Client, arguments: list[str], error: str) -> None:
    db.create_collection("things", fields={"n": "number"})
    assert commands.error_of(run("collection", *arguments)) == error
    assert [(each.name, each.fields) for each in db.collections()] == [("things", {"n": "number"})]
