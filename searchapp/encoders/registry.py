"""Models by name: each loaded once, what is known of one without loading it, embeddings of recent queries."""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from searchapp.encoders import CrossEncoder, Encoder, Model, weights
from searchapp.encoders.graphs import EMBEDDINGS, SCORES, Cache
from searchapp.vectors import Array

logger = logging.getLogger("searchapp")

# Embeddings kept for queries that come again: 1.5 kB each at 384 dimensions.
QUERIES_KEPT = 1024


class Registry:
    """Encoders and cross-encoders, each loaded when it is first needed. Safe for several threads.

    :param home: where exported graphs are kept.
    """

    def __init__(self, home: Path) -> None:
        self._cache = Cache(home / "models", EMBEDDINGS)
        self._cross_encoders = Cache(home / "models" / "cross-encoders", SCORES)
        self._loaded: dict[str, Encoder] = {}
        self._lock = threading.Lock()
        self._loaded_cross_encoders: dict[str, CrossEncoder] = {}
        self._cross_encoder_lock = threading.Lock()  # of its own: an export takes a minute, and encoders are in use
        self._encode_query = lru_cache(maxsize=QUERIES_KEPT)(self._encode_one)

    def model(self, name: str) -> Model:
        """Say what a model is; one that is published or was exported is not loaded for that."""
        if found := self.known(name):
            return found
        name = weights.canonical_name(name)
        return self._cache.describe(name, _revision(name)) or self.encoder(name).model

    def known(self, name: str) -> Model | None:
        """What a model is, where that is known without loading it or asking the network."""
        name = weights.canonical_name(name)
        if published := weights.PUBLISHED.get(name):
            return published.model
        if name in self._loaded:
            return self._loaded[name].model
        return self._cache.describe(name, _revision(name)) if weights.is_folder(name) else None

    def encoder(self, name: str) -> Encoder:
        """Load a model, or return it where it is loaded.

        :raises errors.ModelMissing, errors.ModelCorrupted: its weights cannot be had, or are not the published ones.
        """
        name = weights.canonical_name(name)
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    def cross_encoder(self, name: str) -> CrossEncoder:
        """Load a cross-encoder, or return it where it is loaded.

        :param name: a folder, or a name on the hub (the owner cross-encoder may be left out).
        :raises errors.ModelMissing, errors.ModelCorrupted: it cannot be had, or is none; its weights are damaged.
        :raises errors.InvalidInput: it gives several numbers a pair.
        """
        name = weights.canonical_cross_encoder(name)
        with self._cross_encoder_lock:
            if name not in self._loaded_cross_encoders:
                self._loaded_cross_encoders[name] = self._load_cross_encoder(name)
            return self._loaded_cross_encoders[name]

    def preload(self, name: str) -> None:
        """Begin to load a model in another thread, if its graph is here; whoever asks for it then waits for that."""

        def load() -> None:
            with suppress(Exception):  # whoever asks for it meets the same, and says so
                self.encoder(name)

        if self.known(name) and self._cache.describe(name, _revision(name)):
            threading.Thread(target=load, name="searchapp-preload").start()

    def encode_query(self, name: str, query: str) -> Array:
        """The embedding of one query, read-only, shape (dimensions,): remembered where it was asked for lately."""
        return self._encode_query(weights.canonical_name(name), query)

    def _encode_one(self, name: str, query: str) -> Array:
        vector: Array = self.encoder(name).encode_queries([query])[0]
        vector.setflags(write=False)
        return vector

    def _load(self, name: str) -> Encoder:
        accelerated = has_accelerator()
        if not accelerated and (found := self._cache.find(name, _revision(name))):
            return found
        from searchapp.encoders.sentence_transformer import SentenceTransformerEncoder

        original = SentenceTransformerEncoder(name, weights.locate(name))
        return original if accelerated else self._cache.make(original)

    def _load_cross_encoder(self, name: str) -> CrossEncoder:
        folder, accelerated = weights.locate(name), has_accelerator()
        if not accelerated and (found := self._cross_encoders.find(name, weights.revision(folder))):
            return found
        from searchapp.encoders.sentence_transformer import SentenceTransformerCrossEncoder

        original = SentenceTransformerCrossEncoder(name, folder)
        return original if accelerated else self._cross_encoders.make(original)


@lru_cache
def shared(home: Path) -> Registry:
    """The registry of this process: its clients share the models that are loaded."""
    return Registry(home)


def _revision(name: str) -> str:
    """The SHA-256 of a model's weights; of a published one it is known without reading them."""
    published = weights.PUBLISHED.get(name)
    return published.model.revision if published else weights.revision(weights.locate(name))


def has_accelerator() -> bool:
    """Whether torch would use a GPU here. Where none can be, torch is not even imported."""
    if not (sys.platform == "darwin" or Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()):
        return False
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()
