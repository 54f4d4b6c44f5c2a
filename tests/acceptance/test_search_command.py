"""``searchapp search`` as a process: what each way of printing gives, on one collection."""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.cells import cell_len

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
    Document(
        "日本 🎉",
        "\ufeff社會科學院語學研究所\u2028\u202e",
        "'\"; DROP TABLE",
        {"kind": "naughty", "deep": {"a": [1]}, "at": "2020-01-01"},
    ),
    # together more than a pipe holds
    *(
        Document(f"filler {number:02}", "word " * 400, None, {"kind": "filler", "note": "x" * 10_000})
        for number in range(15)
    ),
]
FOUND = Hits(
    tuple(Hit(each.key, each.title, each.text, 0.5, 0.5, each.metadata) for each in DOCUMENTS),
    mode="vector",
    exact=False,
    complete=True,
    took_ms=Took(1.0, 2.0),
)
CONTROL = r"[\x00-\x09\x0b-\x1f\x7f-\x9f]"


class Answers(NamedTuple):
    """What the processes printed."""

    json: commands.Done
    csv: commands.Done
    page: commands.Done
    explained: commands.Done
    explained_as_json: commands.Done
    grouped: commands.Done
    passages: commands.Done
    boosted: commands.Done
    diverse: commands.Done
    refused: commands.Done
    reranked_groups: commands.Done
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
    search = ["search", "crimson sneakers", "--collection", "things", "--mode", "vector"]
    calls = [
        [*search, "--json", "--limit", "100000", "--exact", "--filter", '{"kind": {"$ne": "filler"}}'],
        [*search, "--csv", "-n", "4"],
        [*search, "--json", "--offset", "1", "--max-distance", "0.8", "--timeout", "30"],
        [*search, "--explain", "-n", "3", "--filter", json.dumps({STEERING: [STEERING, None]})],
        [*search, "--explain", "--json"],
        [*search, "--json", "--group-by", "kind", "--group-size", "2", "-n", "5"],
        [*search, "--json", "--passages", "2", "--exact", "-n", "100"],
        [*search, "--json", "--boost", "price:0.3:10", "--decay", "at:0.2:3650d", "--exact", "-n", "100"],
        [*search, "--json", "--diversity", "0.9", "-n", "4"],
        [*search, "--boost", "price:0.3"],
        [*search, "--rerank", "a-model", "--group-by", "kind"],
    ]
    with ThreadPoolExecutor(1) as pool:
        broken = pool.submit(read_first_line, [*search, "--jsonl", "--limit", "100"], url, folder)
        return Answers._make([*commands.run_all(url, folder, calls), *broken.result()])


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


def test_json_is_one_object_with_these_names(answers: Answers) -> None:
    assert (answers.json.returncode, answers.json.stderr) == (0, "")
    assert answers.json.stdout.count("\n") == 1
    found = json.loads(answers.json.stdout)
    assert list(found) == ["hits", "mode", "exact", "complete", "took_ms", "cursor"]
    assert (found["mode"], found["exact"], found["complete"]) == ("vector", True, True)
    assert list(found["took_ms"]) == ["encode", "database", "rerank"]
    assert all(isinstance(each, float) for each in found["took_ms"].values())
    assert [hit["key"] for hit in found["hits"]][:2] == ["shoes", "hat"]
    for hit in found["hits"]:
        assert list(hit)[:6] == ["key", "title", "passage", "score", "distance", "metadata"]
        assert list(hit)[6:] == ["vector_score", "text_score", "rerank_score", "highlights"]
        assert hit["score"] == hit["vector_score"] == pytest.approx(1 - hit["distance"])
        assert (hit["text_score"], hit["highlights"]) == (None, [])


