"""Bad input of a call: one line that says what to do, exit code 2, nothing written, and no model loaded for it."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from searchapp import database
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.ingest.documents import Document
from searchapp.spaces import CollectionInfo
from tests import conftest
from tests.acceptance import commands

SEARCH = ["search", "shoes", "--collection", "things"]
INGEST = ["ingest", "--collection", "things"]
NEW = ["ingest", "--collection", "new"]

# What is called, and what the error says.
CALLS: list[tuple[list[str], str]] = [
    # the source
    ([*NEW, "nowhere.jsonl"], "cannot read nowhere.jsonl: No such file or directory"),
    ([*NEW, "\udcff.jsonl"], r"cannot read \udcff.jsonl: No such file or directory"),
    ([*NEW, "\x1b[2J"], "cannot read \ufffd[2J: No such file or directory"),
    ([*NEW, "empty"], "empty has no files that can be read: .txt, .md"),
    ([*NEW, "unknown.bin"], "unknown.bin is of no format that can be read: .jsonl"),
    ([*NEW, "torn.csv.gz"], "cannot read torn.csv.gz: its gzip ends too early; is the file whole?"),
    ([*NEW, "array.json"], "array.json is one JSON array, expected one object a line; make it so: jq -c '.[]'"),
    ([*NEW, "false.parquet"], "false.parquet is no Parquet file"),
    ([*NEW, "things.jsonl", "--text", "bodi"], "things.jsonl: no row has a field 'bodi' (did you mean 'body'?); the"),
    ([*NEW, "things.jsonl", "--key", "\udcff"], r"things.jsonl: no row has a field '\udcff'; the fields are: id, text"),
    ([*NEW, "things.csv"], "things.csv: no row has a field 'id', '_id' or 'key' (name the one that is the key with"),
    # the collection
    ([*SEARCH[:-1], "thing"], "no collection 'thing'; did you mean things?"),
    (["get", "1", "--collection", "Things"], "no collection 'Things'; did you mean things?"),
    ([*SEARCH[:-1], "\udcff"], r"the collection name '\udcff' is not allowed"),
    (["collection", "drop", "thigs"], "no collection 'thigs'; did you mean things?"),
    (
        ["ingest", "things.jsonl", "--collection", "My Things"],
        "is not allowed: a to z, 0 to 9 and _, a letter first, at most 51; my_thi",
    ),
    (["collection", "create", "spaces"], "the collection name 'spaces' is reserved; spaces_documents would do"),
    ([*INGEST, "things.jsonl", "--chunk-tokens", "64"], "made with 254 tokens, 31 of them overlapping; 64 tokens"),
    ([*NEW, "things.jsonl", "--chunk-tokens", "255"], "expected 8 to 254"),
    (
        ["collection", "create", "new", "--chunk-tokens", "0"],
        "--chunk-tokens is 0; expected at least 8, or --no-chunking",
    ),
    ([*NEW, "things.jsonl", "--chunk-tokens", "9", "--no-chunking"], "give --chunk-tokens or --no-chunking, not both"),
    # the model
    ([*INGEST, "things.jsonl", "--model", "other"], "made with all-MiniLM-L6-v2; ingest with that, or into another"),
    ([*NEW, "things.jsonl", "--model", "./nowhere"], "nowhere is not a model's folder: it has neither modules.json"),
    ([*NEW, "things.jsonl", "--model", "empty"], "empty is not a model's folder: it has neither modules.json nor con"),
    ([*NEW, "things.jsonl", "--model", "no-such-model"], "the model sentence-transformers/no-such-model is not inst"),
    (["collection", "create", "new", "--model", "\udcff"], "has no model sentence-transformers/"),
    # the question
    (["search", " \n\u3000", "--collection", "things"], "the query is empty; say what to look for"),
    (["search", "caf\udce9", "--collection", "things"], "the query has a NUL or what is not UTF-8"),
    ([*SEARCH, "--limit", "0"], "limit is 0; expected 1 to 100,000"),
    ([*SEARCH, "--limit", "-1"], "limit is -1; expected 1 to 100,000"),
    ([*SEARCH, "--limit", "100001"], "limit is 100001; expected 1 to 100,000"),
    ([*SEARCH, "--offset", "-1"], "offset is -1; expected 0 to 100,000"),
    ([*SEARCH, "--cursor", "nonsense"], "the cursor is not of this search"),
    ([*SEARCH, "--cursor", "nonsense", "--offset", "1"], "give an offset or a cursor, not both"),
    ([*SEARCH, "--min-score", "nan"], "min_score is nan; expected a number"),
    ([*SEARCH, "--timeout", "0"], "timeout is 0.0; expected seconds, over 0"),
    ([*SEARCH, "--limit", "ten"], "Invalid value for '--limit'"),
    ([*SEARCH, "--mode", "magic"], "mode is 'magic'; expected one of: vector"),
    ([*SEARCH, "--json", "--csv"], "give one of --json, --jsonl and --csv"),
    ([*SEARCH, "--explain", "--csv"], "--explain takes --json, but neither --jsonl nor --csv nor --cursor"),
    ([*SEARCH, "--explain", "--jsonl"], "--explain takes --json, but neither --jsonl nor --csv nor --cursor"),
    ([*SEARCH, "--explain", "--exact", "--cursor", "x"], "--explain takes --json, but neither --jsonl nor --csv nor"),
    ([*SEARCH, "--explain", "--limit", "0"], "limit is 0; expected 1 to 100,000"),
    ([*SEARCH[:-1], "thing", "--explain"], "no collection 'thing'; did you mean things?"),
    ([*SEARCH, "--filter", '{"a": {"$regex": 1}}'], "unknown operator '$regex' in the filter; there are: $eq, $ne"),
    ([*SEARCH, "--filter", '{"a": '], "the filter is not JSON ("),
    ([*SEARCH, "--filter", "[]"], "the filter is no JSON object; expected such as"),
    ([*SEARCH, "--filter", '{"a": "\udcff"}'], "a filter's text has a NUL or a lone surrogate"),
    # the document
    (["get", "\udcff", "--collection", "things"], r"the collection things has no document '\udcff'"),
    (["delete", "--collection", "things"], "delete takes keys, or a filter that is not empty"),
    (["delete", "--collection", "things", "--filter", "{}"], "delete takes keys, or a filter that is not empty"),
    # the command line
    (["search", "shoes"], "Missing option '--collection' / '-c' (see --help)"),
    (["search", "--collection", "things"], "Missing argument 'QUERY' (see --help)"),
    (["serch"], "No such command 'serch'"),
    ([*SEARCH, "--limmit", "3"], "No such option: --limmit"),
]


@pytest.fixture(scope="module")
def url(server: database.Parameters, template: str) -> Iterator[str]:
    with conftest.temporary_database(server, template) as url:
        yield url


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with sources of all kinds."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty").mkdir()
    (folder / "empty" / "image.png").write_bytes(b"\x89PNG")
    (folder / "things.jsonl").write_text('{"id": 1, "text": "a", "body": "b"}\n')
    (folder / "things.csv").write_text("name,text\nx,y\n")
    (folder / "unknown.bin").write_bytes(b"\0\1\2")
    (folder / "torn.csv.gz").write_bytes(gzip.compress(b"id,text\n1,a\n")[:-8])
    (folder / "array.json").write_text('[\n{"id": 1}\n]\n')
    (folder / "false.parquet").write_bytes(b"id,text\n")
    commands.forbid_models(folder)
    return folder


class Ran(NamedTuple):
    """What each call ended with, and the collections before and after all of them."""

    calls: dict[str, commands.Done]
    before: list[CollectionInfo]
    after: list[CollectionInfo]


@pytest.fixture(scope="module")
def ran(url: str, folder: Path, registry: Registry) -> Iterator[Ran]:
    engine = database.create_engine(database.parse_url(url))
    db = Client(engine, registry=registry)
    db.ingest([Document("1", "a", None, {})], collection="things")
    before = db.collections()
    calls = [arguments for arguments, _ in CALLS]
    done = commands.run_all(url, folder, calls)
    yield Ran({str(arguments): each for arguments, each in zip(calls, done, strict=True)}, before, db.collections())
    engine.dispose()


@pytest.mark.parametrize(("arguments", "says"), CALLS, ids=[ascii(arguments) for arguments, _ in CALLS])
def test_bad_input_is_one_line(ran: Ran, arguments: list[str], says: str) -> None:
    assert says in commands.error_of(ran.calls[str(arguments)])


def test_bad_input_writes_nothing(ran: Ran, folder: Path) -> None:
    assert ran.after == ran.before
    assert not list(folder.rglob("*.rejected.jsonl"))


def test_a_database_that_is_down_or_not_migrated_is_one_line(empty_url: str, folder: Path) -> None:
    for address, says in (
        ("postgresql://nobody@127.0.0.1:1/shop", "is PostgreSQL running there? check DATABASE_URL"),
        ("mysql://localhost/shop", "DATABASE_URL begins with mysql://; expected postgresql://"),
        (empty_url, "the database has no searchapp tables yet, this searchapp needs"),
    ):
        for done in commands.run_all(address, folder, [SEARCH, [*NEW, "things.jsonl"]]):
            assert says in commands.error_of(done)


def test_debug_shows_where_an_error_comes_from(url: str, folder: Path) -> None:
    done = commands.run_command(url, folder, "search", "", "--collection", "things", "--debug")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.endswith("\nsearchapp: error: the query is empty; say what to look for\n")


def test_output_that_cannot_be_written_is_one_line(url: str, folder: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with Path("/dev/full").open("wb") as full:
        done = commands.run_command(url, folder, "collection", "list", stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr == (
        "searchapp: error: unexpected OSError: [Errno 28] No space left on device (--debug shows where)\n"
    )
