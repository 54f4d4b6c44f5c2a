"""A cross-encoder: its scores, what is wrong with one, and searches that it reranks."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import searchapp
from searchapp import errors
from searchapp.client import Client
from searchapp.encoders import graphs, weights
from searchapp.encoders.graphs import SCORES, Cache
from searchapp.encoders.onnx import OnnxCrossEncoder
from searchapp.encoders.registry import Registry
from searchapp.encoders.sentence_transformer import SentenceTransformerCrossEncoder
from searchapp.vectors import Array
from tests import conftest
from tests.acceptance import commands
from tests.conftest import HOME
from tests.tiny_models import save_cross_encoder

QUERY = "what is the red cat"
PASSAGES = ["a dog sat", "", "  red  ", "long word " * 300, "x", "Naïve café 東京", "a dog sat", "red shoes " * 20]
DOCUMENTS = [
    {"key": f"{number:02}", "text": text, "title": title, "metadata": {"even": number % 2 == 0}}
    for number, (title, text) in enumerate(
        (title, f"{text} cat")
        for title in (None, "red shoes", "what is a hat for")
        for text in (
            "a dog sat on the mat",
            "the quick brown fox",
            "crimson sneakers",
            "blue running shoes",
            "word " * 90,
        )
    )
]

url, db = conftest.shared_address()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_cross_encoder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module", autouse=True)
def things(db: Client) -> None:
    db.ingest(DOCUMENTS, collection="things")


@pytest.fixture(scope="module")
def damaged(folder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model with NaN among its weights."""
    import torch
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder, tmp_path_factory.mktemp("models") / "damaged")
    tensors = load_file(copy / "model.safetensors")
    tensors["classifier.bias"] = torch.tensor([torch.nan])
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    return str(copy)


def scores_of_library(folder: str, query: str, passages: list[str]) -> Array:
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

    pairs = [(query, passage) for passage in passages]
    scores: Array = CrossEncoder(folder).predict(pairs, activation_fn=Identity(), show_progress_bar=False)
    return scores


@pytest.mark.parametrize("query", [QUERY, "x", "what is this " * 50])
def test_scores_are_the_logits_of_the_library(registry: Registry, folder: str, query: str) -> None:
    model = registry.cross_encoder(folder)
    assert isinstance(model, OnnxCrossEncoder)
    scores = model.scores(query, PASSAGES)
    assert scores.dtype == np.float32
    assert scores.shape == (len(PASSAGES),)
    assert scores == pytest.approx(scores_of_library(folder, query, PASSAGES), abs=1e-4)
    assert np.ptp(scores) > 1  # or anything would do
    for passage, score in zip(PASSAGES, scores, strict=True):
        assert model.scores(query, [passage]) == pytest.approx([score], abs=1e-4)
    assert model.scores(query, []).shape == (0,)


def test_texts_far_longer_than_the_model_reads_take_no_longer(registry: Registry, folder: str) -> None:
    model = registry.cross_encoder(folder)
    scores = model.scores("red cat " * 12_500, ["a dog sat " * n for n in (100, 100_000)])
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_a_model_is_loaded_once_a_process_and_its_graph_without_torch(registry: Registry, folder: str) -> None:
    assert registry.cross_encoder(folder) is registry.cross_encoder(f"{folder}/../tiny")
    code = (
        "import pathlib, sys\nfrom searchapp.encoders.registry import Registry\n"
        "Registry(pathlib.Path(sys.argv[1])).cross_encoder(sys.argv[2]).scores('a', ['b'])\n"
        "print([name for name in ('torch', 'transformers', 'sentence_transformers') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(HOME), folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_what_cannot_be_exported_is_scored_by_the_library(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no wonder")

    monkeypatch.setattr("searchapp.encoders.export.write_graph", fail)
    model = Registry(tmp_path).cross_encoder(folder)
    assert isinstance(model, SentenceTransformerCrossEncoder)
    assert f"encoding {folder} more slowly: it cannot be exported to ONNX (no wonder)" in caplog.text
    assert model.scores(QUERY, PASSAGES) == pytest.approx(scores_of_library(folder, QUERY, PASSAGES), abs=1e-4)
    assert model.scores(QUERY, []).shape == (0,)


