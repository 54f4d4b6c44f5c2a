"""The model's exported graph: as good as the original, made once, and made anew where it is damaged."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from tokenizers import Encoding

from searchapp.encoders import graphs, onnx, weights
from searchapp.encoders.graphs import EMBEDDINGS, Cache
from searchapp.encoders.onnx import OnnxEncoder
from searchapp.encoders.registry import Registry
from searchapp.encoders.sentence_transformer import SentenceTransformerEncoder
from searchapp.vectors import Array
from tests.conftest import HOME
from tests.tiny_models import save_encoder

EncoderCache = Cache[SentenceTransformerEncoder, OnnxEncoder]


@pytest.fixture(scope="module")
def original() -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(weights.DEFAULT, weights.locate(weights.DEFAULT))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformerEncoder:
    """A model of one layer, for what is true of any graph: it is exported in a fraction of the time."""
    folder = save_encoder(tmp_path_factory.mktemp("models") / "tiny")
    return SentenceTransformerEncoder(folder, weights.locate(folder))


@pytest.fixture(scope="module")
def exported(small: SentenceTransformerEncoder, tmp_path_factory: pytest.TempPathFactory) -> EncoderCache:
    """A cache with the small model's graph in it."""
    cache = Cache(tmp_path_factory.mktemp("exported"), EMBEDDINGS)
    assert isinstance(cache.make(small), OnnxEncoder)
    return cache


@pytest.fixture
def cache(exported: EncoderCache, tmp_path: Path) -> EncoderCache:
    """A cache of its own with that graph in it."""
    for path in exported.folder.iterdir():
        os.link(path, tmp_path / path.name)
    return Cache(tmp_path, EMBEDDINGS)


def test_embeddings_are_those_of_the_library(registry: Registry, original: SentenceTransformerEncoder) -> None:
    encoder = registry.encoder(weights.DEFAULT)
    assert isinstance(encoder, OnnxEncoder)
    texts = ["a", "", "two words", *graphs.SAMPLE, "long " * 300, *(f"text number {n} " * (n % 40) for n in range(200))]
    ours, theirs = encoder.encode_documents(texts), original.encode_documents(texts)
    assert np.sum(ours * theirs, axis=1).min() > 0.999999
    assert np.linalg.norm(ours, axis=1) == pytest.approx(1, abs=1e-6)


