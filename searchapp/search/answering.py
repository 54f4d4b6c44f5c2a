"""From a question to its hits: which mode it is asked in, by which space, and again where that has changed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from searchapp import errors
from searchapp.database import Reader
from searchapp.models import document_id
from searchapp.search import asking, highlighting, hybrid, reranking, trial
from searchapp.search import cursor as cursors
from searchapp.search import query as queries
from searchapp.search.arrangement import CANDIDATES, Arrangement
from searchapp.search.context import MOST, Context, CountTokens, assemble, candidates, passages_for
from searchapp.search.cursor import Position
from searchapp.search.diversity import most_marginal
from searchapp.search.explanation import Explanation
from searchapp.search.hits import FacetCount, Hit, Hits, Passage, Took
from searchapp.search.hybrid import DEFAULT_FUSION, Fusion
from searchapp.search.lexical import check_words
from searchapp.search.matrix import Row
from searchapp.search.question import Examples, Question
from searchapp.search.request import HYBRID, TEXT, VECTOR, Request
from searchapp.search.reranking import Reranking
from searchapp.spaces import Space
from searchapp.vectors import Array
from searchapp.wire import received

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Typed:
    """A search by text as it came.

    :param mode: None: ``hybrid`` where the collection has words, else ``vector``.
    :param marks: whether quotes and hyphens in it mean anything.
    :param reranking: of the hits that the request gives; None: they stay as they are.
    """

    text: str
    mode: str | None
    request: Request
    fusion: Fusion = DEFAULT_FUSION
    highlight: bool = False
    marks: bool = True
    reranking: Reranking | None = None

    @property
    def key(self) -> bytes:
        """What its cursors are bound to."""
        return self.text.encode()

    def question(self, space: Space) -> Question:
        """What it means for a collection.

        :raises errors.WordsMissing: its words are asked for, and the collection has none.
        :raises errors.InvalidInput: what the mode does not have.
        """
        mode, arranged = self.mode, self.request.arrangement
        if mode is None:
            with_words = space.language is not None and space.words_complete
            mode = HYBRID if with_words and not arranged.by_vector_alone else VECTOR
        if mode == VECTOR:
            return Question(self.request)
        if arranged.by_vector_alone or (arranged and mode == TEXT):
            raise errors.InvalidInput(_not_in_mode(arranged, mode))
        check_words(space)
        query = queries.read(self.text) if self.marks else queries.Query(self.text)
        if mode == HYBRID:
            wanted = self.request
            candidates = hybrid.candidates_for(wanted.limit, wanted.offset, exact=wanted.exact)
            return Question(self.request, HYBRID, query, self.fusion, candidates)
        if self.request.max_distance is not None:
            raise errors.InvalidInput("words have no distance; in the mode text give min_score")
        return Question(self.request, TEXT, query)


@dataclass(frozen=True, slots=True)
class Given:
    """A search by a vector that is there already.

    :param check: gives it as the space needs it.
    :param key: what its cursors are bound to.
    """

    check: Callable[[Space], Array]
    key: bytes
    request: Request
    highlight: bool = False

    def question(self, _: Space) -> Question:
        """What it means for a collection."""
        return Question(self.request)


@dataclass(frozen=True, slots=True)
class Alike:
    """A search for what is like a document.

    :param document: its key.
    """

    document: str
    request: Request
    highlight: bool = False

    @property
    def key(self) -> bytes:
        """What its cursors are bound to."""
        return b"\0" + self.document.encode()

    def question(self, space: Space) -> Question:
        """What it means for a collection."""
        return Question(self.request, like=document_id(space.collection_id, self.document))


@dataclass(frozen=True, slots=True)
class ByExamples:
    """A search for what is like some examples, and unlike others.

    :param sides: gives both for a space.
    """

    sides: Callable[[Space], tuple[Examples, Examples]]
    strategy: str
    request: Request
    highlight: bool = False
    key: bytes = b""

    def question(self, space: Space) -> Question:
        """What it means for a collection."""
        return Question(self.request, examples=self.sides(space), strategy=self.strategy)


# What is asked for one answer.
Asked = Typed | Given | Alike | ByExamples


class Answering:
    """Answers searches.

    :param look_up: gives the active space of a collection, and keeps it in ``seen``.
    :param seen: spaces as they were seen last; a search asks whether its own still is so.
    :param load: loads the model of a space, which is no part of the encoding.
    :param encode: the embeddings of texts, shape (n_texts, dimensions), by the model of a space.
    """

    def __init__(
        self,
        reader: Reader,
        look_up: Callable[[str], Space],
        seen: dict[str, Space],
        load: Callable[[Space], object],
        encode: Callable[[Space, Sequence[str]], Array],
    ) -> None:
        self._reader = reader
        self._look_up = look_up
        self._seen = seen
        self._load = load
        self._encode = encode

    def ask(self, collection: str, search: Asked, cursor: str | None = None) -> Hits:
        """Answer one search.

        :param cursor: of the page before.
        """
        return self._asked(collection, partial(self._page, collection, search, cursor))

    def ask_many(self, collection: str, searches: Sequence[Typed]) -> list[Hits]:
        """Answer many searches, which differ in their texts alone: one encoding, one round trip."""
        return self._asked(collection, partial(self._many, searches))

    def ask_many_by_vector(self, collection: str, search: Given) -> list[Hits]:
        """Answer a search for each of many vectors, in one round trip.

        :param search: gives them all, shape (n_vectors, dimensions).
        """

        def ask(space: Space) -> tuple[list[Hits], bool]:
            vectors, question = search.check(space), search.question(space)
            started = time.perf_counter()
            answers = asking.ask_many(self._reader, space, vectors, question)
            return _hits_of_many(answers, space, [question] * len(answers), 0.0, milliseconds(started))

        return self._asked(collection, ask)

    def explain(self, collection: str, search: Typed | Given) -> Explanation:
        """Say how a search is answered."""

        def ask(space: Space) -> tuple[Explanation, bool]:
            question = search.question(space)
            vector, encode = self._vector(space, search, question)
            tried = trial.ask(self._reader, space, vector, question)
            return trial.explanation(tried, encode=encode), bool(tried.rows)

        return self._asked(collection, ask)

    def facets(self, collection: str, search: Typed, field: str, limit: int) -> tuple[FacetCount, ...]:
        """Count the values of a field in the hits of a search."""

        def ask(space: Space) -> tuple[tuple[FacetCount, ...], bool]:
            question = search.question(space)
            vector, _ = self._vector(space, search, question)
            rows = asking.count_values(self._reader, space, vector, question, field, limit)
            return tuple(FacetCount(*row[:2]) for row in rows), bool(rows)

        return self._asked(collection, ask)

    def context(
        self,
        collection: str,
        search: Typed,
        neighbours: int,
        counter: Callable[[Space], CountTokens],
        token_budget: int,
    ) -> Context:
        """Put passages together for an answer.

        :param search: with several passages a hit.
        :param counter: gives what counts the tokens of a text, for a space.
        """

        def ask(space: Space) -> tuple[Context, bool]:
            count, took = passages_for(space, token_budget, neighbours), Took(0.0, 0.0)
            while True:
                request = dataclasses.replace(search.request, limit=count)
                hits, found = self._page(collection, dataclasses.replace(search, request=request), None, space)
                started = time.perf_counter()
                passages = candidates(self._reader, space, hits, count, neighbours, request.timeout)
                took = Took(hits.took_ms.encode, took.database + hits.took_ms.database + milliseconds(started))
                context, has_room = assemble(passages, token_budget, counter(space), took)
                if not has_room or len(passages) < count or count == MOST:
                    return context, found
                count = min(2 * count, MOST)  # repeats and overlaps have left room for more

        return self._asked(collection, ask)

    def _asked(self, collection: str, ask: Callable[[Space], tuple[T, bool]]) -> T:
        """Ask with the space as it was seen last; where it has changed, or nothing was found, look at it again.

        :param ask: gives the answer, and whether anything was found.
        """
        seen = self._seen.get(collection)
        space = seen or self._look_up(collection)
        while True:
            try:
                answer, found = ask(space)
                if found or self._look_up(collection) == space:
                    return answer
            except asking.Outdated:
                pass
            except errors.WordsMissing:
                if space is not seen:
                    raise
            space = self._look_up(collection)

    def _page(self, collection: str, search: Asked, cursor: str | None, space: Space) -> tuple[Hits, bool]:
        question = search.question(space)
        before = None
        if cursor is not None:
            if search.request.arrangement.reordered:
                raise errors.InvalidInput("groups, boosts and diversity have no pages; ask for more by a larger limit")
            if search.request.offset:
                raise errors.InvalidInput("give an offset or a cursor, not both")
            before = cursors.read(cursor, cursors.digest_of(collection, search.key, question))
            question = _going_on(question, before)
        vector, encode = self._vector(space, search, question)
        started = time.perf_counter()
        rows = asking.ask_one(self._reader, space, vector, widened(question), after=before)
        took = milliseconds(started)
        rows = diversified(rows, question)
        hits = hits_of(rows, space, question, Took(encode, took))
        if before is not None and not before.everything and not rows and not question.request.has_threshold:
            raise errors.InvalidCursor(
                f"the pages of a hybrid search end here, with the best {question.candidates:,} by words and by meaning;"
                " ask for something narrower, or in the mode vector or text"
            )
        everything = question.mode != HYBRID or all(row[9] for row in rows[:1])
        if _has_next(hits, question, everything=everything):
            position = cursors.after(rows, space, vector, question, before, everything=everything)
            bound = cursors.digest_of(collection, search.key, question)
            hits = dataclasses.replace(hits, cursor=cursors.write(position, bound))
        if isinstance(search, Typed):
            hits = self._finished(search, question, space, hits)
        return hits, bool(rows)

    def _finished(self, search: Typed, question: Question, space: Space, hits: Hits) -> Hits:
        """The hits reranked and with their highlights, where these are asked for."""
        text = search.text if question.query is None else question.query.text
        if search.reranking is not None:
            started = time.perf_counter()
            hits = reranking.rerank(hits, text, search.reranking)
            took = dataclasses.replace(hits.took_ms, rerank=milliseconds(started))
            hits = dataclasses.replace(hits, took_ms=took)
        if search.highlight:
            hits = highlighting.highlight(self._reader, space, text, hits)
        return hits

    def _many(self, searches: Sequence[Typed], space: Space) -> tuple[list[Hits], bool]:
        questions = [search.question(space) for search in searches]
        by_words = [question for question in questions if question.query is not None]
        encoded = [question.encoded(search.text) for question, search in zip(questions, searches, strict=True)]
        vectors, encode = self._vectors(space, [text for text in encoded if text is not None])
        started = time.perf_counter()
        if questions and not by_words:
            answers = asking.ask_many(self._reader, space, vectors, questions[0])
        else:
            each = list(vectors) if len(vectors) else [None] * len(questions)
            answers = asking.ask_each(self._reader, space, each, questions)
        return _hits_of_many(answers, space, questions, encode, milliseconds(started))

    def _vector(self, space: Space, search: Asked, question: Question) -> tuple[Array | None, float]:
        """The vector that a question is asked with, if it is, and the milliseconds that it took to encode."""
        if isinstance(search, Given):
            return search.check(space), 0.0
        if isinstance(search, (Alike, ByExamples)):
            return None, 0.0
        text = question.encoded(search.text)
        if text is None:
            return None, 0.0
        vectors, took = self._vectors(space, [text])
        return vectors[0], took

    def _vectors(self, space: Space, texts: Sequence[str]) -> tuple[Array, float]:
        if not texts:
            return np.empty((0, space.dimensions), np.float32), 0.0
        self._load(space)
        started = time.perf_counter()
        return self._encode(space, texts), milliseconds(started)


def widened(question: Question) -> Question:
    """A question for the candidates that diverse hits are chosen among."""
    request = question.request
    if request.arrangement.diversity is None:
        return question
    limit = max(CANDIDATES, request.offset + request.limit)
    return dataclasses.replace(question, request=dataclasses.replace(request, limit=limit, offset=0))


def diversified(rows: list[Row], question: Question) -> list[Row]:
    """The rows that are chosen for their diversity, in the order in which they are."""
    request = question.request
    diversity = request.arrangement.diversity
    if diversity is None or not rows:
        return rows
    scored = "score" in question.columns
    relevance = np.array([row[6] if scored else 1 - row[4] for row in rows], np.float64)
    if question.mode == HYBRID:  # by ranks, scores are some hundredths
        relevance /= max(float(relevance.max()), 1e-9)
    place = question.columns.index("embedding")
    found = [None if row[place] is None else received(row[place]) for row in rows]
    # a document without a chunk is like nothing
    nothing = np.zeros(next((len(each) for each in found if each is not None), 1), np.float32)
    embeddings = np.array([nothing if each is None else each for each in found])
    chosen = most_marginal(relevance, embeddings, diversity, request.offset + request.limit)
    return [rows[each] for each in chosen[request.offset :]]


def hits_of(rows: list[Row], space: Space, question: Question, took: Took) -> Hits:
    """The hits that rows are."""
    hits = tuple(map(_HIT_OF[question.mode, "score" in question.columns], rows))
    arranged = question.request.arrangement
    if arranged.passages > 1:
        place = question.columns.index("passages")
        hits = tuple(
            hit._replace(passages=tuple(Passage(*each) for each in row[place] or ()))
            for hit, row in zip(hits, rows, strict=True)
        )
    values: tuple[Any, ...] = ()
    if arranged.group_by is not None:
        place = question.columns.index("group")
        values = tuple(row[place] for row in rows)
    # Every writer changes a document and its chunks in one transaction, so no document lacks its chunks.
    complete = question.mode == VECTOR or space.words_complete
    return Hits(hits, question.mode, all(row[5] for row in rows), complete, took, group_values=values)


def _by_distance(row: Row) -> Hit:
    key, title, passage, metadata, distance, *_ = row
    return Hit(key, title, passage, 1 - distance, distance, metadata, 1 - distance)


def _by_score(row: Row) -> Hit:
    key, title, passage, metadata, distance, _, score, *_ = row
    return Hit(key, title, passage, score, distance, metadata, 1 - distance)


def _by_words(row: Row) -> Hit:
    key, title, passage, metadata, _, _, score, *_ = row
    return Hit(key, title, passage, score, None, metadata, None, score)


def _by_both(row: Row) -> Hit:
    key, title, passage, metadata, distance, _, score, _, text_score, *_ = row
    return Hit(key, title, passage, score, distance, metadata, None if distance is None else 1 - distance, text_score)


# By the mode, and whether rows have a score.
_HIT_OF = {
    (VECTOR, False): _by_distance,
    (VECTOR, True): _by_score,
    (TEXT, True): _by_words,
    (HYBRID, True): _by_both,
}


def _not_in_mode(arranged: Arrangement, mode: str) -> str:
    what = "groups are" if arranged.group_by is not None else "boosts are" if arranged.boosts else ""
    if what:
        return f"{what} of the mode vector; leave the mode out, or ask for that one instead of {mode}"
    return "several passages and diversity are by meaning; in the mode text there are neither"


def _hits_of_many(
    answers: list[list[Row]], space: Space, questions: Sequence[Question], encode: float, database: float
) -> tuple[list[Hits], bool]:
    """The hits of many questions, and whether there are any; each gets its share of the time."""
    share = Took(*(round(each / max(len(answers), 1), 3) for each in (encode, database)))
    hits = [hits_of(rows, space, question, share) for rows, question in zip(answers, questions, strict=True)]
    return hits, any(answers)


def _going_on(question: Question, before: Position) -> Question:
    request = dataclasses.replace(question.request, exact=before.exact)
    return dataclasses.replace(question, request=request, candidates=before.candidates)


def _has_next(hits: Hits, question: Question, *, everything: bool) -> bool:
    """Whether a cursor is given: after a full page, or one that is short because the list of candidates has ended."""
    if question.request.arrangement.reordered or question.examples is not None:
        return False
    if question.mode == VECTOR and not question.request.exact:
        return False
    full = len(hits) == question.request.limit
    return full or (bool(hits) and not everything and not question.request.has_threshold)


def milliseconds(started: float) -> float:
    """How long it is since then, by ``time.perf_counter``."""
    return round(1000 * (time.perf_counter() - started), 3)
