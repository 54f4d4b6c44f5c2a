"""Search by words on the real server: BM25, phrases, pages, languages, and words that always agree with documents."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import searchapp
from searchapp import errors, spaces
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.ingest import backfill
from searchapp.ingest.backfill import Backfilled
from searchapp.ingest.words import MANY_ROWS
from searchapp.models import document_id
from searchapp.search.hits import Hits
from searchapp.spaces import Space
from tests import conftest
from tests.made_up import random_vectors

MODEL = "all-MiniLM-L6-v2"
VOCABULARY = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay", "kite", "lark"]
K1, B = 1.2, 0.75

engine, db = conftest.shared_database()


def load(db: Client, collection: str, documents: Iterable[Mapping[str, Any]], **options: Any) -> Space:
    """Put documents into a collection with made-up vectors."""
    rows = list(documents)
    db.load_vectors(rows, random_vectors(len(rows)), collection=collection, model=MODEL, **options)
    return db.space(collection)


def of_texts(texts: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "text": each} for key, each in texts.items()]


def made_up(chance: random.Random, keys: Iterable[int]) -> list[dict[str, Any]]:
    """Documents of words of the vocabulary, every third with a title."""

    def words(most: int) -> str:
        return " ".join(chance.choices(VOCABULARY, weights=range(1, len(VOCABULARY) + 1), k=chance.randint(1, most)))

    return [
        {
            "key": f"{number:04}",
            "text": words(60),
            "title": words(4) if number % 3 == 0 else None,
            "metadata": {"number": number, "third": number % 3},
        }
        for number in keys
    ]


def words_of(document: Mapping[str, Any]) -> list[str]:
    return f"{document.get('title') or ''} {document['text']}".split()


def bm25(documents: Iterable[Mapping[str, Any]], query: str) -> dict[str, float]:
    """The scores of all documents that have some of the words, by the formula."""
    counts = {document["key"]: Counter(words_of(document)) for document in documents}
    mean = sum(count.total() for count in counts.values()) / len(counts)
    scores: dict[str, float] = {}
    for word in set(query.split()):
        having = [key for key, count in counts.items() if count[word]]
        weight = math.log(1 + (len(counts) - len(having) + 0.5) / (len(having) + 0.5))
        for key in having:
            frequency, length = counts[key][word], counts[key].total()
            part = frequency * (K1 + 1) / (frequency + K1 * (1 - B + B * length / mean))
            scores[key] = scores.get(key, 0) + weight * part
    return scores


def in_order(scores: Mapping[str, float], space: Space) -> list[str]:
    """Best first, equal ones by id."""
    return sorted(scores, key=lambda key: (-round(scores[key], 9), document_id(space.collection_id, key)))


def keys(hits: Iterable[Any]) -> list[str]:
    return [hit.key for hit in hits]


def scores_of(hits: Hits) -> dict[str, float]:
    return {hit.key: hit.score for hit in hits}


def by_words(db: Client, query: str, collection: str, **options: Any) -> Hits:
    return db.search(query, collection=collection, mode="text", **{"limit": 1000, **options})


Postings = set[tuple[str | None, str, int, int]]


def postings_of(engine: Engine, space: Space) -> Postings:
    """What is stored: key, word, frequency, length; an orphan has no key. The counts of words are checked beside it."""
    statement = text(
        "SELECT d.key, p.term, p.frequency, p.document_length FROM searchapp_data.postings p"
        " LEFT JOIN searchapp_data.documents d ON d.collection_id = p.collection_id AND d.id = p.document_id"
        " WHERE p.collection_id = :collection_id"
    )
    with engine.connect() as connection:
        postings = {(*row,) for row in connection.execute(statement, {"collection_id": space.collection_id})}
    counts = rows_of_counts(engine, space)
    assert {word: sum(rows) for word, rows in counts.items()} == Counter(word for _, word, *_ in postings)
    return postings


def rows_of_counts(engine: Engine, space: Space) -> dict[str, list[int]]:
    """How many documents have a word, as it is stored: in one row or many."""
    statement = text(
        "SELECT term, array_agg(documents) FROM searchapp_data.term_counts WHERE collection_id = :collection_id"
        " GROUP BY term"
    )
    with engine.connect() as connection:
        rows = connection.execute(statement, {"collection_id": space.collection_id}).all()
    return dict(map(tuple, rows))


def expected_postings(documents: Iterable[Mapping[str, Any]]) -> Postings:
    found: Postings = set()
    for document in documents:
        count = Counter(words_of(document))
        found |= {(document["key"], word, frequency, count.total()) for word, frequency in count.items()}
    return found


def stored_documents(engine: Engine, space: Space) -> list[dict[str, Any]]:
    statement = text("SELECT key, title, text FROM searchapp_data.documents WHERE collection_id = :collection_id")
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(statement, {"collection_id": space.collection_id}).mappings()]


# Scores


ANIMALS = made_up(random.Random(1), range(300))


@pytest.fixture(scope="module")
def animals(db: Client) -> Space:
    return load(db, "animals", ANIMALS, language="simple")


@pytest.mark.parametrize("query", ["ant", "ant bee cat", "lark kite jay", "fox fox fox ant", "zebra", "zebra hen"])
def test_scores_and_ranks_are_those_of_the_formula(db: Client, animals: Space, query: str) -> None:
    hits = by_words(db, query, animals.collection)
    expected = bm25(ANIMALS, query)
    assert scores_of(hits) == pytest.approx(expected, abs=1e-6)
    assert keys(hits) == in_order(expected, animals)
    assert (hits.mode, hits.exact, hits.complete) == ("text", True, True)
    assert all((hit.distance, hit.vector_score, hit.text_score) == (None, None, hit.score) for hit in hits)


def test_random_queries_score_as_the_formula_says(db: Client, animals: Space) -> None:
    chance = random.Random(2)
    for _ in range(20):
        query = " ".join(chance.choices([*VOCABULARY, "zebra"], k=chance.randint(1, 8)))
        assert scores_of(by_words(db, query, animals.collection)) == pytest.approx(bm25(ANIMALS, query), abs=1e-6)


def test_documents_without_words_count_among_all(db: Client) -> None:
    documents = of_texts({"a": "ant bee cat", "b": "bee cat dog elk", "c": "!!!", "d": "..."})
    load(db, "wordless", documents, language="simple")
    expected = bm25([{**each, "text": each["text"].strip("!.")} for each in documents], "ant bee")
    assert scores_of(by_words(db, "ant bee", "wordless")) == pytest.approx(expected, abs=1e-6)


def test_a_word_counts_as_often_as_it_stands_there(db: Client) -> None:
    """Of one piece of text PostgreSQL keeps 255 positions of a word."""
    documents = of_texts({"often": "ant " * 1000 + "bee", "once": "ant bee cat", "never": "cat"})
    space = load(db, "often", documents, language="simple")
    assert (space.language, space.words_complete) == ("simple", True)
    assert scores_of(by_words(db, "ant", "often")) == pytest.approx(bm25(documents, "ant"), abs=1e-6)


# Words and documents agree


def test_scores_after_many_changes_are_those_of_a_collection_made_anew(db: Client, engine: Engine) -> None:
    chance = random.Random(3)
    current = {each["key"]: each for each in made_up(chance, range(80))}
    load(db, "changing", current.values(), language="simple")
    for turn in range(5):
        edited = made_up(chance, chance.sample(range(120), 25))
        removed = chance.sample(sorted(current), 10)
        current |= {each["key"]: each for each in edited}
        if turn % 2:
            db.ingest(edited, collection="changing")
        else:
            load(db, "changing", edited)
        assert db.delete(removed, collection="changing") == len(removed)
        current = {key: each for key, each in current.items() if key not in removed}
        if turn == 3:
            current = dict(itertools.islice(current.items(), 60))
            db.ingest(current.values(), collection="changing", prune=True)
        if turn == 4:
            assert db.delete(collection="changing", filter={"third": 1}) > 0
            current = {key: each for key, each in current.items() if each["metadata"]["third"] != 1}
        space, anew = db.space("changing"), load(db, f"anew_{turn}", current.values(), language="simple")
        assert postings_of(engine, space) == postings_of(engine, anew) == expected_postings(current.values())
        for query in ("ant bee", "lark", "cat fox kite"):
            expected = bm25(current.values(), query)
            assert scores_of(by_words(db, query, "changing")) == pytest.approx(expected, abs=1e-6)
            assert scores_of(by_words(db, query, f"anew_{turn}")) == pytest.approx(expected, abs=1e-6)


def test_counts_of_words_stay_few_rows(db: Client, engine: Engine) -> None:
    documents = of_texts({f"{number}": f"ant bee{number}" for number in range(2 * MANY_ROWS)})
    for each in documents:
        load(db, "counted", [each], language="simple")
    space = db.space("counted")
    counts = rows_of_counts(engine, space)
    assert sum(counts["ant"]) == len(documents)
    assert len(counts["ant"]) <= MANY_ROWS + 1
    assert postings_of(engine, space) == expected_postings(documents)
    db.delete(["0"], collection="counted")
    assert "bee0" not in rows_of_counts(engine, space)
    db.delete([each["key"] for each in documents], collection="counted")
    assert rows_of_counts(engine, space) == {}


def test_a_transaction_with_one_snapshot_goes_on_beside_others(db: Client, engine: Engine, registry: Registry) -> None:
    documents = of_texts({f"{number}": "ant bee" for number in range(2 * MANY_ROWS)})
    for each in documents[: MANY_ROWS + 1]:
        load(db, "one_snapshot", [each], language="simple")
    space = db.space("one_snapshot")
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SELECT FROM searchapp_data.term_counts")).all()
        for each in documents[MANY_ROWS + 1 :]:
            load(db, "one_snapshot", [each])
        load(Client(connection=connection, registry=registry), "one_snapshot", of_texts({"mine": "ant cat"}))
        connection.commit()
    assert postings_of(engine, space) == expected_postings([*documents, *of_texts({"mine": "ant cat"})])


def test_maintenance_mends_the_counts_of_words(db: Client, engine: Engine) -> None:
    documents = of_texts({"a": "ant bee", "b": "ant", "c": "cat cat"})
    space = load(db, "miscounted", documents, language="simple")
    with engine.begin() as connection:
        of_it = f"collection_id = {space.collection_id}"
        connection.execute(text(f"DELETE FROM searchapp_data.term_counts WHERE {of_it} AND term = 'ant'"))
        connection.execute(text(f"UPDATE searchapp_data.term_counts SET documents = 5 WHERE {of_it} AND term = 'cat'"))
    db.maintain()
    assert postings_of(engine, space) == expected_postings(documents)


def test_who_holds_the_counts_of_words_keeps_nobody_waiting(db: Client, engine: Engine) -> None:
    documents = of_texts({f"{number}": "ant bee" for number in range(2 * MANY_ROWS)})
    for each in documents[: MANY_ROWS + 1]:
        load(db, "held", [each], language="simple")
    space = db.space("held")
    with engine.begin() as holding:
        holding.execute(text("SELECT FROM searchapp_data.term_counts FOR UPDATE"))
        for each in documents[MANY_ROWS + 1 :]:
            load(db, "held", [each])
        db.delete(["0"], collection="held")
    load(db, "held", documents[:1])
    assert postings_of(engine, space) == expected_postings(documents)


def test_new_metadata_leave_the_words_alone(db: Client, engine: Engine) -> None:
    documents = made_up(random.Random(4), range(20))
    vectors = random_vectors(20)
    db.load_vectors(documents, vectors, collection="relabelled", model=MODEL, language="simple")
    changed = [{**each, "metadata": {"new": True}} for each in documents]
    db.load_vectors(changed, vectors, collection="relabelled", model=MODEL)
    assert postings_of(engine, db.space("relabelled")) == expected_postings(documents)
    assert len(by_words(db, "lark", "relabelled", filter={"new": True})) == len(bm25(documents, "lark"))


def test_writers_of_the_same_documents_neither_deadlock_nor_disagree(
    db: Client, engine: Engine, registry: Registry
) -> None:
    space = load(db, "shared", made_up(random.Random(5), range(60)), language="simple")

    def write(seed: int) -> None:
        chance = random.Random(seed)
        mine = Client(engine, registry=registry)
        for _ in range(25):
            numbers = chance.sample(range(60), 30)
            if chance.random() < 0.3:
                mine.delete([f"{number:04}" for number in numbers], collection="shared")
            else:
                load(mine, "shared", made_up(chance, numbers))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (6, 7)))
    documents = stored_documents(engine, space)
    assert postings_of(engine, space) == expected_postings(documents)
    db.delete(["none"], collection="shared")
    load(db, "shared", made_up(random.Random(8), [99]))
    expected = bm25(stored_documents(engine, space), "ant lark")
    assert scores_of(by_words(db, "ant lark", "shared")) == pytest.approx(expected, abs=1e-6)


def test_a_callers_transaction_that_is_rolled_back_leaves_no_words(
    db: Client, engine: Engine, registry: Registry
) -> None:
    documents = made_up(random.Random(9), range(10))
    space = load(db, "rolled_back", documents, language="simple")
    with engine.connect() as connection:
        mine = Client(connection=connection, registry=registry)
        load(mine, "rolled_back", of_texts({"0001": "zebra", "new": "zebra"}))
        mine.delete(["0002"], collection="rolled_back")
        assert set(keys(by_words(mine, "zebra", "rolled_back"))) == {"0001", "new"}
        connection.rollback()
    assert postings_of(engine, space) == expected_postings(documents)


# Phrases and exclusions


TEXTS = {
    "car": "the jaguar is a sports car of top speed",
    "cat": "the jaguar is a cat whose speed is top",
    "that": "he said that that is so",
    "once": "that is what he said",
    "hyphen": "a state-of-the-art engine",
    "plain": "the art of a state",
    "snake": "foo_bar is a name",
    "snakes": "bar comes after foo",
}
ALL = set(TEXTS)


@pytest.fixture(scope="module")
def marked(db: Client) -> Space:
    return load(db, "marked", of_texts(TEXTS), language="simple")


@pytest.mark.parametrize(
    ("query", "found_by_words", "found_by_both"),
    [
        ('"top speed"', {"car"}, {"car"}),
        ("“top speed”", {"car"}, {"car"}),
        ('jaguar "top speed"', {"car"}, {"car"}),
        ('"the jaguar" "top speed"', {"car"}, {"car"}),
        ('"the jaguar" "is so"', set(), set()),
        ('"Top, SPEED!"', {"car"}, {"car"}),
        ('"jaguar"', {"car", "cat"}, {"car", "cat"}),
        ("jaguar -car", {"cat"}, ALL - {"car"}),
        ("jaguar -CAR", {"cat"}, ALL - {"car"}),
        ("jaguar -car -cat", set(), ALL - {"car", "cat"}),
        ('jaguar -"top speed"', {"cat"}, ALL - {"car"}),
        ("jaguar -“top speed”", {"cat"}, ALL - {"car"}),
        ('"the jaguar" -"top speed" -so', {"cat"}, {"cat"}),
        ('"the jaguar" -jaguar', set(), set()),
        ("jaguar -zebra", {"car", "cat"}, ALL),
        ('"that that"', {"that"}, {"that"}),
        ('said -"that that"', {"once"}, ALL - {"that"}),
        ('"state-of-the-art"', {"hyphen"}, {"hyphen"}),
        ('"state-of-the-art engine"', {"hyphen"}, {"hyphen"}),
        ("art -state-of-the-art", {"plain"}, ALL - {"hyphen"}),
        ('"foo_bar"', {"snake"}, {"snake"}),
        ("foo -foo_bar", {"snakes"}, ALL - {"snake"}),
        ('jaguar "top speed', {"car", "cat"}, ALL),
        ('jaguar 12"', {"car", "cat"}, ALL),
        ("jaguar - car", {"car", "cat"}, ALL),
        ('"zebra"', set(), set()),
        ('jaguar "!?"', set(), set()),
    ],
)
def test_phrases_must_stand_in_hits_and_exclusions_must_not(
    db: Client, marked: Space, query: str, found_by_words: set[str], found_by_both: set[str]
) -> None:
    """In a hybrid for what the vectors alone find, too."""
    assert set(keys(by_words(db, query, marked.collection))) == found_by_words
    for exact in (False, True):
        assert set(keys(db.search(query, collection="marked", mode="hybrid", exact=exact, limit=50))) == found_by_both
    assert set(keys(db.search(query, collection="marked", mode="vector", limit=50))) == ALL


@pytest.mark.parametrize("query", ["-car", '-"top speed" -car', " -car ", '""', "-“top speed”"])
def test_a_query_that_only_excludes_is_refused(db: Client, marked: Space, query: str) -> None:
    for mode in ("text", "hybrid", None):
        with pytest.raises(errors.InvalidInput, match="nothing to look for"):
            db.search(query, collection=marked.collection, mode=mode)
    assert set(keys(db.search(query, collection="marked", mode="vector"))) == ALL


def test_a_phrase_is_found_behind_many_repetitions_of_its_words(db: Client) -> None:
    """Of one piece of text PostgreSQL keeps 255 positions of a word."""
    load(db, "repeated", of_texts({"it": "ant " * 400 + "bee", "not": "ant " * 400 + "cat bee"}), language="simple")
    assert keys(by_words(db, '"ant bee"', "repeated")) == ["it"]
    assert keys(by_words(db, 'bee -"ant bee"', "repeated")) == ["not"]


LONG = ("jaguar " * 20_000)[:100_000]


@pytest.mark.parametrize(
    ("query", "has_words"),
    [("the of and", False), ("!? ... ,", False), ("-", False), ('"', False), (LONG, True), ("x" * 100_000, False)],
    ids=["stop words", "punctuation", "hyphen", "quote", "long", "long word"],
)
def test_every_mode_answers_unlikely_queries(db: Client, query: str, has_words: bool) -> None:
    load(db, "unlikely", of_texts(TEXTS), language="english")
    assert set(keys(by_words(db, query, "unlikely"))) == ({"car", "cat"} if has_words else set())
    for mode in ("hybrid", "vector", None):
        assert set(keys(db.search(query, collection="unlikely", mode=mode, highlight=True))) == ALL


@pytest.mark.parametrize(
    "query",
    [
        "-".join(f"{chr(0x20000 + number // 100)}{chr(0x20000 + number % 100)}" for number in range(33_333)),
        " ".join(f"{chr(0x20000 + n // 200)}-{chr(0x20000 + n % 200)}" for n in range(25_000)),
        " ".join(f"http://{n}.de/{n}" for n in range(4500)),
        '"' * 100_000,
        ' "' * 50_000,
        " “" * 50_000,
        " -“" * 33_333,
        " -a" * 3000 + " jaguar",
        ' "a"' * 3000 + " jaguar",
    ],
    ids=["hyphenated", "distinct", "addresses", "quotes", "many quotes", "curly", "excluded", "exclusions", "phrases"],
)
def test_a_query_of_100_000_characters_is_answered_or_refused_in_one_line(
    db: Client, marked: Space, query: str
) -> None:
    for mode in ("text", "hybrid"):
        try:
            db.search(query, collection=marked.collection, mode=mode)
        except errors.InvalidInput as exc:
            assert "\n" not in str(exc)  # noqa: PT017


@pytest.mark.parametrize(("query", "reason"), [("", "empty"), (" \n", "empty"), ("x" * 100_001, "at most 100,000")])
@pytest.mark.parametrize("mode", ["text", "hybrid", "vector", None])
def test_no_query_and_one_that_is_too_long_are_refused(
    db: Client, marked: Space, query: str, reason: str, mode: str | None
) -> None:
    with pytest.raises(errors.InvalidInput, match=reason) as caught:
        db.search(query, collection=marked.collection, mode=mode)
    assert "\n" not in str(caught.value)


# Long texts


def test_the_last_word_of_a_text_of_20_mb_is_found(db: Client) -> None:
    load(
        db,
        "huge",
        of_texts({"huge": f"{'lorem' * 30} ipsum {'dolor' * 30} " * 65_000 + "zebra", "small": "ipsum"}),
        language="simple",
    )
    [hit] = by_words(db, "zebra", "huge")
    assert hit.key == "huge"
    assert "zebra" in hit.passage
    assert len(hit.passage) > 20_000_000
    assert set(keys(by_words(db, "ipsum", "huge"))) == {"huge", "small"}
    assert db.delete(["huge"], collection="huge") == 1
    assert keys(by_words(db, "ipsum zebra", "huge")) == ["small"]


def test_a_long_text_that_is_one_passage_is_shown_by_its_best_piece(db: Client) -> None:
    long = "lorem ipsum dolor " * 60_000
    db.create_collection("cut", chunk_tokens=0, language="simple")
    db.ingest(of_texts({"end": f"{long} a zebra", "middle": f"{long} zebra zebra {long}"}), collection="cut")
    hits = by_words(db, "zebra", "cut")
    assert set(keys(hits)) == {"end", "middle"}
    for hit in hits:
        assert "zebra" in hit.passage
        assert len(hit.passage) <= 1000


def test_phrases_are_found_at_the_end_of_long_texts(db: Client) -> None:
    long = "lorem ipsum dolor " * 60_000
    texts = {"it": f"{long} silver fox", "turned": f"silver {long}", "apart": f"silver {long} silver grey fox"}
    load(db, "long_phrases", of_texts(texts), language="simple")
    assert keys(by_words(db, '"silver fox"', "long_phrases")) == ["it"]
    assert set(keys(by_words(db, 'lorem -"silver fox"', "long_phrases"))) == {"turned", "apart"}


def test_phrases_are_found_wherever_a_long_text_is_cut(db: Client) -> None:
    texts = {
        f"{before}": "a " * (before // 2) + "silver fox " + "b " * 9000 for before in range(13_980, 16_010, 2)[::50]
    }
    texts |= {f"{before}": "a " * (before // 2) + "silver fox " + "b " * 9000 for before in range(15_980, 16_010, 2)}
    load(db, "cut_phrases", of_texts(texts), language="simple")
    assert set(keys(by_words(db, '"silver fox"', "cut_phrases"))) == set(texts)
    assert keys(by_words(db, '"silver b"', "cut_phrases")) == []


def test_very_long_words_neither_fail_nor_matter(db: Client) -> None:
    word = "x" * 10_000
    texts = {"word": f"{word} needle", "no_space": "ab" * 1_500_000, "commas": "alpha,beta," * 300_000, "few": "beta"}
    load(db, "long_words", of_texts(texts), language="simple")
    assert keys(by_words(db, "needle", "long_words")) == ["word"]
    assert keys(by_words(db, f"{word} needle", "long_words")) == ["word"]
    assert keys(by_words(db, word, "long_words")) == []
    assert set(keys(by_words(db, "alpha beta", "long_words"))) == {"commas", "few"}
    assert len(db.search(word, collection="long_words")) == 4


# Languages


def test_a_language_knows_its_stems(db: Client) -> None:
    load(db, "german", of_texts({"one": "das Haus", "two": "die Maus"}), language="German")
    assert keys(by_words(db, "Häuser", "german")) == ["one"]
    assert keys(by_words(db, "das die", "german")) == []  # which it leaves out
    assert (db.describe("german").language, db.describe("german").words_complete) == ("german", True)
    load(db, "german", of_texts({"three": "Häuser"}), language="GERMAN")
    assert set(keys(by_words(db, "haus", "german"))) == {"one", "three"}
    with pytest.raises(errors.CollectionMismatch, match="read as german; english needs another collection"):
        load(db, "german", of_texts({"four": "house"}), language="english")
    with pytest.raises(errors.CollectionMismatch, match="read as german; english needs another collection"):
        db.ingest(of_texts({"four": "house"}), collection="german", language="english")


@pytest.mark.parametrize("language", ["germann", "klingon", "simple; DROP TABLE x", "pg_catalog", "\n"])
def test_an_unknown_language_is_refused_with_the_near_ones(db: Client, language: str) -> None:
    for make in (
        lambda: db.create_collection("unheard", language=language),
        lambda: db.ingest(of_texts({"a": "b"}), collection="unheard", language=language),
        lambda: load(db, "unheard", of_texts({"a": "b"}), language=language),
    ):
        with pytest.raises(errors.InvalidInput, match="no text search configuration") as caught:
            make()
        assert "\n" not in str(caught.value)
        assert "german" in str(caught.value) or language != "germann"
    assert "unheard" not in [each.name for each in db.collections()]


def test_a_collection_without_words_is_searched_by_vectors(db: Client) -> None:
    load(db, "speechless", of_texts(TEXTS), words=False)
    assert db.describe("speechless").language is None
    for mode in ("text", "hybrid"):
        with pytest.raises(errors.WordsMissing, match="searchapp index words --collection speechless"):
            db.search("jaguar", collection="speechless", mode=mode)
    hits = db.search("jaguar -car", collection="speechless", highlight=True)
    assert (hits.mode, len(hits), hits.complete, hits[0].highlights) == ("vector", len(ALL), True, ())
    with pytest.raises(errors.CollectionMismatch, match="made without words"):
        load(db, "speechless", of_texts(TEXTS), language="simple")
    with pytest.raises(errors.InvalidInput, match="leave one of both out"):
        load(db, "other", of_texts(TEXTS), language="simple", words=False)
    with pytest.raises(errors.WordsMissing):
        searchapp.words(db.space("speechless"), "jaguar", limit=10)


def test_a_collection_with_words_is_searched_by_both(db: Client, marked: Space) -> None:
    assert db.search("jaguar", collection=marked.collection).mode == "hybrid"
    with pytest.raises(errors.CollectionMismatch, match="has words"):
        load(db, "marked", of_texts(TEXTS), words=False)


# Words made later


def without_words(db: Client, name: str, count: int = 50) -> list[dict[str, Any]]:
    documents = made_up(random.Random(10), range(count))
    load(db, name, documents, words=False)
    return documents


def test_words_made_later_are_the_same(db: Client, engine: Engine) -> None:
    documents = without_words(db, "later")
    told: list[Backfilled] = []
    assert db.make_words("later", language="Simple", on_progress=told.append) == 50
    assert told[-1] == Backfilled(50, 50)
    space = db.space("later")
    assert (space.language, space.words_complete) == ("simple", True)
    assert postings_of(engine, space) == expected_postings(documents)
    assert scores_of(by_words(db, "ant lark", "later")) == pytest.approx(bm25(documents, "ant lark"), abs=1e-6)
    assert db.search("ant", collection="later").mode == "hybrid"
    assert db.make_words("later") == 0  # again
    assert db.make_words("later", language="simple") == 0
    with pytest.raises(errors.CollectionMismatch, match="read as simple"):
        db.make_words("later", language="english")
    assert postings_of(engine, space) == expected_postings(documents)


@pytest.mark.parametrize("mode", ["text", "hybrid"])
def test_a_handle_that_saw_it_without_words_sees_them(
    db: Client, engine: Engine, registry: Registry, mode: str
) -> None:
    documents = without_words(db, f"unseen_{mode}")
    elsewhere = Client(engine, registry=registry)
    for each in (db, elsewhere):
        assert each.search("ant", collection=f"unseen_{mode}").mode == "vector"
    db.make_words(f"unseen_{mode}", language="simple")
    for each in (db, elsewhere):
        hits = each.search("ant", collection=f"unseen_{mode}", mode=mode, limit=100)
        assert set(bm25(documents, "ant")) <= set(keys(hits))


def test_words_that_are_being_made_are_found_as_far_as_they_are(db: Client, engine: Engine) -> None:
    documents = without_words(db, "under_way")
    with engine.begin() as connection:
        space = spaces.give_words(connection, db.space("under_way"), "simple")
    assert (space.language, space.words_complete) == ("simple", False)
    assert not db.space("under_way").words_complete
    assert not db.describe("under_way").words_complete
    hits = by_words(db, "ant zebra", "under_way")
    assert (list(hits), hits.complete) == ([], False)
    assert not db.search("ant", collection="under_way", mode="hybrid").complete
    hits = db.search("ant", collection="under_way")
    assert (hits.mode, hits.complete) == ("vector", True)
    load(db, "under_way", of_texts({"new": "zebra", "0001": "zebra"}))
    assert set(keys(by_words(db, "zebra", "under_way"))) == {"0001", "new"}
    assert db.make_words("under_way") == 51
    assert by_words(db, "zebra", "under_way").complete
    current = {each["key"]: each for each in documents} | {
        key: {"key": key, "text": "zebra"} for key in ("new", "0001")
    }
    assert postings_of(engine, space) == expected_postings(current.values())


def test_an_interrupted_backfill_goes_on_where_it_stood(
    db: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = without_words(db, "interrupted")
    monkeypatch.setattr(backfill, "BATCH", 10)
    told: list[Backfilled] = []

    def interrupt(done: Backfilled) -> None:
        told.append(done)
        if done.documents == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        db.make_words("interrupted", language="simple", on_progress=interrupt)
    assert not db.space("interrupted").words_complete
    assert not by_words(db, "ant", "interrupted").complete
    assert db.make_words("interrupted", on_progress=told.append) == 30
    assert [each.documents for each in told] == [10, 20, 30, 40, 50]
    assert postings_of(engine, db.space("interrupted")) == expected_postings(documents)


def test_what_is_written_meanwhile_has_its_words(db: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    without_words(db, "meanwhile", 60)
    monkeypatch.setattr(backfill, "BATCH", 10)
    chance = random.Random(11)

    def write(_: Backfilled) -> None:
        load(db, "meanwhile", made_up(chance, chance.sample(range(90), 15)))
        db.delete([f"{number:04}" for number in chance.sample(range(90), 5)], collection="meanwhile")

    db.make_words("meanwhile", language="simple", on_progress=write)
    space = db.space("meanwhile")
    assert space.words_complete
    documents = stored_documents(engine, space)
    assert postings_of(engine, space) == expected_postings(documents)
    assert scores_of(by_words(db, "ant fox", "meanwhile")) == pytest.approx(bm25(documents, "ant fox"), abs=1e-6)


def test_writers_beside_a_backfill_neither_deadlock_nor_disagree(
    db: Client, engine: Engine, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_words(db, "beside", 200)
    monkeypatch.setattr(backfill, "BATCH", 5)

    def write(seed: int) -> None:
        chance = random.Random(seed)
        mine = Client(engine, registry=registry)
        for _ in range(15):
            load(mine, "beside", made_up(chance, chance.sample(range(250), 40)))
            mine.delete([f"{number:04}" for number in chance.sample(range(250), 20)], collection="beside")

    def make(_: int) -> None:
        Client(engine, registry=registry).make_words("beside", language="simple")

    with ThreadPoolExecutor(4) as pool:  # two backfills at once
        for done in [pool.submit(write, 12), pool.submit(make, 0), pool.submit(make, 0), pool.submit(write, 13)]:
            done.result()
    space = db.space("beside")
    assert space.words_complete
    assert postings_of(engine, space) == expected_postings(stored_documents(engine, space))


@pytest.mark.parametrize("batch", [10, 1000])
def test_a_collection_that_is_dropped_meanwhile_is_told(
    db: Client, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    without_words(db, "dropped")
    monkeypatch.setattr(backfill, "BATCH", batch)
    with pytest.raises(errors.CollectionMissing, match="dropped meanwhile"):
        db.make_words("dropped", language="simple", on_progress=lambda _: db.drop_collection("dropped"))
    assert "dropped" not in [each.name for each in db.collections()]


def test_words_of_no_documents_and_of_no_collection(db: Client) -> None:
    db.create_collection("hollow", words=False)
    assert db.make_words("hollow") == 0
    assert (db.space("hollow").language, db.space("hollow").words_complete) == ("english", True)
    assert list(by_words(db, "ant", "hollow")) == []
    with pytest.raises(errors.CollectionMissing):
        db.make_words("nowhere")
    db.create_collection("unreadable", words=False)
    with pytest.raises(errors.InvalidInput, match="no text search configuration"):
        db.make_words("unreadable", language="klingon")
    assert db.space("unreadable").language is None


# Pages, filters, thresholds


@pytest.fixture(scope="module")
def equals(db: Client) -> Space:
    """Of 60 documents 40 are equal, so that pages end among equal scores."""
    rows = [{"key": f"e{number:02}", "text": "ant bee", "metadata": {"half": number % 2}} for number in range(40)]
    rows += [{**each, "metadata": {"half": 0}} for each in made_up(random.Random(14), range(20))]
    return load(db, "equals", rows, language="simple")


def pages(db: Client, query: str, collection: str, **options: Any) -> list[Hits]:
    found = [db.search(query, collection=collection, mode="text", **options)]
    while found[-1].cursor is not None:
        found.append(db.search(query, collection=collection, mode="text", cursor=found[-1].cursor, **options))
    return found


@pytest.mark.parametrize("limit", [1, 7, 60])
@pytest.mark.parametrize("options", [{}, {"filter": {"half": 0}}, {"min_score": 0.2}, {"filter": {"half": 1}}])
def test_pages_by_cursor_go_through_all_hits(db: Client, equals: Space, limit: int, options: dict[str, Any]) -> None:
    whole = by_words(db, "ant bee cat", equals.collection, **options)
    found = pages(db, "ant bee cat", equals.collection, limit=limit, **options)
    assert [hit for page in found for hit in page] == list(whole)
    assert len(found) == len(whole) // limit + 1
    assert keys(whole) == in_order(scores_of(whole), equals)
    assert len(whole) >= 15


def test_a_cursor_is_for_its_own_search_alone(db: Client, equals: Space) -> None:
    asked: dict[str, Any] = {"query": "ant bee", "collection": equals.collection, "mode": "text", "limit": 5}
    cursor = db.search(**asked).cursor
    assert (
        keys(db.search(**{**asked, "cursor": cursor, "limit": 50})) == keys(db.search(**{**asked, "limit": 100}))[5:55]
    )
    others: list[dict[str, Any]] = [
        {"query": "bee ant"},
        {"mode": "hybrid"},
        {"mode": "vector", "exact": True},
        {"mode": None},
        {"filter": {"half": 0}},
        {"min_score": 0.1},
        {"collection": "animals"},
    ]
    load(db, "animals", ANIMALS[:1])
    for other in others:
        with pytest.raises(errors.InvalidCursor, match="not of this search"):
            db.search(**{**asked, "cursor": cursor, **other})
    with pytest.raises(errors.InvalidInput, match="an offset or a cursor"):
        db.search(**asked, cursor=cursor, offset=1)


def test_words_have_no_distance(db: Client, equals: Space) -> None:
    with pytest.raises(errors.InvalidInput, match="words have no distance"):
        db.search("ant", collection=equals.collection, mode="text", max_distance=1)


def test_offset_limit_and_threshold_cut_what_comes_back(db: Client, animals: Space) -> None:
    whole = list(by_words(db, "ant bee", animals.collection))
    assert list(by_words(db, "ant bee", "animals", limit=7)) == whole[:7]
    assert list(by_words(db, "ant bee", "animals", limit=7, offset=20)) == whole[20:27]
    assert list(by_words(db, "ant bee", "animals", offset=len(whole))) == []
    middle = whole[20].score
    above = [hit for hit in whole if hit.score >= middle]
    assert list(by_words(db, "ant bee", "animals", min_score=middle)) == above
    assert list(by_words(db, "ant bee", "animals", min_score=middle, limit=5, offset=3)) == above[3:8]
    assert list(by_words(db, "ant bee", "animals", min_score=100)) == []


@pytest.mark.parametrize("declared", [False, True])
def test_filters_keep_what_matches(db: Client, declared: bool) -> None:
    name = f"filtered_{declared}".lower()
    db.create_collection(name, chunk_tokens=0, language="simple", fields={"number": "number"} if declared else None)
    space = load(db, name, ANIMALS)
    scores = bm25(ANIMALS, "ant lark")
    for filter, keep in (
        ({"number": {"$gte": 100, "$lt": 150}}, lambda number: 100 <= number < 150),
        ({"third": 1}, lambda number: number % 3 == 1),
        ({"$or": [{"number": 7}, {"third": 2}]}, lambda number: number == 7 or number % 3 == 2),
        ({"number": -1}, lambda _: False),
    ):
        expected = {key: score for key, score in scores.items() if keep(int(key))}
        hits = by_words(db, "ant lark", name, filter=filter)
        assert scores_of(hits) == pytest.approx(expected, abs=1e-6)
        assert keys(hits) == in_order(expected, space)
        phrase = by_words(db, '"lark lark"', name, filter=filter)
        assert set(keys(phrase)) == {
            each["key"]
            for each in ANIMALS
            if " lark lark " in f" {' '.join(words_of(each))} " and keep(each["metadata"]["number"])
        }


# Builders


class Base(DeclarativeBase):
    pass


class Price(Base):
    """A table of the caller's own."""

    __tablename__ = "word_prices"

    key: Mapped[str] = mapped_column(primary_key=True)
    price: Mapped[int]


