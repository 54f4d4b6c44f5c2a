"""What is done to a collection that is in use, without keeping anybody waiting: retire and drop it, declare its fields.

What is CONCURRENTLY runs in no transaction, so each of these can be interrupted; the next one takes away what is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy
from sqlalchemy import Connection, select, text, update
from sqlalchemy.dialects.postgresql import JSONB

from searchapp import database, errors, fields, models, partitions, spaces
from searchapp.fields import Field
from searchapp.partitions import documents_table, execute
from searchapp.spaces import Space

# An index that is made or dropped CONCURRENTLY waits for all open transactions, and nobody waits for it meanwhile.
INDEX_LOCK_TIMEOUT = "10min"
# "maintain" in hexadecimal: the advisory lock of those who are at it.
MAINTENANCE_LOCK = 0x6D61696E7461696E


def retire(connection: Connection, name: str) -> None:
    """Take a collection out of sight at once; :func:`drop_retired` gives its room back.

    :raises errors.CollectionMissing: there is no such collection; the message has the near names.
    """
    retired = connection.scalar(
        update(models.Collection)
        .where(models.Collection.name == name, models.Collection.state == "ready")
        .values(state="retired", active_space=None)
        .returning(models.Collection.id)
    )
    if retired is None:
        raise errors.CollectionMissing(f"no collection {name!r}; {database.near(name, spaces.names(connection))}")
    connection.execute(update(models.Space).where(models.Space.collection_id == retired).values(state="retired"))
    _hide(connection, name)


def _hide(connection: Connection, name: str) -> None:
    connection.execute(text("SELECT searchapp_data.hide_collection(:name)"), {"name": name})


def owns_tables(connection: Connection) -> bool:
    """Whether this role may detach and drop partitions."""
    statement = text("SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass(:documents)")
    return bool(connection.scalar(statement, {"documents": f"{models.SCHEMA}.documents"}))


def drop_retired(connection: Connection, *, concurrently: bool = True) -> int:
    """Detach and drop the partitions of retired collections and spaces; finishes what an earlier call was killed in.

    :param connection: in autocommit, for nothing that is CONCURRENTLY runs in a transaction.
    :param concurrently: False behind a pooler, where a lock or a setting of the session would become another's:
        ``connection`` is in a transaction then, and searches may have to wait for a moment.
    :return: how many partitions were dropped; none where another process is at it.
    :raises errors.LockNotAvailable: somebody's open transaction has read them; another call goes on.
    """
    with _maintenance(connection, concurrently, partitions.LOCK_TIMEOUT) as alone:
        if not alone:
            return 0
        partitions.finish_detaching(connection)
        _drop_undeclared_indexes(connection, concurrently)
        return _drop_spaces(connection, concurrently) + _drop_collections(connection, concurrently)


@contextmanager
def _maintenance(connection: Connection, concurrently: bool, lock_timeout: str) -> Iterator[bool]:
    """Hold the lock of those who do what is CONCURRENTLY; false where another process has it.

    :param lock_timeout: where it is CONCURRENTLY; else others would wait as long.
    """
    if not concurrently:
        execute(connection, f"SET LOCAL lock_timeout = '{partitions.LOCK_TIMEOUT}'")
        yield bool(connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": MAINTENANCE_LOCK}))
        return
    if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": MAINTENANCE_LOCK}):
        yield False
        return
    try:
        execute(connection, f"SET lock_timeout = '{lock_timeout}'")
        yield True
    finally:
        if not connection.invalidated:  # the session has ended, and its lock
            execute(connection, "RESET lock_timeout")
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MAINTENANCE_LOCK})


def _drop_undeclared_indexes(connection: Connection, concurrently: bool) -> None:
    """Drop the indexes of fields that are not declared: one that was killed in the middle, or while being dropped."""
    indexes = partitions.field_indexes(connection)  # before what is declared: a collection may be made meanwhile
    declared = {
        fields.index_name(collection_id, name)
        for collection_id, settings in connection.execute(select(models.Collection.id, models.Collection.settings))
        for name in settings.get("fields", {})
    }
    for index in indexes:
        if index not in declared:
            partitions.drop_field_index(connection, index, concurrently=concurrently)


def add_field(
    connection: Connection, collection: str, field: Field, vector_schema: str, *, concurrently: bool = True
) -> None:
    """Declare a field of a collection, after its index is made.

    :param connection, concurrently: as for :func:`drop_retired`; writers do not wait where it is CONCURRENTLY.
    :raises errors.InvalidInput: it is declared already.
    :raises errors.CollectionMissing: there is no such collection, or it was dropped meanwhile.
    :raises errors.LockNotAvailable: another process is at maintenance, or a transaction stays open for too long.
    :raises errors.PermissionDenied: this role does not own the tables.
    """
    with _alone(connection, concurrently):
        space = spaces.find(connection, collection, vector_schema)
        if known := next((each for each in space.fields if each.name == field.name), None):
            raise errors.InvalidInput(f"the field {field.name} of {collection} is declared already, as {known.type}")
        index = fields.index_name(space.collection_id, field.name)
        partitions.drop_field_index(connection, index, concurrently=concurrently)  # of one that was interrupted
        partitions.create_field_index(connection, space.collection_id, field, concurrently=concurrently)
        execute(connection, "ANALYZE {documents}", documents=documents_table(space.collection_id))
        _declare(connection, space, (*space.fields, field))


def drop_field(
    connection: Connection, collection: str, name: str, vector_schema: str, *, concurrently: bool = True
) -> None:
    """Take a field's declaration back, after its index is dropped; filters on it go on working, more slowly.

    :param connection, concurrently: as for :func:`drop_retired`.
    :raises errors.InvalidInput: it is not declared.
    :raises errors.CollectionMissing, errors.LockNotAvailable, errors.PermissionDenied: as for :func:`add_field`.
    """
    with _alone(connection, concurrently):
        space = spaces.find(connection, collection, vector_schema)
        declared = [field.name for field in space.fields]
        if name not in declared:
            raise errors.InvalidInput(f"{collection} has no declared field {name!r}; {database.near(name, declared)}")
        index = fields.index_name(space.collection_id, name)
        partitions.drop_field_index(connection, index, concurrently=concurrently)
        _declare(connection, space, [field for field in space.fields if field.name != name])


@contextmanager
def _alone(connection: Connection, concurrently: bool) -> Iterator[None]:
    with _maintenance(connection, concurrently, INDEX_LOCK_TIMEOUT) as alone:
        if not alone:
            raise errors.LockNotAvailable("another process declares a field or drops what is retired; try again")
        yield


def _declare(connection: Connection, space: Space, declared: Sequence[Field]) -> None:
    settings = models.Collection.settings
    done = connection.execute(
        update(models.Collection)
        .where(models.Collection.id == space.collection_id, models.Collection.state == "ready")
        .values(settings=settings.op("||")(sqlalchemy.cast({"fields": fields.as_mapping(declared)}, JSONB)))
    )
    if not done.rowcount:
        raise errors.CollectionMissing(f"the collection {space.collection} was dropped meanwhile")


def _drop_spaces(connection: Connection, concurrently: bool) -> int:
    retired = select(models.Space.id).where(models.Space.state == "retired").order_by(models.Space.id)
    ids = connection.scalars(retired).all()
    for space_id in ids:
        partitions.drop_partition(connection, "chunks", f"chunks_{space_id}", concurrently=concurrently)
        connection.execute(sqlalchemy.delete(models.Space).where(models.Space.id == space_id))
    return len(ids)


def _drop_collections(connection: Connection, concurrently: bool) -> int:
    has_spaces = select(models.Space.id).where(models.Space.collection_id == models.Collection.id).exists()
    collection = models.Collection
    retired = select(collection.id, collection.name).where(collection.state == "retired", ~has_spaces)
    found = connection.execute(retired.order_by(collection.id)).all()
    for collection_id, name in found:
        _hide(connection, name)  # those who used it may be gone
        for parent in ("postings", "documents"):
            partitions.drop_partition(connection, parent, f"{parent}_{collection_id}", concurrently=concurrently)
        counts = models.term_counts
        connection.execute(sqlalchemy.delete(counts).where(counts.c.collection_id == collection_id))
        connection.execute(sqlalchemy.delete(collection).where(collection.id == collection_id))
    return len(found)
