"""Facets: how many documents have which value in a field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, cast, column, func, select, table
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH

from searchapp.models import Document
from searchapp.search.arrangement import check_field
from searchapp.search.filters import condition_of, path_to
from searchapp.search.request import check_limit
from searchapp.spaces import Space
from searchapp.wire import as_text, literally

_SCALARS = ("string", "number", "boolean")


def facets(
    space: Space,
    field: str,
    *,
    limit: int = 20,
    filter: Mapping[str, Any] | None = None,
    where: ColumnElement[bool] | Sequence[ColumnElement[bool]] = (),
) -> Select[Any]:
    """Build the statement for how many of a collection's documents have which value in a field.

    A document whose field is an array counts for each of its elements; one without the field, or with an object in it,
    for none.

    :param field: of the metadata, with dots into objects.
    :param limit: how many values, the most frequent first, equally frequent ones in the order of jsonb.
    :param filter: what a document's metadata must satisfy.
    :param where: conditions of the caller's own on ``searchapp.orm.Document``.
    :return: columns ``value``, as JSON, and ``documents``.
    :raises errors.InvalidInput, errors.InvalidFilter: a value that cannot be.
    """
    condition = condition_of(filter, where, Document.metadata_, space.fields)
    documents = select(Document.metadata_.label("metadata")).where(
        Document.collection_id == literally(space.collection_id)
    )
    if condition is not None:
        documents = documents.where(condition)
    return _counted(documents.subquery(), field, limit)


def facets_of_hits(search: str, field: str, limit: int) -> str:
    """The SQL text that counts the values of a field in the hits of a search.

    :param search: its SQL text, with columns ``metadata`` and ``current``.
    :return: columns ``value, documents, current``.
    """
    hits = select(column("metadata", JSONB)).select_from(table("hits"))
    counted = _counted(hits.subquery(), field, limit)
    return (
        f"WITH hits AS MATERIALIZED ({search})"
        f" SELECT counted.*, (SELECT bool_and(current) FROM hits) FROM ({as_text(counted)}) counted"
    )


def is_scalar(value: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a JSON value is a text, a number, or true or false."""
    return func.jsonb_typeof(value).in_([literally(each) for each in _SCALARS])


def _counted(documents: Any, field: str, limit: int) -> Select[Any]:
    """Equal values are counted as they are, and then taken apart where they are arrays: that is, once each."""
    metadata, name = documents.c.metadata, literally(check_field(field))
    of_path = func.jsonb_path_query_array(metadata, path_to(field, metadata))
    value = of_path if "." in field else metadata.op("->")(name)
    each = select(value.label("value")).select_from(documents).subquery()
    count = func.count().label("documents")
    whole = select(each.c.value, count).group_by(each.c.value).subquery()
    # of null, where the field is not there, there are none
    elements = func.jsonb_path_query(whole.c.value, cast(literally("$[*]"), JSONPATH), type_=JSONB).label("value")
    element = select(elements).correlate(whole).distinct().lateral()
    documents_of = cast(func.sum(whole.c.documents), BigInteger).label("documents")
    return (
        select(element.c.value, documents_of)
        .join_from(whole, element, is_scalar(element.c.value))
        .group_by(element.c.value)
        .order_by(documents_of.desc(), element.c.value)
        .limit(literally(check_limit(limit)))
    )
