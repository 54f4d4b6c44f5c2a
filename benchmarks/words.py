"""Words: searches by them and hybrids, how large postings are, and what they cost those who write."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import psycopg
from sqlalchemy import CTE, ColumnElement, Connection, bindparam, select

from benchmarks import bare, timing
from benchmarks.bench import MODEL, Bench, benchmark
from benchmarks.corpus import DATA, PACKAGE_VECTORS, PACKAGES, CorpusUnusable
from benchmarks.goals import Result
from searchapp import models
from searchapp.evaluation import beir
from searchapp.ingest import words
from searchapp.ingest.documents import Document
from searchapp.search.expressions import best_first, is_document
from searchapp.search.hybrid import CANDIDATES
from searchapp.search.lexical import Words, asked_for
from searchapp.search.nearest import candidates_near
from searchapp.search.query import Query
from searchapp.search.question import Question
from searchapp.search.request import HYBRID, Request
from searchapp.search.statements import statement_of
from searchapp.spaces import Space
from searchapp.vectors import Array
from searchapp.wire import RAW_DIALECT, Parameter, Vector, literally

SCIFACT = DATA / "beir" / "scifact"
SCIFACT_VECTORS = DATA / "vectors" / "scifact.corpus.f16.npy"
# So many titles of descriptions are asked for, and so many documents replaced.
TITLES = 300
LIMIT = 10
REPLACED = 100


@dataclass(frozen=True, slots=True)
class Texts:
    """Documents with their embeddings, and queries: what words are measured on."""

    name: str
    documents: list[Document]
    vectors: Array
    queries: list[str]

    def part(self, share: float) -> Texts:
        """The first documents, such a share of them, and all queries."""
        count = round(share * len(self.documents))
        return dataclasses.replace(self, documents=self.documents[:count], vectors=self.vectors[:count])


@lru_cache
def abstracts() -> Texts:
    """SciFact's abstracts, and its test queries.

    :raises CorpusUnusable: they are not there.
    """
    if not SCIFACT.is_dir() or not SCIFACT_VECTORS.is_file():
        raise CorpusUnusable("SciFact and its vectors are not at ../shared/data")
    dataset = beir.read(SCIFACT)
    with dataset.corpus.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    documents = [Document(row["_id"], row["text"], row["title"], {}) for row in rows]
    return Texts("abstracts", documents, np.load(SCIFACT_VECTORS).astype(np.float32), list(dataset.queries.values()))


@lru_cache
def descriptions() -> Texts:
    """The Debian packages' descriptions, and some of their titles.

    :raises CorpusUnusable: they are not there.
    """
    if not PACKAGES.is_file() or not PACKAGE_VECTORS.is_file():
        raise CorpusUnusable("the Debian packages and their vectors are not at ../shared/data")
    with gzip.open(PACKAGES, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    documents = [
        Document(row["_id"], row["text"] or row["title"], row["title"], {"section": row["section"]}) for row in rows
    ]
    asked = np.random.default_rng(2026).choice(len(rows), TITLES, replace=False)
    vectors = np.load(PACKAGE_VECTORS).astype(np.float32)
    return Texts("descriptions", documents, vectors, [rows[place]["title"] for place in asked])


def search_by_words(bench: Bench) -> Result:
    """Searches by words, and hybrids against the sum of their legs: each leg finds the candidates that a hybrid has of
    it, and shows as many hits."""
    measured: dict[str, float] = {}
    details: dict[str, Any] = {}
    for texts in (each.part(bench.sizes.share) for each in (abstracts(), descriptions())):
        space = collection(bench, texts)
        rounds = take_turns(bench, texts, space)
        megabytes = postings_bytes(bench, space) / 1e6
        measured |= {
            f"words: p50, {texts.name}": rounds.median("words") * 1e3,
            f"words: p95, {texts.name}": rounds.median("words, p95") * 1e3,
            f"hybrid: against its legs, {texts.name}": rounds.ratio("hybrid", "legs"),
            f"words: postings, {texts.name}": megabytes,
        }
        details[texts.name] = {
            "documents": len(texts.documents),
            "queries a round": len(texts.queries),
            "postings, MB": megabytes,
            **rounds.details("ms", 1e3),
        }
    return Result(measured, details)


def take_turns(bench: Bench, texts: Texts, space: Space) -> timing.Rounds:
    """Measure searches by words as an application asks them, and a hybrid's statement and its legs as the server runs
    them."""
    vectors = bench.encoder.encode_queries(texts.queries)
    pairs = [(Parameter(vector), query) for query, vector in zip(texts.queries, vectors, strict=True)]
    near, by_words, both = near_statement(space), words_statement(space), hybrid_statement(space)

    def search(query: str) -> None:
        bench.db.search(query, collection=space.collection, mode="text", limit=LIMIT)

    with bare.Bare(bench.url) as server:
        sides: dict[str, timing.Side] = {
            "words": lambda: timing.p50(search, texts.queries),
            "words, p95": lambda: timing.p95(search, texts.queries),
            "leg by vector": lambda: timing.p50(lambda pair: server.run(near, [pair[0]]), pairs),
            "leg by words": lambda: timing.p50(lambda pair: server.run(by_words, [pair[1]]), pairs),
            "hybrid": lambda: timing.p50(lambda pair: server.run(both, [*pair]), pairs),
        }
        timing.warm_up(sides, bench.say)
        rounds = timing.take_turns(sides, bench.sizes.rounds, bench.say)
    legs = [sum(each) for each in zip(rounds.figures["leg by vector"], rounds.figures["leg by words"], strict=True)]
    return timing.Rounds({**rounds.figures, "legs": legs})


def replace_documents(bench: Bench) -> Result:
    """The words of one document replaced by those of another, in the largest collection of descriptions."""
    space = collection(bench, descriptions().part(bench.sizes.share))
    with bench.db._transaction() as connection, connection.begin_nested() as savepoint:
        stored = some_documents(connection, space, REPLACED)
        pairs = list(zip(stored, [*stored.values()][1:], strict=False))
        took = timing.p50(lambda pair: words.replace(connection, space.collection_id, dict([pair])), pairs)
        savepoint.rollback()  # the documents have their texts still
    return Result({"replace a document": took * 1e3}, {"documents": len(pairs)})


def ingest_with_words(bench: Bench) -> Result:
    """``ingest`` of abstracts with words against without, and ``load_vectors`` of lines, by their rates."""
    documents = abstracts().documents[: bench.sizes.abstracts]
    names = (f"words_{number}" for number in itertools.count())

    def ingest(with_words: bool) -> float:
        name = next(names)
        took = timing.seconds(lambda: bench.db.ingest(documents, collection=name, chunk_tokens=0, words=with_words))
        bench.drop(name)
        return took

    def load(with_words: bool) -> float:
        name = next(names)
        loaded = bench.load(name, bench.rows, words=with_words)
        bench.drop(name)
        return loaded.seconds

    ingests = {"with words": lambda: ingest(True), "without": lambda: ingest(False)}
    timing.warm_up(ingests, bench.say)
    ingested = timing.take_turns(ingests, bench.sizes.long_rounds, bench.say)
    loads = {"loaded with words": lambda: load(True), "loaded without": lambda: load(False)}
    loaded = timing.take_turns(loads, bench.sizes.long_rounds, bench.say)
    return Result(
        {
            "ingest with words": ingested.ratio("without", "with words"),
            "load vectors with words": loaded.ratio("loaded without", "loaded with words"),
        },
        {"abstracts": len(documents), "lines": bench.rows, **ingested.details("s"), **loaded.details("s, rows")},
    )


def collection(bench: Bench, texts: Texts) -> Space:
    """The collection of these texts, loaded when it is first asked for."""
    if texts.name not in (each.name for each in bench.db.collections()):
        bench.say(f"loading {len(texts.documents):,} {texts.name}")
        bench.db.load_vectors(texts.documents, texts.vectors, collection=texts.name, model=MODEL)
        bench.checkpoint()
    return bench.db.space(texts.name)


def near_statement(space: Space) -> str:
    """The leg of a hybrid by vector: its candidates, of which the nearest are shown."""
    vector = bindparam("vector", None, Vector(space.vector_schema))
    scan, near = candidates_near(space, vector, CANDIDATES, condition=None, exact=False)
    candidates = near.add_cte(*scan.ctes).cte().prefix_with("MATERIALIZED")
    return shown(space, candidates, candidates.c.distance)


def words_statement(space: Space) -> str:
    """The leg of a hybrid by words: its candidates, of which the best are shown."""
    scored = Words(space, asked_for(Query("x")), None).best(CANDIDATES)
    best = select(scored).order_by(*best_first(scored)).limit(literally(CANDIDATES))
    candidates = best.cte().prefix_with("MATERIALIZED")
    return shown(space, candidates, *best_first(candidates))


def shown(space: Space, candidates: CTE, *order: ColumnElement[Any]) -> str:
    """The first candidates with what a hit shows."""
    first = select(candidates).order_by(*order).limit(literally(LIMIT)).subquery()
    document = models.Document
    columns = (document.key, document.title, document.text, document.metadata_)
    return rendered(select(*columns).join_from(first, document, is_document(space, first.c.document_id)))


def hybrid_statement(space: Space) -> str:
    """The whole statement of a hybrid."""
    question = Question(Request(LIMIT), HYBRID, Query("x"), candidates=CANDIDATES)
    return statement_of(space, question).text.decode()


def rendered(statement: Any) -> str:
    """A statement as text, with ``$1`` for its parameter."""
    return str(statement.compile(dialect=RAW_DIALECT, compile_kwargs={"render_postcompile": True}))


def postings_bytes(bench: Bench, space: Space) -> int:
    """How large a collection's postings are, their index counted in."""
    with psycopg.connect(bench.url) as connection:
        table = f"searchapp_data.postings_{space.collection_id}"
        row = connection.execute("SELECT pg_total_relation_size(%s::regclass)", [table]).fetchone()
    assert row is not None
    return int(row[0])