def test_json_and_csv_give_the_documents_back_as_they_are(answers: Answers) -> None:
    expected = {each.key: (each.title, each.text, each.metadata) for each in DOCUMENTS if len(each.text) < 1000}
    hits = json.loads(answers.json.stdout)["hits"]
    assert {hit["key"]: (hit["title"], hit["passage"], hit["metadata"]) for hit in hits} == expected
    assert (answers.csv.returncode, answers.csv.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(answers.csv.stdout, newline="")))
    assert {row["key"]: (row["title"] or None, row["passage"], json.loads(row["metadata"])) for row in rows} == expected
    assert [float(row["distance"]) for row in rows] == pytest.approx([hit["distance"] for hit in hits])


def test_offset_and_threshold_cut_what_comes(answers: Answers) -> None:
    assert (answers.page.returncode, answers.page.stderr) == (0, "")
    everything = [hit for hit in json.loads(answers.json.stdout)["hits"] if hit["distance"] <= 0.8]
    page = [hit for hit in json.loads(answers.page.stdout)["hits"] if hit["metadata"]["kind"] != "filler"]
    assert [hit["key"] for hit in page] == [hit["key"] for hit in everything[1:]]
    assert page


def test_explained_people_get_lines_without_control_characters(answers: Answers) -> None:
    assert (answers.explained.returncode, answers.explained.stderr) == (0, "")
    shown = answers.explained.stdout
    assert not re.search(CONTROL, shown)
    lines = shown.splitlines()
    assert [line.split()[0] for line in lines] == ["answer", "read", "took", "advice"]
    assert lines[0] == "answer   1 hit, exact: compared with all that the filter keeps"
    assert re.fullmatch(r"took     encode [0-9.]+ ms, database [0-9.]+ ms, fetch [0-9.]+ ms", lines[2])
    assert lines[3].startswith("advice   the collection is small: comparing with all")


def test_explained_programs_get_one_object(answers: Answers) -> None:
    assert (answers.explained_as_json.returncode, answers.explained_as_json.stderr) == (0, "")
    assert answers.explained_as_json.stdout.count("\n") == 1
    told = json.loads(answers.explained_as_json.stdout)
    assert list(told) == [
        *("mode", "rung", "index", "ef_search", "passages_scanned", "documents_scanned", "postings_scanned"),
        *("hits", "took_ms", "advice", "plan", "exact", "rows_scanned"),
    ]
    assert (told["rung"], told["exact"], told["hits"]) == ("exact", True, 10)
    assert list(told["took_ms"]) == ["encode", "database", "fetch"]
    assert all(each >= 0 for each in told["took_ms"].values())
    assert told["rows_scanned"] == told["passages_scanned"] + told["documents_scanned"] > 19
    assert told["advice"][0].startswith("the collection is small: comparing with all")
    assert "chunks_" in told["plan"]


def test_people_get_three_lines_a_hit_and_one_on_how_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_hits(FOUND)
    shown = capsys.readouterr().out
    lines = shown.split("\n")
    assert lines[:6] == [
        " 1. 0.500  shoes",
        "           Red running shoes",
        "           kind: clothes · price: 80",
        " 2. 0.500  Hat, blue  hat",
        '           A "blue", woollen hat',
        "           kind: clothes · price: 19.99",
    ]
    assert lines[-2:] == ["19 hits (approximate; encode 1.0 ms, database 2.0 ms)", ""]
    assert len(lines) == 3 * 19 + 2
    assert not re.search(CONTROL, shown)
    assert not re.search(r"[ \t]$", shown, re.MULTILINE)


def test_groups_are_told_beside_the_hits(answers: Answers) -> None:
    assert (answers.grouped.returncode, answers.grouped.stderr) == (0, "")
    told = json.loads(answers.grouped.stdout)
    assert list(told)[:2] == ["hits", "groups"]
    assert [hit for group in told["groups"] for hit in group["hits"]] == told["hits"]
    assert {group["value"]: len(group["hits"]) for group in told["groups"]} == {"clothes": 2, "naughty": 1, "filler": 2}
    assert all(hit["metadata"]["kind"] == group["value"] for group in told["groups"] for hit in group["hits"])
    firsts = [group["hits"][0]["score"] for group in told["groups"]]
    assert firsts == sorted(firsts, reverse=True)


