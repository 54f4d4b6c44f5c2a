"""Expressions that several statements are made of."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Double, Select, and_, func, literal, literal_column, select

from searchapp.models import Document
from searchapp.spaces import Space
from searchapp.wire import literally


def is_document(space: Space, document_id: Any) -> ColumnElement[bool]:
    """Whether a row of documents is the one of that id."""
    return and_(Document.id == document_id, Document.collection_id == literally(space.collection_id))


def shown(space: Space, hits: Any, *columns: ColumnElement[Any]) -> Select[Any]:
    """What is shown of hits: ``key, title, passage, metadata``, and these columns.

    :param hits: ``document_id, start, length``.
    """
    passage = func.substring(Document.text, hits.c.start + literal_column("1"), hits.c.length).label("passage")
    statement = select(Document.key, Document.title, passage, Document.metadata_.label("metadata"), *columns)
    return statement.join_from(hits, Document, is_document(space, hits.c.document_id))


def best_first(scored: Any) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """The order of rows of ``score, document_id``, which is always the same."""
    return scored.c.score.desc(), scored.c.document_id


def as_threshold(value: float | None) -> ColumnElement[float] | None:
    """A builder's threshold as a parameter; None: there is none."""
    return None if value is None else literal(value, Double)


def as_float(number: str) -> ColumnElement[float]:
    """A constant; a bare decimal is numeric, and over three times as slow."""
    return literal_column(f"{number}::float8", Double)


def ratio(one: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[float]:
    """One divided by the other, without SQLAlchemy's cast, which makes numeric of it."""
    return one.op("/", precedence=8, return_type=Double())(other)