def test_equal_texts_are_encoded_once(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = registry.encoder(weights.DEFAULT)
    assert isinstance(encoder, OnnxEncoder)
    seen: list[int] = []
    run = onnx._run

    def counting(session: Any, encodings: list[Encoding]) -> Array:
        seen.append(len(encodings))
        return run(session, encodings)

    monkeypatch.setattr(onnx, "_run", counting)
    vectors = encoder.encode_documents(["a cat", "a dog", "a cat", "a cat"])
    assert sum(seen) == 2
    assert (vectors[0] == vectors[2]).all()
    assert (vectors[0] != vectors[1]).any()


def test_a_query_asked_again_is_not_encoded_again(registry: Registry) -> None:
    first = registry.encode_query(weights.DEFAULT, "a question")
    assert registry.encode_query(weights.DEFAULT, "a question") is first
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1


@pytest.mark.parametrize("suffix", ["onnx", "tokenizer.json", "json"])
def test_a_damaged_graph_is_made_anew(
    cache: EncoderCache, suffix: str, caplog: pytest.LogCaptureFixture, small: SentenceTransformerEncoder
) -> None:
    model = small.model
    [damaged] = [path for path in cache.folder.iterdir() if path.name.endswith(f"v{graphs.VERSION}.{suffix}")]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.unlink()  # it is linked to the others' own
    damaged.write_bytes(content)
    assert cache.find(model.name, model.revision) is None
    if suffix != "json":
        assert "damaged" in caplog.text
    made = cache.make(small)
    assert isinstance(made, OnnxEncoder)
    assert cache.find(model.name, model.revision) is not None
    assert not [path for path in cache.folder.iterdir() if path.name.startswith("draft-")]


def test_what_cannot_be_exported_is_encoded_by_the_library(
    tmp_path: Path,
    original: SentenceTransformerEncoder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(
        "searchapp.encoders.export.write_graph", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no\nwonder"))
    )
    assert Cache(tmp_path / "models", EMBEDDINGS).make(original) is original
    assert "encoding all-MiniLM-L6-v2 more slowly: it cannot be exported to ONNX (no)" in caplog.text


def test_a_graph_that_cannot_be_fused_is_kept_as_it_was_exported(
    tmp_path: Path, small: SentenceTransformerEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def zero_the_weights(model: onnx_ir.Model) -> None:
        for each in model.graph.initializers.values():
            if each.const_value is not None and len(each.const_value.shape) == 2:
                each.const_value = onnx_ir.tensor(np.zeros_like(each.const_value.numpy()))

    monkeypatch.setattr("searchapp.encoders.export._fuse", zero_the_weights)
    made = Cache(tmp_path / "models", EMBEDDINGS).make(small)
    assert isinstance(made, OnnxEncoder)
    graphs.check_against(small, made)


def test_a_layer_is_few_nodes(registry: Registry) -> None:
    registry.encoder(weights.DEFAULT)
    [graph] = (HOME / "models").glob(f"{weights.DEFAULT}-*v{graphs.VERSION}.onnx")
    nodes = Counter(node.op_type for node in onnx_ir.load(graph).graph)
    assert nodes["Attention"] == nodes["BiasGelu"] == 6
    assert nodes["MatMul"] == 3 * 6


def test_a_graph_that_differs_is_not_used(original: SentenceTransformerEncoder, registry: Registry) -> None:
    encoder = registry.encoder(weights.DEFAULT)
    graphs.check_against(original, encoder)

    class Other:
        model = encoder.model

        def encode_documents(self, texts: list[str]) -> object:
            return encoder.encode_documents(texts)[::-1]

    with pytest.raises(Exception, match="gives other embeddings"):
        graphs.check_against(original, Other())  # type: ignore[arg-type]  # of the protocol only this is asked


def test_a_home_that_cannot_be_written_works_with_a_warning(
    tmp_path: Path, original: SentenceTransformerEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "models").write_text("a file where the folder would be")  # root may write anywhere else
    with caplog.at_level(logging.WARNING):
        assert Cache(tmp_path / "models", EMBEDDINGS).make(original) is original
    assert "more slowly" in caplog.text


def test_two_processes_export_one_graph_and_ask_no_network_where_the_weights_are_installed(tmp_path: Path) -> None:
    watched = """
import logging, pathlib, sys
def refuse(event, arguments):
    if event == "socket.getaddrinfo" or event == "socket.connect" and isinstance(arguments[1], tuple):
        raise SystemExit(f"asked the network: {event} {arguments}")
sys.addaudithook(refuse)
logging.basicConfig()
logging.getLogger("searchapp").setLevel(logging.INFO)
from searchapp.encoders.registry import Registry
print(Registry(pathlib.Path(sys.argv[1])).encoder("all-MiniLM-L6-v2").encode_queries(["a cat"]).shape)
"""
    command = [sys.executable, "-c", watched, str(tmp_path)]
    online = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    options: dict[str, Any] = {"env": online, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **options) for _ in range(2)]
    said = [process.communicate(timeout=180) for process in processes]
    for output, noise in said:
        assert output.strip() == "(1, 384)", noise
        assert "Loading" not in noise
    assert sum("exporting" in noise for _, noise in said) == 1


def test_encoding_by_the_graph_imports_no_torch(registry: Registry) -> None:
    registry.encoder(weights.DEFAULT)
    code = (
        "import pathlib, sys\nfrom searchapp.encoders.registry import Registry\n"
        "Registry(pathlib.Path(sys.argv[1])).encode_query('all-MiniLM-L6-v2', 'a')\n"
        "print([name for name in ('torch', 'transformers', 'sentence_transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(HOME)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
