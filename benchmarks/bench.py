"""What the benchmarks share: the corpus, the server, the models, and collections that are loaded once."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

import searchapp
from benchmarks import fields
from benchmarks.corpus import Corpus
from benchmarks.goals import Result, Target
from searchapp.encoders import Encoder, weights
from searchapp.encoders.registry import Registry
from searchapp.ingest.documents import Document
from searchapp.ingest.ingestion import Progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MODEL = weights.DEFAULT


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. ``share`` is of the collections that words are searched in; ``rounds`` are of what takes
    moments, ``long_rounds`` of what takes minutes."""

    share: float
    rows: int
    lines: int
    abstracts: int
    ingested: int
    searches: int
    rounds: int
    long_rounds: int


FULL = Sizes(share=1, rows=60_000, lines=5000, abstracts=300, ingested=20_000, searches=500, rounds=5, long_rounds=3)
QUICK = Sizes(share=0.1, rows=6000, lines=500, abstracts=30, ingested=2000, searches=200, rounds=3, long_rounds=3)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A collection loaded by ``load_vectors``: how long its rows took, and then its index, in seconds."""

    name: str
    seconds: float
    index_seconds: float


@dataclass(frozen=True, slots=True)
class Labelled:
    """A collection whose documents have fields to filter by; document i has row i of the corpus's vectors."""

    name: str
    documents: list[Document]


class Bench:
    """One run.

    :param url: the libpq string of a migrated database.
    :param home: a folder for files, gone after the run.
    :param registry: the encoders, whose graphs are kept where the processes of the run look for them.
    :param say: prints a line of progress.
    """

    def __init__(
        self,
        corpus: Corpus,
        url: str,
        home: Path,
        registry: Registry,
        *,
        sizes: Sizes,
        threads: int,
        say: Callable[[str], None],
    ) -> None:
        self.corpus = corpus
        self.url = url
        self.home = home
        self.registry = registry
        self.sizes = sizes
        self.threads = threads
        self.say = say
        self._collections: dict[int, Loaded] = {}

    @property
    def rows(self) -> int:
        """How many documents the largest collection has."""
        return len(self.corpus.documents)

    @cached_property
    def places(self) -> dict[str, int]:
        """The row of each document in the corpus, by its key."""
        return {document.key: place for place, document in enumerate(self.corpus.documents)}

    @cached_property
    def db(self) -> searchapp.Client:
        return searchapp.connect(self.url)

    @property
    def encoder(self) -> Encoder:
        """searchapp's encoder."""
        return self.registry.encoder(MODEL)

    @cached_property
    def transformer(self) -> SentenceTransformer:
        """The same weights in sentence-transformers, with the same threads."""
        import torch

        from searchapp.encoders.sentence_transformer import load

        torch.set_num_threads(self.threads)
        return load(weights.locate(MODEL))

    def collection(self, rows: int) -> Loaded:
        """A collection of the first ``rows`` documents, loaded when it is first asked for."""
        if rows not in self._collections:
            self.say(f"loading a collection of {rows:,}")
            self._collections[rows] = self.load(f"rows_{rows}", rows)
        return self._collections[rows]

    @cached_property
    def labelled(self) -> Labelled:
        """The largest collection with fields to filter by, beside collections of other fields."""
        documents = fields.label(self.corpus.documents)
        self.say(f"loading a collection of {self.rows:,} with fields to filter by")
        self.load("labelled", self.rows, documents)
        space = self.db.space("labelled")
        for number in range(1, fields.NEIGHBOURS + 1):
            self.say(f"filling collection {number} of {fields.NEIGHBOURS} beside it")
            fields.fill_neighbour(self.url, space, self.db.create_collection(f"beside_{number}"), number)
        self.checkpoint()
        return Labelled("labelled", documents)

    def load(self, name: str, rows: int, documents: list[Document] | None = None, *, words: bool = False) -> Loaded:
        """Load documents, the corpus's or given ones, with its vectors, and note when the index is begun.

        :param words: whether their words are made as well.
        """
        marks: list[float] = []

        def on_progress(progress: Progress) -> None:
            if progress.indexing:
                marks.append(time.perf_counter())

        documents = (self.corpus.documents if documents is None else documents)[:rows]
        vectors = self.corpus.vectors[:rows]
        started = time.perf_counter()
        self.db.load_vectors(documents, vectors, collection=name, model=MODEL, words=words, on_progress=on_progress)
        ended = time.perf_counter()
        if not marks:
            raise RuntimeError("load_vectors did not say when it began the index")
        return Loaded(name, marks[0] - started, ended - marks[0])

    def drop(self, name: str) -> None:
        """Drop a collection, and let the server write what it has in memory, so that it does not later."""
        self.db.drop_collection(name)
        self.checkpoint()

    def checkpoint(self) -> None:
        """Let the server write what it has in memory, which it would else do while something is measured."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    def close(self) -> None:
        """Close the connections."""
        self.db.close()


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A named function with the goals that it gives figures for; ``about`` says in a line what it measures."""

    name: str
    about: str
    targets: tuple[Target, ...]
    run: Callable[[Bench], Result]


def benchmark(name: str, run: Callable[[Bench], Result], targets: Mapping[str, tuple[str, str]]) -> Benchmark:
    """A benchmark, about which the first line of its function's docstring says what it measures.

    :param targets: by goal: what its figure must be, and in which unit.
    """
    about = (inspect.getdoc(run) or "").partition("\n")[0]
    return Benchmark(name, about, tuple(Target(goal, *rest) for goal, rest in targets.items()), run)
