"""Search by words: BM25, computed from postings.

The score of a document is the sum over the question's words, each counted once, of

    ln(1 + (N - n + 0.5) / (n + 0.5)) * f * (k1 + 1) / (f + k1 * (1 - b + b * length / mean length))

with N documents in the collection, n of which have the word, f times in this one.
*Source:* Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009); the weight of a word,
which is never negative, as in Lucene's BM25Similarity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    CTE,
    Boolean,
    ColumnElement,
    Double,
    Integer,
    Select,
    Subquery,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, REGCONFIG, array

from searchapp import errors
from searchapp.models import Chunk, Collection, Document, Posting, term_counts
from searchapp.search import query as queries
from searchapp.search.expressions import as_float, as_threshold, best_first, is_document, ratio
from searchapp.search.filters import condition_of
from searchapp.search.request import check_limit, check_offset
from searchapp.spaces import Space
from searchapp.wire import literally

# How soon more of the same word says nothing new, and how much a document's length counts. Other values change little.
K1 = 1.2
B = 0.75
# Scores are summed as whole numbers of this size's inverse: all but exact, and far from what a float8 cannot count.
ONE = 2**32
# The rarest words are read until they have so many postings, and at least as many as there are hits to find.
RAREST = 20
# A document that is cut, but not in passages, is shown by the piece of this length that has most of the question's
# words.
PIECE = 1000  # characters


def words(
    space: Space,
    query: str,
    *,
    limit: int,
    offset: int = 0,
    filter: Mapping[str, Any] | None = None,
    where: ColumnElement[bool] | Sequence[ColumnElement[bool]] = (),
    min_score: float | None = None,
) -> Select[Any]:
    """Build the statement for the documents that have a question's words, best first by BM25.

    :param query: words; ``"a phrase"`` must stand in a hit, an ``-excluded`` word or phrase must not.
    :param limit: how many hits, 1 to 100,000.
    :param offset: how many of the best are left out before them, 0 to 100,000.
    :param filter: what a document's metadata must satisfy.
    :param where: conditions of the caller's own on ``searchapp.orm.Document``.
    :param min_score: hits have at least this score.
    :return: columns ``key, title, passage, metadata, score``; best first, equal scores in
        the order of the documents' ids, which is always the same.
    :raises errors.WordsMissing: the collection has no words.
    :raises errors.InvalidInput, errors.InvalidFilter: a value that cannot be.
    """
    asked = asked_for(queries.read(query))
    statement = words_of(
        space,
        asked,
        limit=check_limit(limit),
        offset=check_offset(offset),
        condition=condition_of(filter, where, Document.metadata_, space.fields),
        min_score=as_threshold(min_score),
    )
    names = ("key", "title", "passage", "metadata", "score")
    return statement.with_only_columns(*(statement.selected_columns[name] for name in names))


@dataclass(frozen=True, slots=True)
class Asked:
    """A question's words: each is a parameter or a literal.

    :param text: whose words count.
    :param phrases, excluded: arrays of text; None where there are none.
    """

    text: ColumnElement[str]
    phrases: ColumnElement[Any] | None = None
    excluded: ColumnElement[Any] | None = None


def asked_for(query: queries.Query) -> Asked:
    """A question's words as parameters."""
    phrases, excluded = (
        literal(list(each), ARRAY(Text())) if each else None for each in (query.phrases, query.excluded)
    )
    return Asked(literal(query.text, Text()), phrases, excluded)


@dataclass(frozen=True, slots=True)
class After:
    """The last hit of the page before: its score and its document's id, each a parameter."""

    score: ColumnElement[float]
    id: ColumnElement[Any]

    def precedes(self, hits: Any) -> ColumnElement[bool]:
        """Whether a row of ``score, document_id`` comes behind it."""
        return or_(hits.c.score < self.score, and_(hits.c.score == self.score, hits.c.document_id > self.id))


