"""Words at the command line: collections with and without them, searches by them, and making them later."""

from __future__ import annotations

import csv
import io
import json
import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from searchapp.client import Client
from tests import conftest
from tests.acceptance import commands, killing
from tests.made_up import random_vectors

DOCUMENTS = {
    "cat": "A cat purrs, and the cat sleeps",
    "kitten": "A kitten is a <b>young cat</b> 🎉 of a well-known breed",
    "dog": "A dog barks at the postman",
    "car": "A jaguar is a sports car with a high top speed",
    "animal": "A jaguar is an animal; at the top of a tree it has no speed",
}
COLUMNS = [
    *("key", "title", "passage", "score", "distance", "metadata"),
    *("vector_score", "text_score", "rerank_score"),
]


url, db = conftest.shared_address()


@pytest.fixture(scope="module", autouse=True)
def things(db: Client) -> None:
    db.ingest([{"key": key, "text": text} for key, text in DOCUMENTS.items()], collection="things")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    rows = [{"id": key, "text": text} for key, text in DOCUMENTS.items()]
    (folder / "things.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def search(*arguments: str, collection: str = "things") -> list[str]:
    return ["search", "--collection", collection, *arguments]


def answer(done: commands.Done) -> dict[str, Any]:
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def keys(done: commands.Done) -> list[str]:
    return [hit["key"] for hit in answer(done)["hits"]]


# Making collections


def test_a_collection_is_made_with_a_language_or_without_words(url: str, folder: Path, db: Client) -> None:
    create = ["collection", "create"]
    german, silent = commands.run_all(
        url, folder, [[*create, "deutsch", "--language", "german"], [*create, "silent", "--no-words"]]
    )
    assert (german.returncode, german.stderr, silent.returncode, silent.stderr) == (0, "", 0, "")
    assert german.stdout.endswith("; words: german)\n")
    assert silent.stdout.endswith("; no words)\n")
    assert [db.describe(name).language for name in ("deutsch", "silent", "things")] == ["german", None, "english"]


def test_words_that_cannot_be_are_one_line_and_nothing_is_made(url: str, folder: Path, db: Client) -> None:
    before = [each.name for each in db.collections()]
    create, ingest = ["collection", "create", "new"], ["ingest", "things.jsonl", "-c", "new"]
    both = "without words there is nothing to read as german; leave one of both out"
    calls = [
        (
            [*create, "--language", "germn"],
            "no text search configuration 'germn' in this database; did you mean german",
        ),
        ([*ingest, "--language", "klingon"], "no text search configuration 'klingon' in this database; "),
        ([*create, "--language", "german", "--no-words"], both),
        ([*ingest, "--language", "german", "--no-words"], both),
        (["ingest", "things.jsonl", "-c", "things", "--no-words"], "the collection things has words (english); "),
        (["index", "words", "-c", "things", "--language", "german"], "the words of things are read as english; "),
        (["index", "words", "-c", "thing"], "no collection 'thing'; did you mean things?"),
    ]
    for (_, expected), done in zip(calls, commands.run_all(url, folder, [call for call, _ in calls]), strict=True):
        assert commands.error_of(done).startswith(expected)
    assert [each.name for each in db.collections()] == before


def test_words_are_made_for_a_collection_that_has_none(url: str, folder: Path, db: Client) -> None:
    def run(*arguments: str) -> commands.Done:
        return commands.run_command(url, folder, *arguments)

    assert run("ingest", "things.jsonl", "-c", "plain", "--no-words").returncode == 0
    wanted = search("jaguar", "--mode", "text", "--json", collection="plain")
    missing = commands.error_of(run(*wanted))
    assert missing.startswith("the collection plain has no words; make them: searchapp index words --collection plain")
    made = run("index", "words", "--collection", "plain")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == "plain has words (english): 5 documents read\n"
    assert sorted(keys(run(*wanted))) == ["animal", "car"]
    assert db.describe("plain").words_complete


def test_words_killed_between_batches_are_finished_by_the_next_run(url: str, folder: Path, db: Client) -> None:
    with killing.write_source(folder).open() as file:
        rows = [json.loads(line) for line in file]
    documents = [{"key": str(row["id"]), "text": row["text"]} for row in rows]
    vectors = random_vectors(len(documents))
    for name, words in (("early", True), ("late", False)):
        db.load_vectors(documents, vectors, collection=name, model="all-MiniLM-L6-v2", words=words)
    index = ["index", "words", "--collection", "late"]
    killed = commands.run_command(url, folder, *index, SEARCHAPP_FAULT="between-batches-of-words")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not db.describe("late").words_complete
    assert not db.search("amber", collection="late", mode="text").complete
    assert len({key for key, *_ in postings(url, "late")}) == 1000

    finished = commands.run_command(url, folder, *index)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout == "late has words (english): 50 documents read\n"
    assert db.search("amber", collection="late", mode="text").complete
    assert postings(url, "late") == postings(url, "early")
    early, late = (counted(url, name) for name in ("early", "late"))
    assert early == late == (killing.DOCUMENTS, 4.0)


def postings(url: str, collection: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT d.key, p.term, p.frequency, p.document_length FROM searchapp_data.postings p"
            " JOIN searchapp_data.documents d ON d.collection_id = p.collection_id AND d.id = p.document_id"
            " JOIN searchapp_data.collections c ON c.id = p.collection_id WHERE c.name = %s ORDER BY 1, 2",
            [collection],
        ).fetchall()


def counted(url: str, collection: str) -> tuple[Any, ...] | None:
    """What BM25 knows of a collection."""
    with psycopg.connect(url) as connection:
        statement = "SELECT documents, mean_length FROM searchapp_data.collections WHERE name = %s"
        return connection.execute(statement, [collection]).fetchone()


# Searching


def test_each_mode_gives_its_scores(url: str, folder: Path) -> None:
    calls = [search("jaguar", f"--mode={mode}", "--json") for mode in ("vector", "text", "hybrid")]
    vector, text, hybrid = map(answer, commands.run_all(url, folder, calls))
    assert [each["mode"] for each in (vector, text, hybrid)] == ["vector", "text", "hybrid"]
    for hit in vector["hits"]:
        assert hit["score"] == hit["vector_score"] == pytest.approx(1 - hit["distance"])
        assert hit["text_score"] is None
    assert {hit["key"] for hit in text["hits"]} == {"car", "animal"}
    for hit in text["hits"]:
        assert hit["score"] == hit["text_score"] > 0
        assert (hit["vector_score"], hit["distance"]) == (None, None)
    assert {hit["key"] for hit in hybrid["hits"]} == set(DOCUMENTS)
    for hit in hybrid["hits"]:
        assert hit["vector_score"] == pytest.approx(1 - hit["distance"])
        assert (hit["text_score"] or 0) > 0 or hit["key"] not in {"car", "animal"}


def test_marks_count_where_words_do(url: str, folder: Path) -> None:
    calls = [
        search('jaguar "top speed"', "--mode=text", "--json"),
        search("jaguar -car", "--mode=text", "--json"),
        search("--mode=vector", "--", "-car"),  # for people, who are shown its words
        search("--mode=text", "--", "-car"),
    ]
    phrase, excluded, by_meaning, nothing = commands.run_all(url, folder, calls)
    assert keys(phrase) == ["car"]
    assert keys(excluded) == ["animal"]
    assert (by_meaning.returncode, by_meaning.stderr) == (0, "")
    assert commands.error_of(nothing).startswith("the query has nothing to look for; ")


def test_fusion_is_by_ranks_where_it_is_asked_for(url: str, folder: Path) -> None:
    wanted = search("jaguar", "--json", "--fusion", "rrf", "--weights", "1,2")
    ranked, convex = commands.run_all(url, folder, [wanted, search("jaguar", "--json")])
    first = answer(ranked)["hits"][0]
    assert 2 / 62 < first["score"] <= 3 / 61 + 1e-9
    assert first["key"] in {"car", "animal"}
    assert 0.9 < answer(convex)["hits"][0]["score"] <= 1


def test_what_cannot_be_fused_is_one_line(url: str, folder: Path) -> None:
    calls = {
        "1": "weights are ('1',); expected two numbers",
        "1,-1": "weights are 1 and -1; expected none below 0",
        "nan,1": "weights are nan and 1; expected none below 0",
    }
    arguments = [*(["--weights", each] for each in calls), ["--fusion", "sum"]]
    *weights, unknown = commands.run_all(url, folder, [search("jaguar", *each) for each in arguments])
    for expected, done in zip(calls.values(), weights, strict=True):
        assert commands.error_of(done).startswith(expected)
    assert commands.error_of(unknown) == "fusion is 'sum'; expected one of: convex, rrf"


def test_highlights_are_where_the_querys_words_stand(url: str, folder: Path) -> None:
    calls = [search("cats breed", "--mode=text", "--json", *more) for more in (["--highlight"], [])]
    marked, plain = (answer(done)["hits"] for done in commands.run_all(url, folder, calls))
    found = {hit["key"]: [hit["passage"][start:end] for start, end in hit["highlights"]] for hit in marked}
    assert found == {"cat": ["cat", "cat"], "kitten": ["cat", "breed"]}
    assert {hit["key"]: hit["passage"] for hit in marked} == {key: DOCUMENTS[key] for key in ("cat", "kitten")}
    assert [hit["highlights"] for hit in plain] == [[], []]


def test_csv_has_all_scores(url: str, folder: Path) -> None:
    done = commands.run_command(url, folder, *search("jaguar", "--mode=text", "--csv"))
    assert (done.returncode, done.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(done.stdout, newline="")))
    assert list(rows[0]) == COLUMNS
    assert {row["key"] for row in rows} == {"car", "animal"}
    assert {row["distance"] for row in rows} == {""}


