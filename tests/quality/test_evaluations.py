"""The quality of each mode, as the command `searchapp eval` measures it, all embeddings made for it."""

from __future__ import annotations

import json

import pytest

from tests.conftest import ROOT, Run

pytestmark = pytest.mark.quality

DATA = ROOT.parent / "shared" / "data" / "beir"
MODES = ("vector", "text", "hybrid")
# nDCG@10: of vectors that the model gives, within 0.003; of words and of both at least.
GOALS = {"scifact": (0.645, 0.688, 0.735), "xquad-en": (0.943, 0.968, 0.980), "limit-small": (0.313, 0.990, 0.985)}


@pytest.mark.parametrize("name", GOALS)
def test_every_mode_is_as_good_as_it_should_be(run: Run, name: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"the data set {name} (BEIR) is not at {DATA}")
    found = []
    for mode in MODES:
        done = run("eval", str(DATA / name), "--mode", mode, "--json", timeout=1500)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
        print(f"\n{name}, {mode}: {done.stdout.strip()}")
    vector, text, hybrid = (each["ndcg@10"] for each in found)
    for_vectors, for_words, for_both = GOALS[name]
    assert vector == pytest.approx(for_vectors, abs=0.003)
    assert text >= for_words
    assert hybrid >= for_both
