"""The words of documents, from which BM25 is computed: a posting for each word that a document has, and how many
documents have a word.

Both functions stand in the transaction that changes the documents. Whether a collection has words, and by which text
search configuration these are read, each of their statements asks for itself: others may make words for a collection
while it is written to.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import Connection, text

from searchapp import faults

# A text search vector has 255 positions of a word at most, and none above 16,383. Texts of more bytes, and those that
# have a word so often, are read in pieces of so many characters, none of which can: see searchapp_data.slices.
LONG = 16_000
PIECE = 500
# A word's counts become one row beyond so many, which are read in some microseconds.
MANY_ROWS = 32

# The words of documents, with how often they are in each. MATERIALIZED: else a text is read once for each column. The
# ids are from a subquery, whose number of rows no value changes: so a prepared statement keeps its plan.
_WORDS = f"""
language AS MATERIALIZED (
  SELECT CAST(language AS regconfig) AS name FROM searchapp_data.collections
  WHERE id = :collection_id AND language IS NOT NULL
),
texts AS MATERIALIZED (
  SELECT l.name AS language, d.id, concat_ws(' ', d.title, d.text) AS body,
    octet_length(d.text) + coalesce(octet_length(d.title), 0) > {LONG} AS long
  FROM language l CROSS JOIN searchapp_data.documents d
  WHERE d.collection_id = :collection_id AND d.id = ANY(ARRAY(SELECT unnest(CAST(:ids AS uuid[]))))
),
at_once AS MATERIALIZED (
  SELECT t.id, w.lexeme AS term, cardinality(w.positions) AS frequency
  FROM texts t CROSS JOIN LATERAL unnest(to_tsvector(t.language, t.body)) w WHERE NOT t.long
),
crowded AS MATERIALIZED (SELECT DISTINCT id FROM at_once WHERE frequency >= 255),
words AS MATERIALIZED (
  SELECT id, term, frequency FROM at_once WHERE id NOT IN (SELECT id FROM crowded)
  UNION ALL
  SELECT t.id, w.lexeme, CAST(sum(cardinality(w.positions)) AS int)
  FROM texts t CROSS JOIN LATERAL searchapp_data.slices(t.body, {PIECE}) s (piece)
  CROSS JOIN LATERAL unnest(to_tsvector(t.language, s.piece)) w
  WHERE t.long OR t.id IN (SELECT id FROM crowded) GROUP BY t.id, w.lexeme
)
"""
# The counts of words, kept as rows that are added up. Where one would have many rows, or none of its documents is left,
# those that nobody else is at become one; not in a transaction with one snapshot for all, in which rows that others
# have made one since are an error.
_COUNT = f"""
counted AS MATERIALIZED (SELECT term, sum(documents) AS documents FROM changed GROUP BY term),
merging AS MATERIALIZED (
  SELECT c.term FROM counted c CROSS JOIN LATERAL (
    SELECT count(*) AS rows, sum(documents) AS documents FROM searchapp_data.term_counts
    WHERE collection_id = :collection_id AND term = c.term
  ) t WHERE (t.rows > {MANY_ROWS} OR t.documents + c.documents = 0)
    AND current_setting('transaction_isolation') IN ('read committed', 'read uncommitted')
),
taken AS MATERIALIZED (
  SELECT t.ctid AS place FROM merging c JOIN searchapp_data.term_counts t USING (term)
  WHERE t.collection_id = :collection_id FOR UPDATE OF t SKIP LOCKED
),
merged AS (
  DELETE FROM searchapp_data.term_counts WHERE ctid = ANY(ARRAY(SELECT place FROM taken)) RETURNING term, documents
)
INSERT INTO searchapp_data.term_counts (collection_id, term, documents)
SELECT :collection_id, term, sum(documents)
FROM (SELECT term, documents FROM counted UNION ALL SELECT term, documents FROM merged)
GROUP BY term HAVING sum(documents) <> 0
"""
# In the order of the index, whose pages are so filled one after the other.
_ADD = f"""
WITH {_WORDS},
changed AS (
  INSERT INTO searchapp_data.postings (collection_id, term, document_id, frequency, document_length)
  SELECT :collection_id, term, id, frequency, sum(frequency) OVER (PARTITION BY id) FROM words ORDER BY term, id
  RETURNING term, 1 AS documents
),
{_COUNT}
"""
_REMOVE = f"""
WITH {_WORDS},
changed AS (
  DELETE FROM searchapp_data.postings p USING words w
  WHERE p.collection_id = :collection_id AND p.term = w.term AND p.document_id = w.id
  RETURNING p.term, -1 AS documents
),
{_COUNT}
"""


def add(connection: Connection, collection_id: int, ids: Sequence[uuid.UUID]) -> None:
    """Make the postings of documents that have none, and count them.

    :param ids: of documents that this transaction has locked, or put in.
    """
    faults.point("between-documents-and-words")
    connection.execute(text(_ADD), {"collection_id": collection_id, "ids": list(ids)})


def remove(connection: Connection, collection_id: int, ids: Sequence[uuid.UUID]) -> None:
    """Take away the postings of documents, found by their texts as these are stored: before they are changed.

    :param ids: of documents that this transaction has locked.
    """
    connection.execute(text(_REMOVE), {"collection_id": collection_id, "ids": list(ids)})
