"""Collections that a source feeds: what they refuse, and hits joined back to the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, Integer, Text, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from searchapp import errors, hybrid, nearest, orm
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from tests.plans.explaining import explain
from tests.sources import SQL, QuickRegistry, keep, vector_of

TABLES = """
CREATE TABLE public.items (shop int, sku text, body text, stock int, PRIMARY KEY (shop, sku));
INSERT INTO public.items SELECT n % 3, 'sku,"' || n, 'text ' || n, n FROM generate_series(1, 30) n;
SELECT searchapp.add_source('items', 'public.items', '{shop,sku}', '{body}');
CREATE TABLE public.things (id bigint PRIMARY KEY, body text);
INSERT INTO public.things SELECT n, 'text ' || n FROM generate_series(1, 3000) n;
SELECT searchapp.add_source('things', 'public.things', '{id}', '{body}');
"""


A = {"key": "a", "text": "a"}


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    __table_args__ = {"schema": "public"}  # noqa: RUF012  # as SQLAlchemy has it

    shop: Mapped[int] = mapped_column(Integer, primary_key=True)
    sku: Mapped[str] = mapped_column(Text, primary_key=True)
    stock: Mapped[int]


class Thing(Base):
    __tablename__ = "things"
    __table_args__ = {"schema": "public"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def sql(url: str) -> Iterator[SQL]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES)
        yield connection


@pytest.fixture
def kept(sql: SQL, engine: Engine, registry: Registry) -> SQL:
    keep(engine, QuickRegistry(registry))
    sql.execute("ANALYZE")
    return sql


@pytest.mark.parametrize(
    "write",
    [
        lambda db: db.ingest([{"key": "a", "text": "a"}], collection="items"),
        lambda db: db.load_vectors(
            [{"key": "a", "text": "a"}], [[1.0] * 384], collection="items", model="all-MiniLM-L6-v2"
        ),
        lambda db: db.delete(["a"], collection="items"),
        lambda db: db.drop_collection("items"),
    ],
    ids=["ingest", "load_vectors", "delete", "drop_collection"],
)
@pytest.mark.usefixtures("sql")
def test_what_a_source_feeds_takes_no_other_writes(db: Client, write: Callable[[Client], Any]) -> None:
    with pytest.raises(errors.CollectionFed, match=r"kept by the source items.* searchapp source remove items"):
        write(db)


@pytest.mark.usefixtures("kept")
def test_hits_are_joined_to_a_table_with_a_key_of_several_columns(engine: Engine, registry: Registry) -> None:
    space = Client(engine, registry=registry).space("items")
    vector = vector_of("text 7")
    for hits in (nearest(space, vector, limit=3), hybrid(space, vector, "text 7", limit=3)):
        found = hits.subquery()
        joined = select(Item.stock, found.c.key).join(found, orm.has_key(found.c.key, Item.shop, Item.sku))
        with Session(engine) as session:
            rows = session.execute(joined).all()
        assert len(rows) == 3
        assert (7, '{1,"sku,\\"7"}') in rows


@pytest.mark.usefixtures("kept")
def test_a_join_goes_by_the_tables_index(engine: Engine, registry: Registry) -> None:
    things = Client(engine, registry=registry).space("things")
    found = nearest(things, vector_of("text 7"), limit=3).subquery()
    joined = select(Thing.id).join(found, orm.has_key(found.c.key, Thing.id))
    assert "things_pkey" in explain(engine, joined)
