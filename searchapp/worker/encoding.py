"""The models that a worker encodes by: loaded in the background, and queries before documents."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from searchapp import errors
from searchapp.encoders import Encoder, Model
from searchapp.encoders.registry import Registry
from searchapp.vectors import Array

# So long a model that could not be loaded is not tried again.
FAILED_SECONDS = 10.0
# So many texts of documents are encoded between looks whether a query waits, and for so long these are let pass.
PART = 16
PATIENCE_SECONDS = 2.0


class StillLoading(errors.SearchAppError):
    """A model that is being loaded."""


@dataclass(frozen=True, slots=True)
class Known:
    """A model as its row says; ``revision`` is empty where its weights are not known."""

    name: str
    revision: str


class Loading:
    """The models that were asked for, each loaded in the background: that may take a minute, and others go on. Safe for
    several threads."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._one = threading.Lock()
        self._loading: dict[Known, Future[Encoder]] = {}
        self._failed: dict[Known, float] = {}
        self._lock = threading.Lock()

    def begin(self, model: Known) -> Future[Encoder]:
        """Begin to load a model, unless that was begun; one that failed, after a while."""
        with self._lock:
            loading = self._loading.get(model)
            if loading is not None and self._has_expired(model, loading):
                loading = None
            if loading is None:
                loading = self._loading[model] = Future()
                # a daemon: whoever ends the worker does not wait for a model, as for a pool's threads
                arguments = model, loading
                threading.Thread(target=self._load, args=arguments, name="searchapp-loader", daemon=True).start()
            return loading

    def _has_expired(self, model: Known, loading: Future[Encoder]) -> bool:
        """Whether it failed, and that is a while ago."""
        if not loading.done() or loading.exception() is None:
            return False
        if time.monotonic() - self._failed.setdefault(model, time.monotonic()) < FAILED_SECONDS:
            return False
        del self._failed[model]
        return True

    def get(self, model: Known) -> Encoder | None:
        """A model, which is begun; None while it is being loaded. Raises what was raised in loading it."""
        loading = self.begin(model)
        return loading.result() if loading.done() else None

    def wait(self, model: Known) -> Encoder:
        """A model, once it is loaded.

        :raises errors.SearchAppError: it cannot be, whatever that is for: it is not the matter with what was to be
            encoded.
        """
        try:
            return self.begin(model).result()
        except errors.SearchAppError:
            raise
        except Exception as exc:
            raise errors.ModelMissing(f"the model {model.name} cannot be loaded: {errors.in_a_line(exc)}") from exc

    def now(self, model: Known) -> Encoder:
        """A model, which is begun.

        :raises StillLoading: it is being loaded.
        :raises errors.SearchAppError: as :meth:`wait`.
        """
        if not self.begin(model).done():
            raise StillLoading(f"the model {model.name} is being loaded")
        return self.wait(model)

    def doing(self) -> str:
        """What the worker does, for people."""
        with self._lock:
            names = [model.name for model, loading in self._loading.items() if not loading.done()]
        return f"loading {', '.join(names)}" if names else "answering"

    def _load(self, model: Known, loading: Future[Encoder]) -> None:
        with self._one:
            try:
                loading.set_result(self._loaded(model))
            except BaseException as exc:
                loading.set_exception(exc)

    def _loaded(self, model: Known) -> Encoder:
        encoder = self._registry.encoder(model.name)
        if model.revision and encoder.model.revision != model.revision:
            raise errors.ModelMismatch(
                f"other weights of {model.name} are here ({encoder.model.revision[:12]}) than those that collections "
                f"were made with ({model.revision[:12]})"
            )
        encoder.encode_queries(["a"])  # the first takes longer
        return encoder


class QueriesFirst:
    """Lets those who encode documents wait for those who encode queries. Safe for several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queries = 0

    @contextmanager
    def query(self) -> Iterator[None]:
        """While a query is encoded."""
        with self._changed:
            self._queries += 1
        try:
            yield
        finally:
            with self._changed:
                self._queries -= 1
                self._changed.notify_all()

    def wait(self) -> None:
        """Wait until no query is encoded; not for ever, for then nothing else would be."""
        with self._changed:
            self._changed.wait_for(lambda: not self._queries, PATIENCE_SECONDS)


class YieldingEncoder:
    """An encoder that lets queries pass between some documents and the next ones."""

    def __init__(self, encoder: Encoder, turns: QueriesFirst) -> None:
        self._encoder = encoder
        self._turns = turns

    @property
    def model(self) -> Model:
        return self._encoder.model

    @property
    def dimensions(self) -> int:
        return self._encoder.dimensions

    @property
    def max_tokens(self) -> int:
        return self._encoder.max_tokens

    @property
    def tokenizer(self) -> Tokenizer:
        return self._encoder.tokenizer

    def encode_documents(self, texts: Sequence[str]) -> Array:
        """As the encoder itself; texts of about the same length together, for an encoder pads the shorter ones."""
        embeddings = np.empty((len(texts), self.dimensions), dtype=np.float32)
        by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(texts), PART):
            self._turns.wait()
            part = by_length[start : start + PART]
            embeddings[part] = self._encoder.encode_documents([texts[place] for place in part])
        return embeddings

    def encode_queries(self, texts: Sequence[str]) -> Array:
        """As the encoder itself."""
        return self._encoder.encode_queries(texts)