class Words:
    """A question's words, weighed, and the documents that have them. Its parts are anonymous CTEs.

    :param condition: what a document must satisfy, a question's phrases and exclusions apart.
    """

    def __init__(self, space: Space, asked: Asked, condition: ColumnElement[bool] | None) -> None:
        check_words(space)
        self._space = space
        conditions = [] if condition is None else [condition]
        if asked.phrases is not None:
            conditions.append(Document.id.in_(select(_having_all(space, asked.phrases).c.id)))
        if asked.excluded is not None:
            conditions.append(Document.id.not_in(select(_having_any(space, asked.excluded).c.id)))
        self.condition = and_(*conditions) if conditions else None
        self.weighed = self._weigh(asked.text)

    def _weigh(self, text: ColumnElement[str]) -> CTE:
        """The words that some document has, and as much as can be computed but once a word: its ``weight``, which is
        the most that it gives a document, and ``slope``; ``before``: how many postings the rarer ones have; and
        ``rest``: the most that it and the more frequent ones give together."""
        collection_id = literally(self._space.collection_id)
        # in a subquery, whose number of rows no value changes: a prepared statement keeps its plan for all values
        lexemes = select(func.tsvector_to_array(func.to_tsvector(language_of(self._space), text))).scalar_subquery()
        asked = func.unnest(lexemes).table_valued("term").render_derived()
        counted = (
            select(cast(func.sum(term_counts.c.documents), Double).label("documents"))
            .where(term_counts.c.collection_id == collection_id, term_counts.c.term == asked.c.term)
            .lateral()
        )
        known = (
            select(Collection.documents, func.greatest(Collection.mean_length, as_float("1")).label("mean_length"))
            .where(Collection.id == collection_id)
            .subquery()
        )
        having, half = counted.c.documents, as_float("0.5")
        documents = func.greatest(known.c.documents, having)  # which may be of yesterday
        rarity = func.ln(as_float("1") + ratio(documents - having + half, having + half))
        weight = func.round(rarity * as_float(str((K1 + 1) * ONE)))
        slope = ratio(as_float(str(K1 * B)), known.c.mean_length)
        weighed = (
            select(asked.c.term, weight.label("weight"), slope.label("slope"), having.label("documents"))
            .select_from(asked.join(counted, true()).join(known, true()))
            .where(having > as_float("0"))
            .subquery()
        )
        rarest_first = (weighed.c.weight.desc(), weighed.c.term)
        rarest_last = (weighed.c.weight, weighed.c.term.desc())
        before = func.sum(weighed.c.documents).over(order_by=rarest_first) - weighed.c.documents
        rest = func.sum(weighed.c.weight).over(order_by=rarest_last)
        statement = select(
            weighed.c.term, weighed.c.weight, weighed.c.slope, before.label("before"), rest.label("rest")
        )
        return statement.cte().prefix_with("MATERIALIZED")

    def all(self) -> Select[Any]:
        """All documents that have some of the words and fit: ``document_id, score``."""
        return self._scaled(self._fitting(self._scores()).subquery())

    def best(self, count: int, near: CTE | None = None) -> CTE:
        """The documents among which the best are, as :meth:`all` gives them.

        Rare words are read first. What they give the best documents shows which words are so frequent that having them
        alone is not enough; these are then looked up for the documents that may still be among the best.
        *Source:* Turtle and Flood, Query Evaluation: Strategies and Optimizations, IP&M 31 (1995), "max-score".

        :param count: how many of the best are there, at least, where so many fit.
        :param near: documents that fit, in its column ``document_id``, all of whose scores are to be there, too.
        """
        weighed = self.weighed
        few = weighed.c.before < literally(max(count, RAREST))
        rarest = self._fitting(self._scores(few, weighed.c.rest > weighed.c.weight))  # the last one shows nothing
        bar = select(func.coalesce(_score_at(rarest.subquery(), count), as_float("0")).label("score"))
        # what the last of the best has, at least; words that together give less cannot make one alone
        enough = select(bar.cte().prefix_with("MATERIALIZED").c.score).scalar_subquery()
        frequent = weighed.c.rest < enough
        # what the other words give, the most that the frequent ones may add, and what it takes to get there by that
        begun = self._fitting(self._scores(weighed.c.rest >= enough)).cte().prefix_with("MATERIALIZED")
        more = func.coalesce(select(func.max(weighed.c.rest)).where(frequent).scalar_subquery(), as_float("0"))
        least = select(func.greatest(enough, _score_at(begun, count)) - more).scalar_subquery()
        able = begun.c.score >= least
        if near is not None:
            able = or_(able, begun.c.document_id.in_(select(near.c.document_id)))
        reaching = select(begun.c.document_id, begun.c.score).where(able).cte().prefix_with("MATERIALIZED")
        ids = select(reaching.c.document_id)
        looked_up = ids if near is None else union_all(ids, select(near.c.document_id))
        of_frequent = (
            select(Posting.document_id, self._score())
            .join_from(weighed, Posting, self._matching())
            .where(frequent, Posting.document_id == func.any(func.array(looked_up.scalar_subquery())))
        )
        parts = union_all(select(reaching.c.document_id, reaching.c.score), of_frequent).subquery()
        whole = select(parts.c.document_id, func.sum(parts.c.score).label("score")).group_by(parts.c.document_id)
        return self._scaled(whole.subquery()).cte().prefix_with("MATERIALIZED")

    def _scores(self, *words: ColumnElement[bool]) -> Select[Any]:
        """What some of the words give each document that has them."""
        columns: Any = (Posting.document_id, func.sum(self._score()).label("score"))
        return (
            select(*columns)
            .join_from(self.weighed, Posting, self._matching())
            .where(*words)
            .group_by(Posting.document_id)
        )

    def _matching(self) -> ColumnElement[bool]:
        """Whether a posting is of one of the words."""
        return and_(Posting.collection_id == literally(self._space.collection_id), Posting.term == self.weighed.c.term)

    def _score(self) -> ColumnElement[float]:
        """What a word gives a document: a whole number, so that sums are the same in any order."""
        length = as_float(str(K1 * (1 - B))) + self.weighed.c.slope * Posting.document_length
        return func.round(ratio(self.weighed.c.weight * Posting.frequency, Posting.frequency + length))

    def _scaled(self, scored: Subquery) -> Select[Any]:
        return select(scored.c.document_id, ratio(scored.c.score, as_float(str(ONE))).label("score"))

    def _fitting(self, scores: Select[Any]) -> Select[Any]:
        """Those that satisfy the condition."""
        if self.condition is None:
            return scores
        scored = scores.subquery()
        statement = select(scored.c.document_id, scored.c.score)
        return statement.join(Document, is_document(self._space, scored.c.document_id)).where(self.condition)


