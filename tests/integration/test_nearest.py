"""The builder ``nearest``, on made-up vectors: never fewer rows than asked for, whatever the data look like."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import searchapp
from searchapp import errors
from searchapp.client import Client
from searchapp.spaces import Space
from searchapp.vectors import Array
from tests.made_up import DIMENSIONS, fill, random_vectors, unit


def ask(engine: Engine, space: Space, vector: Array, **options: Any) -> list[Any]:
    with engine.begin() as connection:
        return list(connection.execute(searchapp.nearest(space, vector, **options)))


def nearest_keys(chunks: list[Array], vector: Array, limit: int) -> list[str]:
    """The right answer, by NumPy: documents by their nearest chunk, equal ones by key."""
    distances = nearest_distances(chunks, vector)
    order = sorted(range(len(chunks)), key=lambda number: (round(distances[number], 6), number))
    return [f"{number:04}" for number in order[:limit]]


def nearest_distances(chunks: list[Array], vector: Array) -> list[float]:
    return [float((1 - vectors.astype(float) @ vector.astype(float)).min()) for vectors in chunks]


@pytest.mark.parametrize("limit", [1, 10, 300])
def test_as_many_as_asked_for_come_back(db: Client, engine: Engine, limit: int) -> None:
    chunks = [each[None] for each in random_vectors(600)]
    space = fill(db, "things", chunks)
    vector = random_vectors(1)[0]
    rows = ask(engine, space, vector, limit=limit)
    assert len(rows) == limit
    assert [row.distance for row in rows] == sorted(row.distance for row in rows)
    expected = nearest_keys(chunks, vector, limit)
    assert len({row.key for row in rows} & set(expected)) >= 0.9 * limit
    exact = ask(engine, space, vector, limit=limit, exact=True)
    assert [row.distance for row in exact] == pytest.approx(sorted(nearest_distances(chunks, vector))[:limit], abs=1e-6)
    assert all(row.exact for row in exact)


def test_everything_comes_back_where_fewer_match(db: Client, engine: Engine) -> None:
    space = fill(db, "things", [each[None] for each in random_vectors(50)])
    rows = ask(engine, space, random_vectors(1)[0], limit=100_000)
    assert len(rows) == 50
    assert all(row.exact for row in rows)


def test_a_document_of_very_many_chunks_hides_no_other(db: Client, engine: Engine) -> None:
    vector = random_vectors(1)[0]
    crowd = unit(vector + 0.01 * random_vectors(1200))
    chunks = [crowd, *(each[None] for each in random_vectors(40))]
    space = fill(db, "things", chunks)
    rows = ask(engine, space, vector, limit=10)
    assert [row.key for row in rows] == nearest_keys(chunks, vector, 10)
    assert rows[0].key == "0000"


def test_masses_of_equal_vectors_hide_no_other(db: Client, engine: Engine) -> None:
    vector = random_vectors(1)[0]
    same = random_vectors(1)
    others = unit(vector + 0.5 * random_vectors(5))
    chunks = [same] * 1500 + [each[None] for each in others]
    space = fill(db, "things", chunks)
    rows = ask(engine, space, vector, limit=5)
    assert [row.key for row in rows] == nearest_keys(chunks, vector, 5)
    equal = ask(engine, space, same[0], limit=10)
    assert [row.key for row in equal] == [f"{number:04}" for number in range(10)]  # ties by key


def test_filters_of_any_selectivity_are_answered_in_full(db: Client, engine: Engine) -> None:
    chunks = [each[None] for each in random_vectors(1000)]
    space = fill(db, "things", chunks, lambda number: {"number": number, "tenth": number % 10})
    vector = random_vectors(1)[0]
    for condition, matching in (
        ({"number": 7}, [7]),
        ({"number": {"$lt": 15}}, range(15)),
        ({"tenth": 3}, range(3, 1000, 10)),
        ({"tenth": {"$ne": 3}}, [number for number in range(1000) if number % 10 != 3]),
        ({"number": -1}, []),
    ):
        numbers = list(matching)
        rows = ask(engine, space, vector, limit=10, filter=condition)
        expected = nearest_keys([chunks[number] for number in numbers], vector, 10)
        assert len(rows) == min(10, len(numbers))
        right = {f"{numbers[int(key)]:04}" for key in expected}
        assert len({row.key for row in rows} & right) >= 0.9 * len(rows)
        exact = ask(engine, space, vector, limit=10, filter=condition, exact=True)
        assert {row.key for row in exact} == right


def test_a_space_without_its_index_is_scanned_exactly(db: Client, engine: Engine) -> None:
    space = db.create_collection("things")
    assert not space.indexed
    assert ask(engine, space, random_vectors(1)[0], limit=10) == []


class Base(DeclarativeBase):
    pass


class Price(Base):
    """A table of the caller's own."""

    __tablename__ = "prices"

    key: Mapped[str] = mapped_column(primary_key=True)
    price: Mapped[int]


def test_the_statement_composes_with_the_callers_own(db: Client, engine: Engine) -> None:
    space = fill(db, "things", [each[None] for each in random_vectors(400)])
    one, two = random_vectors(2)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Price(key=f"{number:04}", price=number) for number in range(0, 400, 2))
        session.flush()
        hits = searchapp.nearest(space, one, limit=300).subquery()
        assert session.scalar(select(func.count()).select_from(hits)) == 300
        priced = session.execute(select(Price, hits.c.distance).join(hits, hits.c.key == Price.key)).all()
        assert 100 < len(priced) < 200
        others = searchapp.nearest(space, two, limit=300).subquery()
        assert session.execute(select(hits.c.key).join(others, others.c.key == hits.c.key)).all()


def test_settings_travel_in_the_statement_and_end_with_the_transaction(db: Client, engine: Engine) -> None:
    space = fill(db, "things", [each[None] for each in random_vectors(400)])
    with Session(engine) as session:
        assert len(session.execute(searchapp.nearest(space, random_vectors(1)[0], limit=300)).all()) == 300
        assert int(session.scalar(text("SHOW hnsw.ef_search")) or 0) > 300
        session.rollback()
        assert session.scalar(text("SHOW hnsw.ef_search")) == "40"


@pytest.mark.parametrize(
    ("vector", "error"),
    [
        (np.ones(3), errors.ModelMismatch),
        (np.ones((2, DIMENSIONS)), errors.ModelMismatch),
        (np.zeros(DIMENSIONS), errors.InvalidInput),
        (np.full(DIMENSIONS, np.nan), errors.InvalidInput),
        (np.full(DIMENSIONS, np.inf), errors.InvalidInput),
    ],
)
def test_a_vector_that_cannot_be_compared_is_refused(
    db: Client, vector: npt.NDArray[Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        searchapp.nearest(db.create_collection("things"), vector, limit=10)


def test_zero_vectors_cannot_be_stored(db: Client) -> None:
    with pytest.raises(errors.DatabaseError, match="check"):
        fill(db, "things", [np.zeros((1, DIMENSIONS), dtype=np.float32)])