def test_a_cursor_goes_on_behind_the_last_hit(url: str, folder: Path) -> None:
    wanted = search("jaguar cat", "--mode=text", "--json")
    everything, first = commands.run_all(url, folder, [wanted, [*wanted, "--limit", "3"]])
    cursor = answer(first)["cursor"]
    rest, other = commands.run_all(
        url, folder, [[*wanted, "--cursor", cursor], search("dog", "--mode=text", "--cursor", cursor)]
    )
    assert len(keys(everything)) == 4
    assert keys(first) + keys(rest) == keys(everything)
    assert commands.error_of(other).startswith("the cursor is not of this search; ")


def test_each_mode_is_explained_for_people_and_for_programs(url: str, folder: Path) -> None:
    modes = ("vector", "text", "hybrid")
    calls = [search("jaguar", "--explain", f"--mode={mode}", *more) for mode in modes for more in ([], ["--json"])]
    answers = commands.run_all(url, folder, calls)
    for mode, people, programs in zip(modes, answers[::2], answers[1::2], strict=True):
        assert (people.returncode, people.stderr) == (0, "")
        words = [line.split()[0] for line in people.stdout.splitlines()]
        assert words[:3] == ["answer", "read", "took"]
        assert set(words[3:]) <= {"advice"}
        assert (mode == "vector") != (f"in the mode {mode}" in people.stdout)
        told = answer(programs)
        assert (told["mode"], told["hits"]) == (mode, 2 if mode == "text" else 5)
        assert (told["postings_scanned"] > 0) == (mode != "vector")