def _score_at(scored: Any, place: int) -> ColumnElement[float]:
    """The score of the hit at a place, from 1; null where there are fewer."""
    scores = select(scored.c.score).order_by(scored.c.score.desc())
    return scores.offset(literally(place - 1)).limit(literal_column("1")).scalar_subquery()


def words_of(
    space: Space,
    asked: Asked,
    *,
    limit: int,
    offset: int = 0,
    condition: ColumnElement[bool] | None,
    min_score: ColumnElement[float] | None = None,
    after: After | None = None,
) -> Select[Any]:
    """Build the statement of :func:`words` for expressions.

    :param after: only hits behind this one.
    :return: as :func:`words`; ``distance`` stands before ``score``, and is null, and ``exact``, which is true.
    """
    found = Words(space, asked, condition)
    # how many are before a page is not known: all are asked for it
    scored: Any = found.best(offset + limit) if after is None else found.all().subquery()
    best = select(scored.c.document_id, scored.c.score).order_by(*best_first(scored)).limit(literally(limit))
    if min_score is not None:
        best = best.where(scored.c.score >= min_score)
    if after is not None:
        best = best.where(after.precedes(scored))
    hits = (best.offset(literally(offset)) if offset else best).cte().prefix_with("MATERIALIZED")
    # else made twice, for the start and for the length
    shown = select(_place(space, found, hits).label("place")).offset(literal_column("0")).lateral()
    start, length = (shown.c.place[literal_column(number)] for number in "12")
    return (
        select(
            Document.key,
            Document.title,
            func.substring(Document.text, start + literal_column("1"), length).label("passage"),
            Document.metadata_.label("metadata"),
            cast(null(), Double).label("distance"),
            true().label("exact"),
            hits.c.score,
            hits.c.document_id.label("id"),
        )
        .join_from(hits, Document, is_document(space, hits.c.document_id))
        .join(shown, true())
        .order_by(*best_first(hits))
    )


def _place(space: Space, found: Words, hits: CTE) -> ColumnElement[Any]:
    """Where a hit's passage stands, start and length: what has most of the words; of a document without chunks its
    beginning."""
    chunks = select(array([Chunk.start, Chunk.length])).where(
        Chunk.space_id == literally(space.id), Chunk.document_id == hits.c.document_id
    )
    beginning: Any = array([literal_column("0"), literal_column(str(PIECE))])
    if not space.chunking.tokens:  # what a model reads of a long document may be a small part of it
        # its bytes first, which are known without unpacking it
        covered = [
            Chunk.length * literal_column("2") >= length(Document.text) for length in (func.octet_length, func.length)
        ]
        whole = chunks.where(or_(*covered))
        shown = whole.correlate(hits, Document).scalar_subquery()
        return func.coalesce(shown, _best_piece(space, found), beginning)
    piece = func.substring(Document.text, Chunk.start + literal_column("1"), Chunk.length)
    several = func.count().over() > literal_column("1")
    score = case((several, _score_of_piece(space, found, piece)))
    best = chunks.order_by(score.desc().nulls_last(), Chunk.start).limit(literal_column("1"))
    return func.coalesce(best.correlate(hits, Document).scalar_subquery(), beginning)


