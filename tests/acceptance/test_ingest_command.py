"""``searchapp ingest`` and ``searchapp delete`` as processes.

What a test wants to find in the database already is put there by the Python door, whose model is loaded once a run.
Where nothing is to be encoded the process must not load one.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from sqlalchemy import Engine, text

from searchapp.client import Client
from searchapp.ingest.documents import Document
from tests.acceptance import commands
from tests.conftest import Run
from tests.tiny_models import save_encoder

ROWS: list[dict[str, Any]] = [
    {
        "id": 1,
        "title": "Shoes",
        "text": "Red running shoes",
        "price": 80,
        "rate": 4.5,
        "sold": True,
        "tags": ["a", "b"],
    },
    {"id": 2, "title": "Hat", "text": "A blue\nwoollen hat", "price": 20, "rate": 3.0, "sold": False, "tags": []},
    {"id": 3, "title": "Naïve", "text": "日本 🎉", "price": None, "rate": -1e-9, "sold": None, "tags": ["c"]},
]
DOCUMENTS = [
    Document(str(row["id"]), row["text"], row["title"], {name: row[name] for name in ("price", "rate", "sold", "tags")})
    for row in ROWS
]


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def ingest(run: Run, *arguments: str, **options: Any) -> dict[str, Any]:
    """Run ``ingest --json`` and return its summary; nothing may be said beside it."""
    done = run("ingest", *arguments, "--collection", "things", "--json", **options)
    assert done.returncode == 0, done.stderr
    assert all("exporting" in line for line in done.stderr.splitlines()), done.stderr  # a model seen for the first time
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def rejects(summary: dict[str, Any]) -> list[tuple[int, str, str]]:
    """What the reject file that a summary names has: line, reason and key of each row."""
    lines = Path(summary["reject_file"]).read_text().splitlines()
    return [(row["line"], row["reason"], row["key"]) for row in map(json.loads, lines)]


def test_ingest_encodes_what_is_new_and_says_what_it_did(run: Run, db: Client, tmp_path: Path) -> None:
    write(tmp_path, "things.jsonl", as_jsonl(ROWS))
    summary = ingest(run, "things.jsonl")
    seconds = summary.pop("seconds")
    assert 0 < seconds < 100
    assert summary == {"documents": 3, "chunks": 3, "unchanged": 0, "rejected": 0, "pruned": 0}
    assert [db.get(each.key, collection="things") for each in DOCUMENTS] == DOCUMENTS
    assert db.search("sneakers", collection="things")[0].key == "1"


@pytest.mark.parametrize("name", ["things.ndjson.gz", "things.parquet", "-"])
def test_formats_with_types_give_the_same_documents(run: Run, db: Client, tmp_path: Path, name: str) -> None:
    db.ingest(DOCUMENTS, collection="things")
    commands.forbid_models(tmp_path)
    if name == "things.parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / name)
    elif name != "-":
        write(tmp_path, name, as_jsonl(ROWS))
    assert ingest(run, name, stdin=as_jsonl(ROWS) if name == "-" else b"")["unchanged"] == 3


@pytest.mark.parametrize("name", ["things.csv", "things.tsv.gz"])
def test_csv_and_tsv_give_the_same_documents_with_metadata_of_text(
    run: Run, db: Client, tmp_path: Path, name: str
) -> None:
    db.ingest(DOCUMENTS, collection="things")
    commands.forbid_models(tmp_path)
    file = io.StringIO()
    writer = csv.DictWriter(file, ["id", "text", "title", "price"], delimiter="\t" if "tsv" in name else ",")
    writer.writeheader()
    writer.writerows({field: row[field] for field in writer.fieldnames} for row in ROWS)
    write(tmp_path, name, file.getvalue().encode())
    summary = ingest(run, name)
    assert (summary["documents"], summary["chunks"]) == (3, 0)
    found = db.get("2", collection="things")
    assert found == Document("2", "A blue\nwoollen hat", "Hat", {"price": "20"})


def test_a_folder_gives_a_document_a_file(run: Run, db: Client, tmp_path: Path) -> None:
    documents = [
        Document("a.txt", "plain\r\ntext\n", None, {"path": "a.txt", "format": "txt"}),
        Document("deep/b.md", "# Shoes\n\nare *red*\n", "Shoes", {"path": "deep/b.md", "format": "md"}),
        Document("c.html.gz", "Red shoes", "Page", {"path": "c.html.gz", "format": "html"}),
    ]
    db.ingest(documents, collection="things")
    commands.forbid_models(tmp_path)
    write(tmp_path, "site/a.txt", b"plain\r\ntext\n")
    (tmp_path / "site" / "deep").mkdir()
    write(tmp_path, "site/deep/b.md", b"# Shoes\n\nare *red*\n")
    write(tmp_path, "site/c.html.gz", b"<title>Page</title><p>Red <b>shoes</b>")
    write(tmp_path, "site/unknown.bin", b"\0")
    assert ingest(run, "site")["unchanged"] == 3


def test_fields_are_named_by_options(run: Run, db: Client, tmp_path: Path) -> None:
    db.ingest([Document("x-1", "first\n\nsecond", "Name", {"price": 5})], collection="things")
    commands.forbid_models(tmp_path)
    row = {"sku": "x-1", "name": "Name", "a": "first", "b": "second", "price": 5, "stock": 7, "id": 3, "text": "no"}
    write(tmp_path, "shop.jsonl", as_jsonl([row]))
    options = ["--key", "sku", "--title", "name", "--text", "a, b", "--metadata", "price"]
    assert ingest(run, "shop.jsonl", *options)["unchanged"] == 1


def test_metadata_alone_is_updated_without_encoding(run: Run, db: Client, tmp_path: Path) -> None:
    db.ingest(DOCUMENTS, collection="things")
    commands.forbid_models(tmp_path)
    write(tmp_path, "things.jsonl", as_jsonl([ROWS[0] | {"price": 80.5}, *ROWS[1:]]))
    summary = ingest(run, "things.jsonl")
    assert (summary["documents"], summary["chunks"], summary["unchanged"]) == (1, 0, 2)
    assert db.count(collection="things", filter={"price": 80.5}) == 1


def test_faulty_rows_go_into_the_reject_file_with_line_and_reason(run: Run, db: Client, tmp_path: Path) -> None:
    db.ingest([Document("1", "one", None, {}), Document("2", "two", None, {})], collection="things")
    commands.forbid_models(tmp_path)
    lines = [
        b'{"id": 1, "text": "one"}',
        b"",
        b'{"id": "latin", "text": "caf\xe9"}',
        b'{"id": "nul", "text": "a\\u0000b"}',
        b'{"id": "half", "text": "a\\ud83d"}',
        b'{"id": "blank", "text": " \\n"}',
        b'{"id": "without text", "title": "t"}',
        b'{"text": "without a key"}',
        b'{"id": "torn", "text": "a',
        b'["an", "array"]',
        b'{"id": 1.0, "text": "again"}',
        b'{"id": "2", "text": "two"}',
    ]
    write(tmp_path, "rows.jsonl", b"\n".join(lines))
    summary = ingest(run, "rows.jsonl")
    assert (summary["documents"], summary["unchanged"], summary["rejected"]) == (0, 2, 9)
    assert summary["reject_file"] == str(tmp_path / "rows.jsonl.rejected.jsonl")
    assert rejects(summary) == [
        (3, "not UTF-8 (byte 0xe9 at column 29)", "latin"),
        (4, "NUL in field 'text'", "nul"),
        (5, "a lone surrogate in field 'text'", "half"),
        (6, "empty text", "blank"),
        (7, "no field 'text'", "without text"),
        (8, "no field 'id', '_id' or 'key'", None),
        (9, "malformed JSON: Invalid control character at column 26", None),
        (10, "a JSON array, expected an object", None),
        (11, "the key '1' was given before", "1"),
    ]


def test_lines_of_faulty_csv_rows_count_the_header_and_line_ends_in_fields(
    run: Run, db: Client, tmp_path: Path
) -> None:
    db.ingest([Document("1", "one\nand more", None, {})], collection="things")
    commands.forbid_models(tmp_path)
    write(tmp_path, "rows.csv", b'id,text\n1,"one\nand more"\n\n1,again\n2,caf\xe9\n3,a,b\n4\n5,"x"y\n')
    summary = ingest(run, "rows.csv")
    assert (summary["unchanged"], summary["rejected"]) == (1, 5)
    assert rejects(summary) == [
        (5, "the key '1' was given before", "1"),
        (6, "not UTF-8 (byte 0xe9 in field 'text')", "2"),
        (7, "3 fields, but the header has 2", "3"),
        (8, "no field 'text'", "4"),
        (9, "malformed CSV: ',' expected after '\"'", None),
    ]


def test_a_source_of_faulty_rows_alone_is_no_error(run: Run, db: Client, tmp_path: Path) -> None:
    commands.forbid_models(tmp_path)
    write(tmp_path, "bad.jsonl", b'{"id": 1, "text": ""}\n{"id": 2, "text": ""}\n')
    done = run("ingest", "bad.jsonl", "--collection", "things")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ingested 0 documents (0 chunks), 0 unchanged, 2 rejected (see ")
    assert str(tmp_path / "bad.jsonl.rejected.jsonl") in done.stdout
    assert db.collections() == []


def test_where_the_reject_file_cannot_be_written_it_is_a_temporary_one(run: Run, tmp_path: Path) -> None:
    commands.forbid_models(tmp_path)
    (tmp_path / "stdin.rejected.jsonl").mkdir()
    summary = ingest(run, "-", stdin=b'{"id": 1, "text": ""}\n', TMPDIR=str(tmp_path))
    assert Path(summary["reject_file"]).parent.parent == tmp_path
    assert rejects(summary) == [(1, "empty text", "1")]


def test_an_empty_source_is_no_error(run: Run, db: Client, tmp_path: Path) -> None:
    commands.forbid_models(tmp_path)
    assert ingest(run, "-")["documents"] == 0
    assert db.collections() == []


def test_strict_stops_at_the_first_faulty_row_and_keeps_whole_documents(
    run: Run, db: Client, engine: Engine, tmp_path: Path
) -> None:
    documents = [Document(str(number), f"number {number}", None, {}) for number in range(1002)]
    db.ingest(documents, collection="things")
    commands.forbid_models(tmp_path)
    rows: list[dict[str, Any]] = [{"id": each.key, "text": each.text, "new": True} for each in documents]
    write(tmp_path, "rows.jsonl", as_jsonl([*rows[:1001], {"id": "x"}, rows[1001]]))
    done = run("ingest", "rows.jsonl", "--collection", "things", "--strict")
    assert commands.error_of(done) == "rows.jsonl:1002: no field 'text'"
    assert not list(tmp_path.glob("*.rejected.jsonl"))
    assert db.count(collection="things", filter={"new": True}) == 1000  # what one transaction takes
    with engine.begin() as connection:
        whole = connection.scalar(text("SELECT count(DISTINCT document_id) FROM searchapp_data.chunks"))
    assert whole == db.count(collection="things") == 1002


def test_strict_makes_no_collection_where_the_first_row_is_faulty(run: Run, db: Client, tmp_path: Path) -> None:
    commands.forbid_models(tmp_path)
    done = run("ingest", "-", "--collection", "things", "--strict", stdin=b'{"id": 1, "text": ""}\n')
    assert commands.error_of(done) == "stdin:1: empty text"
    assert db.collections() == []


def test_prune_deletes_what_the_source_lacks(run: Run, db: Client, tmp_path: Path) -> None:
    more = [Document(f"more {number}", "more", None, {}) for number in range(5)]
    db.ingest([*DOCUMENTS, *more], collection="things")
    commands.forbid_models(tmp_path)
    write(tmp_path, "things.jsonl", as_jsonl(ROWS))
    refused = run("ingest", "things.jsonl", "--collection", "things", "--prune")
    assert refused.returncode == 2
    assert "lacks 5 of the 8 documents there were before, more than half; if that is meant" in refused.stderr
    assert refused.stdout.startswith("ingested 0 documents (0 chunks), 3 unchanged")
    assert db.count(collection="things") == 8
    assert ingest(run, "things.jsonl", "--prune", "--yes")["pruned"] == 5
    faulty = [ROWS[0], ROWS[1] | {"text": ""}]
    summary = ingest(run, "-", "--prune", stdin=as_jsonl(faulty))
    assert (summary["rejected"], summary["pruned"]) == (1, 1)
    assert [each.key for each in DOCUMENTS if db.get(each.key, collection="things")] == ["1", "2"]


def test_nothing_is_pruned_where_the_source_was_not_read_to_its_end(run: Run, db: Client, tmp_path: Path) -> None:
    db.ingest(DOCUMENTS, collection="things")
    commands.forbid_models(tmp_path)
    content = gzip.compress(as_jsonl(ROWS[:2]))
    write(tmp_path, "torn.jsonl", content[:-8])
    torn = run("ingest", "torn.jsonl", "--collection", "things", "--prune", "--yes")
    assert commands.error_of(torn) == "cannot read torn.jsonl: its gzip ends too early; is the file whole?"
    keyless = run("ingest", "-", "--collection", "things", "--prune", stdin=as_jsonl([*ROWS[:2], {"text": "?"}]))
    assert keyless.returncode == 0
    assert "nothing was pruned: 1 rejected row" in keyless.stderr
    assert "1 rejected" in keyless.stdout
    assert db.count(collection="things") == 3


def test_delete_takes_keys_or_a_filter(run: Run, db: Client, tmp_path: Path) -> None:
    db.ingest(DOCUMENTS, collection="things")
    commands.forbid_models(tmp_path)
    done = run("delete", "1", "unknown", "\udcff", "--collection", "things", "--json")
    assert json.loads(done.stdout) == {"deleted": 1}
    done = run("delete", "--collection", "things", "--filter", '{"price": {"$lt": 50}}')
    assert (done.returncode, done.stdout, done.stderr) == (0, "deleted 1 document\n", "")
    assert db.get("3", collection="things") is not None
    assert db.count(collection="things") == 1


def test_a_model_from_a_folder_has_its_own_collections(run: Run, db: Client, tmp_path: Path) -> None:
    save_encoder(tmp_path / "tiny")
    write(tmp_path, "things.jsonl", as_jsonl(ROWS))
    assert ingest(run, "things.jsonl", "--model", "tiny")["documents"] == 3
    space = db.space("things")
    assert (space.model, space.dimensions, str(space.chunking)) == (
        str(tmp_path / "tiny"),
        32,
        "62 tokens, 7 of them overlapping",
    )
    hit = db.search("A blue woollen hat", collection="things", limit=1)[0]
    assert hit.key == "2"
    db.create_collection("others")
    commands.forbid_models(tmp_path)
    refused = run("ingest", "things.jsonl", "--collection", "others", "--model", "./tiny")
    assert commands.error_of(refused).startswith("the collection others was made with all-MiniLM-L6-v2; ingest with")
    refused = run("ingest", "things.jsonl", "--collection", "things", "--model", "all-MiniLM-L6-v2")
    assert commands.error_of(refused).startswith(f"the collection things was made with {tmp_path / 'tiny'}; ingest")
    assert (db.count(collection="things"), db.count(collection="others")) == (3, 0)


def test_a_terminal_sees_progress_and_ctrl_c_keeps_what_was_committed(url: str, db: Client, tmp_path: Path) -> None:
    source = write(tmp_path, "many.jsonl", as_jsonl([{"id": n, "text": f"number {n}"} for n in range(30_000)]))
    with interruptible():
        process, terminal = start_on_terminal(["ingest", str(source), "--collection", "things"], url, tmp_path)
        said = read_until(terminal, "m0:0")  # the time left, known after two transactions
        process.send_signal(signal.SIGINT)
        said += read_until(terminal, None)
        assert process.wait(timeout=60) == 130
    shown = next(line for line in said.split("\r") if "m0:0" in line)
    assert re.search(r"ingesting .* [0-9]+%.* [0-9]+,000 documents, [0-9,]+/s ", shown)
    assert said.endswith("searchapp: error: interrupted; what was committed stays\r\n")
    assert "Traceback" not in said
    assert 2000 <= db.count(collection="things") < 30_000
    assert db.count(collection="things") % 1000 == 0


def start_on_terminal(arguments: list[str], url: str, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start the command with its output on a terminal; the terminal's other end is to be read."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "searchapp", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env={**os.environ, "DATABASE_URL": url, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    return process, ours


def read_until(terminal: int, words: str | None) -> str:
    """Read what a terminal shows until these words come, or all of it; close it then."""
    seen = b""
    deadline = time.monotonic() + 100
    while (words is None or words.encode() not in seen) and time.monotonic() < deadline:
        try:
            seen += os.read(terminal, 65_536)
        except OSError:  # the other end is closed
            break
    if words is None:
        os.close(terminal)
    return seen.decode()


@contextmanager
def interruptible() -> Iterator[None]:
    """Let processes started here listen to SIGINT, which a shell's background jobs do not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
