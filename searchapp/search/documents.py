"""The documents themselves: those of a collection, those that a filter keeps, or one by its key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, func, select

from searchapp import database, errors
from searchapp.models import Document, document_id
from searchapp.search.filters import compile_filter
from searchapp.spaces import Space

# Among so many keys, three times, a near one is looked for.
KEYS_BESIDE = 300


def documents(space: Space, *, filter: Mapping[str, Any] | None = None) -> Select[Any]:
    """Build the statement for the documents of a collection.

    :return: columns ``id, key, title, text, metadata``, in no order.
    :raises errors.InvalidFilter: the filter cannot be understood.
    """
    statement = select(
        Document.id, Document.key, Document.title, Document.text, Document.metadata_.label("metadata")
    ).where(Document.collection_id == space.collection_id)
    return statement if filter is None else statement.where(compile_filter(filter, Document.metadata_, space.fields))


def check_there(connection: Connection, space: Space, keys: Sequence[str]) -> None:
    """Check that a collection has documents.

    :raises errors.DocumentMissing: it has none of a key; the message has the near ones.
    """
    there = select(Document.key).where(
        Document.collection_id == space.collection_id,
        Document.id.in_([document_id(space.collection_id, key) for key in keys]),
    )
    found = set(connection.scalars(there))
    for key in keys:
        if key not in found:
            near = database.near(key, _keys_beside(connection, space, key))
            raise errors.DocumentMissing(f"the collection {space.collection} has no document {key!r}; {near}")


def _keys_beside(connection: Connection, space: Space, key: str) -> list[str]:
    """The keys that stand beside one in their order, and some that begin alike."""
    keys = select(Document.key).where(Document.collection_id == space.collection_id).limit(KEYS_BESIDE)
    beside = [
        keys.where(Document.key >= key).order_by(Document.key),
        keys.where(Document.key < key).order_by(Document.key.desc()),
        keys.where(func.starts_with(Document.key, key[:1])).order_by(Document.key),
    ]
    return list({each: None for statement in beside for each in connection.scalars(statement)})
