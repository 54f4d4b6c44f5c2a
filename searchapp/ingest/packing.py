"""Rows as COPY BINARY wants them.

*Source:* https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy import Connection

from searchapp import database, wire
from searchapp.vectors import Array

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_DOCUMENT = struct.Struct(">hiii16si")  # seven fields; collection_id and id are as long in every row; the key's size
_SIZE = struct.Struct(">i")
_JSONB = struct.Struct(">iB")  # the size, and the version of jsonb's binary form, which is counted in
_HASH_SIZE = _SIZE.pack(32)
_NULL = _SIZE.pack(-1)

_UUID_OID = 2950

DOCUMENT_COLUMNS = "collection_id, id, key, title, text, metadata, content_hash"
CHUNK_COLUMNS = "space_id, document_id, position, start, length, embedding"


class Ids:
    """The ids of documents on their way to PostgreSQL: a ``uuid[]`` in one piece."""

    __slots__ = ("ids",)

    def __init__(self, ids: Sequence[bytes]) -> None:
        self.ids = ids


class _IdsDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Ids) -> bytes:
        table = np.zeros(len(obj.ids), dtype=[("size", ">i4"), ("id", "V16")])
        table["size"], table["id"] = 16, np.frombuffer(b"".join(obj.ids), dtype="V16")
        return wire.array_header(_UUID_OID, len(obj.ids)) + table.tobytes()


psycopg.adapters.register_dumper(Ids, _IdsDumper)


def document(
    collection_id: int, document_id: bytes, key: str, title: str | None, text: str, metadata: bytes, content_hash: bytes
) -> bytes:
    """One row of documents; ``metadata`` as JSON, ``content_hash`` of 32 bytes."""
    name, body = key.encode(), text.encode()
    heading = None if title is None else title.encode()
    return b"".join(
        (
            _DOCUMENT.pack(7, 4, collection_id, 16, document_id, len(name)),
            name,
            _NULL if heading is None else _SIZE.pack(len(heading)) + heading,
            _SIZE.pack(len(body)),
            body,
            _JSONB.pack(len(metadata) + 1, 1),
            metadata,
            _HASH_SIZE,
            content_hash,
        )
    )


def chunks(
    space_id: int,
    ids: Sequence[bytes],
    positions: Sequence[int] | int,
    starts: Sequence[int] | int,
    lengths: Sequence[int],
    embeddings: Array,
) -> memoryview:
    """Rows of chunks, whose embeddings have the shape (n_chunks, dimensions).

    Every row is as long as the next, so they are one structured array: no Python object a value.
    """
    numbers = {"space": space_id, "position": positions, "start": starts, "length": lengths}
    layout: list[Any] = [("fields", ">i2"), ("space_size", ">i4"), ("space", ">i4"), ("id_size", ">i4"), ("id", "V16")]
    for name in ("position", "start", "length"):
        layout += [(f"{name}_size", ">i4"), (name, ">i4")]
    table = np.zeros(len(ids), dtype=layout + wire.layout(embeddings.shape[1]))
    table["fields"], table["id_size"] = 6, 16
    table["id"] = np.frombuffer(b"".join(ids), dtype="V16")
    for name, values in numbers.items():
        table[f"{name}_size"], table[name] = 4, values
    wire.fill(table, embeddings)
    return memoryview(table.view(np.uint8))  # type: ignore[arg-type]  # a buffer on Python 3.11 too


def copy(connection: Connection, target: str, rows: Iterable[bytes | memoryview]) -> None:
    """Send packed rows to a table.

    :param target: the table and its columns, as COPY names them.
    """
    with (
        database.driver_of(connection).cursor() as cursor,
        cursor.copy(f"COPY {target} FROM STDIN (FORMAT binary)".encode()) as copying,
    ):
        copying.write(_HEADER)
        for row in rows:
            copying.write(row)
        copying.write(_TRAILER)
