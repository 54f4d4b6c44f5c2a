"""Collections and their spaces: create, find, describe, index.

A collection is a partition of ``documents`` and, where it has words, one of ``postings``; a space is a partition of
``chunks`` with its own HNSW index. Making them needs the owner's rights: functions in the database do it, for a writer.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy
from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Text,
    and_,
    func,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, OID, insert

from searchapp import database, errors, faults, fields, models, partitions
from searchapp.database import Transaction
from searchapp.encoders import Model
from searchapp.fields import Field
from searchapp.partitions import chunks_table, documents_table, estimated_rows, execute, postings_table
from searchapp.wire import literally, quote

logger = logging.getLogger("searchapp")

# Over this, a vector does not fit a page of its own and pgvector's HNSW takes only halfvec.
MAX_DIMENSIONS = 2000

# How often DDL comes again that has waited for a lock for too long.
LOCK_ATTEMPTS = 3

# Of the postings, though collection_id is one value: see _analyze.
POSTINGS_ANALYZED = ("collection_id", "term", "document_id")
# So many postings are counted in a tenth of a second.
COUNTED_AT_ONCE = 1_000_000

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
    ``vector_oid`` that type's number in this database. ``fields`` are the collection's declared ones, ``language`` is
    the text search configuration that its words are read by, None where it has none; until ``words_complete`` some
    documents lack theirs. ``chunks_per_document`` and ``chunks``, 0 where that is not known, are statistics, refreshed
    with every ingest.
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
    chunks: float
    fields: tuple[Field, ...]
    language: str | None
    words_complete: bool
    vector_schema: str
    vector_oid: int


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """What ``collection show`` says; ``bytes`` counts documents, postings, chunks and all their indexes.

    ``language`` is what its words are read by, None where it has none. ``recall`` is what ``searchapp tune`` measured
    at ``measured_at`` with that ``ef_search``; None: not measured.
    """

    name: str
    model: str
    dimensions: int
    chunking: str
    fields: dict[str, str]
    language: str | None
    words_complete: bool
    documents: int
    chunks: int
    indexed: bool
    ef_search: int
    recall: float | None
    measured_at: datetime | None
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
    near = valid_name(name)
    reason = "is reserved" if reserved else "is not allowed: a to z, 0 to 9 and _, a letter first, at most 51"
    raise errors.InvalidName(f"the collection name {name!r} {reason}; {near} would do")


def valid_name(name: str) -> str:
    """A name for a collection that is like this one, and allowed.

    >>> valid_name("My articles!")
    'my_articles'
    """
    near = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").lstrip("0123456789_")[:40] or "documents"
    return f"{near}_documents" if near in RESERVED or near.endswith("_status") else near


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


def create(
    connection: Connection,
    name: str,
    model: Model,
    chunking: Chunking,
    vector_schema: str,
    declared: Sequence[Field] = (),
    language: str | None = None,
) -> Space:
    """Create a collection with its partitions of documents and postings, its first space and that space's of chunks.

    :param declared: fields that get an index each.
    :param language: what its words are read by, as :func:`language_of` gives it; None: it has no words.
    :raises errors.CollectionExists: it is there already, perhaps made by another process a moment ago.
    """
    check_name(name)
    if model.dimensions > MAX_DIMENSIONS:
        raise errors.InvalidInput(
            f"{model.name} gives {model.dimensions} dimensions; at most {MAX_DIMENSIONS} can be indexed"
        )
    made = connection.scalar(
        text(
            "SELECT searchapp_data.create_collection("
            ":name, :language, CAST(:declared AS jsonb), :model_id, CAST(:chunking AS jsonb))"
        ),
        {
            "name": name,
            "language": language,
            "declared": json.dumps(fields.as_mapping(declared)),
            "model_id": _model_id(connection, model),
            "chunking": json.dumps(dataclasses.asdict(chunking)),
        },
    )
    if made is None:
        raise errors.CollectionExists(f"the collection {name} exists already")
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
            models.Space.chunks,
            models.Collection.settings["fields"].label("fields"),
            models.Collection.language,
            models.Collection.backfilled_until.is_(None).label("words_complete"),
            sqlalchemy.cast(func.to_regtype(f"{quote(vector_schema)}.vector"), OID).label("vector_oid"),
        )
    ).one_or_none()
    if row is None:
        raise errors.CollectionMissing(f"no collection {name!r}; {database.near(name, names(connection))}")
    values: dict[str, Any] = {
        **row._mapping,
        "chunking": Chunking(**row.chunking),
        "fields": fields.from_mapping(row.fields or {}),
        "vector_schema": vector_schema,
    }
    return Space(**values)


def is_current(space: Space) -> ColumnElement[bool]:
    """Whether a space is still the active one of its collection and as it was when it was looked up.

    Not true (false, or null) where it is not; for use in a statement that has the space's id as a literal.
    """
    settings = models.Collection.settings.op("->", return_type=JSONB())(literal_column("'fields'"))
    declared = func.coalesce(settings, _jsonb({}))
    known = (
        (models.Collection.active_space, space.id),
        (models.Space.state, "ready" if space.indexed else "building"),
        (models.Space.ef_search, space.ef_search),
        (models.Space.chunks_per_document, space.chunks_per_document),
        (models.Space.chunks, space.chunks),
    )
    return (
        select(
            and_(
                *(column == literally(value, column.type) for column, value in known),
                declared == _jsonb(fields.as_mapping(space.fields)),
                _is(models.Collection.language, space.language),
                models.Collection.backfilled_until.is_(None) == literally(space.words_complete),
            )
        )
        .join(models.Space, models.Space.id == models.Collection.active_space)
        .where(models.Collection.id == literally(space.collection_id, Integer()))
        .scalar_subquery()
    )


def _is(column: Any, value: str | None) -> ColumnElement[bool]:
    return column.is_(None) if value is None else func.coalesce(column, literally("")) == literally(value)


def _jsonb(value: dict[str, str]) -> ColumnElement[Any]:
    return sqlalchemy.cast(literally(json.dumps(value), Text()), JSONB)


def language_of(connection: Connection, name: str) -> str:
    """The text search configuration of that name, as a collection keeps it; one in another schema is ``schema.name``.

    :raises errors.InvalidInput: there is none; the message has the near ones.
    """
    statement = text(
        "SELECT CASE n.nspname WHEN 'pg_catalog' THEN '' ELSE quote_ident(n.nspname) || '.' END"
        " || quote_ident(c.cfgname)"
        " FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace ORDER BY 1"
    )
    known = list(connection.scalars(statement))
    for wanted in (name, name.lower()):
        if wanted in known:
            return wanted
    raise errors.InvalidInput(
        f"no text search configuration {name!r} in this database; {database.near(name.lower(), known)}"
    )


def give_words(connection: Connection, space: Space, language: str) -> Space:
    """Let a collection have words from now on; those of the documents that are there, a backfill makes.

    :param language: as :func:`language_of` gives it.
    :return: the space as it is now.
    :raises errors.CollectionMismatch: it has words already, read as another language.
    :raises errors.LockNotAvailable: somebody's open transaction has written to it.
    """
    execute(connection, f"SET LOCAL lock_timeout = '{partitions.LOCK_TIMEOUT}'")
    give = text("SELECT searchapp_data.give_words(:collection_id, :language)")
    connection.execute(give, {"collection_id": space.collection_id, "language": language})
    space = find(connection, space.collection, space.vector_schema)
    if space.language != language:
        raise read_otherwise(space, language)
    return space


def read_otherwise(space: Space, language: str) -> errors.CollectionMismatch:
    """The error of words that were asked for in another language than they are read as."""
    return errors.CollectionMismatch(
        f"the words of {space.collection} are read as {space.language}; {language} needs another collection"
    )


def finish_words(connection: Connection, space: Space) -> None:
    """Note that every document of a collection has its words, and count them."""
    partitions.analyze(connection, postings_table(space.collection_id), POSTINGS_ANALYZED)
    count_words(connection, space)
    statement = update(models.Collection).where(models.Collection.id == space.collection_id)
    connection.execute(statement.values(backfilled_until=None))


def names(connection: Connection) -> list[str]:
    """The names of all collections, in their order."""
    statement = (
        select(models.Collection.name).where(models.Collection.state == "ready").order_by(models.Collection.name)
    )
    return list(connection.scalars(statement))


def describe(connection: Connection, space: Space) -> CollectionInfo:
    """Count and measure a collection."""
    documents, chunks, size, created_at, recall, measured_at = connection.execute(
        text(
            "SELECT (SELECT count(*) FROM searchapp_data.documents WHERE collection_id = :collection_id),"
            " (SELECT count(*) FROM searchapp_data.chunks WHERE space_id = :space_id),"
            " pg_total_relation_size(CAST(:documents AS regclass)) + pg_total_relation_size(CAST(:chunks AS regclass))"
            "  + coalesce(pg_total_relation_size(to_regclass(:postings)), 0),"
            " (SELECT created_at FROM searchapp_data.collections WHERE id = :collection_id),"
            " (SELECT recall FROM searchapp_data.spaces WHERE id = :space_id),"
            " (SELECT measured_at FROM searchapp_data.spaces WHERE id = :space_id)"
        ),
        {
            "collection_id": space.collection_id,
            "space_id": space.id,
            "documents": partitions.as_text(documents_table(space.collection_id)),
            "chunks": partitions.as_text(chunks_table(space.id)),
            "postings": partitions.as_text(postings_table(space.collection_id)),
        },
    ).one()
    return CollectionInfo(
        name=space.collection,
        model=space.model,
        dimensions=space.dimensions,
        chunking=str(space.chunking),
        fields=fields.as_mapping(space.fields),
        language=space.language,
        words_complete=space.words_complete,
        documents=documents,
        chunks=chunks,
        indexed=space.indexed,
        ef_search=space.ef_search,
        recall=recall,
        measured_at=measured_at,
        bytes=size,
        created_at=created_at,
    )


def build_index(transaction: Transaction, space: Space, told: Callable[[float], None] | None = None) -> None:
    """Build a space's HNSW index, unless it is there or the space is empty.

    A plain CREATE INDEX: searches go on, exactly; other writers of this one space wait. Killed in the middle it leaves
    nothing. Where somebody's open transaction has written to the space it gives up after a while, with a warning.

    :param told: told how far it is, 0 to 1, now and then, from another thread.
    :raises errors.DatabaseError: it cannot be built, as when the disk is full; searches go on, exactly.
    """
    for attempt in range(LOCK_ATTEMPTS):
        try:
            with transaction() as connection:
                _build_index(transaction, connection, space, told)
            return
        except errors.LockNotAvailable:
            logger.debug("attempt %d to lock %s failed", attempt + 1, space.collection)
        except errors.DatabaseError as exc:
            raise type(exc)(f"the index of {space.collection} is not made: {exc}; {_UNTIL}") from exc
    logger.warning("the index of %s is not made, for somebody is writing to it; %s", space.collection, _UNTIL)


_UNTIL = "searches are exact and slower until: searchapp db maintain"


def _build_index(
    transaction: Transaction, connection: Connection, space: Space, told: Callable[[float], None] | None
) -> None:
    execute(connection, f"SET LOCAL lock_timeout = '{partitions.LOCK_TIMEOUT}'")
    if not _lacks_index(connection, space):
        return
    faults.point("before-index")
    with partitions.watching_index(transaction, connection, told):
        faults.delayed_point("during-index")
        build = text("SELECT searchapp_data.build_index(:space_id)")
        built = connection.scalar(build, {"space_id": space.id})
    if built:  # else somebody else has, meanwhile
        _analyze(connection, space)


def _lacks_index(connection: Connection, space: Space) -> bool:
    building = select(models.Space.id).where(models.Space.id == space.id, models.Space.state == "building").exists()
    filled = select(models.Chunk.document_id).where(models.Chunk.space_id == space.id).exists()
    return bool(connection.scalar(select(and_(building, filled))))


def refresh_statistics(connection: Connection, space: Space, written: int) -> bool:
    """Refresh what the planner and the searches know, if at least one document in a hundred was written or deleted.

    The rest is left to autovacuum, of which the searches learn where it makes a difference.

    :return: whether it was so many.
    """
    many = written * 100 >= estimated_rows(connection, documents_table(space.collection_id))
    if many:
        _analyze(connection, space)
    elif not space.chunks / 2 <= estimated_rows(connection, chunks_table(space.id)) <= space.chunks * 2:
        _note_sizes(connection, space)
    if space.language is not None and (many or _counts_are_old(connection, space)):
        count_words(connection, space)
    return many


def _counts_are_old(connection: Connection, space: Space) -> bool:
    """Whether to count anew what BM25 needs: in a moment, or because one document in a hundred came or went."""
    if estimated_rows(connection, postings_table(space.collection_id)) < COUNTED_AT_ONCE:
        return True
    counted = select(models.Collection.documents).where(models.Collection.id == space.collection_id)
    known = connection.scalar(counted) or 0
    return abs(estimated_rows(connection, documents_table(space.collection_id)) - known) > known / 100


def count_words(connection: Connection, space: Space) -> None:
    """Count what BM25 needs to know of a collection: how many documents it has, and how many words these have.

    Reads an index of all postings. Nothing is counted document by document: two writers would wait for each other.
    """
    statement = text(
        "WITH d AS (SELECT count(*) AS n FROM searchapp_data.documents WHERE collection_id = :collection_id),"
        " w AS (SELECT CAST(sum(frequency) AS float8) AS n FROM searchapp_data.postings"
        "       WHERE collection_id = :collection_id)"
        " UPDATE searchapp_data.collections SET documents = d.n, mean_length = coalesce(w.n / nullif(d.n, 0), 0)"
        " FROM d, w WHERE id = :collection_id"
    )
    connection.execute(statement, {"collection_id": space.collection_id})


def mend_counts(connection: Connection, space: Space) -> None:
    """Make the counts of a collection's words agree with its postings, though something that knew no counts wrote them.

    What others write meanwhile changes both alike.
    """
    statement = text(
        "INSERT INTO searchapp_data.term_counts (collection_id, term, documents)"
        " SELECT :collection_id, term, sum(n) FROM ("
        "  SELECT term, 1 AS n FROM searchapp_data.postings WHERE collection_id = :collection_id"
        "  UNION ALL SELECT term, -documents FROM searchapp_data.term_counts WHERE collection_id = :collection_id"
        " ) AS each GROUP BY term HAVING sum(n) <> 0"
    )
    connection.execute(statement, {"collection_id": space.collection_id})


def _analyze(connection: Connection, space: Space) -> None:
    """ANALYZE the partitions, and note how large they are.

    Not the embeddings: no plan asks for them. But space_id, though it is one value: without its statistics the planner
    takes one row in 200 for all of them, and sorts instead of using the index.
    """
    analyzed = [
        partitions.analyze(connection, documents_table(space.collection_id)),
        partitions.analyze(connection, chunks_table(space.id), ("space_id", "document_id", "position")),
    ]
    if space.language is not None:
        partitions.analyze(connection, postings_table(space.collection_id), POSTINGS_ANALYZED)
    partitions.analyze_ids(connection)
    if all(analyzed):
        _note_sizes(connection, space)


def _note_sizes(connection: Connection, space: Space) -> None:
    documents = estimated_rows(connection, documents_table(space.collection_id))
    chunks = max(estimated_rows(connection, chunks_table(space.id)), 0)
    ratio = max(1.0, chunks / documents) if documents > 0 else 1.0
    sizes = {"chunks_per_document": ratio, "chunks": chunks}
    connection.execute(update(models.Space).where(models.Space.id == space.id).values(sizes))


def set_ef_search(connection: Connection, space: Space, ef_search: int, recall: float) -> None:
    """Note what a space's index is to be asked with, at least, and what recall was measured so.

    :raises errors.CollectionMissing: the space has been retired meanwhile.
    """
    statement = update(models.Space).where(models.Space.id == space.id, models.Space.state == "ready")
    values = {"ef_search": ef_search, "recall": recall, "measured_at": func.now()}
    if connection.scalar(statement.values(values).returning(models.Space.id)) is None:
        raise errors.CollectionMissing(f"the collection {space.collection} was dropped meanwhile")


def _model_id(connection: Connection, model: Model) -> int:
    known = select(models.Model.id).where(models.Model.name == model.name, models.Model.revision == model.revision)
    found = connection.scalar(known)
    if found is None:
        statement = insert(models.Model).values(**dataclasses.asdict(model)).on_conflict_do_nothing()
        found = connection.scalar(statement.returning(models.Model.id)) or connection.scalar(known)
    assert found is not None
    return found
