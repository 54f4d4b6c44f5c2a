"""Search by documents that are there, on the real server: against plain NumPy, with several chunks a document."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text

import searchapp
from searchapp import errors
from searchapp.client import Client
from searchapp.spaces import Space
from searchapp.vectors import Array
from tests import conftest
from tests.made_up import fill, random_vectors, unit

engine, db = conftest.shared_database()

SINGLE = [random_vectors(1) for _ in range(600)]
SEVERAL = [unit(random_vectors(1) + 0.7 * random_vectors(1 + number % 4)) for number in range(400)]


@pytest.fixture(scope="module", params=["single", "several"])
def stored(request: pytest.FixtureRequest, db: Client) -> tuple[Space, list[Array]]:
    """A collection of documents of one chunk, or of one to four."""
    chunks = {"single": SINGLE, "several": SEVERAL}[request.param]
    space = fill(db, request.param, list(chunks), lambda number: {"third": number % 3})
    with db._transaction() as connection:
        searchapp.spaces.refresh_statistics(connection, space, len(chunks))
    return db.space(request.param), chunks


def keys(hits: Iterable[Any]) -> list[str]:
    return [hit.key for hit in hits]


def nearest_by_numpy(chunks: list[Array], number: int) -> list[tuple[str, float]]:
    """All others by their nearest chunk's distance to what a document's chunks are on average."""
    average = unit(np.mean(chunks[number].astype(np.float64), axis=0))
    distances = {
        f"{other:04}": 1 - float(np.max(each.astype(np.float64) @ average))
        for other, each in enumerate(chunks)
        if other != number
    }
    return sorted(distances.items(), key=lambda item: item[1])


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("number", [0, 3, 77])
def test_similar_ones_are_the_nearest_but_the_document(
    db: Client, stored: tuple[Space, list[Array]], number: int, exact: bool
) -> None:
    space, chunks = stored
    hits = db.similar(f"{number:04}", collection=space.collection, limit=10, exact=exact)
    expected = nearest_by_numpy(chunks, number)[:10]
    assert keys(hits) == [key for key, _ in expected]
    assert [hit.distance for hit in hits] == pytest.approx([distance for _, distance in expected], abs=1e-6)
    assert (hits.mode, hits.exact, hits.complete) == ("vector", exact, True)


def test_all_others_are_similar_and_none_comes_twice(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, chunks = stored
    hits = db.similar("0007", collection=space.collection, limit=5000)
    assert keys(hits) == [key for key, _ in nearest_by_numpy(chunks, 7)]


def test_filters_thresholds_and_pages_hold(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, chunks = stored
    everything = [(key, distance) for key, distance in nearest_by_numpy(chunks, 9) if int(key) % 3 == 1]
    asked: dict[str, Any] = {"collection": space.collection, "filter": {"third": 1}}
    assert keys(db.similar("0009", limit=20, **asked)) == [key for key, _ in everything[:20]]
    assert keys(db.similar("0009", limit=5, offset=5, **asked)) == [key for key, _ in everything[5:10]]
    far = (everything[6][1] + everything[7][1]) / 2
    assert keys(db.similar("0009", limit=20, max_distance=far, **asked)) == [key for key, _ in everything[:7]]
    found, cursor = [], None
    while True:
        page = db.similar("0009", limit=30, exact=True, cursor=cursor, **asked)
        found += keys(page)
        if (cursor := page.cursor) is None:
            break
    assert found == [key for key, _ in everything]


def test_a_cursor_is_of_its_document(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, _ = stored
    page = db.similar("0001", collection=space.collection, limit=3, exact=True)
    with pytest.raises(errors.InvalidCursor):
        db.similar("0002", collection=space.collection, limit=3, exact=True, cursor=page.cursor)


def test_the_builder_gives_the_same(engine: Engine, stored: tuple[Space, list[Array]]) -> None:
    space, chunks = stored
    with engine.connect() as connection:
        rows = connection.execute(searchapp.nearest_to_document(space, "0004", limit=10)).all()
        assert [row.key for row in rows] == [key for key, _ in nearest_by_numpy(chunks, 4)[:10]]
        assert connection.execute(searchapp.nearest_to_document(space, "none", limit=10)).all() == []


def test_a_document_that_is_not_there_is_told_with_the_near_ones(db: Client, stored: tuple[Space, list[Array]]) -> None:
    space, _ = stored
    with pytest.raises(errors.DocumentMissing, match=r"has no document '00077'; did you mean .*0007"):
        db.similar("00077", collection=space.collection)
    for key in ("", "zebra", "x" * 5000):
        with pytest.raises(errors.DocumentMissing, match="there are: "):
            db.similar(key, collection=space.collection)
    with pytest.raises(errors.InvalidInput, match="expected the key of a document"):
        db.similar("a\0b", collection=space.collection)
    with pytest.raises(errors.CollectionMissing):
        db.similar("0001", collection="none")


def test_the_only_document_has_nothing_similar(db: Client) -> None:
    fill(db, "alone", [random_vectors(3)])
    assert list(db.similar("0000", collection="alone")) == []


def test_a_document_of_many_chunks_leaves_room_for_others(db: Client) -> None:
    """They are nearer than all others, and more than the index keeps of candidates."""
    own = unit(random_vectors(1) + 0.05 * random_vectors(700))
    chunks = [own, *(random_vectors(1) for _ in range(2000))]
    space = fill(db, "long", chunks)
    hits = db.similar("0000", collection=space.collection, limit=10)
    assert keys(hits) == [key for key, _ in nearest_by_numpy(chunks, 0)[:10]]


def test_a_document_without_a_chunk_has_nothing_similar(db: Client, engine: Engine) -> None:
    space = fill(db, "bare", [random_vectors(1) for _ in range(3)])
    statement = "DELETE FROM searchapp_data.chunks WHERE space_id = :space AND document_id = :id"
    with engine.begin() as connection:
        of_it = text("SELECT id FROM searchapp_data.documents WHERE collection_id = :collection AND key = '0001'")
        id_ = connection.scalar(of_it, {"collection": space.collection_id})
        assert isinstance(id_, uuid.UUID)
        connection.execute(text(statement), {"space": space.id, "id": id_})
    assert list(db.similar("0001", collection="bare")) == []
