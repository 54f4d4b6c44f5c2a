"""Putting in: texts until they can be searched, and vectors against COPY."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from benchmarks import bare, timing
from benchmarks.bench import Bench, benchmark
from benchmarks.goals import Result
from searchapp.spaces import Space

# Texts are encoded first, so that nothing is done for the first time while it is measured.
WARM_UP = 1000
# What is packed for COPY beforehand is sent in pieces of this size.
PIECE = 1 << 20  # bytes


def text_to_searchable(bench: Bench) -> Result:
    """``ingest`` with its index, against the encoder alone on the same texts."""
    documents = bench.corpus.documents[: bench.sizes.ingested]
    texts = [document.text for document in documents]
    names = (f"ingested_{number}" for number in itertools.count())

    def ingest() -> float:
        name = next(names)
        took = timing.seconds(
            lambda: bench.db.ingest(documents, collection=name, chunk_tokens=bench.corpus.chunk_tokens)
        )
        bench.drop(name)
        return took

    bench.say("warm-up")
    bench.encoder.encode_documents(texts[:WARM_UP])
    bench.db.ingest(documents[:WARM_UP], collection="ingested_first", chunk_tokens=bench.corpus.chunk_tokens)
    bench.drop("ingested_first")
    sides = {"encoder alone": timing.timed(lambda: bench.encoder.encode_documents(texts)), "ingest": ingest}
    rounds = timing.take_turns(sides, bench.sizes.long_rounds, bench.say)
    return Result(
        {"text to searchable": rounds.ratio("ingest", "encoder alone")},
        {"texts": len(texts), **rounds.details("s")},
    )


def load_vectors(bench: Bench) -> Result:
    """``load_vectors`` up to its index, against COPY of the same rows into the same two tables."""
    source = bench.db.space(bench.collection(bench.rows).name)
    names = (f"copied_{number}" for number in itertools.count())
    index_seconds: list[float] = []

    def ours() -> float:
        name = next(names)
        bench.db.create_collection(name, words=False)
        bench.checkpoint()
        loaded = bench.load(name, bench.rows)
        index_seconds.append(loaded.index_seconds)
        bench.drop(name)
        return loaded.seconds

    def theirs() -> float:
        name = next(names)
        packed = pack(bench.url, source, bench.db.create_collection(name, words=False))
        bench.checkpoint()
        with psycopg.connect(bench.url) as connection:
            took = timing.seconds(lambda: copy_in(connection, packed))
        bench.drop(name)
        return took

    timing.warm_up({"COPY": theirs}, bench.say)
    rounds = timing.take_turns({"searchapp": ours, "COPY": theirs}, bench.sizes.long_rounds, bench.say)
    return Result(
        {
            "load vectors: against COPY": rounds.ratio("COPY", "searchapp"),
            "load vectors: index, seconds": statistics.median(index_seconds),
        },
        {
            "rows": bench.rows,
            "searchapp, rows/s": bench.rows / rounds.median("searchapp"),
            "COPY, rows/s": bench.rows / rounds.median("COPY"),
            **rounds.details("s"),
        },
    )


@dataclass(frozen=True, slots=True)
class Packed:
    """The rows of one table, as COPY BINARY has them, in pieces."""

    table: sql.Identifier
    columns: sql.Composed
    pieces: list[bytes]


def pack(url: str, source: Space, target: Space) -> list[Packed]:
    """The rows of a loaded collection, made rows of another that is empty.

    The server packs them, in the order in which ``load_vectors`` wrote them: that decides what their indexes cost.
    """
    with psycopg.connect(url) as connection:
        return [
            _pack(
                connection,
                bare.documents_table(source),
                bare.documents_table(target),
                {"collection_id": target.collection_id},
                ["id", "key", "title", "text", "metadata", "content_hash"],
            ),
            _pack(
                connection,
                bare.chunks_table(source),
                bare.chunks_table(target),
                {"space_id": target.id},
                ["document_id", "position", "start", "length", "embedding"],
            ),
        ]


def _pack(
    connection: psycopg.Connection[Any],
    source: sql.Identifier,
    target: sql.Identifier,
    replaced: dict[str, int],
    kept: list[str],
) -> Packed:
    columns = sql.SQL(", ").join(map(sql.Identifier, kept))
    values = sql.SQL(", ").join(map(sql.Literal, replaced.values()))
    statement = sql.SQL("COPY (SELECT {}, {} FROM {}) TO STDOUT (FORMAT binary)").format(values, columns, source)
    with connection.cursor().copy(statement) as copy:
        packed = b"".join(copy)
    pieces = [packed[start : start + PIECE] for start in range(0, len(packed), PIECE)]
    return Packed(target, sql.SQL(", ").join(map(sql.Identifier, [*replaced, *kept])), pieces)


def copy_in(connection: psycopg.Connection[Any], tables: list[Packed]) -> None:
    """Copy packed rows into their tables, in one transaction."""
    with connection.transaction(), connection.cursor() as cursor:
        for each in tables:
            statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(each.table, each.columns)
            with cursor.copy(statement) as copy:
                for piece in each.pieces:
                    copy.write(piece)


BENCHMARKS = (
    benchmark("text to searchable", text_to_searchable, {"text to searchable": ("<= 1.15", "x")}),
    benchmark(
        "load vectors",
        load_vectors,
        {"load vectors: against COPY": (">= 0.85", "x"), "load vectors: index, seconds": ("none", "s")},
    ),
)
