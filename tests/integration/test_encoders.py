"""The real model, through the Encoder protocol."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from searchapp import errors
from searchapp.encoders import Encoder, weights
from searchapp.encoders.registry import Registry


@pytest.fixture
def encoder(registry: Registry) -> Encoder:
    return registry.encoder(weights.DEFAULT)


def test_embeddings_are_float32_of_unit_length_in_the_order_of_the_texts(encoder: Encoder) -> None:
    texts = ["a cat", "a much longer text about a cat that sat on a mat", "dog"]
    vectors = encoder.encode_documents(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, encoder.dimensions) == (3, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    for text, vector in zip(texts, vectors, strict=True):
        assert encoder.encode_queries([text])[0] @ vector == pytest.approx(1, abs=1e-5)


def test_weights_cut_short_are_told_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(weights.locate(weights.DEFAULT), folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(errors.ModelMissing, match="cannot be loaded"):
        Registry(tmp_path).encoder(str(folder))


def test_no_texts_give_no_vectors(encoder: Encoder) -> None:
    assert encoder.encode_documents([]).shape == (0, 384)


def test_a_text_longer_than_the_model_reads_is_cut(encoder: Encoder) -> None:
    long = "word " * 1000
    cut = "word " * (encoder.max_tokens - 2)
    assert encoder.encode_documents([long])[0] @ encoder.encode_documents([cut])[0] == pytest.approx(1, abs=1e-6)


def test_the_tokenizer_neither_pads_nor_cuts(encoder: Encoder) -> None:
    assert len(encoder.tokenizer.encode("word " * 1000, add_special_tokens=False)) == 1000
    assert [len(each) for each in encoder.tokenizer.encode_batch(["a", "a b c"])] == [3, 5]


def test_a_published_model_is_described_without_loading_it(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    assert registry.model(weights.DEFAULT).dimensions == 384
    assert not registry._loaded


def test_the_database_describes_the_model_as_the_library_does(encoder: Encoder) -> None:
    from searchapp.encoders.sentence_transformer import SentenceTransformerEncoder

    described = SentenceTransformerEncoder("elsewhere", weights.locate(weights.DEFAULT)).model
    assert (described.dimensions, described.max_tokens) == (encoder.dimensions, encoder.max_tokens)
