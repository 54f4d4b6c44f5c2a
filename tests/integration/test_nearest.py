"""The builder ``nearest``, on made-up vectors: never fewer rows than asked for, whatever the data look like."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sqlalchemy import Engine, ForeignKey, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import searchapp
from searchapp import errors
from searchapp.client import Client
from searchapp.spaces import Space
from searchapp.vectors import Array
from tests.made_up import DIMENSIONS, fill, random_vectors, unit
from tests.plans.explaining import explain


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
    by_index = dataclasses.replace(space, chunks=0)  # as if it were not known that there are so few
    with Session(engine) as session:
        assert len(session.execute(searchapp.nearest(by_index, random_vectors(1)[0], limit=300)).all()) == 300
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


# Pages and thresholds


def test_pages_by_offset_are_pieces_of_one_order(db: Client, engine: Engine) -> None:
    chunks = [each[None] for each in random_vectors(300)]
    space = fill(db, "things", chunks)
    vector = random_vectors(1)[0]
    whole = [row.key for row in ask(engine, space, vector, limit=300, exact=True)]
    pages = [ask(engine, space, vector, limit=70, offset=offset, exact=True) for offset in range(0, 350, 70)]
    assert [row.key for page in pages for row in page] == whole
    assert ask(engine, space, vector, limit=10, offset=300) == []
    assert [row.key for row in ask(engine, space, vector, limit=5, offset=295)] == whole[295:]


@pytest.mark.parametrize("exact", [False, True])
def test_a_threshold_cuts_the_nearest_off(db: Client, engine: Engine, exact: bool) -> None:
    space = fill(db, "things", [each[None] for each in random_vectors(400)])
    vector = random_vectors(1)[0]
    rows = ask(engine, space, vector, limit=50, exact=exact)
    middle = rows[20].distance
    near = ask(engine, space, vector, limit=50, max_distance=middle, exact=exact)
    assert [row.key for row in near] == [row.key for row in rows[:21]]
    assert ask(engine, space, vector, limit=50, min_score=1 - middle + 1e-9, exact=exact) == near[:20]
    assert ask(engine, space, vector, limit=50, max_distance=-1, exact=exact) == []
    assert len(ask(engine, space, vector, limit=50, offset=10, max_distance=middle, exact=exact)) == 11


# Conditions of the caller's own, and tables of the caller's own


class Shop(Base):
    __tablename__ = "shops"

    id: Mapped[int] = mapped_column(primary_key=True)
    city: Mapped[str]


class Product(Base):
    __tablename__ = "products"

    shop_id: Mapped[int] = mapped_column(ForeignKey("shops.id"), primary_key=True)
    sku: Mapped[str] = mapped_column(primary_key=True)
    price: Mapped[int]
    embedding: Mapped[list[float] | None] = searchapp.orm.embedding("all-MiniLM-L6-v2")


@pytest.fixture
def products(engine: Engine) -> Array:
    """A thousand products in three shops, which are cheap where their number is small; the last has no embedding."""
    vectors = random_vectors(1000)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Shop(id=number, city=["Rome", "Oslo", "Bern"][number]) for number in range(3))
        session.flush()
        session.add_all(
            Product(shop_id=number % 3, sku=f"{number:04}", price=number, embedding=vectors[number])
            for number in range(1000)
        )
        session.add(Product(shop_id=0, sku="9999", price=0))
        session.commit()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE products")
    return vectors


def test_conditions_of_the_callers_own_stand_inside_the_limit(db: Client, engine: Engine) -> None:
    chunks = [each[None] for each in random_vectors(600)]
    space = fill(db, "things", chunks, lambda number: {"third": number % 3})
    Base.metadata.create_all(engine)
    vector = random_vectors(1)[0]
    document = searchapp.orm.Document
    with Session(engine) as session:
        session.add_all(Price(key=f"{number:04}", price=number) for number in range(0, 600, 2))
        session.flush()
        cheap = select(Price).where(Price.key == document.key, Price.price < 60).exists()
        rows = session.execute(searchapp.nearest(space, vector, limit=20, where=cheap)).all()
        expected = nearest_keys([chunks[number] for number in range(0, 60, 2)], vector, 20)
        assert [row.key for row in rows] == [f"{2 * int(key):04}" for key in expected]
        both = searchapp.nearest(space, vector, limit=20, filter={"third": 0}, where=[cheap, document.key != "0000"])
        assert {int(row.key) for row in session.execute(both)} == set(range(6, 60, 6))


@pytest.mark.parametrize("exact", [False, True])
def test_rows_of_the_callers_own_table_are_found(engine: Engine, products: Array, exact: bool) -> None:
    vector = random_vectors(1)[0]
    with Session(engine) as session:
        found = session.execute(searchapp.nearest(Product.embedding, vector, limit=300, exact=exact)).all()
        expected = nearest_keys([each[None] for each in products], vector, 300)
        assert len(found) == 300
        assert isinstance(found[0].Product, Product)
        assert len({row.Product.sku for row in found} & set(expected)) >= (300 if exact else 270)
        everything = session.execute(searchapp.nearest(Product.embedding, vector, limit=2000, exact=exact)).all()
        assert {row.Product.sku for row in everything} == {f"{number:04}" for number in range(1000)}
        assert [row.distance for row in everything] == sorted(row.distance for row in everything)
        page = searchapp.nearest(Product.embedding, vector, limit=5, offset=10, max_distance=2, exact=exact)
        assert [row.Product.sku for row in session.execute(page)] == [row.Product.sku for row in found[10:15]]


def test_own_rows_compose(engine: Engine, products: Array) -> None:
    vector = random_vectors(1)[0]
    with Session(engine) as session:
        in_rome = select(Shop).where(Shop.id == Product.shop_id, Shop.city == "Rome").exists()
        statement = searchapp.nearest(Product.embedding, vector, limit=10, where=[Product.price < 60, in_rome])
        found = session.execute(statement).all()
        expected = nearest_keys([products[number][None] for number in range(0, 60, 3)], vector, 10)
        assert [row.Product.sku for row in found] == [f"{3 * int(key):04}" for key in expected]
        nearest = searchapp.nearest(Product.embedding, vector, limit=300).subquery()
        assert session.scalar(select(func.count()).select_from(nearest)) == 300
        cities = select(Shop.city, func.count()).join(nearest, nearest.c.shop_id == Shop.id).group_by(Shop.city)
        assert sum(count for _, count in session.execute(cities)) == 300


@pytest.mark.usefixtures("products")
def test_own_rows_are_found_by_their_index(engine: Engine) -> None:
    statement = searchapp.nearest(Product.embedding, random_vectors(1)[0], limit=10)
    assert "Index Scan using products_embedding_hnsw" in explain(engine, statement)


@pytest.mark.usefixtures("products")
def test_own_rows_that_are_all_equal_hide_no_other(engine: Engine) -> None:
    vector = random_vectors(1)[0]
    with Session(engine) as session:
        same = random_vectors(1)[0]
        session.add_all(Product(shop_id=0, sku=f"s{number}", price=0, embedding=same) for number in range(1500))
        # many: to a few alone, no link of the index's graph may lead
        near = unit(vector + 0.5 * random_vectors(30))
        session.add_all(Product(shop_id=1, sku=f"n{number}", price=0, embedding=near[number]) for number in range(30))
        session.flush()
        found = session.execute(searchapp.nearest(Product.embedding, vector, limit=3)).all()
        assert [row.Product.sku[0] for row in found] == ["n", "n", "n"]
        equal = session.execute(searchapp.nearest(Product.embedding, same, limit=3)).all()
        assert [row.Product.sku for row in equal] == sorted(f"s{number}" for number in range(1500))[:3]


@pytest.mark.parametrize(
    ("target", "vector", "options", "error"),
    [
        (Product.sku, np.ones(384), {}, "expected a space, or a mapped column"),
        ("products", np.ones(384), {}, "expected a space, or a mapped column"),
        (Product.embedding, np.ones(3), {}, "the vector has 3 dimensions; Product.embedding has 384"),
        (Product.embedding, np.zeros(384), {}, "the vector is zero"),
        (Product.embedding, np.ones((2, 384)), {}, "expected a list of numbers"),
        (Product.embedding, np.ones(384), {"filter": {"a": 1}}, "go to where="),
        (Product.embedding, np.ones(384), {"offset": -1}, "offset is -1; expected 0 to 100,000"),
        (Product.embedding, np.ones(384), {"min_score": float("nan")}, "min_score is nan; expected a number"),
        (Product.embedding, np.ones(384), {"max_distance": "near"}, "max_distance is 'near'; expected a number"),
    ],
)
def test_what_cannot_be_searched_is_refused(target: Any, vector: Any, options: dict[str, Any], error: str) -> None:
    with pytest.raises(errors.SearchAppError) as caught:
        searchapp.nearest(target, vector, limit=10, **options)
    assert error in str(caught.value)


@pytest.mark.parametrize(
    ("model", "error"), [("unheard-of", "of all-MiniLM-L6-v2"), (0, "0 dimensions"), (2001, "expected 1 to 2,000")]
)
def test_a_column_of_no_known_dimension_is_refused(model: str | int, error: str) -> None:
    with pytest.raises(errors.SearchAppError, match=error):
        searchapp.orm.embedding(model)
