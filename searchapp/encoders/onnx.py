"""Encoding by ONNX Runtime, on a graph that :mod:`searchapp.encoders.graphs` keeps. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from searchapp import errors
from searchapp.encoders import Model
from searchapp.encoders.batching import batches
from searchapp.vectors import Array

# In a trial on two busy cores with AVX2 larger batches were slower: what a batch needs must fit the caches.
BATCH_TOKENS = 512
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
        import onnxruntime  # not before something is encoded

        self.model = model
        self._tokenizer_file = tokenizer
        self._cutting = self._load_tokenizer()
        self._cutting.enable_truncation(model.max_tokens)
        options = onnxruntime.SessionOptions()
        # spinning threads take the processor from the database beside them
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self._inputs = [each.name for each in self._session.get_inputs()]

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
            part = vectors[start : start + TOKENIZED]
            encodings = self._cutting.encode_batch_fast(distinct[start : start + TOKENIZED])
            for batch in batches([len(each) for each in encodings], BATCH_TOKENS):
                part[batch] = self._run([encodings[place] for place in batch])
        if not np.isfinite(vectors).all():
            raise errors.ModelCorrupted(f"the model {self.model.name} gives NaN or infinity; its weights are damaged")
        if len(distinct) == len(texts):
            return vectors
        places = {text: place for place, text in enumerate(distinct)}
        return vectors[[places[text] for text in texts]]

    def _run(self, encodings: list[Encoding]) -> Array:
        shape = len(encodings), max(len(each) for each in encodings)
        tokens = {name: np.zeros(shape, dtype=np.int64) for name in self._inputs}
        for row, encoding in enumerate(encodings):
            tokens["input_ids"][row, : len(encoding)] = encoding.ids
            tokens["attention_mask"][row, : len(encoding)] = 1
        vectors: Array = self._session.run([OUTPUT], tokens)[0]
        return vectors

    def _load_tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.from_file(str(self._tokenizer_file))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer
