"""Folders in BEIR's layout: what is read of good ones, and the line that says what is wrong with the others."""

from __future__ import annotations

import doctest
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from searchapp import errors, spaces
from searchapp.encoders import Encoder
from searchapp.evaluation import beir
from searchapp.vectors import Array

DOCUMENTS = ["d1", "d2", "日本"]
QUERIES = {"q1": "a cat", "q2": "größer\u2028🎉", "unjudged": "a dog"}
HEADER = "query-id\tcorpus-id\tscore\n"
QRELS = "q1\td1\t2\nq1\td2\t0\nq2\t日本\t1\n"
DIMENSIONS = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good one."""
    return write(tmp_path / "data")


def write(folder: Path, qrels: str = HEADER + QRELS) -> Path:
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": each, "title": f"title {each}", "text": f"text {each}"} for each in DOCUMENTS]
    queries = [{"_id": key, "text": text} for key, text in QUERIES.items()]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text(qrels, encoding="utf-8", newline="")
    return folder


def refusal(folder: Path) -> str:
    """What is said of a folder: one line."""
    with pytest.raises(errors.InvalidInput) as caught:
        beir.read(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_examples_in_the_docstrings_are_true() -> None:
    assert doctest.testmod(beir).failed == 0


# Good ones


@pytest.mark.parametrize(
    "qrels",
    [
        HEADER + QRELS,
        QRELS,
        (HEADER + QRELS).replace("\n", "\r\n"),
        "\n" + QRELS.replace("\n", "\n\n"),
        (HEADER + QRELS).rstrip("\n"),
    ],
    ids=["with a header", "without", "CRLF", "blank lines", "no last newline"],
)
def test_judgements_are_read_whatever_their_lines_look_like(tmp_path: Path, qrels: str) -> None:
    dataset = beir.read(write(tmp_path / "data", qrels))
    assert dataset.grades == {"q1": {"d1": 2, "d2": 0}, "q2": {"日本": 1}}


def test_only_judged_queries_are_asked(folder: Path) -> None:
    dataset = beir.read(folder)
    assert (dataset.name, dataset.corpus, dataset.documents) == ("data", folder / "corpus.jsonl", 3)
    assert dataset.queries == {"q1": QUERIES["q1"], "q2": QUERIES["q2"]}


def test_crlf_blank_lines_and_numbers_as_ids_are_read(folder: Path) -> None:
    (folder / "corpus.jsonl").write_bytes(b'\r\n{"_id": 1, "text": "one"}\r\n  \r\n{"_id": 2, "text": "two"}\r\n')
    (folder / "qrels" / "test.tsv").write_text("q1\t1\t1\n")
    dataset = beir.read(folder)
    assert (dataset.documents, dataset.grades) == (2, {"q1": {"1": 1}})


# Bad ones


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert refusal(folder).startswith(f"{folder} has no {name}; ")
    (folder / name).mkdir()  # a folder is no file
    assert refusal(folder).startswith(f"{folder} has no {name}; ")


def test_a_path_that_is_no_folder_is_told_so(folder: Path) -> None:
    for path in (folder / "corpus.jsonl", folder / "absent"):
        assert refusal(path).startswith(f"{path} has no corpus.jsonl; ")


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
@pytest.mark.parametrize(
    "line",
    [
        "{",
        "no JSON",
        '{"text": "no id"}',
        '{"_id": "no text"}',
        '["_id", "text"]',
        '"_id text"',
        "7",
        "null",
        "[" * 100_000,
        '{"_id": null, "text": "x"}',
        '{"_id": "x", "text": null}',
        '{"_id": "x", "text": ["x"]}',
    ],
    ids=lambda line: line[:30],
)
def test_a_line_that_is_no_document_and_no_query_is_named(folder: Path, name: str, line: str) -> None:
    file = folder / name
    file.write_text(f"{file.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    assert refusal(folder).startswith(f"{file}, line 5: expected ")


@pytest.mark.parametrize("text", ["a\\u0000b", "\\ud800"])
def test_a_query_that_cannot_be_stored_is_named(folder: Path, text: str) -> None:
    file = folder / "queries.jsonl"
    file.write_text('{"_id": "q1", "text": "a cat"}\n{"_id": "q2", "text": "%s"}\n' % text)  # noqa: UP031
    assert refusal(folder).startswith(f"{file}, line 2: ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("q9\td1\t1", "no query 'q9' in queries.jsonl; add it, or take that line out"),
        ("q1\td9\t1", "no document 'd9' in corpus.jsonl; add it, or take that line out"),
        ("q1\td1\t-1", "the score is -1; expected 0 for what is wrong, or more"),
        ("q1\td1\tmany", "the score is 'many'; expected a whole number"),
        ("q1\td1\t0.5", "the score is '0.5'; expected a whole number"),
        ("q1\td1\tnan", "the score is 'nan'; expected a whole number"),
        ("q1\td1\t", "the score is ''; expected a whole number"),
        ("q1\td1\tscore", "the score is 'score'; expected a whole number"),
        ("q1\td1", "expected query-id, corpus-id and score, with tabs between them"),
        ("q1 d1 1", "expected query-id, corpus-id and score, with tabs between them"),
        ("q1\t0\td1\t1", "expected query-id, corpus-id and score, with tabs between them"),
    ],
)
def test_a_judgement_that_cannot_be_is_named(folder: Path, line: str, reason: str) -> None:
    file = folder / "qrels" / "test.tsv"
    file.write_text(f"{HEADER}{QRELS}{line}\n", encoding="utf-8")
    assert refusal(folder) == f"{file}, line 5: {reason}"


@pytest.mark.parametrize("score", [10**12, 2**31 - 1, 10**9])
def test_a_grade_that_cannot_be_counted_with_is_refused(folder: Path, score: int) -> None:
    file = folder / "qrels" / "test.tsv"
    file.write_text(f"q1\td1\t{score}\n")
    assert refusal(folder).startswith(f"{file}, line 1: the score is {score}; expected ")


@pytest.mark.parametrize("qrels", ["", HEADER, "\n\n"])
def test_judgements_of_nothing_are_refused(folder: Path, qrels: str) -> None:
    file = folder / "qrels" / "test.tsv"
    file.write_text(qrels)
    assert refusal(folder) == f"{file} judges nothing; expected lines of query-id, corpus-id and score"


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_file_that_is_not_utf_8_is_named(folder: Path, name: str) -> None:
    file = folder / name
    file.write_bytes(file.read_bytes() + '{"_id": "ü"}\n'.encode("latin-1"))
    assert refusal(folder) == f"{file} cannot be read: it is not UTF-8"


# Names of collections


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("scifact", "eval_scifact"),
        ("SciFact-2", "eval_scifact_2"),
        ("../odd name!", "eval_odd_name"),
        ("", "eval"),
        ("日本", "eval"),
        ("x_status", "eval_x_status_documents"),
    ],
)
def test_a_folders_name_becomes_a_collections(dataset: str, name: str) -> None:
    found = beir.collection_name(dataset)
    assert spaces.check_name(found) == found
    assert (found, re.sub("_+$", "", found)) == (name, name) or not re.search("[a-z]", dataset)


def test_a_long_name_is_cut() -> None:
    found = beir.collection_name("x" * 500)
    assert spaces.check_name(found) == found
    assert found.startswith("eval_xxx")


# Vectors that are there already


class Counting:
    """An encoder whose embeddings are made of what the text is."""

    model = SimpleNamespace(name="counting")

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode_documents(self, texts: Sequence[str]) -> Array:
        self.texts += texts
        seeds = (sum(text.encode()) for text in texts)
        made = np.array([np.random.default_rng(seed).standard_normal(DIMENSIONS) for seed in seeds], dtype=np.float32)
        return cast(Array, made / np.linalg.norm(made, axis=1, keepdims=True))


def check(folder: Path, vectors: Any) -> npt.NDArray[Any]:
    return beir.check_vectors(cast(Encoder, Counting()), beir.read(folder), vectors)


def own(count: int = 3) -> Array:
    """What the encoder makes of the good folder's corpus."""
    return Counting().encode_documents([f"title {each} text {each}" for each in DOCUMENTS[:count]])