@pytest.fixture(scope="module")
def prices(engine: Engine) -> None:
    """Of every second document."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Price(key=f"{number:04}", price=number) for number in range(0, 300, 2))
        session.commit()


@pytest.mark.usefixtures("prices")
def test_builders_compose_with_the_callers_own_tables(db: Client, engine: Engine, animals: Space) -> None:
    vector = random_vectors(1)[0]
    found = by_words(db, "ant bee", animals.collection)
    document = searchapp.orm.Document
    cheap = select(Price).where(Price.key == document.key, Price.price < 100).exists()
    with Session(engine) as session:
        rows = session.execute(searchapp.words(animals, "ant bee", limit=1000)).all()
        assert [tuple(row) for row in rows] == [
            (hit.key, hit.title, hit.passage, hit.metadata, hit.score) for hit in found
        ]
        words = searchapp.words(animals, "ant bee", limit=50).subquery()
        both = searchapp.hybrid(animals, vector, "ant bee -elk", limit=20).subquery()
        assert session.scalar(select(func.count()).select_from(words)) == 50
        assert session.scalar(select(func.count()).select_from(both)) == 20
        priced = session.execute(select(Price, words.c.score).join(words, words.c.key == Price.key)).all()
        assert {row.Price.key for row in priced} == {key for key in keys(found[:50]) if int(key) % 2 == 0}
        others = searchapp.words(animals, "lark", limit=300).subquery()
        joined = session.execute(select(words.c.key).join(others, others.c.key == words.c.key)).scalars().all()
        assert set(joined) == set(keys(found[:50])) & set(bm25(ANIMALS, "lark"))
        mixed = session.execute(select(words.c.key).join(both, both.c.key == words.c.key)).scalars().all()
        assert set(mixed) <= set(keys(found[:50]))
        owned = session.execute(searchapp.words(animals, "ant bee", limit=1000, where=cheap)).all()
        assert [row.key for row in owned] == [key for key in keys(found) if int(key) < 100 and int(key) % 2 == 0]
        one = searchapp.hybrid(
            animals, vector, "ant bee", limit=100, filter={"third": 0}, where=[cheap, document.key != "0000"]
        )
        assert {int(row.key) for row in session.execute(one)} == set(range(6, 100, 6))
        tail = searchapp.words(animals, "ant bee", limit=5, offset=10, min_score=0.01, filter={"third": 1})
        expected = [hit.key for hit in found if hit.metadata["third"] == 1][10:15]
        assert [row.key for row in session.execute(tail)] == expected
        phrase = session.execute(searchapp.words(animals, '"ant bee" -lark', limit=1000)).all()
        assert {row.key for row in phrase} == set(keys(by_words(db, '"ant bee" -lark', "animals")))


async def test_an_async_session_gives_the_same_rows(engine: Engine, animals: Space) -> None:
    vector = random_vectors(1)[0]
    statements = [
        searchapp.words(animals, '"ant bee" lark', limit=30),
        searchapp.hybrid(animals, vector, "ant -bee", limit=30, method="rrf", weights=(1, 2)),
    ]
    url = engine.raw_connection()
    assert isinstance(url.driver_connection, psycopg.Connection)
    parameters = {**url.driver_connection.info.get_parameters(), "password": url.driver_connection.info.password}
    url.close()

    async def connect() -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(**parameters)  # type: ignore[arg-type]  # libpq's parameters

    async_engine = create_async_engine("postgresql+psycopg://", async_creator=connect)
    async with AsyncSession(async_engine) as session:
        found = [(await session.execute(statement)).all() for statement in statements]
    await async_engine.dispose()
    with Session(engine) as same:
        for statement, rows in zip(statements, found, strict=True):
            assert [tuple(row) for row in same.execute(statement)] == [tuple(row) for row in rows]
            assert rows
