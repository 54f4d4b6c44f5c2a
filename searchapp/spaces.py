"""Collections and their spaces: create, find, index, retire, drop.

A collection is a partition of ``documents``, a space a partition of ``chunks`` with its own HNSW index. Partitions are
made as plain tables and attached empty: ``CREATE TABLE ... PARTITION OF`` would lock every search of every collection.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy
from psycopg import sql
from sqlalchemy import ColumnElement, Connection, CursorResult, Integer, and_, bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import OID, insert
from sqlalchemy.types import TypeEngine

from searchapp import database, errors, faults, models
from searchapp.database import Transaction
from searchapp.encoders import Model
from searchapp.vectors import quote

logger = logging.getLogger("searchapp")

# Over this, a vector does not fit a page of its own and pgvector's HNSW takes only halfvec.
MAX_DIMENSIONS = 2000

# How long DDL waits for a lock before it lets others pass, and how often it comes again.
LOCK_TIMEOUT = "5s"
LOCK_ATTEMPTS = 3
# "maintain" in hexadecimal: the advisory lock of those who drop what is retired.
MAINTENANCE_LOCK = 0x6D61696E7461696E

# The names of our own views for analysts, the later ones too: a collection's view will bear the collection's name.
RESERVED = frozenset(
    ["collections", "spaces", "models", "sources", "runs", "clusters", "duplicates", "maps", "recommendations"]
)


@dataclass(frozen=True, slots=True)
class Chunking:
    """How texts are cut: passages of at most ``tokens`` tokens, ``overlap`` of them shared by neighbours.

    ``tokens`` 0: one chunk a document, cut at the model's length.
    """

    tokens: int
    overlap: int = 0

    def __str__(self) -> str:
        return f"{self.tokens} tokens, {self.overlap} of them overlapping" if self.tokens else "no chunking"


@dataclass(frozen=True, slots=True)
class Space:
    """One collection as seen by one model: what a query builder needs to know.

    ``indexed`` is False until the HNSW index is made. ``vector_schema`` is where pgvector's type and operators stand,
    ``vector_oid`` that type's number in this database.
    ``chunks_per_document`` is a statistic, refreshed with every ingest.
    """

    id: int
    collection_id: int
    collection: str
    model: str
    revision: str
    dimensions: int
    chunking: Chunking
    indexed: bool
    ef_search: int
    chunks_per_document: float
    vector_schema: str
    vector_oid: int


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """What ``collection show`` says; ``bytes`` counts documents, chunks and all their indexes."""

    name: str
    model: str
    dimensions: int
    chunking: str
    documents: int
    chunks: int
    indexed: bool
    bytes: int
    created_at: datetime


def check_name(name: str) -> str:
    """Return the name of a collection if it is allowed.

    :raises errors.InvalidName: it is not; suggests one that is.

    >>> check_name("articles_2026")
    'articles_2026'
    """
    reserved = name in RESERVED or name.endswith("_status")
    if re.fullmatch(r"[a-z][a-z0-9_]{0,50}", name) and not reserved:
        return name
    near = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").lstrip("0123456789_")[:40] or "documents"
    if near in RESERVED or near.endswith("_status"):
        near = f"{near}_documents"
    reason = "is reserved" if reserved else "is not allowed: a to z, 0 to 9 and _, a letter first, at most 51"
    raise errors.InvalidName(f"the collection name {name!r} {reason}; {near} would do")


def default_chunking(model: Model) -> Chunking:
    """The chunking of a new collection: as long as the model reads, less its two special tokens."""
    return chunking_of(model.max_tokens - 2, model)


def chunking_of(tokens: int, model: Model) -> Chunking:
    """The chunking by so many tokens, an eighth of them overlapping.

    :raises errors.InvalidInput: the model cannot read so many, or they are too few to mean anything.
    """
    if tokens == 0:
        return Chunking(0)
    longest = model.max_tokens - 2
    if not 8 <= tokens <= longest:
        raise errors.InvalidInput(
            f"chunks of {tokens} tokens; expected 8 to {longest}, which is what {model.name} reads"
        )
    return Chunking(tokens, tokens // 8)


def create(connection: Connection, name: str, model: Model, chunking: Chunking, vector_schema: str) -> Space:
    """Create a collection with its partition of documents, its first space and that space's partition of chunks.

    :raises errors.CollectionExists: it is there already, perhaps made by another process a moment ago.
    """
    check_name(name)
    if model.dimensions > MAX_DIMENSIONS:
        raise errors.InvalidInput(
            f"{model.name} gives {model.dimensions} dimensions; at most {MAX_DIMENSIONS} can be indexed"
        )
    collection_id = connection.scalar(
        insert(models.Collection)
        .values(name=name)
        .on_conflict_do_nothing(index_elements=["name"], index_where=models.Collection.state == "ready")
        .returning(models.Collection.id)
    )
    if collection_id is None:
        raise errors.CollectionExists(f"the collection {name} exists already")
    space_id = connection.scalar(
        insert(models.Space)
        .values(
            collection_id=collection_id, model_id=_model_id(connection, model), chunking=dataclasses.asdict(chunking)
        )
        .returning(models.Space.id)
    )
    assert space_id is not None
    connection.execute(
        update(models.Collection).where(models.Collection.id == collection_id).values(active_space=space_id)
    )
    _attach_documents(connection, collection_id)
    _attach_chunks(connection, space_id, model.dimensions, vector_schema)
    return find(connection, name, vector_schema)


def find(connection: Connection, name: str, vector_schema: str) -> Space:
    """The active space of a collection.

    :raises errors.CollectionMissing: there is no such collection; the message has the near names.
    """
    row = connection.execute(
        select(models.Collection, models.Space, models.Model)
        .join(models.Space, models.Space.id == models.Collection.active_space)
        .join(models.Model, models.Model.id == models.Space.model_id)
        .where(models.Collection.name == name, models.Collection.state == "ready")
        .with_only_columns(
            models.Space.id,
            models.Collection.id.label("collection_id"),
            models.Collection.name.label("collection"),
            models.Model.name.label("model"),
            models.Model.revision,
            models.Model.dimensions,
            models.Space.chunking,
            (models.Space.state == "ready").label("indexed"),
            models.Space.ef_search,
            models.Space.chunks_per_document,
            sqlalchemy.cast(func.to_regtype(f"{quote(vector_schema)}.vector"), OID).label("vector_oid"),
        )
    ).one_or_none()
    if row is None:
        raise errors.CollectionMissing(f"no collection {name!r}; {database.near(name, names(connection))}")
    values: dict[str, Any] = {**row._mapping, "chunking": Chunking(**row.chunking), "vector_schema": vector_schema}
    return Space(**values)


def is_current(space: Space) -> ColumnElement[bool]:
    """Whether a space is still the active one of its collection and as it was when it was looked up.

    Not true (false, or null) where it is not; for use in a statement that has the space's id as a literal.
    """
    known = (
        (models.Collection.active_space, space.id),
        (models.Space.state, "ready" if space.indexed else "building"),
        (models.Space.ef_search, space.ef_search),
        (models.Space.chunks_per_document, space.chunks_per_document),
    )
    return (
        select(and_(*(column == _literally(value, column.type) for column, value in known)))
        .join(models.Space, models.Space.id == models.Collection.active_space)
        .where(models.Collection.id == _literally(space.collection_id, Integer()))
        .scalar_subquery()
    )


def _literally(value: Any, type_: TypeEngine[Any]) -> ColumnElement[Any]:
    return bindparam(None, value, type_, literal_execute=True, unique=True)


def names(connection: Connection) -> list[str]:
    """The names of all collections, in their order."""
    statement = (
        select(models.Collection.name).where(models.Collection.state == "ready").order_by(models.Collection.name)
    )
    return list(connection.scalars(statement))


def describe(connection: Connection, space: Space) -> CollectionInfo:
    """Count and measure a collection."""
    documents, chunks, size, created_at = connection.execute(
        text(
            "SELECT (SELECT count(*) FROM searchapp_data.documents WHERE collection_id = :collection_id),"
            " (SELECT count(*) FROM searchapp_data.chunks WHERE space_id = :space_id),"
            " pg_total_relation_size(CAST(:documents AS regclass)) + pg_total_relation_size(CAST(:chunks AS regclass)),"
            " (SELECT created_at FROM searchapp_data.collections WHERE id = :collection_id)"
        ),
        {
            "collection_id": space.collection_id,
            "space_id": space.id,
            "documents": _text(documents_table(space.collection_id)),
            "chunks": _text(chunks_table(space.id)),
        },
    ).one()
    return CollectionInfo(
        name=space.collection,
        model=space.model,
        dimensions=space.dimensions,
        chunking=str(space.chunking),
        documents=documents,
        chunks=chunks,
        indexed=space.indexed,
        bytes=size,
        created_at=created_at,
    )


def build_index(transaction: Transaction, space: Space) -> None:
    """Build a space's HNSW index, unless it is there or the space is empty.

    A plain CREATE INDEX: searches go on, exactly; other writers of this one space wait. Killed in the middle it leaves
    nothing. Where somebody's open transaction has written to the space it gives up after a while, with a warning.
    """
    for attempt in range(LOCK_ATTEMPTS):
        try:
            with transaction() as connection:
                _execute(connection, f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                # of those who would build it, the first does; it cannot deadlock with writers, for it holds nothing yet
                _execute(connection, "LOCK TABLE {chunks} IN SHARE ROW EXCLUSIVE MODE", chunks=chunks_table(space.id))
                if _lacks_index(connection, space):
                    faults.point("before-index")
                    _create_index(connection, space)
                    ready = update(models.Space).where(models.Space.id == space.id).values(state="ready")
                    connection.execute(ready)
                    _analyze(connection, space)
            return
        except errors.LockNotAvailable:
            logger.debug("attempt %d to lock %s failed", attempt + 1, space.collection)
    logger.warning(
        "the index of %s is not made, for somebody is writing to it; searches are exact and slower until: "
        "searchapp db maintain",
        space.collection,
    )


def _lacks_index(connection: Connection, space: Space) -> bool:
    statement = select(models.Space.id).where(models.Space.id == space.id, models.Space.state == "building")
    filled = "SELECT EXISTS (SELECT FROM {chunks})"
    building = connection.scalar(statement) is not None
    return building and bool(_execute(connection, filled, chunks=chunks_table(space.id)).scalar())


def _create_index(connection: Connection, space: Space) -> None:
    faults.delayed_point("during-index")
    # In memory a node takes its vector and, at m = 16, some 700 bytes; a graph that does not fit is built far slower.
    # The machine is not ours to measure: what its shared buffers take is a bound that its owner has set.
    _execute(
        connection,
        "SELECT set_config('maintenance_work_mem', greatest(pg_size_bytes(current_setting('maintenance_work_mem')),"
        " least(pg_size_bytes(current_setting('shared_buffers')),"
        " (SELECT count(*) FROM {chunks}) * (4 * {dimensions} + 700))) / 1024 || 'kB', true)",
        chunks=chunks_table(space.id),
        dimensions=sql.Literal(space.dimensions),
    )
    _execute(
        connection,
        "CREATE INDEX {index} ON {chunks} USING hnsw"
        " ((embedding::{schema}.vector({dimensions})) {schema}.vector_cosine_ops)",
        index=sql.Identifier(f"space_{space.id}_hnsw"),
        chunks=chunks_table(space.id),
        schema=sql.Identifier(space.vector_schema),
        dimensions=sql.Literal(space.dimensions),
    )


def _estimated_rows(connection: Connection, table: sql.Identifier) -> float:
    statement = "SELECT reltuples FROM pg_class WHERE oid = %(name)s::regclass"
    return float(connection.exec_driver_sql(statement, {"name": _text(table)}).scalar() or 0)


def refresh_statistics(connection: Connection, space: Space, written: int) -> None:
    """Refresh what the planner and the searches know, if a load wrote at least one document in a hundred.

    The rest is left to autovacuum.
    """
    if written * 100 >= _estimated_rows(connection, documents_table(space.collection_id)):
        _analyze(connection, space)


def _analyze(connection: Connection, space: Space) -> None:
    """ANALYZE the partitions and note how many chunks a document has.

    Not the embeddings: no plan asks for them. But space_id, though it is one value: without its statistics the planner
    takes one row in 200 for all of them, and sorts instead of using the index.
    """
    _execute(connection, "ANALYZE (SKIP_LOCKED) {documents}", documents=documents_table(space.collection_id))
    _execute(
        connection, "ANALYZE (SKIP_LOCKED) {chunks} (space_id, document_id, position)", chunks=chunks_table(space.id)
    )
    documents = _estimated_rows(connection, documents_table(space.collection_id))
    chunks = _estimated_rows(connection, chunks_table(space.id))
    ratio = max(1.0, chunks / documents) if documents > 0 else 1.0
    connection.execute(update(models.Space).where(models.Space.id == space.id).values(chunks_per_document=ratio))


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
        raise errors.CollectionMissing(f"no collection {name!r}; {database.near(name, names(connection))}")
    connection.execute(update(models.Space).where(models.Space.collection_id == retired).values(state="retired"))


def drop_retired(connection: Connection) -> int:
    """Detach and drop the partitions of retired collections and spaces; finishes what an earlier call was killed in.

    :param connection: in autocommit, for nothing that is CONCURRENTLY runs in a transaction.
    :return: how many partitions were dropped; none where another process is at it.
    :raises errors.LockNotAvailable: somebody's open transaction has read them; another call goes on.
    """
    if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": MAINTENANCE_LOCK}):
        return 0
    try:
        _execute(connection, f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        _finish_detaching(connection)
        return _drop_spaces(connection) + _drop_collections(connection)
    finally:
        _execute(connection, "RESET lock_timeout")
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MAINTENANCE_LOCK})


def _finish_detaching(connection: Connection) -> None:
    """Finish interrupted detaches first: a table takes no other while one is pending."""
    pending = text(
        "SELECT p.relname AS parent, c.relname AS partition FROM pg_inherits i"
        " JOIN pg_class p ON p.oid = i.inhparent JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhdetachpending AND p.relnamespace = to_regnamespace(:schema)"
    )
    for parent, partition in connection.execute(pending, {"schema": models.SCHEMA}).all():
        _execute(
            connection,
            "ALTER TABLE {parent} DETACH PARTITION {partition} FINALIZE",
            parent=sql.Identifier(models.SCHEMA, parent),
            partition=sql.Identifier(models.SCHEMA, partition),
        )


def _drop_spaces(connection: Connection) -> int:
    retired = select(models.Space.id).where(models.Space.state == "retired").order_by(models.Space.id)
    ids = connection.scalars(retired).all()
    for space_id in ids:
        _drop_partition(connection, "chunks", f"chunks_{space_id}")
        connection.execute(sqlalchemy.delete(models.Space).where(models.Space.id == space_id))
    return len(ids)


def _drop_collections(connection: Connection) -> int:
    has_spaces = select(models.Space.id).where(models.Space.collection_id == models.Collection.id).exists()
    retired = select(models.Collection.id).where(models.Collection.state == "retired", ~has_spaces)
    ids = connection.scalars(retired.order_by(models.Collection.id)).all()
    for collection_id in ids:
        _drop_partition(connection, "documents", f"documents_{collection_id}")
        connection.execute(sqlalchemy.delete(models.Collection).where(models.Collection.id == collection_id))
    return len(ids)


def documents_table(collection_id: int) -> sql.Identifier:
    """The partition of a collection's documents."""
    return sql.Identifier(models.SCHEMA, f"documents_{collection_id}")


