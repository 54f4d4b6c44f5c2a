"""Encoding, and scoring, by the sentence-transformers library itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from tokenizers import Tokenizer

from searchapp import errors
from searchapp.encoders import Model, weights
from searchapp.encoders.batching import pairs
from searchapp.vectors import Array

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from transformers import PreTrainedTokenizerFast

# Attention that the exporter can trace; MPNet's other ones it cannot.
TRACED = "eager"

T = TypeVar("T")


class SentenceTransformerEncoder:
    """A sentence-transformers model, loaded.

    :param name: what the model is called in the database.
    :param folder: where its files lie.
    :raises errors.ModelMissing: the folder holds no such model.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        self._transformer = load(folder)
        self.tokenizer = _plain(self._transformer.tokenizer)
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
        weights.check_finite(self.model.name, vectors)
        return vectors

    def write_graph(self, path: Path, *, fused: bool) -> None:
        """Write its graph, as :func:`searchapp.encoders.export.write_graph` does."""
        from searchapp.encoders import export

        export.write_graph(load(self.folder, attn_implementation=TRACED), path, fused=fused)


class SentenceTransformerCrossEncoder:
    """A sentence-transformers cross-encoder, loaded.

    :param name: what the model is called.
    :param folder: where its files lie.
    :raises errors.ModelMissing: the folder holds no such model.
    :raises errors.InvalidInput: the model gives several numbers a pair.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        self._transformer = load_cross_encoder(folder)
        if self._transformer.num_labels != 1:
            raise errors.InvalidInput(
                f"the model {name} gives {self._transformer.num_labels} labels a pair; give a cross-encoder of one"
            )
        self.tokenizer = _plain(self._transformer.tokenizer)
        self.model = Model(
            name=name,
            provider=weights.PROVIDER,
            revision=weights.revision(folder),
            dimensions=1,
            max_tokens=self._transformer.max_seq_length or self._transformer.tokenizer.model_max_length,
        )

    def scores(self, query: str, passages: Sequence[str]) -> Array:
        """Score passages for a query: logits, float32, shape (n_passages,)."""
        from torch.nn import Identity

        if not passages:
            return np.empty(0, dtype=np.float32)
        # the model's own activation, a sigmoid as a rule, makes all good passages equal
        scores = self._transformer.predict(
            pairs(query, passages, self.model.max_tokens), activation_fn=Identity(), show_progress_bar=False
        )
        scores = np.asarray(scores, dtype=np.float32)
        weights.check_finite(self.model.name, scores)
        return scores

    def write_graph(self, path: Path, *, fused: bool) -> None:
        """Write its graph, as :func:`searchapp.encoders.export.write_graph` does."""
        from searchapp.encoders import export

        export.write_graph(load_cross_encoder(self.folder, attn_implementation=TRACED), path, fused=fused)


def load(folder: Path, **model_options: str) -> SentenceTransformer:
    """Load a model with the library, without the network.

    :raises errors.ModelMissing: the folder holds no such model.
    """
    from sentence_transformers import SentenceTransformer

    return _load(SentenceTransformer, folder, model_options)


def load_cross_encoder(folder: Path, **model_options: str) -> CrossEncoder:
    """Load a cross-encoder with the library, without the network.

    :raises errors.ModelMissing: the folder holds no such model.
    """
    from sentence_transformers import CrossEncoder

    _check_cross_encoder(folder)
    loaded: CrossEncoder = _load(CrossEncoder, folder, model_options)
    return loaded


def _check_cross_encoder(folder: Path) -> None:
    """Check that a model was trained to score: to any other the library gives a head of random numbers.

    :raises errors.ModelMissing: it was not.
    """
    described = [_read(folder / name) for name in ("config.json", "config_sentence_transformers.json")]
    made_as = [str(each) for each in described[0].get("architectures") or ()]
    if described[1].get("model_type") == "CrossEncoder" or any("SequenceClassification" in each for each in made_as):
        return
    kind = " ".join(made_as) or "of no known kind"
    raise errors.ModelMissing(f"{folder} is no cross-encoder ({kind}); give the folder or the hub's name of one")


def _read(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # what is wrong with it, the library says
        return {}
    return read if isinstance(read, dict) else {}


def _load(kind: Callable[..., T], folder: Path, model_options: dict[str, str]) -> T:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # "Loading weights" would stand in every command's output
    try:
        return kind(str(folder), local_files_only=True, model_kwargs=model_options or None)
    except Exception as exc:  # what is wrong with a folder shows in a dozen kinds of errors
        reason = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
        raise errors.ModelMissing(f"{folder} cannot be loaded as a sentence-transformers model: {reason}") from exc
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _plain(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """A model's tokenizer, neither padding nor cutting."""
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    return plain
