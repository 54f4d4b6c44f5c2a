"""Models by name: what is known of one without loading it, and one loaded encoder each."""

from __future__ import annotations

import threading

from searchapp.encoders import Encoder, Model, weights


class Registry:
    """The encoders of one client, each loaded when it is first needed. Safe for several threads."""

    def __init__(self) -> None:
        self._loaded: dict[str, Encoder] = {}
        self._lock = threading.Lock()

    def model(self, name: str) -> Model:
        """Say what a model is; a published one is not loaded for that."""
        published = weights.PUBLISHED.get(weights.canonical_name(name))
        return published.model if published else self.encoder(name).model

    def encoder(self, name: str) -> Encoder:
        """Load a model, or return it where it is loaded.

        :raises errors.ModelMissing, errors.ModelCorrupted: its weights cannot be had, or are not the published ones.
        """
        name = weights.canonical_name(name)
        with self._lock:
            if name not in self._loaded:
                from searchapp.encoders.sentence_transformer import SentenceTransformerEncoder

                self._loaded[name] = SentenceTransformerEncoder(name, weights.locate(name))
            return self._loaded[name]
