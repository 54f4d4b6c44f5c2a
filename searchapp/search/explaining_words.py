"""How a search by words, or a hybrid, was answered: from the server's plan to a reading."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from searchapp.search.explaining import Reading, advise, executed, read_plan, rows_of
from searchapp.search.explanation import WORDS
from searchapp.search.question import Question
from searchapp.search.request import TEXT
from searchapp.spaces import Space

# To look up so many rows for what the index could tell takes some milliseconds.
MANY_LOOK_UPS = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class WordsReading:
    """What a plan says of words.

    :param postings: how many entries were read, in their index.
    :param look_ups: for how many of them the table was read as well.
    """

    postings: int
    look_ups: int


def read_words(plan: dict[str, Any], space: Space) -> WordsReading:
    """Read what was done with postings."""
    table = f"postings_{space.collection_id}"
    read = [node for _, node in executed(plan["Plan"]) if node.get("Relation Name") == table]
    return WordsReading(sum(map(rows_of, read)), sum(node.get("Heap Fetches", 0) for node in read))


def read_rest(plan: dict[str, Any], space: Space, question: Question) -> Reading:
    """Read the rest: of a hybrid how its candidates that are near were found."""
    if question.mode == TEXT:
        documents = [
            node
            for part, node in executed(plan["Plan"])
            if part and node.get("Relation Name") == f"documents_{space.collection_id}"
        ]
        read = sum(map(rows_of, documents)) if question.request.filter else 0
        index = f"postings_{space.collection_id}_pkey"
        return Reading(WORDS, index, 0, read, documents_tried=0, fell_short=False, offered=0, found=0)
    request = dataclasses.replace(question.request, limit=question.candidates, offset=0)
    return read_plan({"Plan": _leg(plan["Plan"], f"chunks_{space.id}")}, space, request)


def advise_words(words: WordsReading, reading: Reading, space: Space, question: Question, hits: int) -> Iterator[str]:
    """What can be done about how a search was answered, a sentence each."""
    if not space.words_complete:
        yield f"some documents lack their words yet: searchapp index words --collection {space.collection}"
    if question.mode == TEXT and not words.postings:
        yield "no document has any of the query's words; the mode hybrid finds what means the same"
    if words.look_ups >= MANY_LOOK_UPS:
        yield (
            f"for {words.look_ups:,} of {words.postings:,} postings the table was read, though their index could tell:"
            f" VACUUM searchapp_data.postings_{space.collection_id}"
        )
    if question.mode != TEXT:
        request = dataclasses.replace(question.request, limit=question.candidates, offset=0, min_score=None)
        yield from advise(reading, space, request, hits)


def _leg(plan: dict[str, Any], chunks: str) -> dict[str, Any]:
    """The part of a hybrid's plan that is a search by vector: the rungs, and what puts them together."""
    parts = [each for each in plan.get("Plans", ()) if each.get("Subplan Name", "").startswith("CTE ")]
    rungs = []
    for part in parts:
        inside = list(executed({**part, "Subplan Name": ""}))
        if any(node["Node Type"] == "Append" for _, node in inside) and _reads(part, chunks):
            part = {**part, "Subplan Name": ""}
        rungs.append(part)
    return {"Node Type": "Result", "Actual Loops": 1, "Actual Rows": 0, "Plans": rungs}


def _reads(plan: dict[str, Any], table: str) -> bool:
    return plan.get("Relation Name") == table or any(_reads(each, table) for each in plan.get("Plans", ()))
