"""The best by words, where rare words leave no need to read what frequent ones have."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import pytest
from sqlalchemy import Engine, text

from searchapp.client import Client
from searchapp.search.hits import Hits
from searchapp.spaces import Space
from tests import conftest
from tests.integration.test_words import bm25, in_order, keys, load, scores_of

DOCUMENTS = 3000
WORDS = 4000
CHANCE = random.Random(11)


def zipfian(length: int) -> str:
    """Words that are the rarer the higher their number."""
    return " ".join(f"word{min(int(CHANCE.paretovariate(0.5)), WORDS)}" for _ in range(length))


CORPUS = [
    {
        "key": f"{number:04}",
        "text": zipfian(CHANCE.randint(1, 60)),
        "metadata": {"third": number % 3, "rare": number % 200},
    }
    for number in range(DOCUMENTS)
]
QUERIES = [zipfian(length) for length in (1, 2, 3, 4, 6, 8, 12, 20) for _ in range(3)]

engine, db = conftest.shared_database()


@pytest.fixture(scope="module", autouse=True)
def space(db: Client) -> Space:
    return load(db, "many", CORPUS, language="simple")


@lru_cache
def expected_scores(query: str) -> dict[str, float]:
    return bm25(CORPUS, query)


def ask(db: Client, query: str, **options: Any) -> Hits:
    return db.search(query, collection="many", mode="text", **options)


@pytest.mark.parametrize("limit", [1, 3, 10, 40, 300])
def test_the_best_are_those_of_the_formula(db: Client, space: Space, limit: int) -> None:
    for query in QUERIES:
        expected = expected_scores(query)
        hits = ask(db, query, limit=limit)
        assert keys(hits) == in_order(expected, space)[:limit]
        assert scores_of(hits) == pytest.approx({hit.key: expected[hit.key] for hit in hits}, abs=1e-6)


def test_scores_are_the_same_to_the_last_bit_however_many_are_asked(db: Client) -> None:
    for query in QUERIES:
        everything = [(hit.key, hit.score) for hit in ask(db, query, limit=DOCUMENTS)]
        for limit in (1, 10, 100):
            assert [(hit.key, hit.score) for hit in ask(db, query, limit=limit)] == everything[:limit]
        assert [(hit.key, hit.score) for hit in ask(db, query, limit=20, offset=5)] == everything[5:25]
        first = ask(db, query, limit=7)
        assert (
            first.cursor is None
            or [(hit.key, hit.score) for hit in ask(db, query, limit=7, cursor=first.cursor)] == everything[7:14]
        )


@pytest.mark.parametrize("filter", [{"third": 1}, {"rare": 7}, {"rare": {"$gte": 190}}, {"third": 9}])
def test_the_best_that_fit_are_found(db: Client, filter: dict[str, Any]) -> None:
    for query in QUERIES:
        everything = ask(db, query, limit=DOCUMENTS)
        fitting = {hit.key for hit in ask(db, query, limit=DOCUMENTS, filter=filter)}
        for limit in (1, 10):
            best = [hit.key for hit in everything if hit.key in fitting][:limit]
            assert keys(ask(db, query, limit=limit, filter=filter)) == best


def test_phrases_exclusions_and_thresholds_hold(db: Client) -> None:
    for query in QUERIES:
        everything = ask(db, query, limit=DOCUMENTS)
        texts = {each["key"]: f" {each['text']} " for each in CORPUS}
        one, last = query.split()[0], query.split()[-1]
        without = [hit.key for hit in everything if f" {last} " not in texts[hit.key]]
        if one != last:
            unwanted = f"{' '.join(word for word in query.split() if word != last)} -{last}"
            found = keys(ask(db, unwanted, limit=5))
            assert found == [key for key in keys(ask(db, unwanted, limit=DOCUMENTS)) if key in set(without)][:5]
        pair = " ".join(query.split()[:2])
        quoted = keys(ask(db, f'"{pair}" {query}', limit=5))
        assert quoted == [hit.key for hit in everything if f" {pair} " in texts[hit.key]][:5]
        if everything:
            bar = everything[min(3, len(everything) - 1)].score
            assert keys(ask(db, query, limit=10, min_score=bar)) == [
                hit.key for hit in everything[:10] if hit.score >= bar
            ]


def test_all_scores_of_a_hybrid_are_whole(db: Client, space: Space) -> None:
    for query in QUERIES:
        expected = expected_scores(query)
        hits = db.search(query, collection="many", mode="hybrid", limit=100)
        assert {hit.key: hit.text_score for hit in hits} == pytest.approx(
            {hit.key: expected.get(hit.key, 0.0) for hit in hits}, abs=1e-6
        )
        by_words_alone = db.search(query, collection="many", mode="hybrid", weights=(0, 1), limit=100)
        assert [hit.key for hit in by_words_alone if hit.text_score] == in_order(expected, space)[:100]


def test_what_frequent_words_have_is_looked_up_for_few(db: Client, engine: Engine) -> None:
    query = "word1 word2 word20 word30"
    with engine.connect() as connection:
        statement = text("SELECT count(*) FROM searchapp_data.postings WHERE term = ANY(:terms)")
        postings = connection.scalar(statement, {"terms": query.split()})
    assert postings is not None
    assert 0 < db.explain(query, collection="many", mode="text", limit=10).postings_scanned < postings / 3
