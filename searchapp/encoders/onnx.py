"""Encoding by ONNX Runtime, on a graph that :mod:`searchapp.encoders.graphs` keeps. Nothing here imports torch."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from searchapp.encoders import Model, weights
from searchapp.encoders.batching import batches, pairs
from searchapp.vectors import Array

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# A text, or a query and a passage.
T = TypeVar("T", str, tuple[str, str])

# What a batch needs must fit a core's caches; twice as many were 1 per cent slower, eight times as many 20.
BATCH_TOKENS = 256


class OnnxModel:
    """A model as a graph from token ids to a row of numbers, for each text or pair of texts.

    :param model: what the model is.
    :param graph: the ONNX file.
    :param tokenizer: the tokenizer's file (``tokenizer.json``), whatever it says of padding and cutting.
    """

    # So many texts are tokenised at a time: a tokenizer's own objects take some 200 bytes a token.
    _tokenized = 4096

    def __init__(self, model: Model, graph: Path, tokenizer: Path) -> None:
        self.model = model
        self._graph = graph
        self._tokenizer_file = tokenizer
        self._cutting = self._load_tokenizer()
        self._cutting.enable_truncation(model.max_tokens)
        self._cores = available_cores()
        self._lock = threading.Lock()
        self._for_one = self._open_session(threads=self._cores)

    def _encode(self, texts: list[T]) -> Array:
        """Encode equal texts once, those of like length together: float32, shape (n_texts, dimensions).

        :raises errors.ModelCorrupted: the model gives NaN or infinity.
        """
        distinct = list(dict.fromkeys(texts))
        vectors = np.empty((len(distinct), self.model.dimensions), dtype=np.float32)
        for start in range(0, len(distinct), self._tokenized):
            part = slice(start, start + self._tokenized)
            self._encode_into(vectors[part], self._cutting.encode_batch_fast(distinct[part]))
        weights.check_finite(self.model.name, vectors)
        if len(distinct) == len(texts):
            return vectors
        places = {text: place for place, text in enumerate(distinct)}
        return vectors[[places[text] for text in texts]]

    def _encode_into(self, vectors: Array, encodings: list[Encoding]) -> None:
        if len(encodings) == 1:
            vectors[:] = _run(self._for_one, encodings)
            return
        with self._lock:  # two threads must not make a session each
            session, workers = self._for_many

        def run(batch: npt.NDArray[np.intp]) -> None:
            vectors[batch] = _run(session, [encodings[place] for place in batch])

        dealt = list(batches([len(each) for each in encodings], BATCH_TOKENS))
        for _ in workers.map(run, reversed(dealt)):  # the longest first: the last ones end together
            pass

    @cached_property
    def _for_many(self) -> tuple[InferenceSession, ThreadPoolExecutor]:
        """Batches at the same time, each on one core: on all cores, these would wait for each other all along."""
        return self._open_session(threads=1), ThreadPoolExecutor(self._cores, thread_name_prefix="searchapp-encoder")

    def _open_session(self, threads: int) -> InferenceSession:
        import onnxruntime  # not before something is encoded

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return onnxruntime.InferenceSession(
            str(self._graph),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"],  # seven times slower than what it fuses
        )

    def _load_tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.from_file(str(self._tokenizer_file))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer


class OnnxEncoder(OnnxModel):
    """A model as a graph from token ids to embeddings of unit length."""

    @property
    def dimensions(self) -> int:
        return self.model.dimensions

    @property
    def max_tokens(self) -> int:
        return self.model.max_tokens

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, neither padding nor cutting."""
        return self._load_tokenizer()

    def encode_documents(self, texts: Sequence[str]) -> Array:
        """Encode passages: float32, shape (n_texts, dimensions), unit length."""
        return self._encode([self.model.document_prefix + text for text in texts])

    def encode_queries(self, texts: Sequence[str]) -> Array:
        """Encode questions: float32, shape (n_texts, dimensions), unit length."""
        return self._encode([self.model.query_prefix + text for text in texts])


class OnnxCrossEncoder(OnnxModel):
    """A model as a graph from the token ids of a query and a passage to a logit."""

    _tokenized = 64  # where both texts are cut, a pair takes seven megabytes

    def scores(self, query: str, passages: Sequence[str]) -> Array:
        """Score passages for a query: logits, float32, shape (n_passages,)."""
        scores: Array = self._encode(pairs(query, passages, self.model.max_tokens))[:, 0]
        return scores


def _run(session: InferenceSession, encodings: list[Encoding]) -> Array:
    """Encode one batch, padded to its longest text."""
    shape = len(encodings), max(len(each) for each in encodings)
    tokens = {each.name: np.zeros(shape, dtype=np.int64) for each in session.get_inputs()}
    for row, each in enumerate(encodings):
        tokens["input_ids"][row, : len(each)] = each.ids
        tokens["attention_mask"][row, : len(each)] = 1
        if "token_type_ids" in tokens:
            tokens["token_type_ids"][row, : len(each)] = each.type_ids
    encoded: Array = session.run(None, tokens)[0]
    return encoded


def available_cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
