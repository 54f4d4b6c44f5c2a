"""How a search by vector was answered: from the server's plan to a reading, and to what could make it faster."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from searchapp.search import filters, nearest
from searchapp.search.explanation import EXACT, FILTER, FIRST, WIDER, counted
from searchapp.search.request import Request
from searchapp.spaces import Space

# With fewer passages a scan of all is as fast as the index, or nearly.
SMALL = 10_000
# To read so many documents for a filter takes some milliseconds.
MANY_DOCUMENTS = 1000
# The part of a plan that is the last rung; the others are CTEs, and have their names.
_LAST = "last"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a plan says.

    :param fell_short: whether the rungs before gave too little, so that the last one ran.
    :param offered: how many rows the rung before the last gave.
    :param found: how many hits there were, before a threshold and an offset cut them.
    :param documents_tried: those of the documents read that no index on their metadata had found, or not rightly.
    """

    rung: str
    index: str | None
    passages: int
    documents: int
    documents_tried: int
    fell_short: bool
    offered: int
    found: int


def read_plan(plan: dict[str, Any], space: Space, request: Request) -> Reading:
    """Read what happened in a plan: EXPLAIN ANALYZE's as JSON, of the statement of a search."""
    nodes = list(executed(plan["Plan"]))
    chunks, documents = f"chunks_{space.id}", f"documents_{space.collection_id}"
    read = [(part, node) for part, node in nodes if part and node.get("Relation Name") in {chunks, documents}]
    parts = list(dict.fromkeys(part for part, _ in read))
    answering = parts[-1] if parts else _LAST
    fell_short = answering == _LAST and not _is_exact(space, request)
    of_documents = [node for _, node in read if node["Relation Name"] == documents]
    indexes = dict.fromkeys(_index(node) for part, node in nodes if part == answering and _index(node))
    hnsw = f"space_{space.id}_hnsw"
    if _is_exact(space, request) or fell_short:
        rung = EXACT
    elif hnsw in indexes:
        rung = FIRST if len(parts) == 1 else WIDER
    else:
        rung = EXACT if request.condition() is None else FILTER
    return Reading(
        rung=rung,
        index=hnsw if rung in {FIRST, WIDER} else ", ".join(indexes) or None,
        passages=sum(rows_of(node) for _, node in read if node["Relation Name"] == chunks),
        documents=sum(map(rows_of, of_documents)),
        documents_tried=sum(map(_tried, of_documents)),
        fell_short=fell_short,
        offered=sum(rows_of(node) for _, node in nodes if node.get("Subplan Name") in parts[-2:-1]),
        found=next((rows_of(node) for part, node in nodes if part == _LAST), 0),
    )


def advise(reading: Reading, space: Space, request: Request, hits: int) -> Iterator[str]:
    """What can be done about how a search was answered, a sentence each.

    :param hits: how many it gave.
    """
    wanted = request.limit + request.offset
    if request.condition() is None and reading.found == hits == 0:
        yield f"the collection holds nothing yet: searchapp ingest FILE --collection {space.collection}"
        return
    if not space.indexed:
        yield "there is no index yet, so that every search compares with everything: searchapp db maintain"
    elif request.exact:
        yield "it was asked for an exact answer; without that the index answers, where it is faster"
    elif _is_exact(space, request) and reading.passages >= SMALL:
        yield "so many were asked for that comparing with everything is as fast as the index, and finds more"
    elif reading.fell_short:
        yield _why_it_fell_short(reading, space, wanted)
    elif reading.rung == EXACT:
        yield _why_all_was_read(reading, space)
    if request.reach is not None and hits < min(request.limit, reading.found - request.offset):
        yield (
            f"{counted(hits, 'hit')} came within the distance {request.reach:g}; a larger max_distance, or a"
            " smaller min_score, gives more"
        )
    if request.filter and reading.documents_tried >= MANY_DOCUMENTS:
        for field in filters.undeclared(request.filter, space.fields):
            declared = shlex.quote(str(field))
            declared = f"-- {declared}" if field.name.startswith("-") else declared
            yield (
                f"declaring {field.name} would help the filter:"
                f" searchapp collection field add {space.collection} {declared}"
            )


def _why_it_fell_short(reading: Reading, space: Space, wanted: int) -> str:
    if reading.found == 0:
        return "no document passes the filter; check its fields and values"
    if reading.found <= wanted:
        match = "1 document matches" if reading.found == 1 else f"{reading.found:,} documents match"
        return f"{match} and {wanted:,} were asked for, so that everything was compared; fewer come faster"
    if reading.offered < wanted:
        return (
            f"the index gave {counted(reading.offered, 'passage')} for the {wanted:,} asked for, so that everything"
            f" was compared; let the server see what there is: VACUUM ANALYZE {_tables(space)}"
        )
    crowded = " or of the same documents" if space.chunks_per_document > 1 else ""
    return (
        f"many of the nearest passages are equally far{crowded}, so that everything was compared to know which come"
        " first; fewer duplicates would help"
    )


def _why_all_was_read(reading: Reading, space: Space) -> str:
    passages = counted(reading.passages, "passage")
    if reading.passages < SMALL:
        return f"the collection is small: comparing with all its {passages} is about as fast as the index"
    return (
        f"the planner took comparing with all {passages} for faster than the index; if it is not, refresh what it"
        f" knows: ANALYZE {_tables(space)}"
    )


def _tables(space: Space) -> str:
    return f"searchapp_data.documents_{space.collection_id}, searchapp_data.chunks_{space.id}"


def _is_exact(space: Space, request: Request) -> bool:
    """Whether the statement of a search does without the HNSW index."""
    count = request.limit + request.offset
    return request.exact or nearest.is_exact(space, count, filtered=request.condition() is not None)


def executed(node: dict[str, Any], part: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The nodes of a plan that were run, each with the part of the statement that it stands in: a CTE, by its name,
    the last rung, or neither (empty). The rungs before the last are CTEs, and an Append puts all together.
    """
    if not node["Actual Loops"]:
        return
    if node.get("Subplan Name", "").startswith("CTE "):
        part = node["Subplan Name"]
    elif node["Node Type"] == "Append":
        part = part or _LAST
    yield part, node
    for child in node.get("Plans", ()):
        yield from executed(child, part)


def _index(node: dict[str, Any]) -> str:
    """The index that a node finds its rows by; empty where that is none, or the primary key, which joins."""
    name: str = node.get("Index Name", "")
    return "" if name.endswith("_pkey") else name


def rows_of(node: dict[str, Any]) -> int:
    """How many rows a node has read, in all its loops; the server tells the mean of a loop, rounded."""
    loops: int = node["Actual Loops"]
    if loops > 1 and _is_look_up(node):
        return loops
    given: float = node["Actual Rows"] * loops
    return round(given) + _removed(node)


def _removed(node: dict[str, Any]) -> int:
    """How many rows a node has read and left out; GIN may offer all documents, to be rechecked."""
    of_a_loop = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    removed: float = of_a_loop * node["Actual Loops"]
    return round(removed)


def _tried(node: dict[str, Any]) -> int:
    """How many of a node's rows the filter tried: all, or those left out where an index had found them."""
    by_index = node["Node Type"] == "Bitmap Heap Scan" or _index(node)
    return _removed(node) if by_index else rows_of(node)


def _is_look_up(node: dict[str, Any]) -> bool:
    """Whether each loop of a node reads one document, by its id."""
    by_id = re.fullmatch(r"documents_[0-9]+_pkey", node.get("Index Name", ""))
    return by_id is not None and not node["Parallel Aware"]
