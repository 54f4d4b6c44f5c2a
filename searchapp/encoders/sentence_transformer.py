"""Encoding by the sentence-transformers library itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from searchapp import errors
from searchapp.encoders import Model, weights
from searchapp.vectors import Array

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class SentenceTransformerEncoder:
    """A sentence-transformers model, loaded.

    :param name: what the model is called in the database.
    :param folder: where its files lie.
    :raises errors.ModelMissing: the folder holds no such model.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        self._transformer = load(folder)
        self.tokenizer = Tokenizer.from_str(self._transformer.tokenizer.backend_tokenizer.to_str())
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        published = weights.PUBLISHED.get(name)
        self.model = published.model if published else self._describe(name, folder)

    def _describe(self, name: str, folder: Path) -> Model:
        prompts = self._transformer.prompts
        return Model(
            name=name,
            provider=weights.PROVIDER,
            revision=weights.revision(folder),
            dimensions=self._transformer.get_embedding_dimension() or 0,
            max_tokens=self._transformer.max_seq_length or self._transformer.tokenizer.model_max_length,
            query_prefix=prompts.get("query") or "",
            document_prefix=prompts.get("document") or prompts.get("passage") or "",
        )

    @property
    def dimensions(self) -> int:
        return self.model.dimensions

    @property
    def max_tokens(self) -> int:
        return self.model.max_tokens

    def encode_documents(self, texts: Sequence[str]) -> Array:
        """Encode passages: float32, shape (n_texts, dimensions), unit length."""
        return self._encode([self.model.document_prefix + text for text in texts])

    def encode_queries(self, texts: Sequence[str]) -> Array:
        """Encode questions: float32, shape (n_texts, dimensions), unit length."""
        return self._encode([self.model.query_prefix + text for text in texts])

    def _encode(self, texts: list[str]) -> Array:
        if not texts:
            return np.empty((0, self.dimensions), dtype=np.float32)
        # prompt="": the model's own default prompt would come on top of the prefix
        vectors = self._transformer.encode(texts, prompt="", normalize_embeddings=True, show_progress_bar=False)
        vectors = np.asarray(vectors, dtype=np.float32)
        if not np.isfinite(vectors).all():
            raise errors.ModelCorrupted(f"the model {self.model.name} gives NaN or infinity; its weights are damaged")
        return vectors


def load(folder: Path, **model_options: str) -> SentenceTransformer:
    """Load a model with the library, without the network.

    :raises errors.ModelMissing: the folder holds no such model.
    """
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # "Loading weights" would stand in every command's output
    try:
        return SentenceTransformer(str(folder), local_files_only=True, model_kwargs=model_options or None)
    except Exception as exc:  # what is wrong with a folder shows in a dozen kinds of errors
        reason = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
        raise errors.ModelMissing(f"{folder} cannot be loaded as a sentence-transformers model: {reason}") from exc
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
