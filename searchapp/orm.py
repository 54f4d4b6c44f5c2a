"""For the caller's own classes: a column of embeddings with its index, and the documents that ``where=`` speaks of.

>>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
>>> class Base(DeclarativeBase):
...     pass
>>> class Product(Base):
...     __tablename__ = "products"
...     id: Mapped[int] = mapped_column(primary_key=True)
...     embedding: Mapped[list[float] | None] = embedding("all-MiniLM-L6-v2")
>>> Product.embedding.type.dim, [index.name for index in Product.__table__.indexes]
(384, ['products_embedding_hnsw'])
"""

from __future__ import annotations

from typing import Any

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, ColumnElement, Index, Table, Text, and_, cast, event
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import MappedColumn, mapped_column
from sqlalchemy.sql import coercions, roles
from sqlalchemy.sql.elements import Grouping

from searchapp import errors
from searchapp.encoders import weights
from searchapp.models import Document as Document
from searchapp.spaces import MAX_DIMENSIONS


def embedding(model: str | int, **options: Any) -> MappedColumn[Any]:
    """A mapped column of a model's embeddings, with its HNSW index for cosine distance, ``<table>_<column>_hnsw``.

    ``searchapp.nearest`` searches it. It takes arrays of float32, shape (dimensions,), and gives lists.

    :param model: a model that searchapp knows, or how many dimensions another has.
    :param options: what :func:`sqlalchemy.orm.mapped_column` takes.
    :raises errors.InvalidInput: too many dimensions, or too few.
    :raises errors.ModelMissing: searchapp does not know the model; give the number of its dimensions.
    """
    dimensions = model if isinstance(model, int) else _dimensions(model)
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise errors.InvalidInput(f"{dimensions} dimensions; expected 1 to {MAX_DIMENSIONS:,}")
    mapped: MappedColumn[Any] = mapped_column(VECTOR(dimensions), **options)
    event.listen(mapped.column, "after_parent_attach", _index)
    return mapped


def has_key(key: ColumnElement[str], *columns: Any) -> ColumnElement[bool]:
    """The condition that a row of a source's table has a hit's key: for joins of hits back to the table.

    The key is cast, not the columns, so their index is used.

    :param key: the column ``key`` of a builder's hits, or of documents.
    :param columns: those of the source's key, in its order.

    >>> from sqlalchemy import BigInteger, column
    >>> print(has_key(column("key"), column("id", BigInteger)))
    id = CAST(key AS BIGINT)
    """
    mapped: list[ColumnElement[Any]] = [coercions.expect(roles.ExpressionElementRole, column) for column in columns]
    if len(mapped) == 1:
        return mapped[0] == cast(key, mapped[0].type)
    parts = Grouping(cast(key, ARRAY(Text)))  # PostgreSQL wants parentheses before the [
    return and_(*(column == cast(parts[place], column.type) for place, column in enumerate(mapped, start=1)))


def _index(column: Column[Any], table: Table) -> None:
    Index(
        f"{table.name}_{column.name}_hnsw",
        column,
        postgresql_using="hnsw",
        postgresql_ops={column.key: "vector_cosine_ops"},
    )


def _dimensions(model: str) -> int:
    published = weights.PUBLISHED.get(model)
    if published is None:
        known = ", ".join(weights.PUBLISHED)
        raise errors.ModelMissing(f"the dimensions of {model!r} are not known (of {known} they are); give their number")
    return published.model.dimensions
