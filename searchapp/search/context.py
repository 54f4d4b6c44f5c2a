"""Context for an answer: the passages that a language model is given, within a budget of tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from searchapp import errors
from searchapp.database import Reader
from searchapp.models import document_id
from searchapp.search.hits import Hits, Took
from searchapp.spaces import Space
from searchapp.vectors import Array
from searchapp.wire import quote, received

# So many passages a document are candidates.
PASSAGES = 3
# A document that is one passage has so many tokens, as far as a model reads.
WHOLE = 250
# So many passages are looked up at first, in as many documents at most.
LEAST, MOST = 10, 200
# Passages whose embeddings have this cosine at least say the same.
NEAR_REPEAT = 0.95
MAX_NEIGHBOURS = 20

_BETWEEN = "\n\n"

CountTokens = Callable[[str], int]
NO_TIME = Took(0.0, 0.0)


class ContextPassage(NamedTuple):
    """A piece of a document, for an answer to cite: ``position`` is the number of its first chunk, from 0; ``score`` as
    of a hit, that of the best chunk in it."""

    key: str
    title: str | None
    position: int
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class Context:
    """What a language model is given: ``text`` has the passages as numbered sources, from ``[1]`` on, ``passages``
    themselves are in the same order; ``tokens`` is how many ``text`` has."""

    passages: tuple[ContextPassage, ...]
    text: str
    tokens: int
    took_ms: Took

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a document's text, from ``start``, in characters, on."""

    start: int
    text: str

    @property
    def end(self) -> int:
        """Where the next character would be."""
        return self.start + len(self.text)

    def joined(self, other: Span) -> Span | None:
        """Both in one, where they overlap or touch.

        >>> Span(0, "one two").joined(Span(4, "two three"))
        Span(start=0, text='one two three')
        """
        first, last = sorted((self, other), key=attrgetter("start"))
        if last.start > first.end:
            return None
        return Span(first.start, first.text + last.text[first.end - last.start :])


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that may stand in the context.

    :param document: its rank among the hits.
    :param alone, widened: the passage, and with its neighbours.
    :param first: the number of the first chunk in ``widened``.
    """

    document: int
    key: str
    title: str | None
    position: int
    score: float
    alone: Span
    widened: Span
    first: int
    embedding: Array = field(repr=False)


def check_budget(token_budget: int, neighbours: int) -> None:
    """Check how long a context is to be.

    :raises errors.InvalidInput: as it cannot be.
    """
    if not isinstance(token_budget, int) or isinstance(token_budget, bool) or token_budget < 1:
        raise errors.InvalidInput(f"token_budget is {token_budget!r}; expected a number of tokens, such as 2000")
    if not isinstance(neighbours, int) or isinstance(neighbours, bool) or not 0 <= neighbours <= MAX_NEIGHBOURS:
        raise errors.InvalidInput(f"neighbours is {neighbours!r}; expected 0 to {MAX_NEIGHBOURS}")


def passages_for(space: Space, token_budget: int, neighbours: int) -> int:
    """About how many passages fill a context, each with a neighbour of its own, if it has any; and some more."""
    tokens = (space.chunking.tokens or WHOLE) * (2 if neighbours else 1)
    return min(max(5 * token_budget // (4 * tokens), LEAST), MOST)


def candidates(
    reader: Reader, space: Space, hits: Hits, count: int, neighbours: int, timeout: float | None
) -> list[Candidate]:
    """The best passages of hits, each with its neighbours, best first: in one round trip.

    :param hits: with several passages each.
    :param count: how many passages.
    :param neighbours: how many chunks before and behind a passage are its neighbours.
    """
    # how much farther a passage is than its document's nearest, which has the hit's score
    scored = [
        (hit.score - (passage.distance - hit.passages[0].distance), rank, hit, passage)
        for rank, hit in enumerate(hits)
        for passage in hit.passages
    ]
    wanted = sorted(scored, key=lambda each: (-each[0], each[1], each[3].position))[:count]
    if not wanted:
        return []
    ids = [document_id(space.collection_id, hit.key) for _, _, hit, _ in wanted]
    positions = [passage.position for *_, passage in wanted]
    rows = reader.fetch(statement_of_passages(space, neighbours), [ids, positions], timeout)
    found = []
    for place, start, text, first, embedding in rows:
        score, rank, hit, passage = wanted[place - 1]
        alone, widened = Span(passage.start, passage.text), Span(start, text)
        found.append(
            Candidate(rank, hit.key, hit.title, passage.position, score, alone, widened, first, received(embedding))
        )
    return found


def statement_of_passages(space: Space, neighbours: int) -> bytes:
    """For passages (documents ``$1``, positions ``$2``): ``place, start, text, first, embedding``, with neighbours."""
    schema = quote(space.vector_schema)
    return f"""
SELECT asked.place, near.start, substring(d.text FROM near.start + 1 FOR near.until - near.start), near.first,
  {schema}.vector_send(c.embedding)
