"""Collections and their spaces: create, find, index, retire, drop.

A collection is a partition of ``documents``, a space a partition of ``chunks`` with its own HNSW index. Partitions are
made as plain tables and attached empty: ``CREATE TABLE ... PARTITION OF`` would lock every search of every collection.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy
from psycopg import sql
from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert

from searchapp import database, errors, faults, models
from searchapp.encoders import Model

# Over this, a vector does not fit a page of its own and pgvector's HNSW takes only halfvec.
MAX_DIMENSIONS = 2000

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

    ``indexed`` is False until the HNSW index is made. ``vector_schema`` is where pgvector's type and operators stand.
    ``chunks_per_document`` is a statistic, refreshed with every ingest.
    """

    id: int
    collection_id: int
    collection: str
    model_id: int
    model: str
    revision: str
    dimensions: int
    chunking: Chunking
    indexed: bool
    ef_search: int
    chunks_per_document: float
    vector_schema: str


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
            models.Space.model_id,
            models.Model.name.label("model"),
            models.Model.revision,
            models.Model.dimensions,
            models.Space.chunking,
            (models.Space.state == "ready").label("indexed"),
            models.Space.ef_search,
            models.Space.chunks_per_document,
        )
    ).one_or_none()
    if row is None:
        raise errors.CollectionMissing(f"no collection {name!r}; {database.near(name, names(connection))}")
    values: dict[str, Any] = {**row._mapping, "chunking": Chunking(**row.chunking), "vector_schema": vector_schema}
    return Space(**values)


def names(connection: Connection) -> list[str]:
    """The names of all collections, in their order."""
    statement = (
        select(models.Collection.name).where(models.Collection.state == "ready").order_by(models.Collection.name)
    )
    return list(connection.scalars(statement))


def describe(connection: Connection, space: Space) -> CollectionInfo:
    """Count and measure a collection."""
    documents, chunks = documents_table(space.collection_id), chunks_table(space.id)
    row = connection.exec_driver_sql(
        _text(
            sql.SQL(
                "SELECT (SELECT count(*) FROM {documents}), (SELECT count(*) FROM {chunks}),"
                " pg_total_relation_size({documents_name}::regclass) + pg_total_relation_size({chunks_name}::regclass),"
                " (SELECT created_at FROM searchapp_data.collections WHERE id = {id})"
            ).format(
                documents=documents,
                chunks=chunks,
                documents_name=sql.Literal(_text(documents)),
                chunks_name=sql.Literal(_text(chunks)),
                id=sql.Literal(space.collection_id),
            )
        )
    ).one()
    return CollectionInfo(
        name=space.collection,
        model=space.model,
        dimensions=space.dimensions,
        chunking=str(space.chunking),
        documents=row[0],
        chunks=row[1],
        indexed=space.indexed,
        bytes=row[2],
        created_at=row[3],
    )


def finish_load(connection: Connection, space: Space, written: int) -> None:
    """What a load does at its end: the HNSW index where it is not there yet, and fresh statistics.

    :param written: how many documents the load wrote; under one in a hundred the statistics are left to autovacuum.
    """
    state = connection.scalar(select(models.Space.state).where(models.Space.id == space.id).with_for_update())
    if state == "building":
        faults.point("before-index")
        _create_index(connection, space)
        connection.execute(update(models.Space).where(models.Space.id == space.id).values(state="ready"))
    if state == "building" or written * 100 >= _estimated_rows(connection, documents_table(space.collection_id)):
        refresh_statistics(connection, space)


def _create_index(connection: Connection, space: Space) -> None:
    """Build the HNSW index. A plain CREATE INDEX: searches go on, exactly; other writers of this one space wait.

    Killed in the middle it leaves nothing.
    """
    faults.delayed_point("during-index")
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


def refresh_statistics(connection: Connection, space: Space) -> None:
    """ANALYZE the partitions and note how many chunks a document has.

    Not the embeddings: no plan asks for them. But space_id, though it is one value: without its statistics the planner
    takes one row in 200 for all of them, and sorts instead of using the index.
    """
    _execute(connection, "ANALYZE {documents}", documents=documents_table(space.collection_id))
    _execute(connection, "ANALYZE {chunks} (space_id, document_id, position)", chunks=chunks_table(space.id))
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
    :return: how many partitions were dropped.
    """
    dropped = 0
    for space_id in connection.scalars(select(models.Space.id).where(models.Space.state == "retired")).all():
        dropped += _drop_partition(connection, "chunks", f"chunks_{space_id}")
        connection.execute(sqlalchemy.delete(models.Space).where(models.Space.id == space_id))
    retired = select(models.Collection.id).where(models.Collection.state == "retired")
    for collection_id in connection.scalars(retired).all():
        dropped += _drop_partition(connection, "documents", f"documents_{collection_id}")
        connection.execute(sqlalchemy.delete(models.Collection).where(models.Collection.id == collection_id))
    return dropped


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


def _drop_partition(connection: Connection, parent: str, partition: str) -> int:
    attached = connection.exec_driver_sql(
        "SELECT i.inhdetachpending FROM pg_inherits i WHERE i.inhrelid = to_regclass(%(name)s)",
        {"name": f"{models.SCHEMA}.{partition}"},
    ).scalar()
    names = {"parent": sql.Identifier(models.SCHEMA, parent), "table": sql.Identifier(models.SCHEMA, partition)}
    if attached is not None:
        how = "FINALIZE" if attached else "CONCURRENTLY"
        _execute(connection, f"ALTER TABLE {{parent}} DETACH PARTITION {{table}} {how}", **names)
    _execute(connection, "DROP TABLE IF EXISTS {table}", table=names["table"])
    return 1


def _execute(connection: Connection, statement: str, **parts: sql.Composable) -> None:
    connection.exec_driver_sql(_text(sql.SQL(statement).format(**parts)))


def _text(composed: sql.Composable) -> str:
    return composed.as_string(None)
