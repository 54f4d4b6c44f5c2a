"""Labelled data in BEIR's layout: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/test.tsv``.

*Source:* https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from searchapp import errors, spaces, values
from searchapp.encoders import Encoder

CORPUS = "corpus.jsonl"
QUERIES = "queries.jsonl"
QRELS = Path("qrels", "test.tsv")
# Measures are computed with a table of as many entries as the highest grade.
MAX_GRADE = 1_000_000

# Of vectors that are given so many are made anew. Half the precision of a number leaves the cosine above this.
SAMPLE = 200
LEAST_COSINE = 0.9999


@dataclass(frozen=True, slots=True)
class Dataset:
    """What was read of a folder.

    :param documents: how many the corpus has.
    :param queries: the judged ones, by id.
    :param grades: by query and document, 0 and above; of other documents nothing is known.
    """

    name: str
    corpus: Path
    documents: int
    queries: dict[str, str]
    grades: dict[str, dict[str, int]]


def read(folder: Path) -> Dataset:
    """Read a folder, all but the texts of its corpus.

    :raises errors.InvalidInput: a file is missing or faulty, or a judgement of what is in none of them; says where.
    """
    files = [folder / each for each in (CORPUS, QUERIES, QRELS)]
    for file in files:
        if not file.is_file():
            raise errors.InvalidInput(
                f"{folder} has no {file.relative_to(folder)}; a BEIR folder has {CORPUS}, {QUERIES} and {QRELS}"
            )
    corpus, queries, qrels = files
    documents = {row["_id"] for row in _rows(corpus)}
    texts = {row["_id"]: row["text"] for row in _rows(queries)}
    grades: dict[str, dict[str, int]] = {}
    for place, query, document, grade in _judgements(qrels):
        if query not in texts:
            raise errors.InvalidInput(f"{place}: no query {query!r} in {QUERIES}; add it, or take that line out")
        if document not in documents:
            raise errors.InvalidInput(f"{place}: no document {document!r} in {CORPUS}; add it, or take that line out")
        grades.setdefault(query, {})[document] = grade
    if not grades:
        raise errors.InvalidInput(f"{qrels} judges nothing; expected lines of query-id, corpus-id and score")
    return Dataset(folder.resolve().name, corpus, len(documents), {query: texts[query] for query in grades}, grades)


def check_vectors(encoder: Encoder, dataset: Dataset, vectors: npt.ArrayLike) -> npt.NDArray[Any]:
    """Check that embeddings are a model's of a corpus: as many, and a sample of them the same.

    :raises errors.InvalidInput: they are not.
    """
    try:
        given = np.asarray(vectors)
        is_numeric = np.issubdtype(given.dtype, np.number)
    except ValueError as exc:
        raise errors.InvalidInput("the vectors are not equally long") from exc
    if not is_numeric:
        raise errors.InvalidInput("the vectors are not made of numbers")
    if given.ndim != 2 or len(given) != dataset.documents:
        raise errors.InvalidInput(
            f"the vectors' shape is {given.shape}; expected ({dataset.documents}, dimensions): one for each document"
        )
    wanted = set(np.linspace(0, dataset.documents - 1, SAMPLE, dtype=int).tolist())
    sample = [(place, row) for place, row in enumerate(_rows(dataset.corpus)) if place in wanted]
    made = encoder.encode_documents([f"{row.get('title') or ''} {row['text']}".strip() for _, row in sample])
    for (place, row), expected in zip(sample, made, strict=True):
        own = np.asarray(given[place], dtype=np.float64)
        sound = own.shape == expected.shape and own.any() and np.isfinite(own).all()
        cosine = float(own @ expected / np.linalg.norm(own)) if sound else 0.0
        if not cosine >= LEAST_COSINE:
            raise errors.InvalidInput(
                f"row {place} of the vectors is not what {encoder.model.name} makes of document {row['_id']!r}"
                f" (cosine {cosine:.4f}); give that model's own, in the order of the corpus"
            )
    return given


def collection_name(dataset: str) -> str:
    """The name of the collection that a data set is evaluated in, made valid.

    >>> collection_name("SciFact-2")
    'eval_scifact_2'
    """
    try:
        return spaces.check_name(f"eval_{dataset}")
    except errors.InvalidName:
        return spaces.valid_name(f"eval_{dataset}")


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, which have an id and a text."""
    with _opened(file) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as exc:
                raise errors.InvalidInput(f"{file}, line {number}: expected a JSON object, with _id and text") from exc
            if not (isinstance(row, dict) and isinstance(row.get("_id"), str | int) and _is_text(row.get("text"))):
                raise errors.InvalidInput(f"{file}, line {number}: expected an object with _id and text")
            yield row | {"_id": str(row["_id"])}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and values.is_storable(value)


def _judgements(file: Path) -> Iterator[tuple[str, str, str, int]]:
    """The place, query, document and grade of each line."""
    with _opened(file) as lines:
        for number, line in enumerate(lines, 1):
            cells = line.rstrip("\r\n").split("\t")
            place = f"{file}, line {number}"
            if (number == 1 and cells[-1] == "score") or cells == [""]:
                continue
            if len(cells) != 3:
                raise errors.InvalidInput(f"{place}: expected query-id, corpus-id and score, with tabs between them")
            try:
                grade = int(cells[2])
            except ValueError as exc:
                raise errors.InvalidInput(f"{place}: the score is {cells[2]!r}; expected a whole number") from exc
            if not 0 <= grade <= MAX_GRADE:
                bound = "0 for what is wrong, or more" if grade < 0 else f"at most {MAX_GRADE:,}"
                raise errors.InvalidInput(f"{place}: the score is {grade}; expected {bound}")
            yield place, cells[0], cells[1], grade


@contextmanager
def _opened(file: Path) -> Iterator[Iterator[str]]:
    try:
        with file.open(encoding="utf-8") as lines:
            yield lines
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise errors.InvalidInput(f"{file} cannot be read: {reason}") from exc
