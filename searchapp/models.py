"""The tables, all in the schema ``searchapp_data``. The migrations make them; ``alembic check`` compares the two.

``documents``, ``postings`` and ``chunks`` are partitioned: a collection is a partition of documents and one of
postings, a space a partition of chunks with its own HNSW index. Those partitions are data, made by
:mod:`searchapp.spaces`, and stand in no migration. The counts of all collections' words are one table.
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime
from typing import Any

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = "searchapp_data"
# The fixed namespace of document ids: uuid5(namespace, collection id, NUL, key).
_NAMESPACE = uuid.UUID("b2f0e6c4-3c52-5d0e-9f63-2f9a6f3d9c11").bytes

Timestamp = TIMESTAMP(timezone=True)


class Base(DeclarativeBase):
    metadata = MetaData(
        schema=SCHEMA,
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            "ck": "%(table_name)s_%(constraint_name)s_check",
        },
    )


class Model(Base):
    """What makes embeddings. ``revision`` is the SHA-256 of its weights: with other weights it is another model."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("name", "revision"),)

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    provider: Mapped[str] = mapped_column(Text)
    revision: Mapped[str] = mapped_column(Text)
    dimensions: Mapped[int] = mapped_column(Integer)
    max_tokens: Mapped[int] = mapped_column(Integer)
    query_prefix: Mapped[str] = mapped_column(Text, server_default="")
    document_prefix: Mapped[str] = mapped_column(Text, server_default="")


class Collection(Base):
    """A named set of documents. A retired one has lost its name and waits for its partitions to be dropped.

    ``settings`` has the declared fields under ``fields``: by name, their type.

    ``language`` is the text search configuration that its words are read by; None: it has no words. While these are
    made of documents that were there before, those up to the id ``backfilled_until`` have theirs. ``documents`` and
    ``mean_length``, how many words a document has on average, are statistics, as BM25 needs them.
    """

    __tablename__ = "collections"
    __table_args__ = (
        CheckConstraint("state IN ('ready', 'retired')", name="state"),
        Index("collections_name_key", "name", unique=True, postgresql_where=text("state = 'ready'")),
    )

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text, server_default="ready")
    active_space: Mapped[int | None] = mapped_column(
        ForeignKey("spaces.id", use_alter=True, name="collections_active_space_fkey")
    )
    settings: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    language: Mapped[str | None] = mapped_column(Text)
    backfilled_until: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    documents: Mapped[float] = mapped_column(server_default="0")
    mean_length: Mapped[float] = mapped_column(server_default="0")
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class Space(Base):
    """One collection as seen by one model. ``building``: it has no HNSW index yet, so searches scan it exactly.

    ``chunks_per_document`` and ``chunks``, 0 where that is not known, are statistics; ``recall`` is what
    ``searchapp tune`` measured with that ``ef_search``.
    """

    __tablename__ = "spaces"
    __table_args__ = (CheckConstraint("state IN ('building', 'ready', 'retired')", name="state"),)

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id"), index=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    chunking: Mapped[dict[str, Any]] = mapped_column(JSONB)
    state: Mapped[str] = mapped_column(Text, server_default="building")
    ef_search: Mapped[int] = mapped_column(Integer, server_default="100")
    chunks_per_document: Mapped[float] = mapped_column(server_default="1")
    chunks: Mapped[float] = mapped_column(server_default="0")
    recall: Mapped[float | None] = mapped_column()
    measured_at: Mapped[datetime | None] = mapped_column(Timestamp)


class Document(Base):
    """One thing to be found. ``content_hash`` is the SHA-256 of title and text; a change of it means encoding anew."""

    __tablename__ = "documents"
    __table_args__ = (
        Index(None, "key"),
        Index(None, "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
        {"postgresql_partition_by": "LIST (collection_id)"},
    )

    collection_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    key: Mapped[str] = mapped_column(Text)
    title: Mapped[str | None] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB)
    content_hash: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class Chunk(Base):
    """A passage of a document: ``start`` and ``length`` in code points of its text. The row is narrow on purpose:
    text beside a vector would push the vector out of line."""

    __tablename__ = "chunks"
    __table_args__ = ({"postgresql_partition_by": "LIST (space_id)"},)

    space_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    document_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    start: Mapped[int] = mapped_column(Integer)
    length: Mapped[int] = mapped_column(Integer)
    embedding: Mapped[list[float]] = mapped_column(VECTOR())


class Posting(Base):
    """That a document has a word, or rather a lexeme: ``frequency`` times, among ``document_length`` in all.

    What BM25 needs stands in the index, so that it is read from there alone.
    """

    __tablename__ = "postings"
    __table_args__ = (
        PrimaryKeyConstraint(
            "collection_id", "term", "document_id", postgresql_include=["frequency", "document_length"]
        ),
        {"postgresql_partition_by": "LIST (collection_id)"},
    )

    # in this order a row has no gaps
    collection_id: Mapped[int] = mapped_column(Integer, autoincrement=False)
    document_length: Mapped[int] = mapped_column(Integer)
    frequency: Mapped[int] = mapped_column(Integer)
    term: Mapped[str] = mapped_column(Text(collation="C"))
    document_id: Mapped[uuid.UUID] = mapped_column(Uuid)


# How many documents have a word: the sum of its rows, which is right at any moment. Writers add rows, and so wait for
# nobody; now and then one of them makes a word's many rows one.
term_counts = Table(
    "term_counts",
    Base.metadata,
    Column("collection_id", Integer, nullable=False),
    Column("documents", Integer, nullable=False),
    Column("term", Text(collation="C"), nullable=False),
    Index("term_counts_collection_id_term_idx", "collection_id", "term", postgresql_include=["documents"]),
)


