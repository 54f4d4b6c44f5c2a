"""How vectors travel, and metadata back: the one place where embeddings are turned into what PostgreSQL takes."""

from __future__ import annotations

import json
import re
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format
from sqlalchemy import ClauseElement, ColumnElement, Dialect, bindparam
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.sql.functions import Function
from sqlalchemy.types import TypeEngine, UserDefinedType

from searchapp.vectors import Array

# Writes $1 instead of %(name)s: psycopg need not look for placeholders in every statement, and a % is a %.
RAW_DIALECT = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


def literally(value: Any, type_: TypeEngine[Any] | None = None) -> ColumnElement[Any]:
    """A value that stands in the statement itself, where the planner sees it, quoted by the dialect.

    :param type_: None: what SQLAlchemy takes such a value for.
    """
    return bindparam(None, value, type_, literal_execute=True, unique=True)


class Parameter:
    """A query vector on its way to PostgreSQL.

    A class of our own, so that its binary dumper can be registered once for all connections (the caller's too) without
    touching how anybody else's arrays are sent.
    """

    __slots__ = ("vector",)

    def __init__(self, vector: npt.ArrayLike) -> None:
        self.vector = np.ascontiguousarray(vector, dtype=np.float32)


class _ParameterDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Parameter) -> bytes:
        return struct.pack(">hh", len(obj.vector), 0) + obj.vector.astype(">f4").tobytes()


class ArrayParameter:
    """Many query vectors on their way to PostgreSQL: a ``vector[]`` in one piece.

    :param vectors: shape (n_vectors, dimensions).
    :param oid: of the type vector in that database, which an array has in its head.
    """

    __slots__ = ("oid", "vectors")

    def __init__(self, vectors: npt.ArrayLike, oid: int) -> None:
        self.vectors = np.asarray(vectors, dtype=np.float32)
        self.oid = oid


class _ArrayParameterDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: ArrayParameter) -> bytes:
        return array_header(obj.oid, len(obj.vectors)) + packed(obj.vectors).tobytes()


def array_header(oid: int, length: int) -> bytes:
    """What stands before the elements of an array of one dimension in binary.

    *Source:* PostgreSQL's array_send: dimensions, flags, the elements' type; length and lower bound.
    """
    return struct.pack(">iiIii", 1, 0, oid, length, 1)


def layout(dimensions: int) -> list[Any]:
    """A vector as it travels, as fields of a NumPy structure: its size in bytes, dimensions, 0, and its elements.

    *Source:* pgvector's vector_send.
    """
    return [("size", ">i4"), ("dimensions", ">i2"), ("unused", ">i2"), ("embedding", ">f4", (dimensions,))]


def fill(table: npt.NDArray[Any], vectors: npt.ArrayLike) -> None:
    """Put vectors, shape (n_vectors, dimensions), into a structured array that has the fields of :func:`layout`."""
    table["dimensions"] = table.dtype["embedding"].shape[0]
    table["size"] = 4 + table.dtype["embedding"].itemsize
    table["embedding"] = vectors


def packed(vectors: Array) -> npt.NDArray[Any]:
    """Vectors, shape (n_vectors, dimensions), as they travel in binary."""
    table = np.zeros(len(vectors), dtype=layout(vectors.shape[1]))
    fill(table, vectors)
    return table


def received(sent: bytes) -> npt.NDArray[np.float32]:
    """A vector as pgvector's vector_send gives it."""
    return np.frombuffer(sent, dtype=">f4", offset=4).astype(np.float32)


psycopg.adapters.register_dumper(Parameter, _ParameterDumper)
psycopg.adapters.register_dumper(ArrayParameter, _ArrayParameterDumper)


# Of fewer digits every whole number has 64 bits, which is what orjson reads; it would round the others.
_LONG_NUMBER = re.compile(rb"[0-9]{19}").search


class JsonLoader(Loader):
    """Reads jsonb as psycopg does, in a third of the time, which with ten hits is some hundredths of a search."""

    def load(self, data: Buffer) -> Any:
        data = bytes(data)
        return json.loads(data) if _LONG_NUMBER(data) else orjson.loads(data)


class Vector(UserDefinedType[Array]):
    """SQLAlchemy type ``<schema>.vector(<dimensions>)``, or ``<schema>.vector``: binds float32 arrays in binary.

    pgvector's own type sends text (1.5 times slower) and knows no schema, which some hosts need (``extensions``).

    :param schema: that pgvector stands in; None: one on the search path.
    """

    cache_ok = True

    def __init__(self, schema: str | None, dimensions: int | None = None) -> None:
        self.schema = schema
        self.dimensions = dimensions

    def get_col_spec(self, **_: Any) -> str:
        schema = "" if self.schema is None else f"{quote(self.schema)}."
        return f"{schema}vector" + (f"({self.dimensions})" if self.dimensions else "")

    def bind_processor(self, dialect: Dialect) -> Any:  # noqa: ARG002  # SQLAlchemy's signature
        return lambda value: None if value is None else Parameter(value)


class VectorArray(UserDefinedType[Array]):
    """SQLAlchemy type ``<schema>.vector[]``: binds float32 arrays, shape (n_vectors, dimensions), in binary.

    :param oid: of the type vector in the database; None: nothing is bound.
    """

    cache_ok = True

    def __init__(self, schema: str, oid: int | None = None) -> None:
        self.schema = schema
        self.oid = oid

    def get_col_spec(self, **_: Any) -> str:
        return f"{quote(self.schema)}.vector[]"

    def bind_processor(self, dialect: Dialect) -> Any:  # noqa: ARG002  # SQLAlchemy's signature
        oid = self.oid
        return None if oid is None else lambda value: ArrayParameter(value, oid)


def as_text(element: ClauseElement) -> str:
    """The SQL text of a statement, or a part of one, with ``$1``, ``$2``, ... for its parameters."""
    return str(element.compile(dialect=RAW_DIALECT, compile_kwargs={"render_postcompile": True}))


def vector_function(schema: str, name: str, *arguments: Any) -> ColumnElement[Any]:
    """A function of pgvector's, in the schema that it stands in."""
    return Function(name, *arguments, packagenames=(schema,), type_=Vector(schema))


def vector_operator(schema: str, operator: str) -> str:
    """An operator of pgvector's, in the schema that it stands in."""
    return f"OPERATOR({quote(schema)}.{operator})"


def quote(identifier: str) -> str:
    """Quote a name for SQL.

    >>> quote('we"ird')
    '"we""ird"'
    """
    return '"' + identifier.replace('"', '""') + '"'
