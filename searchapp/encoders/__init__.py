"""What turns texts into embeddings, and what scores passages for a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tokenizers import Tokenizer

from searchapp.vectors import Array


@dataclass(frozen=True, slots=True)
class Model:
    """What a model is, as its row in the database says.

    ``revision`` is a SHA-256 of the weights, for a folder also of its tokenizer and configuration; ``max_tokens`` the
    longest input, the special tokens counted in. The prefixes are what the model wants before a query
    and before a document (``query: `` and ``passage: `` for E5).
    """

    name: str
    provider: str
    revision: str
    dimensions: int
    max_tokens: int
    query_prefix: str = ""
    document_prefix: str = ""


class Encoder(Protocol):
    """A loaded model.

    Both ``encode_*`` return float32, shape (n_texts, dimensions), unit length, in the order of the texts; a text over
    ``max_tokens`` is cut at its end. ``tokenizer`` neither pads nor cuts.
    """

    @property
    def model(self) -> Model: ...

    @property
    def dimensions(self) -> int: ...

    @property
    def max_tokens(self) -> int: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def encode_documents(self, texts: Sequence[str]) -> Array: ...

    def encode_queries(self, texts: Sequence[str]) -> Array: ...


class CrossEncoder(Protocol):
    """A loaded model that reads a query and a passage together, and says how well the passage answers.

    ``scores`` are logits, float32, shape (n_passages,), any number, larger is better, in the order of the passages; a
    pair over ``model.max_tokens`` is cut at the end of its longer text. The ``model``'s ``dimensions`` are 1.
    """

    @property
    def model(self) -> Model: ...

    def scores(self, query: str, passages: Sequence[str]) -> Array: ...
