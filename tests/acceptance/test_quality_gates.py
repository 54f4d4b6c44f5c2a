"""How good each mode is on three data sets of BEIR's layout, by ``searchapp eval``: nDCG@10 must not fall.

Not marked ``quality``: with vectors that are there already it takes a minute, and runs wherever the data is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sqlalchemy import Engine

from searchapp.client import Client
from searchapp.encoders import registry
from searchapp.evaluation.runs import Evaluated
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


@pytest.fixture(scope="module")
def db(engine: Engine) -> Iterator[Client]:
    """A handle that encodes each query once, for all modes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "QUERIES_KEPT", 5000)
        yield Client(engine, registry=registry.Registry(HOME))


@pytest.mark.parametrize("name", FLOORS)
def test_each_mode_is_as_good_as_it_was(name: str, db: Client) -> None:
    folder, vectors = DATA / "beir" / name, DATA / "vectors" / f"{name}.corpus.f16.npy"
    if not (folder.is_dir() and vectors.is_file()):
        pytest.skip(f"the data set {name} (BEIR) and its vectors are not at {DATA}")
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
