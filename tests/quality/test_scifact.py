"""The quality of search on SciFact: nDCG@10 of the default model must be the published figure."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import ir_measures
import pytest
from ir_measures import Qrel, ScoredDoc, nDCG

from searchapp.client import Client
from tests.conftest import ROOT, Run

pytestmark = pytest.mark.quality

SCIFACT = ROOT.parent / "shared" / "data" / "beir" / "scifact"
PUBLISHED = 0.6451  # all-MiniLM-L6-v2; https://huggingface.co/spaces/mteb/leaderboard
TOLERANCE = 0.003


@pytest.fixture
def corpus() -> Path:
    if not SCIFACT.is_dir():
        pytest.skip(f"the data set SciFact (BEIR) is not at {SCIFACT}")
    return SCIFACT / "corpus.jsonl"


def test_scifact_has_the_published_quality(corpus: Path, run: Run, db: Client) -> None:
    for collection, option in (("whole", "--no-chunking"), ("chunked", "--chunk-tokens=64")):
        done = run("ingest", str(corpus), "--collection", collection, option, "--json", timeout=1500)
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        assert (summary["documents"], summary["rejected"]) == (5183, 0)
        print(f"\n{collection}: {summary}")
    exact = quality(db, "whole", exact=True)
    approximate = quality(db, "whole", exact=False)
    chunked = quality(db, "chunked", exact=True)
    print(
        f"nDCG@10 on SciFact: {exact:.4f} exact, {approximate:.4f} by the index, {chunked:.4f} in chunks of 64 tokens"
    )
    assert exact == pytest.approx(PUBLISHED, abs=TOLERANCE)


def test_chunked_scifact_is_answered_by_the_index(corpus: Path, run: Run, db: Client) -> None:
    """Ten documents of passages of 64 tokens: fewer than one query in a hundred needs the exact rung."""
    for collection, option in (("whole", "--no-chunking"), ("chunked", "--chunk-tokens=64")):
        done = run("ingest", str(corpus), "--collection", collection, option, timeout=1500)
        assert done.returncode == 0, done.stderr
    judged = {qrel.query_id for qrel in read_qrels()}
    queries = [text for query, text in read_queries() if query in judged]
    vectors = db._registry.encoder("all-MiniLM-L6-v2").encode_queries(queries)
    took: dict[str, list[float]] = {"whole": [], "chunked": []}
    exact = full = 0
    for _ in range(3):
        for vector in vectors:
            for collection, times in took.items():
                hits = db.search_by_vector(vector, collection=collection, limit=10)
                times.append(hits.took_ms.database)
            exact += hits.exact
            full += len(hits) == 10
    p50 = {collection: statistics.median(times) for collection, times in took.items()}
    print(
        f"\nSciFact chunked: {exact} of {full} answers by the exact rung,"
        f" p50 {p50['chunked']:.2f} ms against {p50['whole']:.2f} ms of one chunk a document"
        f" ({p50['chunked'] / p50['whole']:.2f} times)"
    )
    assert full == 3 * len(queries)
    assert exact < full / 100


def quality(db: Client, collection: str, *, exact: bool) -> float:
    """Mean nDCG@10 over the test queries."""
    qrels = list(read_qrels())
    judged = {qrel.query_id for qrel in qrels}
    run = [
        ScoredDoc(query, hit.key, hit.score)
        for query, text in read_queries()
        if query in judged
        for hit in db.search(text, collection=collection, mode="vector", limit=10, exact=exact)
    ]
    return float(ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10])


def read_queries() -> Iterator[tuple[str, str]]:
    with (SCIFACT / "queries.jsonl").open() as file:
        for line in file:
            query = json.loads(line)
            yield query["_id"], query["text"]


def read_qrels() -> Iterator[Qrel]:
    with (SCIFACT / "qrels" / "test.tsv").open() as file:
        next(file)
        for line in file:
            query, document, grade = line.split("\t")
            yield Qrel(query, document, int(grade))
