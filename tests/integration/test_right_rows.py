"""Whatever is asked, the right rows: properties of searches on a collection of some 6,000 chunks, against NumPy.

``make test-long`` tries many more of them.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlalchemy.orm import Session

import searchapp
from searchapp.client import Client
from searchapp.search.hits import Hit, Hits
from searchapp.spaces import Space
from searchapp.vectors import Array
from tests import conftest
from tests.made_up import DIMENSIONS, fill, unit
from tests.plans.explaining import explain

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "60"))
DOCUMENTS = 3000
# pgvector adds up in single precision.
ROUNDING = 2e-6
# 60 documents are equal, 40 have fifty chunks each, the others one to three.
EQUAL, LONG = range(60), range(60, 100)
RANDOM = np.random.default_rng(11)

bounded = settings(max_examples=EXAMPLES, derandomize=EXAMPLES <= 100, database=None, deadline=None)


def made_up(count: int) -> Array:
    """Directions that lie near each other as texts' do: of sixteen dimensions, turned into 384."""
    mixed: Array = RANDOM.standard_normal((count, 16)).astype(np.float32) @ TURN
    return unit(mixed)


TURN = RANDOM.standard_normal((16, DIMENSIONS)).astype(np.float32)
SAME = made_up(1)
CHUNKS = [SAME if number in EQUAL else made_up(50 if number in LONG else 1 + number % 3) for number in range(DOCUMENTS)]
QUERIES = np.vstack([made_up(40), SAME, unit(SAME + 0.01 * made_up(1)), CHUNKS[60][:1]])


def metadata_of(number: int) -> dict[str, Any]:
    places = {"number": number, "same": number}  # of which one is declared
    return {
        **places,
        "half": number % 2,
        "tenth": number % 10,
        "tags": [f"t{number % 300}"],
        "in": {"third": number % 3},
    }


# A filter, and what it keeps.
FILTERS: list[tuple[dict[str, Any] | None, Any]] = [
    (None, lambda _: True),
    ({"half": 1}, lambda number: number % 2 == 1),
    ({"tenth": {"$in": [2, 7]}}, lambda number: number % 10 in {2, 7}),
    ({"tags": {"$contains": "t7"}}, lambda number: number % 300 == 7),
    ({"number": {"$lt": 100}}, lambda number: number < 100),
    ({"number": {"$gte": 1000}, "half": {"$ne": 0}}, lambda number: number >= 1000 and number % 2 == 1),
    ({"same": {"$gte": 500, "$lt": 1700}}, lambda number: 500 <= number < 1700),
    ({"number": 1234}, lambda number: number == 1234),
    ({"$or": [{"half": 1}, {"number": {"$gt": 2800}}]}, lambda number: number % 2 == 1 or number > 2800),
    ({"in.third": {"$ne": 1}}, lambda number: number % 3 != 1),
    ({"in.third": 2}, lambda number: number % 3 == 2),
    ({"missing": {"$exists": True}}, lambda _: False),
]


@dataclass(frozen=True)
class Asked:
    """A search: which query and filter, and what else it is asked for."""

    query: int
    filter: int
    limit: int
    offset: int
    max_distance: float | None

    @property
    def options(self) -> dict[str, Any]:
        return {
            "limit": self.limit,
            "offset": self.offset,
            "filter": FILTERS[self.filter][0],
            "max_distance": self.max_distance,
        }


limits = st.integers(1, 30) | st.sampled_from([10, 10, 100, 1000, 1001, 5000])
asked = st.builds(
    Asked,
    st.integers(0, len(QUERIES) - 1),
    st.integers(0, len(FILTERS) - 1),
    limits,
    st.just(0) | st.integers(0, 50) | st.sampled_from([500, 2990, 4000]),
    st.none() | st.floats(0, 1.2),
)


engine, db = conftest.shared_database()


@pytest.fixture(scope="module")
def space(db: Client) -> Space:
    return fill(db, "things", CHUNKS, metadata_of, fields={"number": "number"})


def right(search: Asked) -> list[tuple[float, str]]:
    """All documents that match, nearest first: distance and key."""
    keeps = FILTERS[search.filter][1]
    query = QUERIES[search.query].astype(np.float64)
    found = [
        (float((1 - chunks.astype(np.float64) @ query).min()), f"{number:04}")
        for number, chunks in enumerate(CHUNKS)
        if keeps(number)
    ]
    return sorted(found)


