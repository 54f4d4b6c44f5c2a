"""Ingest and search through the Python door, on the real server with the real model."""

from __future__ import annotations

import pytest

from searchapp import errors
from searchapp.client import Client

THINGS = [
    {"key": "shoes", "text": "Red running shoes", "metadata": {"kind": "clothes", "price": 80}},
    {"key": "hat", "text": "A blue woollen hat", "metadata": {"kind": "clothes", "price": 20}},
    {"key": "cat", "title": "Felix", "text": "A cat sat on the mat", "metadata": {"kind": "animal"}},
    {"key": "db", "text": "PostgreSQL keeps vectors", "metadata": {"kind": "software", "price": 0}},
]


@pytest.fixture
def things(db: Client) -> Client:
    db.ingest(THINGS, collection="things")
    return db


def test_search_finds_what_means_the_same(things: Client) -> None:
    hits = things.search("crimson sneakers", collection="things", mode="vector")
    assert hits[0].key == "shoes"
    assert len(hits) == 4
    assert hits.complete
    assert hits.mode == "vector"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[0].distance == pytest.approx(1 - hits[0].score)
    assert hits[0].passage == "Red running shoes"
    assert hits[0].metadata == {"kind": "clothes", "price": 80}
    assert hits.took_ms.encode > 0


def test_exact_and_approximate_agree(things: Client) -> None:
    exact = things.search("a pet", collection="things", exact=True)
    assert exact.exact
    assert [hit.key for hit in exact] == [hit.key for hit in things.search("a pet", collection="things")]


def test_filter_keeps_what_matches(things: Client) -> None:
    hits = things.search("anything", collection="things", filter={"kind": "clothes", "price": {"$lt": 50}})
    assert [hit.key for hit in hits] == ["hat"]


@pytest.mark.parametrize(
    "filter", [{"color": "red"}, {"price": "80"}, {"price": {"$gte": "x"}}, {"kind": {"$lt": 5}}, {"kind.name": "x"}]
)
def test_a_filter_on_a_missing_field_or_another_type_keeps_nothing(things: Client, filter: dict[str, object]) -> None:
    hits = things.search("anything", collection="things", filter=filter)
    assert (list(hits), hits.complete) == ([], True)
    assert things.count(collection="things", filter={"$not": filter}) == 4


def test_search_ignores_other_collections(things: Client) -> None:
    things.ingest([{"key": "shoes", "text": "crimson sneakers"}], collection="others")
    assert [hit.passage for hit in things.search("crimson sneakers", collection="others")] == ["crimson sneakers"]
    assert things.search("crimson sneakers", collection="things")[0].passage == "Red running shoes"


def test_missing_collection_names_the_near_ones(things: Client) -> None:
    with pytest.raises(errors.CollectionMissing, match="did you mean things"):
        things.search("x", collection="thigs")


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**40, 0.1, 5e-324, -0.0])
def test_numbers_of_metadata_come_back_as_they_were(db: Client, number: float) -> None:
    db.ingest(
        [{"key": "it", "text": "a number", "metadata": {"n": [number], "text": "\u00e9 \\ 1234567890123456789"}}],
        collection="numbers",
    )
    [hit] = db.search("a number", collection="numbers")
    assert hit.metadata == {"n": [number], "text": "\u00e9 \\ 1234567890123456789"}
    assert type(hit.metadata["n"][0]) is type(number)


@pytest.mark.parametrize("limit", [0, -1, 100_001, True])
def test_limit_out_of_range_is_refused(things: Client, limit: int) -> None:
    with pytest.raises(errors.InvalidInput, match="limit is"):
        things.search("x", collection="things", limit=limit)
