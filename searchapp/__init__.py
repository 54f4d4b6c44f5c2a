"""Semantic search that lives in the PostgreSQL you already run.

>>> import searchapp
>>> db = searchapp.connect()                                             # doctest: +SKIP
>>> db.ingest([{"key": "1", "text": "Red shoes"}], collection="things")  # doctest: +SKIP
>>> db.search("crimson sneakers", collection="things").hits[0].key       # doctest: +SKIP
'1'
"""

from importlib.metadata import version

from searchapp.client import Client, connect
from searchapp.errors import SearchAppError
from searchapp.ingest.documents import Document
from searchapp.ingest.ingestion import Summary
from searchapp.search.documents import documents
from searchapp.search.hits import Hit, Hits
from searchapp.search.nearest import nearest
from searchapp.spaces import Space

__version__ = version("searchapp")
__all__ = [
    "Client",
    "Document",
    "Hit",
    "Hits",
    "SearchAppError",
    "Space",
    "Summary",
    "connect",
    "documents",
    "nearest",
]