FROM unnest($1::uuid[], $2::int[]) WITH ORDINALITY AS asked (document_id, position, place)
JOIN searchapp_data.chunks c
  ON c.space_id = {space.id} AND c.document_id = asked.document_id AND c.position = asked.position
CROSS JOIN LATERAL (
  SELECT min(n.start) AS start, max(n.start + n.length) AS until, min(n.position) AS first
  FROM searchapp_data.chunks n
  WHERE n.space_id = {space.id} AND n.document_id = asked.document_id
    AND n.position BETWEEN asked.position - {neighbours} AND asked.position + {neighbours}
) near
JOIN searchapp_data.documents d ON d.collection_id = {space.collection_id} AND d.id = asked.document_id
ORDER BY asked.place
""".encode()


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A span of the context, and of what it is made."""

    document: int
    key: str
    title: str | None
    position: int
    score: float
    span: Span


def assemble(
    found: Sequence[Candidate], token_budget: int, count_tokens: CountTokens, took: Took = NO_TIME
) -> tuple[Context, bool]:
    """Put the best passages together, as many as fit.

    A passage whose neighbours do not fit stands without them; what overlaps in a document is one; what says the same as
    another one is left out. Documents stand in the order of their best passages, these in that of the text.

    :param found: best first.
    :return: the context, and whether more passages might fit.
    :raises errors.InvalidInput: no passage fits.
    """
    tokens_of = lru_cache(None)(count_tokens)  # most sources stay as they are from one try to the next
    between = count_tokens(_BETWEEN) - 2 * count_tokens("")  # a tokenizer may add marks to any text

    def added_up(chosen: Sequence[_Chosen]) -> int:
        return sum(map(tokens_of, _sources(chosen))) + between * (len(chosen) - 1)

    for measure in (added_up, lambda chosen: count_tokens(_text(chosen))):
        chosen, misfits = _choose(found, token_budget, measure)
        text = _text(chosen)
        tokens = count_tokens(text) if text else 0
        if tokens <= token_budget:  # else the tokenizer takes more for all than for the parts
            break
    passages = tuple(ContextPassage(each.key, each.title, each.position, each.score, each.span.text) for each in chosen)
    return Context(passages, text, tokens, took), not misfits


def _choose(
    found: Sequence[Candidate], token_budget: int, measure: Callable[[Sequence[_Chosen]], int]
) -> tuple[list[_Chosen], int]:
    """The spans that fit, and how many passages did not."""
    chosen: list[_Chosen] = []
    embeddings: list[Array] = []
    shortest, misfits = math.inf, 0
    for each in found:
        if _is_repeated(each, chosen, embeddings):
            continue
        for span, position in ((each.widened, each.first), (each.alone, each.position)):
            new = _Chosen(each.document, each.key, each.title, position, each.score, span)
            tried = _with(chosen, new)
            tokens = measure(tried)
            if tokens <= token_budget:
                chosen = tried
                embeddings.append(each.embedding)
                break
        else:
            shortest, misfits = min(shortest, tokens), misfits + 1
    if misfits and not chosen:
        raise errors.InvalidInput(
            f"no passage fits into {token_budget:,} tokens; the shortest that was found takes {shortest:,}"
        )
    return chosen, misfits


def _is_repeated(candidate: Candidate, chosen: Iterable[_Chosen], embeddings: Sequence[Array]) -> bool:
    """Whether a passage is there already, or one that says the same."""
    for each in chosen:
        if each.document == candidate.document and (
            each.span.start <= candidate.alone.start and candidate.alone.end <= each.span.end
        ):
            return True
    if not embeddings:
        return False
    others = np.array(embeddings)
    lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(candidate.embedding)
    return bool((others @ candidate.embedding >= NEAR_REPEAT * lengths).any())


def _with(chosen: Iterable[_Chosen], new: _Chosen) -> list[_Chosen]:
    """The spans with one more, which is joined with those that it overlaps; in their order."""
    kept = []
    for each in chosen:
        joined = each.span.joined(new.span) if each.document == new.document else None
        if joined is None:
            kept.append(each)
        else:
            position, score = min(each.position, new.position), max(each.score, new.score)
            new = replace(new, span=joined, position=position, score=score)
    kept.append(new)
    best: dict[int, float] = {}
    for each in kept:
        best[each.document] = max(each.score, best.get(each.document, each.score))
    return sorted(kept, key=lambda each: (-best[each.document], each.document, each.span.start))


def _sources(chosen: Iterable[_Chosen]) -> list[str]:
    """Each of them with its heading, which is one line whatever the title has."""
    return [
        f"[{number}] {' '.join((each.title or each.key).split())}\n{each.span.text.strip()}"
        for number, each in enumerate(chosen, 1)
    ]


def _text(chosen: Iterable[_Chosen]) -> str:
    return _BETWEEN.join(_sources(chosen))
