"""The builder for the documents themselves: those of a collection, or those that a filter keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select, select

from searchapp.models import Document
from searchapp.search.filters import compile_filter
from searchapp.spaces import Space


def documents(space: Space, *, filter: Mapping[str, Any] | None = None) -> Select[Any]:
    """Build the statement for the documents of a collection.

    :return: columns ``id, key, title, text, metadata``, in no order.
    :raises errors.InvalidFilter: the filter cannot be understood.
    """
    statement = select(
        Document.id, Document.key, Document.title, Document.text, Document.metadata_.label("metadata")
    ).where(Document.collection_id == space.collection_id)
    return statement if filter is None else statement.where(compile_filter(filter, Document.metadata_, space.fields))
