"""What the tests of sources share: looking at what is stored, and doing the work that waits."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
from sqlalchemy import Engine
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from searchapp.encoders import Encoder, Model
from searchapp.encoders.registry import Registry
from searchapp.vectors import Array
from searchapp.worker import Worker

SQL = psycopg.Connection[Any]


class Quick:
    """An encoder that is quick: its vectors tell texts apart, and no more; it counts what it encodes."""

    model = Model("all-MiniLM-L6-v2", "test", "quick", 384, 64)
    dimensions = 384
    max_tokens = 64
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))

    def __init__(self) -> None:
        self.tokenizer.pre_tokenizer = Whitespace()
        self.encoded: list[str] = []

    def encode_documents(self, texts: Any) -> Array:
        self.encoded.extend(texts)
        return np.stack([vector_of(each) for each in texts])

    def encode_queries(self, texts: Any) -> Array:
        return np.stack([vector_of(each) for each in texts])


def vector_of(text: str) -> Array:
    """The vector that :class:`Quick` makes of a text."""
    random = np.random.default_rng(list(text.encode()))
    made = random.standard_normal(Quick.dimensions).astype(np.float32)
    return np.asarray(made / np.linalg.norm(made), dtype=np.float32)


class QuickRegistry(Registry):
    """The default model is quick; others are as they are."""

    def __init__(self, registry: Registry) -> None:
        self.__dict__.update(registry.__dict__)
        self.quick = Quick()

    def model(self, name: str) -> Model:
        return self.quick.model if name == self.quick.model.name else super().model(name)

    def encoder(self, name: str) -> Encoder:
        return self.quick if name == self.quick.model.name else super().encoder(name)


def keep(engine: Engine, registry: Registry) -> int:
    """Do what waits; how many rows these were."""
    return Worker(engine, registry).run_once().rows


def stored(sql: SQL) -> list[tuple[str, str | None, str]]:
    """Keys, titles and texts of all documents, by their keys."""
    return sql.execute('SELECT key, title, text FROM searchapp_data.documents ORDER BY key COLLATE "C"').fetchall()


def keys(sql: SQL) -> list[str]:
    """The keys of all documents, in their order."""
    return [row[0] for row in stored(sql)]


def long_ago(sql: SQL) -> None:
    """As though all was compared, and polled, some hours ago."""
    sql.execute("UPDATE searchapp_data.sources SET checked_at = checked_at - interval '1 day'")


def value(sql: SQL, statement: Any, *parameters: Any) -> Any:
    """The one value that a statement gives."""
    row = sql.execute(statement, parameters).fetchone()
    assert row is not None
    return row[0]
