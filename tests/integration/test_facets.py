"""Facets on the real server: against plain counts in Python, of all documents and of the first hits of a search."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from sqlalchemy import Engine, select

import searchapp
from searchapp import errors
from searchapp.client import Client
from searchapp.models import Document
from searchapp.spaces import Space
from tests import conftest
from tests.acceptance.commands import error_of, run_all
from tests.made_up import random_vectors

MODEL = "all-MiniLM-L6-v2"
CHANCE = random.Random(5)
VALUES: list[Any] = [
    *("red", "blue", "", "Ünï\u2028", "true", "1", 0, 1, 1.0, -2.5, 1e15, True, False, None),
    *([], {}, {"red": 1}, ["red", "red", "blue"], [1, True, None, "1"], [["red"], {"a": "red"}, "green"]),
]
FIELDS = ["plain", "a.b", "a", "it's", 'say "so"', "100%s", ":name $1 \\", "日本"]


def made_up(number: int) -> dict[str, Any]:
    """A document of some words, each of whose fields is there or not; ``a`` may be an object that has ``b``."""
    metadata: dict[str, Any] = {name: CHANCE.choice(VALUES) for name in FIELDS if CHANCE.random() < 0.7}
    if CHANCE.random() < 0.6:
        value = CHANCE.choice(VALUES)
        metadata["a"] = CHANCE.choice([{"b": value}, {"b": value}, {"b": {"c": value}}, [{"b": value}, {"b": "more"}]])
    text = " ".join(CHANCE.choices(["ant", "bee", "cat", "dog"], k=CHANCE.randint(1, 6)))
    return {"key": f"{number:03}", "text": text, "metadata": {**metadata, "number": number}}


DOCUMENTS = [made_up(number) for number in range(300)]

url, db = conftest.shared_address()


@pytest.fixture(scope="module")
def engine(db: Client) -> Engine:
    assert db._engine is not None
    return db._engine


@pytest.fixture(scope="module")
def space(db: Client) -> Space:
    db.load_vectors(DOCUMENTS, random_vectors(len(DOCUMENTS)), collection="things", model=MODEL)
    return db.space("things")


def found_in(value: Any, steps: list[str]) -> list[Any]:
    """What a path leads to: into objects, and into those in an array; the elements of an array."""
    if not steps:
        return value if isinstance(value, list) else [value]
    if isinstance(value, list):
        return [each for element in value if isinstance(element, dict) for each in found_in(element, steps)]
    if isinstance(value, dict) and steps[0] in value:
        return found_in(value[steps[0]], steps[1:])
    return []


def counted(documents: Iterable[Mapping[str, Any]], field: str) -> Counter[tuple[bool, Any]]:
    """How many documents have which value, each told apart by whether it is true or false: else ``True == 1``."""
    counts: Counter[tuple[bool, Any]] = Counter()
    for document in documents:
        metadata = document["metadata"]
        values = found_in(metadata, [field] if field in metadata else field.split("."))
        counts.update({(isinstance(each, bool), each) for each in values if isinstance(each, (str, int, float))})
    return counts


def told(facets: Iterable[Any]) -> dict[tuple[bool, Any], int]:
    pairs = [((isinstance(value, bool), value), documents) for value, documents in facets]
    assert len(dict(pairs)) == len(pairs)
    assert [documents for _, documents in pairs] == sorted((documents for _, documents in pairs), reverse=True)
    return dict(pairs)


@pytest.mark.parametrize("field", [*FIELDS, "a.b.c", "number", "none", "plain.red", "none.none"])
@pytest.mark.parametrize("filter", [None, {}, {"number": {"$lt": 100}}, {"plain": "red"}, {"a.b": {"$exists": True}}])
def test_values_are_counted_as_by_hand(
    db: Client, engine: Engine, space: Space, field: str, filter: dict[str, Any] | None
) -> None:
    kept = {hit.key for hit in db.search_by_vector([1] * 384, collection="things", limit=300, filter=filter)}
    expected = counted((each for each in DOCUMENTS if each["key"] in kept), field)
    facets = db.facets(field, collection="things", filter=filter, limit=1000)
    assert told(facets) == expected
    assert (facets.field, facets.first) == (field, None)
    with engine.connect() as connection:
        rows = connection.execute(searchapp.facets(space, field, filter=filter, limit=1000)).all()
    assert told((row.value, row.documents) for row in rows) == expected


def test_the_most_frequent_come_first_and_equal_ones_in_one_order(db: Client, space: Space) -> None:
    everything = db.facets("plain", collection="things", limit=100)
    assert list(db.facets("plain", collection="things", limit=5)) == list(everything)[:5] == list(everything[:5])
    assert everything[0].documents == max(count.documents for count in everything)
    numbers = [count.value for count in db.facets("number", collection=space.collection, limit=7)]
    assert numbers == list(range(7))  # all of them once
    assert len(db.facets("number", collection=space.collection)) == 20


def test_the_builder_takes_conditions_of_the_callers_own(engine: Engine, space: Space) -> None:
    statement = searchapp.facets(space, "plain", where=Document.key < "050", filter={"plain": {"$ne": "red"}})
    with engine.connect() as connection:
        rows = connection.execute(select(statement.subquery())).all()
    kept = [each for each in DOCUMENTS if each["key"] < "050" and (False, "red") not in counted([each], "plain")]
    assert told(tuple(row) for row in rows) == counted(kept, "plain")


@pytest.mark.parametrize("field", ["plain", "a.b", "100%s"])
@pytest.mark.parametrize("first", [1, 7, 100, 1000])
@pytest.mark.parametrize("mode", [None, "vector", "text", "hybrid"])
@pytest.mark.usefixtures("space")
def test_the_first_hits_of_a_search_are_counted(db: Client, mode: str | None, first: int, field: str) -> None:
    asked: dict[str, Any] = {"collection": "things", "mode": mode, "filter": {"number": {"$gte": 50}}}
    facets = db.facets(field, query="ant -dog", first=first, limit=1000, **asked)
    hits = db.search("ant -dog", limit=first, **asked)
    assert told(facets) == counted([hit._asdict() for hit in hits], field)
    assert facets.first == first


@pytest.mark.usefixtures("space")
def test_what_nothing_has_is_counted_as_nothing(db: Client) -> None:
    assert list(db.facets("none", collection="things", query="ant", mode="text")) == []
    assert list(db.facets("plain", collection="things", query="zebra", mode="text")) == []
    db.create_collection("empty")
    for query in (None, "ant"):
        assert list(db.facets("plain", collection="empty", query=query)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *(({"limit": limit}, "limit is ") for limit in (0, -1, 100_001, True, 1.5, "5", None)),
        *(({"first": first}, "first is ") for first in (0, 100_001, True, "5")),
        *(
            ({"field": field}, "the field is .*; expected its name, with dots into objects")
            for field in ("", ".", "a.", "a..b", "a\0b", "\ud800", 5, None)
        ),
        ({"mode": "vector"}, "mode goes with a query"),
        ({"first": 9}, "first goes with a query"),
        ({"mode": "best", "query": "ant"}, "mode is 'best'"),
        ({"query": " "}, "the query is empty"),
        ({"filter": {"plain": {"$near": 5}}}, "unknown operator"),
        ({"timeout": 0}, "timeout is 0"),
    ],
)
def test_what_cannot_be_counted_is_refused_in_one_line(db: Client, change: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.SearchAppError, match=f"^{said}.*$"):
        db.facets(**{"field": "plain", "collection": "things", **change})


def test_a_collection_that_is_not_there_is_told(db: Client) -> None:
    for query in (None, "ant"):
        with pytest.raises(errors.CollectionMissing):
            db.facets("plain", collection="none", query=query)


@pytest.mark.usefixtures("space")
def test_the_command_prints_json_or_a_table(db: Client, url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    facets = ("facets", "plain", "--collection", "things")
    everything, of_query, table, none, refused = run_all(
        url,
        tmp_path_factory.mktemp("facets"),
        [
            (*facets, "--json", "--filter", '{"number": {"$lt": 200}}', "--limit", "4"),
            (*facets, "--json", "--query", "ant", "--mode", "text", "--first", "9"),
            facets,
            ("facets", "none", "--collection", "things"),
            ("facets", "a..b", "--collection", "things"),
        ],
    )
    assert (everything.returncode, everything.stderr) == (0, "")
    expected = db.facets("plain", collection="things", filter={"number": {"$lt": 200}}, limit=4)
    values = [{"value": value, "documents": documents} for value, documents in expected]
    assert json.loads(everything.stdout) == {"field": "plain", "values": values, "first": None}
    answer = json.loads(of_query.stdout)
    first = db.facets("plain", collection="things", query="ant", mode="text", first=9)
    assert (answer["first"], [each["documents"] for each in answer["values"]]) == (9, [each[1] for each in first])
    heading, *lines = table.stdout.splitlines()
    assert heading.split() == ["value", "documents"]
    shown = db.facets("plain", collection="things")
    assert [int(line.split()[-1]) for line in lines] == [documents for _, documents in shown]
    assert {line.split()[0] for line in lines} >= {"red", "true", "false", "-2.5"}
    assert none.stdout == "no document has a value in none\n"
    assert error_of(refused).startswith("the field is 'a..b'; expected its name")