def test_several_passages_are_told_of_each_hit(answers: Answers) -> None:
    assert (answers.passages.returncode, answers.passages.stderr) == (0, "")
    texts = {each.key: each.text for each in DOCUMENTS}
    for hit in json.loads(answers.passages.stdout)["hits"]:
        assert len(hit["passages"]) == (2 if hit["metadata"].get("kind") == "filler" else 1)
        assert (hit["passages"][0]["text"], hit["passages"][0]["distance"]) == (hit["passage"], hit["distance"])
        for each in hit["passages"]:
            assert list(each) == ["position", "start", "text", "distance"]
            assert texts[hit["key"]][each["start"] :].startswith(each["text"])


def test_boosts_and_decays_count_beside_the_similarity(answers: Answers) -> None:
    assert (answers.boosted.returncode, answers.boosted.stderr) == (0, "")
    hits = json.loads(answers.boosted.stdout)["hits"]
    age = dt.datetime.now(dt.UTC) - dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    for hit in hits:
        price, at = hit["metadata"].get("price", 0), hit["metadata"].get("at")
        recent = 0.5 ** (age / dt.timedelta(days=3650)) if at else 0
        expected = 0.5 * hit["vector_score"] + 0.3 * price / (price + 10) + 0.2 * recent
        assert hit["score"] == pytest.approx(expected, abs=1e-4)
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert len(hits) == len(DOCUMENTS)


def test_diverse_hits_are_not_all_alike(answers: Answers) -> None:
    assert (answers.diverse.returncode, answers.diverse.stderr) == (0, "")
    told = json.loads(answers.diverse.stdout)
    assert told["hits"][0]["key"] == "shoes"
    assert sum(hit["metadata"].get("kind") == "filler" for hit in told["hits"]) <= 1  # which are one as the other
    assert (len(told["hits"]), told["cursor"]) == (4, None)


def test_what_cannot_be_arranged_is_told_in_one_line(answers: Answers) -> None:
    assert commands.error_of(answers.refused).startswith("--boost is 'price:0.3'; expected FIELD:WEIGHT:PIVOT")
    assert "goes with neither groups nor diversity" in commands.error_of(answers.reranked_groups)


def test_people_get_a_heading_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    values = ("clothes", "clothes", STEERING, True, 2.5, 2.5)
    output.print_hits(dataclasses.replace(FOUND, hits=FOUND.hits[:6], group_values=values))
    shown = capsys.readouterr().out
    assert not re.search(CONTROL, shown)
    lines = shown.split("\n")
    headings = [line for line in lines[:-2] if not line.startswith(" ")]
    assert (lines[0], len(headings), headings[2:]) == ("clothes", 4, ["true", "2.5"])
    assert [lines[lines.index(each) + 1][:3] for each in headings] == [" 1.", " 3.", " 4.", " 5."]


def test_a_closed_pipe_ends_it_quietly(answers: Answers) -> None:
    assert json.loads(answers.first_line)["key"] == "shoes"
    assert answers.said == b""


def test_a_terminal_gets_lines_that_fit_and_no_control_sequence_of_a_document(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "50"}.items():
        monkeypatch.setenv(name, value)
    long = Hit("the key", "題名 " * 50, "word " * 100 + "x" * 100, -0.1, 1.1, {})
    output.print_hits(dataclasses.replace(FOUND, hits=(long, *FOUND)))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert not re.search(CONTROL, shown)
    lines = shown.split("\n")
    assert max(map(cell_len, lines)) <= 50
    assert lines[0].startswith(" 1.        -0.100  題名 題名")
    assert lines[0].endswith("…  the key")
    assert all(line.startswith(" " * 19 + "word") for line in lines[1:4])
