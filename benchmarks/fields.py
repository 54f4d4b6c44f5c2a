"""Documents with fields to filter by, and collections of other fields beside theirs."""

from __future__ import annotations

import dataclasses

import numpy as np
import psycopg
from psycopg import sql

from benchmarks import bare
from searchapp.ingest.documents import Document
from searchapp.spaces import Space

# Fields of random values, by how many there are: each value keeps one document in so many.
RANDOM_FIELDS = {"half": 2, "tenth": 10, "hundredth": 100, "thousandth": 1000}
# A text's length, once to be declared and once not.
DECLARED, UNDECLARED = "length", "size"
NEIGHBOURS = 9

# Its documents are the measured collection's under other metadata: only their statistics matter.
NEIGHBOUR = """
INSERT INTO {neighbour} (collection_id, id, key, title, text, metadata, content_hash)
SELECT {collection_id}, d.id, d.key, d.title, d.text,
  jsonb_build_object('shop', d.n % (10 * {number}), 'price', d.n / 100.0, 'sold', d.n % {number} = 0),
  d.content_hash
FROM (SELECT *, abs(hashtext(key)) % 10000 AS n FROM {documents}) AS d
"""


def label(documents: list[Document]) -> list[Document]:
    """The documents with the fields added to their metadata: the same values in every run."""
    random = np.random.default_rng(2026)
    drawn = {name: random.permutation(len(documents)) % values for name, values in RANDOM_FIELDS.items()}
    labelled = []
    for place, document in enumerate(documents):
        fields = {name: int(values[place]) for name, values in drawn.items()}
        length = len(document.text)
        metadata = {**document.metadata, **fields, DECLARED: length, UNDECLARED: length}
        labelled.append(dataclasses.replace(document, metadata=metadata))
    return labelled


def fill_neighbour(url: str, space: Space, neighbour: Space, number: int) -> None:
    """Fill a collection with as many documents as another has, of other fields, without embeddings.

    :param number: from 1; other numbers make other values.
    """
    with psycopg.connect(url) as connection:
        connection.execute(
            sql.SQL(NEIGHBOUR).format(
                neighbour=bare.documents_table(neighbour),
                collection_id=sql.Literal(neighbour.collection_id),
                number=sql.Literal(number),
                documents=bare.documents_table(space),
            )
        )
        connection.execute(sql.SQL("ANALYZE {}").format(bare.documents_table(neighbour)))