class Run(Base):
    """One evaluation of a collection on labelled data; ``p50`` and ``p95`` are milliseconds of its searches."""

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    dataset: Mapped[str] = mapped_column(Text)
    collection: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    mode: Mapped[str] = mapped_column(Text)
    measures: Mapped[dict[str, float]] = mapped_column(JSONB)
    p50: Mapped[float] = mapped_column()
    p95: Mapped[float] = mapped_column()
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class JudgedQuery(Base):
    """A query of a run, and what was measured of its hits."""

    __tablename__ = "judged_queries"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    query_id: Mapped[str] = mapped_column(Text, primary_key=True)
    query: Mapped[str] = mapped_column(Text)
    measures: Mapped[dict[str, float]] = mapped_column(JSONB)


class Worker(Base):
    """A process that encodes what is asked for from SQL, and the rows of sources; one that is alive was ``seen_at`` a
    moment ago. ``rates`` are the rows a second that it wrote lately, by the ids of sources."""

    __tablename__ = "workers"

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    host: Mapped[str] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    doing: Mapped[str] = mapped_column(Text)
    rates: Mapped[dict[str, float]] = mapped_column(JSONB, server_default="{}")


class Source(Base):
    """A user's table that is kept in step with a collection, or with a vector column of its own (``into_column``).

    ``collection_id`` is that of the collection as the first worker found or made it. ``key_types`` are those of the
    key's columns, ``condition`` says which rows count, ``watched`` are all columns that matter. ``polled_by`` is a
    column with the time of a row's last change, where there are no triggers; changes up to ``polled_until``, its text,
    were found ('': there were none), and later those up to ``polled_latest``, which was seen at ``polled_at``.
    ``backfilled_until`` is the key up to which the rows were read for the first time, ``enqueued`` how many these were
    of some ``rows``. All was compared at ``checked_at``; None: it is to be, 'epoch': it is, for the first time since.
    """

    __tablename__ = "sources"
    __table_args__ = (CheckConstraint("state IN ('running', 'paused', 'broken')", name="state"),)

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    collection: Mapped[str | None] = mapped_column(Text)
    collection_id: Mapped[int | None] = mapped_column(Integer)
    into_column: Mapped[str | None] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(Text)
    table_schema: Mapped[str] = mapped_column(Text)
    table_name: Mapped[str] = mapped_column(Text)
    key: Mapped[list[str]] = mapped_column(ARRAY(Text))
    key_types: Mapped[list[str]] = mapped_column(ARRAY(Text))
    title: Mapped[str | None] = mapped_column(Text)
    text: Mapped[list[str]] = mapped_column(ARRAY(Text))
    metadata_: Mapped[list[str]] = mapped_column("metadata", ARRAY(Text))
    condition: Mapped[str | None] = mapped_column(Text)
    watched: Mapped[list[str]] = mapped_column(ARRAY(Text))
    polled_by: Mapped[str | None] = mapped_column(Text)
    polled_until: Mapped[str | None] = mapped_column(Text)
    polled_latest: Mapped[str | None] = mapped_column(Text)
    polled_at: Mapped[datetime | None] = mapped_column(Timestamp)
    state: Mapped[str] = mapped_column(Text, server_default="running")
    reason: Mapped[str | None] = mapped_column(Text)
    backfilled: Mapped[bool] = mapped_column(server_default=false())
    backfilled_until: Mapped[str | None] = mapped_column(Text)
    enqueued: Mapped[int] = mapped_column(BigInteger, server_default="0")
    rows: Mapped[float] = mapped_column(server_default="0")
    checked_at: Mapped[datetime | None] = mapped_column(Timestamp)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class SourceRow(Base):
    """What the vector column of a source's row was last encoded of: the SHA-256 of the model and the text."""

    __tablename__ = "source_rows"

    source_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    content_hash: Mapped[bytes] = mapped_column(LargeBinary)


class Failure(Base):
    """A row that could not be encoded. It is tried again at ``retry_at``, 'infinity' while it is; None: never."""

    __tablename__ = "failures"
    __table_args__ = (Index(None, "retry_at"),)

    source_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    attempts: Mapped[int] = mapped_column(Integer)
    retry_at: Mapped[datetime | None] = mapped_column(Timestamp)
    error: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


# What has changed in the tables of sources, appended by triggers: nothing unique, so that they block nobody. A row
# without a key says that all of its lane is to be looked at, after a TRUNCATE.
changes = Table(
    "changes",
    Base.metadata,
    Column("id", BigInteger, Identity(), nullable=False),
    Column("source_id", Integer, nullable=False),
    Column("lane", SmallInteger, nullable=False),
    Column("key", Text),
    Column("at", Timestamp, server_default=func.now(), nullable=False),
    Index("changes_source_id_lane_id_idx", "source_id", "lane", "id"),
)


def document_id(collection_id: int, key: str) -> uuid.UUID:
    """The id of a document, a uuid5: the same key in the same collection has always the same one."""
    return uuid.UUID(bytes=id_bytes(collection_id, key))


def id_bytes(collection_id: int, key: str) -> bytes:
    """As ``uuid.uuid5``, which takes several times as long. *Source:* RFC 9562, 5.5."""
    uuid5 = bytearray(hashlib.sha1(b"%b%d\0%b" % (_NAMESPACE, collection_id, key.encode())).digest()[:16])
    uuid5[6] = uuid5[6] & 0x0F | 0x50
    uuid5[8] = uuid5[8] & 0x3F | 0x80
    return bytes(uuid5)
