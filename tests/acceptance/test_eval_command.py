"""``searchapp eval`` as a process, on a folder of ten documents and five questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psycopg
import pytest

from searchapp.client import Client
from searchapp.encoders.registry import Registry
from tests import conftest
from tests.acceptance import commands

DOCUMENTS = {
    "cat": "A cat purrs and licks its paws",
    "dog": "A dog barks at the postman",
    "bread": "Knead the dough, let it rise, and bake a loaf",
    "star": "A telescope shows distant galaxies",
    "ship": "The vessel sails across the ocean",
    "bank": "Interest on savings is paid every year",
    "rain": "Heavy rain floods the valley",
    "piano": "She plays a sonata on the piano",
    "tooth": "The dentist fills a tooth",
    "chess": "The bishop takes the rook",
}
# The last has no word that a document has, so that only meaning finds what is wanted.
QUERIES = {
    "purr": ("purrs", "cat"),
    "bark": ("barks", "dog"),
    "dough": ("dough", "bread"),
    "sonata": ("sonata", "piano"),
    "astronomy": ("astronomy", "star"),
}
MEASURES = ["ndcg@10", "mrr@10", "map@100", "recall@100"]
FIELDS = [*MEASURES, "run", "dataset", "collection", "model", "mode", "queries", "p50", "p95"]


class Answers(NamedTuple):
    """What the processes printed: runs 1, 2 and 3, 4 and 5, and the two comparisons."""

    first: commands.Done
    again: commands.Done
    people: commands.Done
    given: commands.Done
    vector: commands.Done
    compared: commands.Done
    compared_as_json: commands.Done


def write(folder: Path, documents: dict[str, str] = DOCUMENTS, qrels: str = "") -> Path:
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": key, "title": "", "text": text} for key, text in documents.items()]
    queries = [{"_id": key, "text": text} for key, (text, _) in QUERIES.items()]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    judged = "".join(f"{key}\t{document}\t1\n" for key, (_, document) in QUERIES.items())
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}{qrels}")
    return folder


url, db = conftest.shared_address()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Path:
    """The working folder: the data set is in ``Tiny Set``, its vectors beside it."""
    folder = tmp_path_factory.mktemp("eval")
    write(folder / "Tiny Set")
    made = registry.encoder("all-MiniLM-L6-v2").encode_documents(list(DOCUMENTS.values()))
    np.save(folder / "own.npy", made.astype(np.float16))
    np.save(folder / "wrong.npy", made[::-1].astype(np.float16))
    np.save(folder / "short.npy", made[1:])
    return folder


@pytest.fixture(scope="module")
def answers(url: str, folder: Path) -> Answers:
    def run(*calls: list[str]) -> list[commands.Done]:
        return commands.run_all(url, folder, [["eval", *call] for call in calls])

    first = run(["Tiny Set", "--json"])
    before = versions(url)
    again = run(["Tiny Set", "--json"])
    assert versions(url) == before  # nothing was written anew
    rest = run(
        ["Tiny Set", "--mode", "text"],
        ["Tiny Set", "--collection", "given", "--vectors", "own.npy", "--json"],
        ["Tiny Set", "--mode=vector", "--json"],
    )
    text, vector = (number_of(url, mode) for mode in ("text", "vector"))
    return Answers(*first, *again, *rest, *run(["compare", text, vector], ["compare", text, vector, "--json"]))


def versions(url: str) -> list[tuple[Any, ...]]:
    """What changes of a row whenever it is written."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT 'document', ctid::text, xmin::text FROM searchapp_data.documents"
            " UNION ALL SELECT 'chunk', ctid::text, xmin::text FROM searchapp_data.chunks ORDER BY 1, 2"
        ).fetchall()