def test_the_models_own_vectors_are_accepted_in_any_precision_and_of_any_length(folder: Path) -> None:
    for vectors in (own(), own().astype(np.float16), (own() * 100).astype(np.float64), own().tolist()):
        assert np.array_equal(check(folder, vectors), np.asarray(vectors))


def test_a_sample_is_encoded_as_title_and_text(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    documents: list[dict[str, Any]] = [{"_id": each, "text": f"text {each}"} for each in DOCUMENTS]
    documents += [{"_id": str(number), "title": None, "text": "x"} for number in range(1000)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    encoder = Counting()
    vectors = Counting().encode_documents([row["text"] for row in documents])
    beir.check_vectors(cast(Encoder, encoder), beir.read(folder), vectors)
    assert len(encoder.texts) == beir.SAMPLE
    assert (encoder.texts[0], encoder.texts[-1]) == ("text d1", "x")


@pytest.mark.parametrize(
    "vectors",
    [np.ones((2, 8)), np.ones((4, 8)), np.ones(3), np.ones((3, 8, 1)), np.ones((0, 8)), np.float32(1)],
    ids=lambda vectors: str(np.shape(vectors)),
)
def test_vectors_of_another_shape_are_refused(folder: Path, vectors: Any) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        check(folder, vectors)
    expected = f"the vectors' shape is {np.shape(vectors)}; expected (3, dimensions): one for each document"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    "vectors",
    [own()[::-1], -own(), own() * 0, own() * np.nan, own() * np.inf, np.ones((3, 7))],
    ids=["another order", "the opposite", "zero", "NaN", "infinite", "other dimensions"],
)
def test_vectors_that_the_model_does_not_make_are_refused(folder: Path, vectors: Any) -> None:
    with pytest.raises(errors.InvalidInput, match=r"^row 0 of the vectors is not what counting makes of document 'd1'"):
        check(folder, vectors)


def test_what_is_no_array_of_numbers_is_refused(folder: Path) -> None:
    for vectors in ([["x"] * DIMENSIONS] * 3, [[None] * DIMENSIONS] * 3, [[1.0], [1.0, 2.0], [1.0]]):
        with pytest.raises(errors.InvalidInput):
            check(folder, vectors)
