"""What searchapp is compared with: psycopg alone, and one plain table."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql

from searchapp.search.question import Question
from searchapp.search.request import Request
from searchapp.search.statements import statement_of
from searchapp.spaces import Space
from searchapp.vectors import Array
from searchapp.wire import Parameter

Places = npt.NDArray[np.intp]

PLAIN = "SELECT key FROM bench.plain ORDER BY embedding <=> $1 LIMIT 10"

# Plain, but for the + 0 without which the index would be asked.
EXACT = """
SELECT d.key, d.title, substring(d.text, n.start + 1, n.length) AS passage, d.metadata, n.distance
FROM (
  SELECT document_id, start, length, (embedding <=> $1) + 0 AS distance
  FROM {chunks}
  ORDER BY (embedding <=> $1) + 0
  LIMIT 10
) AS n
JOIN {documents} AS d ON d.id = n.document_id
ORDER BY n.distance
"""


class Bare:
    """A connection of psycopg's in autocommit, which runs statements with a vector as their ``$1``."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)
        self._cursor = psycopg.RawCursor(self.connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.connection.close()

    def run(self, statement: str, parameters: Sequence[Any]) -> list[Any]:
        """Run a statement, prepared once for all values, and fetch all."""
        return self._cursor.execute(statement, parameters, prepare=True, binary=True).fetchall()

    def rows(self, statement: str, vector: Array, *, prepare: bool = True) -> list[Any]:
        """Run a statement for one vector, prepared once for all of them or not at all, and fetch all."""
        return self._cursor.execute(statement, [Parameter(vector)], prepare=prepare, binary=True).fetchall()


def search_statement(space: Space) -> str:
    """The statement that ``search_by_vector`` runs for ten hits."""
    return statement_of(space, Question(Request(limit=10))).text.decode()


def exact_statement(space: Space) -> str:
    """A plain statement for the ten nearest of a space, by a scan of all, with what a hit shows."""
    return sql.SQL(EXACT).format(chunks=chunks_table(space), documents=documents_table(space)).as_string(None)


def documents_table(space: Space) -> sql.Identifier:
    """The partition of a space's documents."""
    return sql.Identifier("searchapp_data", f"documents_{space.collection_id}")


def chunks_table(space: Space) -> sql.Identifier:
    """The partition of a space's chunks."""
    return sql.Identifier("searchapp_data", f"chunks_{space.id}")


def make_plain_table(connection: psycopg.Connection[Any], space: Space) -> None:
    """Make the plain table: the keys and embeddings of a space, with an index like its own."""
    statement = sql.SQL("CREATE TABLE bench.plain (key text, embedding vector({}))").format(space.dimensions)
    connection.execute("CREATE SCHEMA IF NOT EXISTS bench")
    connection.execute("DROP TABLE IF EXISTS bench.plain")
    connection.execute(statement)
    connection.execute(
        sql.SQL(
            "INSERT INTO bench.plain SELECT d.key, c.embedding FROM {chunks} c"
            " JOIN {documents} d ON d.id = c.document_id"
        ).format(chunks=chunks_table(space), documents=documents_table(space))
    )
    connection.execute("CREATE INDEX ON bench.plain USING hnsw (embedding vector_cosine_ops)")
    connection.execute("ANALYZE bench.plain (key)")


def set_ef_search(connection: psycopg.Connection[Any], ef_search: int) -> None:
    """Let the index look at so many candidates, as searchapp's own statement does for itself."""
    connection.execute(
        "SELECT set_config('hnsw.ef_search', %s, false), set_config('hnsw.iterative_scan', 'off', false)",
        [str(ef_search)],
    )


def read_embeddings(connection: psycopg.Connection[Any], space: Space) -> Array:
    """All embeddings of a space by COPY BINARY: float32, shape (n_chunks, dimensions).

    *Source:* https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"; pgvector's vector_send.
    """
    layout = [("fields", ">i2"), ("id_size", ">i4"), ("id", "V16"), ("size", ">i4"), ("head", "V4")]
    row = np.dtype([*layout, ("embedding", ">f4", (space.dimensions,))])
    statement = sql.SQL("COPY (SELECT document_id, embedding FROM {}) TO STDOUT (FORMAT binary)")
    with connection.cursor().copy(statement.format(chunks_table(space))) as copy:
        packed = b"".join(copy)
    # 19 bytes of header before the rows, 2 of trailer behind them
    rows = np.frombuffer(packed, dtype=row, count=(len(packed) - 21) // row.itemsize, offset=19)
    embeddings: Array = rows["embedding"].astype(np.float32)
    return embeddings


def nearest_by_numpy(queries: Array, embeddings: Array, limit: int) -> tuple[Places, Array]:
    """The nearest rows of each query by one product of matrices.

    :param queries: float32, shape (n_queries, dimensions), of any length but zero.
    :return: places in ``embeddings`` and cosines, both of shape (n_queries, limit), in no order.
    """
    cosines = _unit(queries) @ _unit(embeddings).T
    places = np.argpartition(cosines, -limit, axis=1)[:, -limit:]
    return places, np.take_along_axis(cosines, places, axis=1)


def _unit(vectors: Array) -> Array:
    unit: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