def test_a_graph_that_gives_other_scores_is_not_used(registry: Registry, folder: str) -> None:
    model = registry.cross_encoder(folder)
    graphs.check_scores(model, model)

    class Other:
        def scores(self, query: str, passages: list[str]) -> Array:
            other: Array = model.scores(query, passages) + np.float32(0.01)
            return other

    with pytest.raises(errors.ModelCorrupted, match="gives other scores"):
        graphs.check_scores(model, Other())  # type: ignore[arg-type]  # of the protocol only this is asked


def test_a_model_that_is_missing_or_none_is_told_in_one_line(tmp_path: Path) -> None:
    registry, encoder, broken = Registry(tmp_path), weights.locate(weights.DEFAULT), tmp_path / "broken"
    shutil.copytree(encoder, broken)
    (broken / "config.json").write_text("{")
    (tmp_path / "empty").mkdir()
    for name, said in {
        str(
            tmp_path / "nowhere"
        ): "nowhere is not a model's folder: it has neither modules.json nor config.json; check",
        str(tmp_path / "empty"): "empty is not a model's folder",
        "no-such-model": "the model cross-encoder/no-such-model is not installed and .*; give a folder with its files",
        str(encoder): r"is no cross-encoder \(BertModel\); give the folder or the hub's name of one",
        str(broken): "is no cross-encoder",
    }.items():
        with pytest.raises(errors.ModelMissing, match=said) as raised:
            registry.cross_encoder(name)
        assert "\n" not in str(raised.value)


def test_a_model_of_several_labels_is_refused(tmp_path: Path) -> None:
    folder = save_cross_encoder(tmp_path / "tiny", labels=3)
    with pytest.raises(errors.InvalidInput, match="gives 3 labels a pair; give a cross-encoder of one"):
        Registry(tmp_path).cross_encoder(folder)


