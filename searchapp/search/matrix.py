"""Exact answers for many vectors at once: every row is read once, and compared with all of them by a matrix product.

PostgreSQL compares one vector with one row at a time: 256 exact searches read everything 256 times.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg.rows import tuple_row
from sqlalchemy import ColumnElement

from searchapp.search import statements
from searchapp.search.request import Request
from searchapp.spaces import Space
from searchapp.vectors import Array
from searchapp.wire import ArrayParameter, quote

Row = tuple[Any, ...]

# Rows that are read and compared at a time: 1.5 MB at 384 dimensions, which stays in the processor's caches.
BLOCK = 1024
# PostgreSQL's distances and ours differ by rounding; what is so near to the last place is compared by PostgreSQL.
MARGIN = 1e-4


def nearest_by_matrix(
    connection: psycopg.Connection[Any],
    space: Space,
    vectors: Array,
    request: Request,
) -> list[list[Row]]:
    """The nearest documents to each of many vectors, exactly.

    :param connection: in a transaction; its statements should see one state of the database (REPEATABLE READ).
    :param vectors: float32, shape (n_vectors, dimensions), checked.
    :return: for each vector rows of ``key, title, passage, metadata, distance, exact``, nearest first, then by key.
    """
    cursor = psycopg.RawCursor(connection, row_factory=tuple_row)
    end = request.offset + request.limit
    candidates = _Candidates(vectors, end)
    for ids, embeddings in _blocks(cursor, space, request.condition(space.fields)):
        candidates.compare(ids, embeddings)
    places, documents = candidates.within_reach()
    parameters = [ArrayParameter(vectors, space.vector_oid), places, documents]
    rows = cursor.execute(_ranking(space).encode(), parameters).fetchall()
    answers: list[list[Row]] = [[] for _ in vectors]
    for place, group in groupby(rows, key=itemgetter(-1)):
        answers[place - 1] = [row for row in list(group)[request.offset : end] if request.includes(row[4])]
    return answers


class _Candidates:
    """The documents that may be among the nearest of each vector.

    :param vectors: shape (n_vectors, dimensions).
    """

    def __init__(self, vectors: Array, limit: int) -> None:
        self._vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        self._limit = limit
        self._best = np.empty((len(vectors), 0), dtype=np.float32)
        self._found: list[tuple[npt.NDArray[np.intp], npt.NDArray[Any], Array]] = []

    def compare(self, ids: npt.NDArray[Any], embeddings: Array) -> None:
        """Compare a block of chunks with all vectors; chunks of one document stand side by side."""
        norms = np.linalg.norm(embeddings, axis=1)
        distances = 1 - (self._vectors @ embeddings.T) / norms
        starts = np.flatnonzero(np.r_[True, (ids[1:] != ids[:-1]).any(axis=1)])
        if len(starts) < len(ids):
            ids, distances = ids[starts], np.minimum.reduceat(distances, starts, axis=1)
        near = np.hstack([self._best, distances])
        if near.shape[1] > self._limit:
            near = np.partition(near, self._limit - 1, axis=1)[:, : self._limit]
        self._best = near
        places, columns = np.nonzero(distances <= self._reach()[:, None])
        self._found.append((places, ids[columns], distances[places, columns]))

    def _reach(self) -> Array:
        """How far a document may be from each vector to be among the nearest, as far as is known by now."""
        if self._best.shape[1] < self._limit:
            return np.full(len(self._best), np.inf, dtype=np.float32)
        reach: Array = self._best.max(axis=1) + np.float32(MARGIN)
        return reach

    def within_reach(self) -> tuple[list[int], list[uuid.UUID]]:
        """The candidates: the place of a vector, from 1, and the id of a document, side by side."""
        if not self._found:
            return [], []
        places, ids, distances = (np.concatenate(parts) for parts in zip(*self._found, strict=True))
        kept = distances <= self._reach()[places]
        halves = ids[kept].tolist()
        return (places[kept] + 1).tolist(), [uuid.UUID(int=high << 64 | low) for high, low in halves]


def _blocks(
    cursor: psycopg.RawCursor[Row], space: Space, condition: ColumnElement[bool] | None
) -> Iterator[tuple[npt.NDArray[Any], Array]]:
    """All chunks, a range of document ids at a time: ids (two halves each), embeddings.

    Each block comes as one value: a row each, as COPY sends them, took twice as long.
    """
    layout = np.dtype([("id", ">u8", (2,)), ("head", "V4"), ("embedding", ">f4", (space.dimensions,))])
    text = statements.rows_of(space, condition).encode()
    table = f"searchapp_data.chunks_{space.id}"
    size = cursor.execute("SELECT pg_relation_size($1::regclass)", [table]).fetchone()
    assert size is not None
    ranges = size[0] // (BLOCK * 4 * space.dimensions) + 1
    bounds = [number * (1 << 128) // ranges for number in range(ranges + 1)]
    for first, after in pairwise(bounds):
        found = cursor.execute(text, [uuid.UUID(int=first), uuid.UUID(int=after - 1)], binary=True).fetchone()
        if found is not None and found[0]:
            rows = np.frombuffer(found[0], dtype=layout)
            yield rows["id"], rows["embedding"].astype(np.float32)


def _ranking(space: Space) -> str:
    """The statement that puts candidates in order: $1 vectors, $2 places in them, $3 documents."""
    schema = quote(space.vector_schema)
    return (
        "SELECT d.key, d.title, substring(d.text FROM c.start + 1 FOR c.length), d.metadata, c.distance, true, p.place"
        " FROM unnest($2::int[], $3::uuid[]) AS p (place, document_id)"
        f" JOIN unnest($1::{schema}.vector[]) WITH ORDINALITY AS asked (vector, place) ON asked.place = p.place"
        " CROSS JOIN LATERAL ("
        f"  SELECT start, length, (embedding OPERATOR({schema}.<=>) asked.vector) + 0 AS distance"
        f"  FROM searchapp_data.chunks WHERE space_id = {space.id} AND document_id = p.document_id"
        "  ORDER BY distance, start LIMIT 1) c"
        f" JOIN searchapp_data.documents d ON d.collection_id = {space.collection_id} AND d.id = p.document_id"
        " ORDER BY p.place, c.distance, d.key"
    )