def chunks_table(space_id: int) -> sql.Identifier:
    """The partition of a space's chunks."""
    return sql.Identifier(models.SCHEMA, f"chunks_{space_id}")


def _model_id(connection: Connection, model: Model) -> int:
    known = select(models.Model.id).where(models.Model.name == model.name, models.Model.revision == model.revision)
    found = connection.scalar(known)
    if found is None:
        statement = insert(models.Model).values(**dataclasses.asdict(model)).on_conflict_do_nothing()
        found = connection.scalar(statement.returning(models.Model.id)) or connection.scalar(known)
    assert found is not None
    return found


def _attach_documents(connection: Connection, collection_id: int) -> None:
    table = documents_table(collection_id)
    _execute(connection, "CREATE TABLE {table} (LIKE searchapp_data.documents INCLUDING ALL)", table=table)
    # At the default of 100 the planner misjudged small values of a filter (a section of 354 among 63,000).
    _execute(connection, "ALTER TABLE {table} ALTER COLUMN metadata SET STATISTICS 1000", table=table)
    _execute(
        connection,
        "ALTER TABLE searchapp_data.documents ATTACH PARTITION {table} FOR VALUES IN ({id})",
        table=table,
        id=sql.Literal(collection_id),
    )


def _attach_chunks(connection: Connection, space_id: int, dimensions: int, vector_schema: str) -> None:
    table = chunks_table(space_id)
    _execute(
        connection,
        "CREATE TABLE {table} (LIKE searchapp_data.chunks INCLUDING ALL, CONSTRAINT embedding_check"
        " CHECK ({schema}.vector_dims(embedding) = {dimensions} AND {schema}.vector_norm(embedding) > 0))",
        table=table,
        schema=sql.Identifier(vector_schema),
        dimensions=sql.Literal(dimensions),
    )
    _execute(connection, "ALTER TABLE {table} ALTER COLUMN embedding SET STORAGE PLAIN", table=table)
    _execute(
        connection,
        "ALTER TABLE searchapp_data.chunks ATTACH PARTITION {table} FOR VALUES IN ({id})",
        table=table,
        id=sql.Literal(space_id),
    )


def _drop_partition(connection: Connection, parent: str, partition: str) -> None:
    attached = text("SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(:name))")
    table = sql.Identifier(models.SCHEMA, partition)
    if connection.scalar(attached, {"name": f"{models.SCHEMA}.{partition}"}):
        of = sql.Identifier(models.SCHEMA, parent)
        _execute(connection, "ALTER TABLE {of} DETACH PARTITION {table} CONCURRENTLY", of=of, table=table)
    _execute(connection, "DROP TABLE IF EXISTS {table}", table=table)


def _execute(connection: Connection, statement: str, **parts: sql.Composable) -> CursorResult[Any]:
    return connection.exec_driver_sql(_text(sql.SQL(statement).format(**parts)))


def _text(composed: sql.Composable) -> str:
    return composed.as_string(None)