def _best_piece(space: Space, found: Words) -> ColumnElement[Any]:
    pieces = (
        func.searchapp_data.slices(Document.text, literal_column(str(PIECE)))
        .table_valued("piece", with_ordinality="place")
        .render_derived()
    )
    length = func.length(pieces.c.piece)
    start = func.sum(length).over(order_by=pieces.c.place) - length
    placed = select(pieces.c.piece, cast(start, Integer).label("start"), length.label("length")).subquery()
    return (
        select(array([placed.c.start, placed.c.length]))
        .order_by(_score_of_piece(space, found, placed.c.piece).desc().nulls_last(), placed.c.start)
        .limit(literal_column("1"))
        .scalar_subquery()
    )


def _score_of_piece(space: Space, found: Words, piece: ColumnElement[str]) -> ColumnElement[float]:
    lexemes = func.unnest(func.to_tsvector(language_of(space), piece)).table_valued("lexeme", "positions", "weights")
    frequency = cast(func.cardinality(lexemes.c.positions), Double)
    return (
        select(func.sum(ratio(found.weighed.c.weight * frequency, frequency + as_float(str(K1)))))
        .select_from(lexemes.join(found.weighed, found.weighed.c.term == lexemes.c.lexeme))
        .scalar_subquery()
    )


def check_words(space: Space) -> None:
    """Check that a collection can be searched by words.

    :raises errors.WordsMissing: it has none.
    """
    if space.language is None:
        raise errors.WordsMissing(
            f"the collection {space.collection} has no words; make them: searchapp index words"
            f" --collection {space.collection}, or search it in the mode vector"
        )


def language_of(space: Space) -> ColumnElement[Any]:
    """What a collection's words are read by."""
    return cast(literally(space.language, Text()), REGCONFIG)


def _having_all(space: Space, phrases: ColumnElement[Any]) -> CTE:
    """The documents that have each of the phrases; one without any word in it, none has."""
    found = _phrases_found(space, phrases)
    every = select(found.c.id).group_by(found.c.id).having(func.count() == func.cardinality(phrases))
    return every.cte().prefix_with("MATERIALIZED")


def _having_any(space: Space, phrases: ColumnElement[Any]) -> CTE:
    """The documents that have some of the phrases."""
    found = _phrases_found(space, phrases)
    return select(found.c.id).distinct().cte().prefix_with("MATERIALIZED")


def _phrases_found(space: Space, phrases: ColumnElement[Any]) -> Subquery:
    """Which documents have which phrases: by their words, and where there are several by the text itself."""
    asked = func.unnest(phrases).table_valued("phrase", with_ordinality="place").render_derived()
    lexemes = func.tsvector_to_array(func.to_tsvector(language_of(space), asked.c.phrase))
    listed = select(asked.c.phrase, asked.c.place, lexemes.label("lexemes")).subquery()
    candidates = (
        select(Posting.document_id, listed.c.place, listed.c.phrase)
        .join_from(
            listed,
            Posting,
            and_(
                Posting.collection_id == literally(space.collection_id),
                Posting.term == func.any(listed.c.lexemes),
            ),
        )
        .group_by(Posting.document_id, listed.c.place, listed.c.phrase, listed.c.lexemes)
        .having(func.count() == func.cardinality(listed.c.lexemes))
        .subquery()
    )
    own = Document.__table__.alias()
    body = func.concat_ws(literally(" "), own.c.title, own.c.text)
    stands = func.searchapp_data.has_phrase(language_of(space), body, candidates.c.phrase, type_=Boolean)
    return (
        select(own.c.id, candidates.c.place)
        .join_from(
            candidates,
            own,
            and_(own.c.id == candidates.c.document_id, own.c.collection_id == literally(space.collection_id)),
        )
        .where(or_(candidates.c.phrase.regexp_match(literal_column("'^[[:alnum:]]+$'")), stands))
        .subquery()
    )
