"""How good each mode is on three data sets of BEIR's layout, by ``searchapp eval``: nDCG@10 must not fall.

Not marked ``quality``: with vectors that are there already it takes a minute, and runs wherever the data is.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from sqlalchemy import Engine

from searchapp.client import Client
from searchapp.encoders import weights
from searchapp.encoders.registry import Registry
from searchapp.evaluation.runs import Evaluated
from searchapp.vectors import Array
from tests.conftest import HOME, ROOT, shared_database

engine, _ = shared_database()

DATA = ROOT.parent / "shared" / "data"
TOLERANCE = 0.003
# By data set: the least by words, what the model's authors or others have measured by vectors, and the least by both.
FLOORS = {
    "scifact": (0.688, 0.645, 0.735),
    "xquad-en": (0.968, 0.943, 0.980),
    "limit-small": (0.990, 0.313, 0.985),
}


class EncodedTogether(Registry):
    """A registry that encodes a data set's queries at once, for all modes: one by one they take far longer."""

    def encode_all(self, name: str, queries: list[str]) -> None:
        vectors = self.encoder(name).encode_queries(queries)
        self.encoded: dict[tuple[str, str], Array] = {
            (name, query): vector for query, vector in zip(queries, vectors, strict=True)
        }

    def encode_query(self, name: str, query: str) -> Array:
        return self.encoded[name, query]


@pytest.fixture(scope="module")
def encoded() -> EncodedTogether:
    return EncodedTogether(HOME)


@pytest.fixture(scope="module")
def db(engine: Engine, encoded: EncodedTogether) -> Client:
    return Client(engine, registry=encoded)


@pytest.mark.parametrize("name", FLOORS)
def test_each_mode_is_as_good_as_it_was(name: str, db: Client, encoded: EncodedTogether) -> None:
    folder, vectors = DATA / "beir" / name, DATA / "vectors" / f"{name}.corpus.f16.npy"
    if not (folder.is_dir() and vectors.is_file()):
        pytest.skip(f"the data set {name} (BEIR) and its vectors are not at {DATA}")
    queries = (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    encoded.encode_all(weights.DEFAULT, [json.loads(query)["text"] for query in queries])
    text = db.evaluate(folder, vectors=np.load(vectors), mode="text")
    vector, hybrid = (
        db.evaluate(folder, collection=text.collection, mode=mode)  # which is measured as it is
        for mode in ("vector", "hybrid")
    )
    for found in (text, vector, hybrid):
        print(line(found))
    least_by_words, by_vectors, least_by_both = FLOORS[name]
    assert text.measures["ndcg@10"] >= least_by_words
    assert vector.measures["ndcg@10"] == pytest.approx(by_vectors, abs=TOLERANCE)
    assert hybrid.measures["ndcg@10"] >= least_by_both


def line(found: Evaluated) -> str:
    """A line of the table."""
    measured = "  ".join(f"{name} {value:.4f}" for name, value in found.measures.items())
    return f"{found.dataset:<12} {found.mode:<7} {measured}  p50 {found.p50:.1f} ms  p95 {found.p95:.1f} ms"
