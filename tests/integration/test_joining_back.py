"""Hits joined back to the tables that sources keep in step, by ``orm.has_key``."""

from __future__ import annotations

import doctest
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import BigInteger, Engine, MetaData, Text, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import searchapp
from searchapp import orm
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from tests.plans.explaining import explain
from tests.sources import QuickRegistry, keep, vector_of

TABLES = """
CREATE TABLE public.books (id bigint PRIMARY KEY, title text, price int);
INSERT INTO public.books SELECT n, 'the book of number ' || n, n % 50 FROM generate_series(1, 5000) n;
CREATE TABLE public.items (shop int, sku text, name text, PRIMARY KEY (shop, sku));
INSERT INTO public.items VALUES
  (7, 'boots', 'winter boots'), (7, 'a,"b\\c', 'an odd one'), (8, 'boots', 'summer boots'), (8, 'NULL', 'nothing');
CREATE TABLE public.notes (id uuid PRIMARY KEY, body text);
INSERT INTO public.notes VALUES ('6ecd8c99-4036-403d-bf84-cf8400f67836', 'water the plants');
ANALYZE;
"""
ADD = """
SELECT searchapp.add_source('books', 'public.books', '{id}', '{title}', metadata => '{price}', "where" => 'id <= 100');
SELECT searchapp.add_source('items', 'public.items', '{shop,sku}', '{name}');
SELECT searchapp.add_source('notes', 'public.notes', '{id}', '{body}');
"""


class Base(DeclarativeBase):
    metadata = MetaData(schema="public")


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    title: Mapped[str]
    price: Mapped[int]


class Item(Base):
    __tablename__ = "items"
    shop: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str]


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    body: Mapped[str]


@pytest.fixture
def session(url: str, engine: Engine, registry: Registry) -> Iterator[Session]:
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute(TABLES)
        sql.execute(ADD)
    keep(engine, QuickRegistry(registry))
    with Session(engine) as session:
        yield session


def test_hits_of_every_builder_are_joined_to_the_callers_class(session: Session, db: Client) -> None:
    space = db.space("books")
    question = "the book of number 17"
    hits = searchapp.nearest(space, vector_of(question), limit=10).subquery()
    statement = select(Book, hits.c.distance).join(hits, orm.has_key(hits.c.key, Book.id)).order_by(hits.c.distance)
    book, distance = session.execute(statement).first() or (None, None)
    assert book is session.get(Book, 17)
    assert distance == pytest.approx(0, abs=1e-6)
    for made in (
        searchapp.hybrid(space, vector_of(question), question, limit=10),
        searchapp.words(space, "17", limit=10),
    ):
        found = made.subquery()
        joined = select(Book.title, found.c.key).join(found, orm.has_key(found.c.key, Book.id)).where(Book.price == 17)
        assert ("the book of number 17", "17") in [tuple(row) for row in session.execute(joined)]
    documents = searchapp.documents(space, filter={"price": 3}).subquery()
    ids = session.scalars(select(Book.id).join(documents, orm.has_key(documents.c.key, Book.id)).order_by(Book.id))
    assert list(ids) == [3, 53]


@pytest.mark.usefixtures("session")
def test_the_tables_own_index_finds_the_rows(engine: Engine, db: Client) -> None:
    hits = searchapp.nearest(db.space("books"), vector_of("a question"), limit=10).subquery()
    assert "Index Scan using books_pkey" in explain(engine, select(Book).join(hits, orm.has_key(hits.c.key, Book.id)))


def test_a_key_of_several_columns_is_taken_apart(session: Session, db: Client) -> None:
    hits = searchapp.nearest(db.space("items"), vector_of("winter boots"), limit=10).subquery()
    joined = select(Item).join(hits, orm.has_key(hits.c.key, Item.shop, Item.sku)).order_by(hits.c.distance)
    found = [(item.shop, item.sku) for item in session.scalars(joined)]
    assert found[0] == (7, "boots")
    assert sorted(found) == [(7, 'a,"b\\c'), (7, "boots"), (8, "NULL"), (8, "boots")]


def test_a_uuid_is_a_key_like_others(session: Session, db: Client) -> None:
    hits = searchapp.nearest(db.space("notes"), vector_of("plants"), limit=1).subquery()
    (note,) = session.scalars(select(Note).join(hits, orm.has_key(hits.c.key, Note.id)))
    assert note.body == "water the plants"


def test_what_the_docstring_shows_is_so() -> None:
    (shown,) = doctest.DocTestFinder().find(orm.has_key, globs=vars(orm))
    assert doctest.DocTestRunner().run(shown).failed == 0