def test_a_model_that_gives_nan_is_told_in_one_line(db: Client, damaged: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(errors.ModelCorrupted, match="damaged: get them again, or"):
        db.search(QUERY, collection="things", rerank=damaged)
    assert caplog.text == ""
    assert len(db.search(QUERY, collection="things")) == 10


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_a_search_is_reranked_by_these_scores(db: Client, folder: str, mode: str) -> None:
    asked: dict[str, Any] = {"collection": "things", "mode": mode}
    found = db.search(QUERY, **asked, limit=50)
    passages = [f"{hit.title} {hit.passage}" if hit.title else hit.passage for hit in found]
    scores = dict(zip((hit.key for hit in found), scores_of_library(folder, QUERY, passages).tolist(), strict=True))
    expected = sorted(scores, key=lambda key: -scores[key])
    assert len(expected) == len(DOCUMENTS)
    assert expected != list(scores)

    reranked = db.search(QUERY, **asked, rerank=folder, limit=50)
    assert [hit.key for hit in reranked] == expected
    assert [hit.score for hit in reranked] == pytest.approx([scores[key] for key in expected], abs=1e-4)
    before = {hit.key: hit for hit in found}
    for hit in reranked:
        assert hit.score == hit.rerank_score
        assert hit._replace(score=before[hit.key].score, rerank_score=None) == before[hit.key]
    assert (reranked.mode, reranked.exact, reranked.complete) == (found.mode, found.exact, found.complete)
    assert reranked.cursor is None
    assert reranked.took_ms.rerank > 0 == found.took_ms.rerank

    page = db.search(QUERY, **asked, rerank=folder, limit=3, offset=2, rerank_top=50)
    assert [hit.key for hit in page] == expected[2:5]
    few = db.search(QUERY, **asked, rerank=folder, limit=2, rerank_top=4)
    assert [hit.key for hit in few] == sorted(list(scores)[:4], key=expected.index)[:2]
    even = db.search(QUERY, **asked, rerank=folder, filter={"even": True}, limit=50)
    assert [hit.key for hit in even] == [key for key in expected if int(key) % 2 == 0]
    best = db.search(QUERY, **asked, rerank=folder, min_score=found[4].score, limit=50)
    assert [hit.key for hit in best] == sorted(
        (hit.key for hit in found if hit.score >= found[4].score), key=expected.index
    )
    assert not db.search(QUERY, **asked, rerank=folder, offset=50)


def test_marks_are_not_read_and_words_are_highlighted(db: Client, folder: str) -> None:
    hits = db.search('"red shoes" -fox', collection="things", rerank=folder, highlight=True, mode="hybrid")
    plain = db.search("red shoes", collection="things", rerank=folder, rerank_top=50, limit=50, mode="hybrid")
    scores = {hit.key: hit.score for hit in plain}
    assert 0 < len(hits) < len(plain)
    assert [hit.score for hit in hits] == pytest.approx([scores[hit.key] for hit in hits], abs=1e-4)
    assert any(hit.highlights for hit in hits)


def test_the_model_is_asked_for_before_the_database(db: Client) -> None:
    with pytest.raises(errors.ModelMissing):
        db.search(QUERY, collection="nowhere", rerank="./nowhere")


async def test_an_awaited_search_is_reranked(db: Client, url: str, folder: str) -> None:
    expected = db.search(QUERY, collection="things", rerank=folder)
    async with searchapp.connect_async(url) as handle:
        assert (await handle.search(QUERY, collection="things", rerank=folder)).hits == expected.hits


def test_the_command_reranks(db: Client, url: str, folder: str, damaged: str, tmp_path: Path) -> None:
    search = ["search", QUERY, "--collection", "things", "--rerank"]
    as_json, page, missing, not_a_number, paged, explained, none = commands.run_all(
        url,
        tmp_path,
        [
            [*search, folder, "--rerank-top", "4", "-n", "2", "--json"],
            [*search, folder, "-n", "1"],
            [*search, "./nowhere"],
            [*search, damaged],
            [*search, folder, "--cursor", "next"],
            [*search, folder, "--explain"],
            [*search, folder, "--rerank-top", "0"],
        ],
    )
    assert (as_json.returncode, as_json.stderr) == (0, "")
    found = json.loads(as_json.stdout)
    expected = db.search(QUERY, collection="things", rerank=folder, rerank_top=4, limit=2)
    assert [hit["key"] for hit in found["hits"]] == [hit.key for hit in expected]
    assert [hit["rerank_score"] for hit in found["hits"]] == pytest.approx([hit.score for hit in expected], abs=1e-4)
    assert found["took_ms"]["rerank"] > 0
    assert (page.returncode, page.stderr) == (0, "")
    assert " ms, rerank " in page.stdout
    assert commands.error_of(missing).startswith(f"{tmp_path / 'nowhere'} is not a model's folder")
    assert commands.error_of(not_a_number).startswith(f"the model {damaged} gives NaN or infinity; its weights are")
    assert commands.error_of(paged) == "a reranked search takes no cursor; ask for its next page by offset"
    assert commands.error_of(explained).startswith("--explain takes --json, but neither")
    assert commands.error_of(none) == "rerank_top is 0; expected 1 to 1,000"


def test_graphs_of_cross_encoders_lie_apart(registry: Registry, folder: str) -> None:
    model = registry.cross_encoder(folder).model
    assert Cache(HOME / "models" / "cross-encoders", SCORES).describe(model.name, model.revision) == model
    apart = {path.name for path in (HOME / "models" / "cross-encoders").glob("*.onnx")}
    assert apart
    assert not apart & {path.name for path in (HOME / "models").iterdir()}
