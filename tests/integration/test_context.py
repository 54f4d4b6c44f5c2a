"""Context for an answer, on the real server with the real model: what it says, how long it is, and what is refused."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest

from searchapp import errors
from searchapp.client import Client
from searchapp.search.context import Context
from tests import conftest
from tests.acceptance.commands import error_of, run_all

MOON = """The Moon is the Earth's only natural satellite. It orbits at an average distance of 384,400 kilometres, which
is about thirty times the Earth's diameter.\r\n\r\nTides in the oceans are caused mostly by the gravity of the Moon. The
same side of it always faces the Earth, because its rotation has been locked by tidal forces. Nobody has set foot on
it since December 1972, when the crew of Apollo 17 left."""
BREAD = """  Bread is made from flour, water, salt and yeast. The dough rises while the yeast makes gas.
\u2028A sourdough takes no bought yeast: wild yeast and bacteria live in its starter, which is fed with flour every day.
Baking at a high heat with steam in the oven gives a thin and crackling crust. 🍞 Let the loaf cool before you cut it.
"""
INDEX = """PostgreSQL keeps tables and indexes in pages of eight kilobytes. A B-tree index answers equality and ranges.
A GIN index answers which rows contain an element, such as a word in a text or a key in a JSON document. With the
extension pgvector, an HNSW index finds the nearest neighbours of a vector, though not always all of them."""
SHOES = """Running shoes wear out after about eight hundred kilometres. The foam of the sole loses its spring first, and
then the tread. Whoever runs every day had better have two pairs and change between them, so that the foam recovers."""
SHORT = {
    "cat": "A cat sleeps for two thirds of the day.",
    "tides": "The Moon's gravity causes the tides of the oceans.",
    "tide": "The Moon's gravity causes the tides of the ocean.",
    "whale": "The blue whale is the largest animal that has ever lived.",
    "rice": "Rinse rice before you cook it, and let it rest afterwards.",
    "tea": "Green tea turns bitter in boiling water.",
    "bike": "A bicycle chain lasts longer when it is oiled.",
    "owl": "Owls turn their heads by 270 degrees.",
}
LONG = {"moon": MOON, "bread": BREAD, "index": INDEX, "shoes": SHOES}
TITLES = {"moon": "The Moon", "bread": "Baking\nbread"}
DOCUMENTS = [
    {"key": key, "text": text, "title": TITLES.get(key), "metadata": {"long": key in LONG}}
    for key, text in {**LONG, **SHORT}.items()
]
QUESTION = "What causes the tides?"

url, made = conftest.shared_address()


@pytest.fixture(scope="module")
def db(made: Client) -> Client:
    made.ingest(DOCUMENTS, collection="things", chunk_tokens=16)
    made.create_collection("empty")
    return made


def ask(db: Client, query: str = QUESTION, **options: Any) -> Context:
    return db.context(query, **{"collection": "things", **options})


def words(text: str) -> int:
    return len(text.split())


def tokens_of(db: Client) -> Any:
    tokenizer = db._registry.encoder(db.space("things").model).tokenizer
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def keys(found: Context) -> list[str]:
    return [passage.key for passage in found.passages]


def is_empty(found: Context) -> bool:
    return (found.passages, found.text, found.tokens) == ((), "", 0)


@pytest.mark.parametrize("counter", [None, words])
@pytest.mark.parametrize("neighbours", [0, 1, 20])
@pytest.mark.parametrize("budget", [30, 75, 200, 5000])
@pytest.mark.parametrize(
    "query", [QUESTION, "How do I bake a loaf with a crust?", "How does a database find neighbours?"]
)
def test_a_context_quotes_its_documents_within_the_budget(
    db: Client, query: str, budget: int, neighbours: int, counter: Any
) -> None:
    found = ask(db, query, token_budget=budget, neighbours=neighbours, count_tokens=counter)
    assert found.passages
    assert found.tokens == (counter or tokens_of(db))(found.text) <= budget
    headings = [" ".join((each.title or each.key).split()) for each in found.passages]
    sources = [
        f"[{n}] {heading}\n{each.text.strip()}"
        for n, (heading, each) in enumerate(zip(headings, found.passages, strict=True), 1)
    ]
    assert found.text == "\n\n".join(sources)
    places: dict[str, list[int]] = defaultdict(list)
    for passage in found.passages:
        document = db.get(passage.key, collection="things")
        assert document is not None
        assert passage.text in document.text
        assert passage.title == document.title
        start = document.text.index(passage.text)
        places[passage.key] += [start, start + len(passage.text)]
    assert all(each == sorted(each) for each in places.values())  # in the document's order, and none twice


def test_whole_documents_fit_into_a_large_budget(db: Client) -> None:
    everything = ask(db, token_budget=100_000, neighbours=20)
    assert everything.tokens > 300  # which is more than the model reads
    found = {passage.key: passage.text for passage in everything.passages}
    assert {key: found[key].strip() for key in LONG} == {key: text.strip() for key, text in LONG.items()}
    assert len(found) == len(everything.passages) == len(DOCUMENTS) - 1


def test_the_best_passage_comes_first_and_with_its_neighbours(db: Client) -> None:
    alone, widened = (ask(db, neighbours=each, filter={"long": True}, token_budget=60) for each in (0, 1))
    hit = db.search(QUESTION, collection="things", filter={"long": True})[0]
    assert alone.passages[0].key == widened.passages[0].key == hit.key == "moon"
    assert hit.passage in alone.text
    assert hit.passage in widened.text
    assert alone.passages[0].score == pytest.approx(hit.score)
    assert len(widened.passages[0].text) > len(hit.passage)


@pytest.mark.parametrize("mode", [None, "vector", "hybrid"])
def test_filters_and_scores_hold(db: Client, mode: str | None) -> None:
    assert set(keys(ask(db, mode=mode, filter={"long": False}))) <= set(SHORT)
    assert is_empty(ask(db, mode=mode, filter={"long": "maybe"}))
    hits = db.search(QUESTION, collection="things", mode=mode)
    best = ask(db, mode=mode, min_score=hits[1].score)
    assert keys(best)
    assert set(keys(best)) <= {hit.key for hit in hits[:2]}
    assert is_empty(ask(db, mode=mode, min_score=100))


def test_two_that_say_the_same_are_one_passage(db: Client) -> None:
    found = ask(db, filter={"long": False})
    assert len({"tide", "tides"} & set(keys(found))) == 1
    assert keys(found)[0] in {"tide", "tides"}


def test_nothing_to_be_found_is_an_empty_context(db: Client) -> None:
    assert is_empty(ask(db, collection="empty"))
    with pytest.raises(errors.CollectionMissing, match="thing"):
        ask(db, collection="thing")


def test_a_budget_that_nothing_fits_into_is_refused_with_what_would(db: Client) -> None:
    with pytest.raises(errors.InvalidInput, match=r"^no passage fits into 5 tokens; the shortest .* takes \d+$") as why:
        ask(db, token_budget=5)
    least = int(str(why.value).split()[-1])
    assert ask(db, token_budget=least).tokens == least
    with pytest.raises(errors.InvalidInput, match="no passage fits"):
        ask(db, token_budget=least - 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *(({"token_budget": each}, "token_budget is .*; expected a number") for each in (0, -1, True, "9", 1.5, None)),
        *(({"neighbours": each}, "neighbours is .*; expected 0 to 20") for each in (-1, 21, True, "1", None)),
        *(({"query": each}, "the query is empty") for each in ("", " \n")),
        ({"query": "a\0b"}, "the query has a NUL"),
        ({"mode": "text"}, "mode is 'text'; a context takes vector or hybrid"),
        ({"mode": "best"}, "mode is 'best'"),
        ({"min_score": float("nan")}, "min_score is nan"),
        ({"filter": {"long": {"$near": 1}}}, "unknown operator"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(db: Client, change: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.SearchAppError, match=f"^{said}.*$"):
        ask(db, **{"query": QUESTION, **change})


def test_the_command_prints_what_the_call_gives(db: Client, url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    command = ("context", QUESTION, "--collection", "things")
    as_json, page, none, refused = run_all(
        url,
        tmp_path_factory.mktemp("context"),
        [
            (*command, "--token-budget", "120", "--json"),
            (*command, "--token-budget", "120", "--neighbours", "0", "--mode", "vector", "--filter", '{"long": false}'),
            (*command, "--min-score", "100"),
            (*command, "--token-budget", "5"),
        ],
    )
    assert (as_json.returncode, as_json.stderr) == (0, "")
    answer, expected = json.loads(as_json.stdout), ask(db, token_budget=120)
    assert list(answer) == ["passages", "text", "tokens"]
    assert [list(each) for each in answer["passages"]] == [["key", "title", "position", "score", "text"]] * len(
        expected.passages
    )
    assert (answer["text"], answer["tokens"]) == (expected.text, expected.tokens)
    assert [each["key"] for each in answer["passages"]] == keys(expected)
    narrow = ask(db, token_budget=120, neighbours=0, mode="vector", filter={"long": False})
    assert (page.stdout, page.stderr) == (f"{narrow.text}\n", "")
    assert (none.returncode, none.stdout, none.stderr) == (0, "nothing was found\n", "")
    assert error_of(refused).startswith("no passage fits into 5 tokens; the shortest that was found takes ")