def some_documents(connection: Connection, space: Space, count: int) -> dict[Any, Document]:
    """Some documents of a collection, by their ids."""
    found = (
        select(models.Document)
        .where(models.Document.collection_id == space.collection_id)
        .order_by(models.Document.id)
        .limit(count)
    )
    rows = connection.execute(found)
    return {row.id: Document(row.key, row.text, row.title, row.metadata) for row in rows}


BENCHMARKS = (
    benchmark(
        "words",
        search_by_words,
        {
            "words: p50, abstracts": ("<= 2", "ms"),
            "words: p95, abstracts": ("none", "ms"),
            "words: p50, descriptions": ("<= 8", "ms"),
            "words: p95, descriptions": ("<= 25", "ms"),
            "hybrid: against its legs, abstracts": ("<= 1.2", "x"),
            "hybrid: against its legs, descriptions": ("<= 1.2", "x"),
            "words: postings, abstracts": ("none", "MB"),
            "words: postings, descriptions": ("none", "MB"),
        },
    ),
    benchmark("replace a document", replace_documents, {"replace a document": ("<= 5", "ms")}),
    benchmark(
        "ingest with words",
        ingest_with_words,
        {
            "ingest with words": (">= 0.9", "x"),
            "load vectors with words": ("none", "x"),
        },
    ),
)
