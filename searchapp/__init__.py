"""Semantic search that lives in the PostgreSQL you already run.

>>> import searchapp
>>> db = searchapp.connect()                                             # doctest: +SKIP
>>> db.ingest([{"key": "1", "text": "Red shoes"}], collection="things")  # doctest: +SKIP
>>> db.search("crimson sneakers", collection="things").hits[0].key       # doctest: +SKIP
'1'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from searchapp import errors

if TYPE_CHECKING:
    from searchapp import orm as orm
    from searchapp.async_client import AsyncClient as AsyncClient
    from searchapp.async_client import connect_async as connect_async
    from searchapp.client import Client as Client
    from searchapp.connecting import connect as connect
    from searchapp.errors import SearchAppError as SearchAppError
    from searchapp.ingest.documents import Document as Document
    from searchapp.ingest.ingestion import Summary as Summary
    from searchapp.search.arrangement import Boost as Boost
    from searchapp.search.arrangement import Decay as Decay
    from searchapp.search.boosting import boosted as boosted
    from searchapp.search.context import Context as Context
    from searchapp.search.context import ContextPassage as ContextPassage
    from searchapp.search.documents import documents as documents
    from searchapp.search.examples import nearest_to_document as nearest_to_document
    from searchapp.search.examples import nearest_to_examples as nearest_to_examples
    from searchapp.search.explanation import Explanation as Explanation
    from searchapp.search.facets import facets as facets
    from searchapp.search.grouping import grouped as grouped
    from searchapp.search.hits import FacetCount as FacetCount
    from searchapp.search.hits import Facets as Facets
    from searchapp.search.hits import Group as Group
    from searchapp.search.hits import Hit as Hit
    from searchapp.search.hits import Hits as Hits
    from searchapp.search.hits import Passage as Passage
    from searchapp.search.hybrid import hybrid as hybrid
    from searchapp.search.lexical import words as words
    from searchapp.search.nearest import nearest as nearest
    from searchapp.spaces import Space as Space

    __version__: str

# Each is imported when it is first asked for: the command begins to load its model before SQLAlchemy is there.
_PLACES = {
    "AsyncClient": "searchapp.async_client",
    "Boost": "searchapp.search.arrangement",
    "Client": "searchapp.client",
    "Context": "searchapp.search.context",
    "ContextPassage": "searchapp.search.context",
    "Decay": "searchapp.search.arrangement",
    "Document": "searchapp.ingest.documents",
    "Explanation": "searchapp.search.explanation",
    "FacetCount": "searchapp.search.hits",
    "Facets": "searchapp.search.hits",
    "Group": "searchapp.search.hits",
    "Hit": "searchapp.search.hits",
    "Hits": "searchapp.search.hits",
    "Passage": "searchapp.search.hits",
    "SearchAppError": "searchapp.errors",
    "Space": "searchapp.spaces",
    "Summary": "searchapp.ingest.ingestion",
    "boosted": "searchapp.search.boosting",
    "connect": "searchapp.connecting",
    "connect_async": "searchapp.async_client",
    "documents": "searchapp.search.documents",
    "facets": "searchapp.search.facets",
    "grouped": "searchapp.search.grouping",
    "hybrid": "searchapp.search.hybrid",
    "nearest": "searchapp.search.nearest",
    "nearest_to_document": "searchapp.search.examples",
    "nearest_to_examples": "searchapp.search.examples",
    "words": "searchapp.search.lexical",
}
__all__ = [
    "AsyncClient",
    "Boost",
    "Client",
    "Context",
    "ContextPassage",
    "Decay",
    "Document",
    "Explanation",
    "FacetCount",
    "Facets",
    "Group",
    "Hit",
    "Hits",
    "Passage",
    "SearchAppError",
    "Space",
    "Summary",
    "boosted",
    "connect",
    "connect_async",
    "documents",
    "errors",
    "facets",
    "grouped",
    "hybrid",
    "nearest",
    "nearest_to_document",
    "nearest_to_examples",
    "orm",
    "words",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("searchapp")
    if name == "orm":
        return importlib.import_module("searchapp.orm")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'searchapp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
