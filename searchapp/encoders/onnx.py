"""Encoding by ONNX Runtime, on a graph that :mod:`searchapp.encoders.graphs` keeps. Nothing here imports torch."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from searchapp import errors
from searchapp.encoders import Model
from searchapp.encoders.batching import batches
from searchapp.vectors import Array

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# What a batch needs must fit a core's caches; twice as many were 1 per cent slower, eight times as many 20.
BATCH_TOKENS = 256
# So many texts are tokenised at a time: a tokenizer's own objects take some 200 bytes a token.
TOKENIZED = 4096

OUTPUT = "sentence_embedding"


class OnnxEncoder:
    """A model as a graph from token ids to embeddings of unit length.

    :param model: what the model is.
    :param graph: the ONNX file.
    :param tokenizer: the tokenizer's file (``tokenizer.json``), whatever it says of padding and cutting.
    """

    def __init__(self, model: Model, graph: Path, tokenizer: Path) -> None:
        self.model = model
        self._graph = graph
        self._tokenizer_file = tokenizer
        self._cutting = self._load_tokenizer()
        self._cutting.enable_truncation(model.max_tokens)
        self._cores = available_cores()
        self._lock = threading.Lock()
        self._for_one = self._open_session(threads=self._cores)

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

    def _encode(self, texts: list[str]) -> Array:
        """Encode equal texts once, those of like length together."""
        distinct = list(dict.fromkeys(texts))
        vectors = np.empty((len(distinct), self.dimensions), dtype=np.float32)
        for start in range(0, len(distinct), TOKENIZED):
            part = slice(start, start + TOKENIZED)
            self._encode_into(vectors[part], self._cutting.encode_batch_fast(distinct[part]))
        if not np.isfinite(vectors).all():
            raise errors.ModelCorrupted(f"the model {self.model.name} gives NaN or infinity; its weights are damaged")
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


def _run(session: InferenceSession, encodings: list[Encoding]) -> Array:
    """Embed one batch, padded to its longest text."""
    shape = len(encodings), max(len(each) for each in encodings)
    tokens = {each.name: np.zeros(shape, dtype=np.int64) for each in session.get_inputs()}
    for row, each in enumerate(encodings):
        tokens["input_ids"][row, : len(each)] = each.ids
        tokens["attention_mask"][row, : len(each)] = 1
    embedded: Array = session.run([OUTPUT], tokens)[0]
    return embedded


def available_cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
