"""Collections of made-up vectors, for tests of what no model is needed for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from searchapp import database, spaces
from searchapp.client import Client
from searchapp.ingest import packing
from searchapp.models import document_id
from searchapp.spaces import Space
from searchapp.vectors import Array

DIMENSIONS = 384
RANDOM = np.random.default_rng(7)


def unit(vectors: Array) -> Array:
    """The vectors, each of length 1."""
    scaled: Array = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


def random_vectors(count: int) -> Array:
    """Random directions, float32, shape (count, 384)."""
    return unit(RANDOM.standard_normal((count, DIMENSIONS)).astype(np.float32))


@contextmanager
def driver_of(engine: Engine) -> Iterator[psycopg.Connection[Any]]:
    """The connection of the pool that was used last."""
    with engine.connect() as connection:
        yield database.driver_of(connection)


def fill(
    db: Client,
    name: str,
    chunks: list[Array],
    metadata: Callable[[int], dict[str, Any]] = lambda _: {},
    fields: dict[str, str] | None = None,
) -> Space:
    """Make a collection: document number i has these vectors, a chunk each; its key is that number in four digits."""
    space = db.create_collection(name, fields=fields)
    ids = [document_id(space.collection_id, f"{number:04}") for number in range(len(chunks))]
    with db._transaction() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        with driver.cursor() as cursor:
            columns = "collection_id, id, key, text, metadata, content_hash"
            with cursor.copy(f"COPY searchapp_data.documents ({columns}) FROM STDIN") as copy:
                for number, id_ in enumerate(ids):
                    made = Jsonb(metadata(number))
                    copy.write_row((space.collection_id, id_, f"{number:04}", f"text {number}", made, b""))
        owners = [id_.bytes for id_, vectors in zip(ids, chunks, strict=True) for _ in vectors]
        places = [place for vectors in chunks for place in range(len(vectors))]
        rows = packing.chunks(space.id, owners, places, places, [1] * len(owners), np.concatenate(chunks))
        packing.copy(connection, f"searchapp_data.chunks ({packing.CHUNK_COLUMNS})", [rows])
    spaces.build_index(db._transaction, space)
    return db.space(name)
