"""The words of documents, from which BM25 is computed: a posting for each word that a document has, and how many
documents have a word.

All functions stand in the transaction that changes the documents. Whether a collection has words, and by which text
search configuration these are read, each of their statements asks for itself: others may make words for a collection
while it is written to.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, Integer, TextClause, bindparam, text

from searchapp import faults
from searchapp.ingest.documents import Document

# A text search vector has 255 positions of a word at most, and none above 16,383. Texts of more bytes, and those that
# have a word so often, are read in pieces of so many characters, none of which can: see searchapp_data.slices.
LONG = 16_000
PIECE = 500
# A word's counts become one row beyond so many, which are read in some microseconds.
MANY_ROWS = 8

# MATERIALIZED: else a text is read once for each column. Parameters are read in subqueries, whose number of rows no
# value changes: so a prepared statement keeps its plan.
_LANGUAGE = """
language AS MATERIALIZED (
  SELECT CAST(language AS regconfig) AS name FROM searchapp_data.collections
  WHERE id = :collection_id AND language IS NOT NULL
)
"""
_IDS = "ARRAY(SELECT unnest(CAST(:ids AS uuid[])))"
_STORED = f"""
stored AS MATERIALIZED (
  SELECT d.id, d.title, d.text FROM language CROSS JOIN searchapp_data.documents d
  WHERE d.collection_id = :collection_id AND d.id = ANY({_IDS})
)
"""
_GIVEN = f"""
given AS MATERIALIZED (
  SELECT n.* FROM language CROSS JOIN unnest(
    {_IDS}, ARRAY(SELECT unnest(CAST(:titles AS text[]))), ARRAY(SELECT unnest(CAST(:texts AS text[])))
  ) n (id, title, text)
)
"""


def _words(name: str, documents: str) -> str:
    """The words of documents, with how often they are in each."""
    return f"""
{name}_texts AS MATERIALIZED (
  SELECT l.name AS language, d.id, concat_ws(' ', d.title, d.text) AS body,
    octet_length(d.text) + coalesce(octet_length(d.title), 0) > {LONG} AS long
  FROM language l CROSS JOIN {documents} d
),
{name}_at_once AS MATERIALIZED (
  SELECT t.id, w.lexeme AS term, cardinality(w.positions) AS frequency
  FROM {name}_texts t CROSS JOIN LATERAL unnest(to_tsvector(t.language, t.body)) w WHERE NOT t.long
),
{name}_crowded AS MATERIALIZED (SELECT DISTINCT id FROM {name}_at_once WHERE frequency >= 255),
{name} AS MATERIALIZED (
  SELECT id, term, frequency FROM {name}_at_once WHERE id NOT IN (SELECT id FROM {name}_crowded)
  UNION ALL
  SELECT t.id, w.lexeme, CAST(sum(cardinality(w.positions)) AS int)
  FROM {name}_texts t CROSS JOIN LATERAL searchapp_data.slices(t.body, {PIECE}) s (piece)
  CROSS JOIN LATERAL unnest(to_tsvector(t.language, s.piece)) w
  WHERE t.long OR t.id IN (SELECT id FROM {name}_crowded) GROUP BY t.id, w.lexeme
)
"""


def _deleted(words: str) -> str:
    return f"""
deleted AS (
  DELETE FROM searchapp_data.postings p USING {words} w
  WHERE p.collection_id = :collection_id AND p.term = w.term AND p.document_id = w.id
  RETURNING p.term, -1 AS documents
)
"""


def _inserted(words: str, after: str = "true") -> str:
    """In the order of the index, whose pages are so filled one after the other."""
    return f"""
inserted AS (
  INSERT INTO searchapp_data.postings (collection_id, term, document_id, frequency, document_length)
  SELECT :collection_id, term, id, frequency, sum(frequency) OVER (PARTITION BY id) FROM {words} WHERE {after}
  ORDER BY term, id
  RETURNING term, 1 AS documents
)
"""


# The counts of words, kept as rows that are added up. Where one would have many rows, or none of its documents is left,
# those that nobody else is at become one; not in a transaction with one snapshot for all, in which rows that others
# have made one since are an error.
def _counted(changed: str) -> str:
    return f"""
counted AS MATERIALIZED (
  SELECT term, sum(documents) AS documents FROM ({changed}) GROUP BY term HAVING sum(documents) <> 0
),
merging AS MATERIALIZED (
  SELECT c.term FROM counted c CROSS JOIN LATERAL (
    SELECT count(*) AS rows, sum(documents) AS documents FROM searchapp_data.term_counts
    WHERE collection_id = :collection_id AND term = c.term
  ) t WHERE (t.rows > {MANY_ROWS} OR t.documents + c.documents = 0)
    AND current_setting('transaction_isolation') IN ('read committed', 'read uncommitted')
),
taken AS MATERIALIZED (
  SELECT ctid AS place FROM searchapp_data.term_counts
  WHERE collection_id = :collection_id AND term = ANY(ARRAY(SELECT term FROM merging)) FOR UPDATE SKIP LOCKED
),
merged AS (
  DELETE FROM searchapp_data.term_counts WHERE ctid = ANY(ARRAY(SELECT place FROM taken)) RETURNING term, documents
)
INSERT INTO searchapp_data.term_counts (collection_id, term, documents)
SELECT :collection_id, term, sum(documents)
FROM (SELECT term, documents FROM counted UNION ALL SELECT term, documents FROM merged)
GROUP BY term HAVING sum(documents) <> 0
"""


def _of_a_collection(*parts: str, count: str) -> TextClause:
    """A statement with the collection as a literal: with a parameter for it, PostgreSQL would plan each call anew."""
    statement = text(f"WITH {','.join((_LANGUAGE, *parts, _counted(count)))}")
    return statement.bindparams(bindparam("collection_id", type_=Integer, literal_execute=True))


_ADD = _of_a_collection(_STORED, _words("words", "stored"), _inserted("words"), count="TABLE inserted")
_REMOVE = _of_a_collection(_STORED, _words("words", "stored"), _deleted("words"), count="TABLE deleted")
# Words that stay are counted neither off nor on. All are deleted before any is inserted: else a key stood there twice.
_REPLACE = _of_a_collection(
    _STORED,
    _words("old", "stored"),
    _deleted("old"),
    _GIVEN,
    _words("new", "given"),
    _inserted("new", after="(SELECT count(*) FROM deleted) >= 0"),
    count="TABLE deleted UNION ALL TABLE inserted",
)


def add(connection: Connection, collection_id: int, ids: Sequence[uuid.UUID]) -> None:
    """Make the postings of documents that have none, and count them.

    :param ids: of documents that this transaction has locked, or put in.
    """
    faults.point("between-documents-and-words")
    connection.execute(_ADD, {"collection_id": collection_id, "ids": list(ids)})


def replace(connection: Connection, collection_id: int, documents: Mapping[uuid.UUID, Document]) -> None:
    """Make the postings of documents those of their new titles and texts, before these are written.

    :param documents: the new ones, by the ids of those that are stored, which this transaction has locked.
    """
    faults.point("between-documents-and-words")
    new = documents.values()
    connection.execute(
        _REPLACE,
        {
            "collection_id": collection_id,
            "ids": list(documents),
            "titles": [each.title for each in new],
            "texts": [each.text for each in new],
        },
    )


def remove(connection: Connection, collection_id: int, ids: Sequence[uuid.UUID]) -> None:
    """Take away the postings of documents, found by their texts as these are stored: before they are changed.

    :param ids: of documents that this transaction has locked.
    """
    connection.execute(_REMOVE, {"collection_id": collection_id, "ids": list(ids)})
