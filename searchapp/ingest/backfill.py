"""Words for a collection that was made without: batch by batch, while it is searched and written to.

Whoever writes to the collection meanwhile makes the words of what they write. A backfill that is interrupted goes on
where it stood, and two at once share the work.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Select, func, select, update

from searchapp import errors, faults, spaces
from searchapp.database import Transaction
from searchapp.ingest import words
from searchapp.ingest.load import lock_documents
from searchapp.models import Collection, Document
from searchapp.spaces import Space

BATCH = 1000


@dataclass(frozen=True, slots=True)
class Backfilled:
    """How far a backfill is: ``documents`` of ``total`` have their words."""

    documents: int
    total: int


def make_words(transaction: Transaction, space: Space, told: Callable[[Backfilled], None]) -> int:
    """Make the words of all documents that lack theirs.

    :param space: of a collection that :func:`searchapp.spaces.give_words` was called for.
    :param told: told of each batch.
    :return: how many documents were read.
    :raises errors.CollectionMissing: it was dropped meanwhile.
    """
    with transaction() as connection:
        total = connection.scalar(_documents(space).with_only_columns(func.count())) or 0
        until = connection.scalar(select(Collection.backfilled_until).where(Collection.id == space.collection_id))
        left = 0
        if until is not None:
            left = connection.scalar(_documents(space, after=until).with_only_columns(func.count())) or 0
    made = 0
    while done := _make_batch(transaction, space):
        made += done
        faults.point("between-batches-of-words")
        told(Backfilled(min(total - left + made, total), total))
    with transaction() as connection:
        spaces.finish_words(connection, space)
    return made


def _make_batch(transaction: Transaction, space: Space) -> int:
    """Make the words of the next documents; return how many these were."""
    with transaction() as connection:
        # who else is at it waits here, and then sees how far this one came
        until = connection.execute(
            select(Collection.backfilled_until, Collection.state)
            .where(Collection.id == space.collection_id)
            .with_for_update()
        ).one_or_none()
        if until is None or until.state != "ready":
            raise errors.CollectionMissing(f"the collection {space.collection} was dropped meanwhile")
        if until.backfilled_until is None:
            return 0
        ids = list(
            connection.scalars(_documents(space, after=until.backfilled_until).order_by(Document.id).limit(BATCH))
        )
        if not ids:
            return 0
        found = lock_documents(connection, space.collection_id, ids)
        words.remove(connection, space.collection_id, found)  # of those that were written meanwhile
        words.add(connection, space.collection_id, found)
        _note(connection, space, ids[-1])
    return len(ids)


def _note(connection: Connection, space: Space, until: uuid.UUID) -> None:
    statement = update(Collection).where(Collection.id == space.collection_id)
    connection.execute(statement.values(backfilled_until=until))


def _documents(space: Space, after: uuid.UUID | None = None) -> Select[uuid.UUID]:
    statement = select(Document.id).where(Document.collection_id == space.collection_id)
    return statement if after is None else statement.where(Document.id > after)
