"""How vectors travel: the one place where embeddings are turned into what PostgreSQL takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pgvector
import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy import Dialect
from sqlalchemy.types import UserDefinedType

Array = npt.NDArray[np.float32]


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
        return pgvector.Vector(obj.vector).to_binary()


psycopg.adapters.register_dumper(Parameter, _ParameterDumper)


class Vector(UserDefinedType[Array]):
    """SQLAlchemy type ``<schema>.vector(<dimensions>)``: binds float32 arrays in binary.

    pgvector's own type sends text (1.5 times slower) and knows no schema, which some hosts need (``extensions``).
    """

    cache_ok = True

    def __init__(self, dimensions: int, schema: str) -> None:
        self.dimensions = dimensions
        self.schema = schema

    def get_col_spec(self, **_: Any) -> str:
        return f"{quote(self.schema)}.vector({self.dimensions})"

    def bind_processor(self, dialect: Dialect) -> Any:  # noqa: ARG002  # SQLAlchemy's signature
        return lambda value: None if value is None else Parameter(value)


def quote(identifier: str) -> str:
    """Quote a name for SQL.

    >>> quote('we"ird')
    '"we""ird"'
    """
    return '"' + identifier.replace('"', '""') + '"'