def distance(hit: Hit) -> float:
    """A hit's distance, which every hit of a search by vector has."""
    assert hit.distance is not None
    return hit.distance


def check_always(search: Asked, hits: Hits, matching: list[tuple[float, str]]) -> None:
    """What holds of every answer, approximate or not."""
    distances = {key: of_key for of_key, key in matching}
    keys = [hit.key for hit in hits]
    assert len(set(keys)) == len(keys)
    assert set(keys) <= set(distances)
    assert [(distance(hit), hit.key) for hit in hits] == sorted((distance(hit), hit.key) for hit in hits)
    assert all(distance(hit) >= distances[hit.key] - ROUNDING for hit in hits)
    assert all(hit.metadata == metadata_of(int(hit.key)) for hit in hits)
    if search.max_distance is None:
        assert len(hits) == max(0, min(search.limit, len(matching) - search.offset))
    else:
        assert all(distance(hit) <= search.max_distance for hit in hits)


def check_exact(search: Asked, hits: Hits, matching: list[tuple[float, str]]) -> None:
    """That they are the nearest: as far as the right ones, but for what rounding leaves open."""
    page = matching[search.offset : search.offset + search.limit]
    if search.max_distance is not None:
        surely = sum(distance <= search.max_distance - ROUNDING for distance, _ in page)
        perhaps = sum(distance <= search.max_distance + ROUNDING for distance, _ in page)
        assert surely <= len(hits) <= perhaps
        page = page[: len(hits)]
    assert [hit.distance for hit in hits] == pytest.approx([distance for distance, _ in page], abs=ROUNDING)


def test_the_index_is_used(engine: Engine, space: Space) -> None:
    assert f"space_{space.id}_hnsw" in explain(engine, searchapp.nearest(space, QUERIES[0], limit=10))


def test_exact_answers_are_right(db: Client, space: Space) -> None:
    assert space.indexed

    @bounded
    @given(asked)
    def check(search: Asked) -> None:
        hits = db.search_by_vector(QUERIES[search.query], collection="things", exact=True, **search.options)
        matching = right(search)
        check_always(search, hits, matching)
        check_exact(search, hits, matching)

    check()


def test_approximate_answers_are_full_and_nearly_right(db: Client, engine: Engine, space: Space) -> None:
    found, wanted = 0, 0

    @bounded
    @given(asked)
    def check(search: Asked) -> None:
        nonlocal found, wanted
        hits = db.search_by_vector(QUERIES[search.query], collection="things", **search.options)
        matching = right(search)
        check_always(search, hits, matching)
        if hits.exact:
            check_exact(search, hits, matching)
        with Session(engine) as session:
            rows = session.execute(searchapp.nearest(space, QUERIES[search.query], **search.options)).all()
        assert [(row.key, row.distance) for row in rows] == [(hit.key, hit.distance) for hit in hits]
        if search.max_distance is None and search.offset == 0:
            ten = min(10, search.limit, len(matching))
            reach = matching[ten - 1][0] + ROUNDING if ten else 0
            found += sum(distance(hit) <= reach for hit in hits[:ten])
            wanted += ten

    check()
    assert found >= 0.97 * wanted


def test_pages_by_cursor_are_the_whole_once(db: Client, space: Space) -> None:
    assert space.indexed

    @settings(bounded, max_examples=max(EXAMPLES // 4, 5))
    @given(asked, st.lists(st.sampled_from([1, 7, 40, 400]), min_size=1, max_size=4))
    def check(search: Asked, sizes: list[int]) -> None:
        options = {name: value for name, value in search.options.items() if name not in {"limit", "offset"}}
        vector = QUERIES[search.query]
        whole = db.search_by_vector(vector, collection="things", limit=DOCUMENTS, exact=True, **options)
        page = db.search_by_vector(vector, collection="things", limit=sizes[0], exact=True, **options)
        shown = list(page)
        for size in itertools.islice(itertools.cycle(sizes), 12):
            if page.cursor is None:
                break
            page = db.search_by_vector(vector, collection="things", limit=size, cursor=page.cursor, **options)
            shown += page
        assert shown == list(whole)[: len(shown)]
        assert page.cursor is not None or len(shown) == len(whole)

    check()
