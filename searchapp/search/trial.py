"""A search that is run to be explained: what the server says of its statement, in words."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from searchapp.database import Reader
from searchapp.search import asking, statements
from searchapp.search.explaining import advise, read_plan
from searchapp.search.explaining_words import advise_words, read_rest, read_words
from searchapp.search.explanation import FIRST, WIDER, Explanation, Times
from searchapp.search.matrix import Row
from searchapp.search.question import Question
from searchapp.search.request import VECTOR
from searchapp.spaces import Space
from searchapp.vectors import Array


@dataclass(frozen=True, slots=True)
class Trial:
    """A search that was run, and what the server said of it.

    :param statement: its SQL text.
    :param rows: its hits, as of any search.
    :param text: EXPLAIN ANALYZE for people.
    :param plan: the same as JSON, of another run.
    :param round_trip: milliseconds that the search took.
    """

    space: Space
    question: Question
    statement: bytes
    rows: list[Row]
    text: str
    plan: dict[str, Any]
    round_trip: float


def ask(reader: Reader, space: Space, vector: Array | None, question: Question) -> Trial:
    """Run the statement of a search as it is, and under EXPLAIN.

    :param vector: shape (dimensions,); None in the mode ``text``.
    :raises asking.Outdated: as of any search.
    """
    made, request = statements.statement_of(space, question), question.request
    statement, parameters = made.text, asking.values_of(space, made, vector, question)
    # Before the others: a connection's first search also loads what the server keeps of tables and of pgvector.
    lines = reader.fetch(b"EXPLAIN (ANALYZE) " + statement, parameters, request.timeout)
    started = time.perf_counter()
    rows = asking.ask_one(reader, space, vector, question)
    round_trip = 1000 * (time.perf_counter() - started)
    # A clock read for each row and node would be more than some searches take.
    explained = reader.fetch(b"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + statement, parameters, request.timeout)
    text = "\n".join(line for (line,) in lines)
    return Trial(space, question, statement, rows, text, explained[0][0][0], round_trip)


def explanation(trial: Trial, *, encode: float) -> Explanation:
    """Say how a search was answered.

    :param encode: milliseconds.
    """
    space, question, plan, hits = trial.space, trial.question, trial.plan, len(trial.rows)
    postings = 0
    if question.mode == VECTOR:
        reading = read_plan(plan, space, question.request)
        advice = tuple(advise(reading, space, question.request, hits))
    else:
        words, reading = read_words(plan, space), read_rest(plan, space, question)
        postings = words.postings
        advice = tuple(advise_words(words, reading, space, question, hits))
    database = plan["Planning Time"] + plan["Execution Time"]
    return Explanation(
        mode=question.mode,
        rung=reading.rung,
        index=reading.index,
        ef_search=_ef_search(trial.statement, reading.rung),
        passages_scanned=reading.passages,
        documents_scanned=reading.documents,
        postings_scanned=postings,
        hits=hits,
        took_ms=Times(encode, round(database, 3), round(max(trial.round_trip - database, 0.0), 3)),
        advice=advice,
        plan=without_vectors(trial.text),
    )


def without_vectors(text: str) -> str:
    """A plan's text with ``[...]`` for its vectors, which are thousands of digits each.

    >>> without_vectors("Order By: (embedding <=> '[0.5,-1e-05]'::vector)")
    "Order By: (embedding <=> '[...]'::vector)"
    """
    return re.sub(r"'\[[-+.,e0-9]+\]'", "'[...]'", text)


def _ef_search(statement: bytes, rung: str) -> int | None:
    """What a statement sets for a rung by the HNSW index."""
    if rung not in {FIRST, WIDER}:
        return None
    # a filter's text cannot pass for it: its quotes are doubled
    found = re.findall(rb"set_config\('hnsw\.ef_search', '([0-9]+)', true\)", statement)
    return int(found[0 if rung == FIRST else 1])
