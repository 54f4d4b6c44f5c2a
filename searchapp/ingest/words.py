"""The words of documents, from which BM25 is computed: a posting for each word that a document has.

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

# The words of documents, with how often they are in each. MATERIALIZED: else a text is read once for each column.
_WORDS = f"""
language AS MATERIALIZED (
  SELECT CAST(language AS regconfig) AS name FROM searchapp_data.collections
  WHERE id = :collection_id AND language IS NOT NULL
),
texts AS MATERIALIZED (
  SELECT l.name AS language, d.id, concat_ws(' ', d.title, d.text) AS body,
    octet_length(d.text) + coalesce(octet_length(d.title), 0) > {LONG} AS long
  FROM language l CROSS JOIN searchapp_data.documents d WHERE d.collection_id = :collection_id AND d.id = ANY(:ids)
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
# In the order of the index, whose pages are so filled one after the other.
_ADD = f"""
WITH {_WORDS}
INSERT INTO searchapp_data.postings (collection_id, term, document_id, frequency, document_length)
SELECT :collection_id, term, id, frequency, sum(frequency) OVER (PARTITION BY id) FROM words ORDER BY term, id
"""
_REMOVE = f"""
WITH {_WORDS}
DELETE FROM searchapp_data.postings p USING words w
WHERE p.collection_id = :collection_id AND p.term = w.term AND p.document_id = w.id
"""


def add(connection: Connection, collection_id: int, ids: Sequence[uuid.UUID]) -> None:
    """Make the postings of documents that have none.

    :param ids: of documents that this transaction has locked, or put in.
    """
    faults.point("between-documents-and-words")
    connection.execute(text(_ADD), {"collection_id": collection_id, "ids": list(ids)})


def remove(connection: Connection, collection_id: int, ids: Sequence[uuid.UUID]) -> None:
    """Take away the postings of documents, found by their texts as these are stored: before they are changed.

    :param ids: of documents that this transaction has locked.
    """
    connection.execute(text(_REMOVE), {"collection_id": collection_id, "ids": list(ids)})
