"""A model that takes its time: for workers of tests, and processes that run one."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from searchapp import database
from searchapp.encoders import Encoder, Model
from searchapp.encoders.registry import Registry
from searchapp.vectors import Array
from searchapp.worker import Worker

MODEL = Model(name="waiting", provider="test", revision="1", dimensions=8, max_tokens=256)
POISON = "poison"


def embedding(text: str) -> Array:
    """The embedding of a text, a function of its letters."""
    numbers = np.frombuffer(hashlib.sha256(text.encode()).digest()[:8], dtype=np.uint8).astype(np.float32) + 1
    vector: Array = numbers / np.linalg.norm(numbers)
    return vector


class WaitingEncoder:
    """Encodes after a random while, and fails where a text has a certain word.

    :param longest: seconds.
    """

    def __init__(self, longest: float) -> None:
        self.model = MODEL
        self.dimensions = MODEL.dimensions
        self.max_tokens = MODEL.max_tokens
        self.tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        self.encoded: list[str] = []
        self._longest = longest

    def encode_documents(self, texts: Sequence[str]) -> Array:
        time.sleep(random.uniform(0, self._longest))
        self.encoded += texts
        if any(POISON in text for text in texts):
            raise ValueError("a text is poisonous")
        return np.array([embedding(text) for text in texts], dtype=np.float32)

    def encode_queries(self, texts: Sequence[str]) -> Array:
        return np.array([embedding(text) for text in texts], dtype=np.float32)


class WaitingRegistry(Registry):
    """Knows that model alone.

    :param loading: seconds that it takes to load it.
    """

    def __init__(self, longest: float = 0.0, loading: float = 0.0) -> None:
        super().__init__(Path("/nonexistent"))
        self.waiting = WaitingEncoder(longest)
        self._seconds = loading

    def model(self, _: str) -> Model:
        return MODEL

    def known(self, _: str) -> Model:
        return MODEL

    def encoder(self, _: str) -> Encoder:
        time.sleep(self._seconds)
        return self.waiting


def work(url: str, longest: float, fault: str = "", loading: float = 0.0) -> None:
    """Run a worker with such a model until it is killed, or told to end."""
    os.environ["SEARCHAPP_FAULT"] = fault
    engine = database.create_engine(database.parse_url(url))
    worker = Worker(engine, WaitingRegistry(longest, loading), poll_interval=0.05)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()


def start(url: str, longest: float, fault: str = "", loading: float = 0.0) -> BaseProcess:
    """A process that runs a worker, begun; forked from one that has imported all, so that it is there at once.

    :param fault: where it is to be killed; as ``SEARCHAPP_FAULT``.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.waiting_encoder"])
    process = context.Process(target=work, args=(url, longest, fault, loading), daemon=True)
    process.start()
    return process