def number_of(url: str, mode: str) -> str:
    """The number of the last run in that mode."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT max(id) FROM searchapp_data.runs WHERE mode = %s", [mode]).fetchone()
    assert row is not None
    return str(row[0])


def measured(done: commands.Done) -> dict[str, Any]:
    """The object that was printed, checked."""
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    found: dict[str, Any] = json.loads(done.stdout)
    assert list(found) == FIELDS
    assert all(0 <= found[name] <= 1 for name in MEASURES)
    assert 0 < found["p50"] <= found["p95"]
    assert (found["dataset"], found["queries"]) == ("Tiny Set", len(QUERIES))
    return found


def test_json_is_one_object_with_the_measures_at_its_top(answers: Answers) -> None:
    found = measured(answers.first)
    assert (found["run"], found["collection"]) == (1, "eval_tiny_set")
    assert (found["model"], found["mode"]) == ("all-MiniLM-L6-v2", "hybrid")
    assert [found[name] for name in MEASURES] == [1.0] * 4


def test_a_second_run_finds_the_collection_ready_and_measures_the_same(answers: Answers, db: Client) -> None:
    first, again = measured(answers.first), measured(answers.again)
    assert again["run"] == 2
    assert [again[name] for name in MEASURES] == [first[name] for name in MEASURES]
    described = db.describe("eval_tiny_set")
    assert (described.documents, described.chunks) == (10, 10)


def test_people_get_a_line_a_measure(answers: Answers) -> None:
    assert (answers.people.returncode, answers.people.stderr) == (0, "")
    first, *rest, last = answers.people.stdout.splitlines()
    assert first.partition(": ")[2] == "Tiny Set, 5 queries in the mode text"
    assert [line.split() for line in rest] == [[name, "0.8000"] for name in MEASURES]  # one of five has no hit
    assert last.startswith("p50, p95     ")
    assert last.endswith(" ms in the database")


def test_meaning_alone_finds_what_has_none_of_the_words(answers: Answers) -> None:
    found = measured(answers.vector)
    assert (found["mode"], found["collection"]) == ("vector", "eval_tiny_set")
    assert found["recall@100"] == 1.0
    assert found["mrr@10"] > 0.9


def test_vectors_that_are_there_already_serve_as_well(answers: Answers, db: Client) -> None:
    found = measured(answers.given)
    assert found["collection"] == "given"
    assert [found[name] for name in MEASURES] == [measured(answers.first)[name] for name in MEASURES]
    assert db.count(collection="given") == 10


def test_two_runs_are_compared_for_people(answers: Answers) -> None:
    assert (answers.compared.returncode, answers.compared.stderr) == (0, "")
    lines = answers.compared.stdout.splitlines()
    assert lines[0].endswith(", on 5 queries")
    assert lines[1].split()[0] == "measure"
    assert [line.split()[0] for line in lines[2:6]] == MEASURES
    assert lines[5].split()[1:4] == ["0.8000", "1.0000", "+0.2000"]
    assert lines[6:8] == ["", "moved most, by ndcg@10:"]
    assert lines[8] == "0.000 -> 1.000  astronomy  astronomy"


def test_two_runs_are_compared_for_programs(answers: Answers) -> None:
    assert (answers.compared_as_json.returncode, answers.compared_as_json.stderr) == (0, "")
    found = json.loads(answers.compared_as_json.stdout)
    assert list(found) == ["one", "other", "queries", "differences", "moved"]
    assert [each["measure"] for each in found["differences"]] == MEASURES
    recall = found["differences"][-1]
    assert (recall["one"], recall["other"], recall["difference"]) == (0.8, 1.0, pytest.approx(0.2))
    assert all(0 < each["p"] <= 1 for each in found["differences"])
    assert found["moved"][0] == {"query_id": "astronomy", "query": "astronomy", "one": 0.0, "other": 1.0}


def test_a_collection_that_is_named_is_measured_as_it_is(url: str, folder: Path, db: Client) -> None:
    half = [{"key": key, "text": DOCUMENTS[key]} for key in ("cat", "dog", "ship")]
    db.ingest(half, collection="half", words=False)
    before = versions(url)
    calls = [["eval", "Tiny Set", "--collection", "half", *more] for more in (["--json"], ["--mode", "text"])]
    found, refused = commands.run_all(url, folder, calls)
    assert versions(url) == before
    assert measured(found)["mode"] == "vector"
    assert measured(found)["recall@100"] == pytest.approx(2 / 5)
    assert commands.error_of(refused).startswith("the collection half has no words; ")


def test_runs_of_other_data_or_of_no_data_are_not_compared(url: str, folder: Path, db: Client) -> None:
    other = write(folder / "other")  # whose queries have the same ids
    texts = [{"_id": key, "text": f"another question about {text}"} for key, (text, _) in QUERIES.items()]
    (other / "queries.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in texts))
    one, two = (db.evaluate(folder / name, mode="text").run for name in ("Tiny Set", "other"))
    different, unknown = commands.run_all(
        url, folder, [["eval", "compare", str(one), str(two)], ["eval", "compare", str(one), "999"]]
    )
    assert f"the runs {one} and {two} are of different data: Tiny Set and other" in commands.error_of(different)
    assert commands.error_of(unknown).startswith("no run 999; the latest are: ")


def test_what_cannot_be_measured_is_one_line(url: str, folder: Path, db: Client) -> None:
    write(folder / "missing").joinpath("queries.jsonl").unlink()
    write(folder / "negative", qrels="purr\tdog\t-1\n")
    write(folder / "unknown", qrels="purr\tfish\t1\n")
    calls = {
        "missing has no queries.jsonl; ": ["missing"],
        "negative/qrels/test.tsv, line 7: the score is -1; ": ["negative"],
        "unknown/qrels/test.tsv, line 7: no document 'fish' in corpus.jsonl; ": ["unknown"],
        "row 0 of the vectors is not what all-MiniLM-L6-v2 makes ": ["Tiny Set", "-c=wrong", "--vectors", "wrong.npy"],
        "the vectors' shape is (9, 384); expected (10, dimensions)": ["Tiny Set", "--vectors", "short.npy"],
        "mode is 'lexical'; expected one of: vector, text, hybrid": ["Tiny Set", "--mode", "lexical"],
    }
    before = [each.name for each in db.collections()]
    answers = commands.run_all(url, folder, [["eval", *arguments] for arguments in calls.values()])
    for expected, done in zip(calls, answers, strict=True):
        assert commands.error_of(done).startswith(expected)
    assert [each.name for each in db.collections()] == before
