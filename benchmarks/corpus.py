"""The documents that are measured on: lines with an embedding each, and others held out to be asked for."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import ROOT
from searchapp import SearchAppError
from searchapp.encoders import weights
from searchapp.ingest.documents import Document, Rejected
from searchapp.ingest.readers import open_source
from searchapp.vectors import Array

DATA = ROOT.parent / "shared" / "data"
PACKAGES = DATA / "debian" / "packages.jsonl.gz"
PACKAGE_VECTORS = DATA / "vectors" / "debian.lines.f16.npy"
ABSTRACTS = DATA / "beir" / "scifact" / "corpus.jsonl"

# So many at most are held out as queries, and no more than a tenth of what there is.
QUERIES = 1000
FEWEST = 2000
DIMENSIONS = weights.PUBLISHED[weights.DEFAULT].model.dimensions
# So many texts are encoded between two lines of progress.
ENCODED = 5000


class CorpusUnusable(Exception):
    """There is no corpus, or it cannot be measured on; the message says what to give."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is loaded and what is asked: a sample without replacement, the same in every run.

    Every document is one line, without a title beside it. ``vectors`` is float32, shape (n_documents, 384), row i of
    document i; ``query_vectors`` the same of ``queries``. ``chunk_tokens`` is what to ingest the lines with.
    """

    name: str
    documents: list[Document]
    vectors: Array
    queries: list[str]
    query_vectors: Array
    chunk_tokens: int | None

    @property
    def lines(self) -> list[str]:
        """The documents' texts, in their order."""
        return [document.text for document in self.documents]


def read(
    path: Path | None,
    vectors_path: Path | None,
    rows: int,
    encode: Callable[[list[str]], Array],
    say: Callable[[str], None],
) -> Corpus:
    """Read a corpus and draw the sample.

    :param path: JSONL of key, title and text; None: the Debian packages.
    :param vectors_path: their embeddings; None: they are encoded, but for those of the Debian packages.
    :param rows: how many documents, or as many as there are.
    :raises CorpusUnusable: as its message says.
    """
    if path is None:
        documents, name, vectors_path = read_packages(), "Debian packages", PACKAGE_VECTORS
    else:
        documents, name = read_given(path), path.name
    if len(documents) < FEWEST:
        raise CorpusUnusable(f"the corpus has {len(documents):,} documents; at least {FEWEST:,} are needed")
    held_out = min(QUERIES, len(documents) // 10)
    drawn = np.random.default_rng(2026).permutation(len(documents))[: min(rows, len(documents) - held_out) + held_out]
    sample = [documents[place] for place in drawn]
    if vectors_path is not None:
        vectors = read_vectors(vectors_path, len(documents))[drawn].astype(np.float32)
    else:
        vectors = encode_all([document.text for document in sample], encode, say)
    return Corpus(
        name,
        sample[held_out:],
        vectors[held_out:],
        [document.text for document in sample[:held_out]],
        vectors[:held_out],
        # a package's line is one passage; a text given may be long, but has one embedding
        chunk_tokens=None if path is None else 0,
    )


def read_packages() -> list[Document]:
    """The Debian packages' lines.

    :raises CorpusUnusable: they are not there.
    """
    if not PACKAGES.is_file() or not PACKAGE_VECTORS.is_file():
        raise CorpusUnusable(
            "the Debian package lines are not at ../shared/data; "
            "give a corpus: make bench CORPUS=file.jsonl[.gz] [VECTORS=file.npy]"
        )
    with gzip.open(PACKAGES, "rt", encoding="utf-8") as file:
        return [package_line(json.loads(line)) for line in file]


def package_line(row: dict[str, Any]) -> Document:
    """One package as a document.

    >>> package_line({"_id": "vim", "title": "Vi IMproved", "section": "editors"}).text
    'vim: Vi IMproved'
    """
    return Document(row["_id"], f"{row['_id']}: {row['title']}", None, {"section": row["section"]})


def read_given(path: Path) -> list[Document]:
    """The documents of a file, each as one line: its title, a space and its text, as searchapp encodes them.

    :raises CorpusUnusable: it cannot be read, or a row is faulty, or a key comes twice.
    """
    documents: list[Document] = []
    keys: set[str] = set()
    try:
        for row in open_source(path):
            if isinstance(row, Rejected):
                raise CorpusUnusable(f"{path.name}, line {row.line}: {row.reason}")
            if row.key in keys:
                raise CorpusUnusable(f"{path.name} has the key {row.key!r} twice")
            keys.add(row.key)
            documents.append(Document(row.key, f"{row.title or ''} {row.text}".strip(), None, row.metadata))
    except SearchAppError as exc:
        raise CorpusUnusable(str(exc)) from exc
    return documents


def read_vectors(path: Path, rows: int) -> Any:
    """The embeddings of a file, mapped into memory: shape (rows, 384).

    :raises CorpusUnusable: there is no such file, or it is of another shape.
    """
    try:
        vectors = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as exc:
        raise CorpusUnusable(f"{path.name} cannot be read as .npy: {exc}") from exc
    if vectors.shape != (rows, DIMENSIONS):
        raise CorpusUnusable(f"{path.name} has shape {vectors.shape}; the corpus needs ({rows}, {DIMENSIONS})")
    return vectors


def encode_all(texts: list[str], encode: Callable[[list[str]], Array], say: Callable[[str], None]) -> Array:
    """Encode texts, with a word of progress now and then."""
    parts = []
    for start in range(0, len(texts), ENCODED):
        say(f"encoding the corpus: {start:,} of {len(texts):,}")
        parts.append(encode(texts[start : start + ENCODED]))
    return np.concatenate(parts)


def read_abstracts() -> list[str]:
    """SciFact's abstracts, each with its title before it.

    :raises CorpusUnusable: they are not there.
    """
    if not ABSTRACTS.is_file():
        raise CorpusUnusable("the SciFact abstracts are not at ../shared/data/beir/scifact/corpus.jsonl")
    with ABSTRACTS.open(encoding="utf-8") as file:
        return [f"{row['title']} {row['text']}" for row in map(json.loads, file)]
