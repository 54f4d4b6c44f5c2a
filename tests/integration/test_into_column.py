"""Sources that are kept in a vector column of their own table."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Engine, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import searchapp
from searchapp.encoders.registry import Registry
from searchapp.sources import checking, definitions
from searchapp.sources.columns import ColumnUnfit
from searchapp.sources.definitions import Definition
from tests.sources import SQL, QuickRegistry, keep, long_ago, value, vector_of
from tests.tiny_models import save_encoder

PRODUCTS = """
CREATE TABLE public.products (id bigint PRIMARY KEY, name text, description text, price numeric, embedding vector(384));
INSERT INTO public.products VALUES
  (1, 'Red shoes', 'Running shoes in red, light and fast', 80),
  (2, 'Tent', 'A tent for two people and three seasons', 200),
  (3, NULL, 'An enamel mug for the fire', 9.5),
  (4, 'Nothing', NULL, 1);
"""
ADD = """
SELECT searchapp.add_source('products', 'public.products', '{id}', '{description}', title => 'name',
  into_column => 'embedding')
"""


class Base(DeclarativeBase):
    pass


class Product(Base):
    __tablename__ = "products"
    __table_args__ = ({"schema": "public"},)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(Text)
    embedding: Mapped[Any] = searchapp.orm.embedding("all-MiniLM-L6-v2")


@pytest.fixture
def products(sql: SQL, engine: Engine, quick: QuickRegistry) -> SQL:
    sql.execute(PRODUCTS)
    sql.execute(ADD)
    keep(engine, quick)
    return sql


def embedded(sql: SQL, table: str = "public.products") -> dict[Any, bool]:
    """Whether the rows have a vector, by their ids."""
    rows = sql.execute(f"SELECT id, embedding IS NOT NULL FROM {table} ORDER BY id".encode()).fetchall()
    return dict(rows)


def holds(sql: SQL, key: int, text: str) -> bool:
    """Whether the vector of a row is that of a text."""
    found = value(sql, "SELECT embedding::real[] FROM public.products WHERE id = %s", key)
    return found is not None and np.allclose(found, vector_of(text), atol=1e-6)


def test_rows_are_found_by_the_builder(sql: SQL, engine: Engine, registry: Registry) -> None:
    sql.execute(PRODUCTS)
    sql.execute(ADD)
    assert keep(engine, registry) == 4
    assert embedded(sql) == {1: True, 2: True, 3: True, 4: False}
    assert value(sql, "SELECT count(*) FROM searchapp_data.collections") == 0
    vector = registry.encode_query("all-MiniLM-L6-v2", "something to sleep in outside")
    with Session(engine) as session:
        found = session.execute(searchapp.nearest(Product.embedding, vector, limit=10)).all()
    assert found[0].Product.id == 2
    assert len(found) == 3


def test_rows_are_encoded_as_documents_are(products: SQL, quick: QuickRegistry) -> None:
    assert sorted(quick.quick.encoded) == [
        "An enamel mug for the fire",
        "Red shoes Running shoes in red, light and fast",
        "Tent A tent for two people and three seasons",
    ]
    assert holds(products, 2, "Tent A tent for two people and three seasons")


def test_only_what_changed_is_encoded(products: SQL, engine: Engine, quick: QuickRegistry) -> None:
    assert keep(engine, quick) == 0
    products.execute("UPDATE public.products SET price = price + 1")
    assert keep(engine, quick) == 0
    encoded = len(quick.quick.encoded)
    products.execute("UPDATE public.products SET description = 'A mug' WHERE id = 3")
    products.execute("UPDATE public.products SET description = description || ' ' WHERE id = 1")
    products.execute("UPDATE public.products SET description = rtrim(description) WHERE id = 1")
    assert keep(engine, quick) == 2
    assert quick.quick.encoded[encoded:] == ["A mug"]
    assert holds(products, 3, "A mug")


def test_the_update_of_the_worker_sets_off_no_trigger_of_ours(sql: SQL, engine: Engine, quick: QuickRegistry) -> None:
    sql.execute(PRODUCTS)
    sql.execute(ADD)
    keep(engine, quick)
    assert embedded(sql)[1]
    noted = "SELECT last_value FROM searchapp_data.changes_id_seq"
    assert value(sql, noted) == 4  # the first reading
    sql.execute("UPDATE public.products SET description = 'A mug' WHERE id = 3")
    keep(engine, quick)
    assert holds(sql, 3, "A mug")
    assert value(sql, noted) == 5


def test_keys_and_texts_that_go_take_their_vectors_along(products: SQL, engine: Engine, quick: QuickRegistry) -> None:
    keys = "SELECT array_agg(key ORDER BY key) FROM searchapp_data.source_rows"
    assert value(products, keys) == ["1", "2", "3"]
    products.execute("UPDATE public.products SET description = ' ' WHERE id = 1")
    products.execute("UPDATE public.products SET id = 20 WHERE id = 2")
    products.execute("DELETE FROM public.products WHERE id = 3")
    encoded = len(quick.quick.encoded)
    keep(engine, quick)
    assert embedded(products) == {1: False, 4: False, 20: True}
    assert value(products, keys) == ["20"]
    assert len(quick.quick.encoded) == encoded + 1
    products.execute("TRUNCATE public.products")
    keep(engine, quick)
    assert value(products, keys) is None
    products.execute("INSERT INTO public.products VALUES (20, NULL, 'A kettle')")
    keep(engine, quick)
    assert holds(products, 20, "A kettle")


def test_rows_that_are_locked_are_put_off(products: SQL, engine: Engine, quick: QuickRegistry) -> None:
    products.execute("UPDATE public.products SET description = 'A text'")
    encoded = len(quick.quick.encoded)
    with psycopg.connect(products.info.dsn) as other:
        other.execute("UPDATE public.products SET price = 0 WHERE id IN (1, 2)")
        keep(engine, quick)
        assert len(quick.quick.encoded) == encoded + 2  # those that could be written
        assert [holds(products, key, "A text") for key in (1, 3)] == [False, True]
        failed = products.execute(
            "SELECT key, error, retry_at > now() AND retry_at < now() + interval '5 s', attempts"
            " FROM searchapp_data.failures ORDER BY key"
        ).fetchall()
        assert failed == [(key, "the row is locked by another transaction", True, 1) for key in "12"]
        retry(products)
        keep(engine, quick)
        assert value(products, "SELECT array_agg(attempts) FROM searchapp_data.failures") == [2, 2]
        products.execute("UPDATE searchapp_data.failures SET attempts = 5000")
        retry(products)
        keep(engine, quick)
        assert value(products, "SELECT max(retry_at) < now() + interval '2 minutes' FROM searchapp_data.failures")
    retry(products)
    keep(engine, quick)
    assert holds(products, 1, "Red shoes A text")
    assert value(products, "SELECT count(*) FROM searchapp_data.failures") == 0


def retry(sql: SQL) -> None:
    """As though the time had come to try rows again."""
    sql.execute("UPDATE searchapp_data.failures SET retry_at = now() WHERE retry_at <> 'infinity'")


def test_rows_that_are_locked_while_they_are_encoded_are_put_off(
    products: SQL, engine: Engine, quick: QuickRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    products.execute("UPDATE public.products SET description = 'A text' WHERE id = 3")
    products.execute("UPDATE public.products SET description = NULL WHERE id = 1")
    products.execute("UPDATE public.products SET description = 'Another' WHERE id = 2")
    encode = quick.quick.encode_documents
    with psycopg.connect(products.info.dsn) as other:

        def locking(texts: Any) -> Any:
            other.execute("SELECT FROM public.products WHERE id IN (1, 3) FOR UPDATE")
            products.execute("DELETE FROM public.products WHERE id = 2")
            return encode(texts)

        monkeypatch.setattr(quick.quick, "encode_documents", locking)
        keep(engine, quick)
        assert value(products, "SELECT array_agg(key ORDER BY key) FROM searchapp_data.failures") == ["1", "3"]
        assert embedded(products)[1]
    monkeypatch.setattr(quick.quick, "encode_documents", encode)
    retry(products)
    keep(engine, quick)
    assert holds(products, 3, "A text")
    assert embedded(products) == {1: False, 3: True, 4: False}
    assert value(products, "SELECT array_agg(key) FROM searchapp_data.source_rows") == ["3"]


def test_what_the_comparison_finds_is_put_right(products: SQL, engine: Engine, quick: QuickRegistry) -> None:
    assert not checking.check(engine, quick, "products").comparison.differs
    products.execute("UPDATE public.products SET embedding = NULL WHERE id = 1")
    products.execute("SET session_replication_role = replica")
    products.execute("UPDATE public.products SET description = 'A text' WHERE id = 2")
    products.execute("UPDATE public.products SET id = 30 WHERE id = 3")
    products.execute(
        "UPDATE public.products p SET embedding = o.embedding FROM public.products o WHERE p.id = 4 AND o.id = 2"
    )
    products.execute("SET session_replication_role = origin")
    found = checking.check(engine, quick, "products").kinds
    assert {kind: each.keys for kind, each in found.items()} == {
        "missing": ["1", "30"],
        "changed": ["2"],
        "gone": ["4", "3"],
    }
    long_ago(products)
    assert keep(engine, quick) == 5
    assert embedded(products) == {1: True, 2: True, 4: False, 30: True}
    assert holds(products, 2, "Tent A text")
    assert not checking.check(engine, quick, "products").comparison.differs


def test_a_column_is_kept_in_a_partitioned_table_with_a_condition(
    sql: SQL, engine: Engine, quick: QuickRegistry
) -> None:
    sql.execute(
        "CREATE TABLE public.items (shop int, id uuid DEFAULT gen_random_uuid(), body text, shown bool DEFAULT true,"
        " embedding vector, PRIMARY KEY (shop, id)) PARTITION BY LIST (shop);"
        "CREATE TABLE public.items_1 PARTITION OF public.items FOR VALUES IN (1);"
        "CREATE TABLE public.items_2 PARTITION OF public.items FOR VALUES IN (2);"
        "INSERT INTO public.items (shop, body) SELECT 1 + n % 2, 'text ' || n FROM generate_series(1, 10) n"
    )
    sql.execute(
        "SELECT searchapp.add_source('items', 'public.items', '{shop,id}', '{body}', \"where\" => 'shown',"
        " into_column => 'embedding')"
    )
    keep(engine, quick)
    count = "SELECT count(embedding) FROM public.items"
    assert value(sql, count) == 10
    sql.execute("UPDATE public.items SET shown = false WHERE body IN ('text 1', 'text 2')")
    sql.execute("UPDATE public.items SET shop = 2 WHERE shop = 1")
    sql.execute("UPDATE public.items SET body = 'another' WHERE body = 'text 4'")
    keep(engine, quick)
    assert value(sql, count) == 8
    assert value(sql, "SELECT count(*) FROM searchapp_data.source_rows") == 8
    sql.execute("TRUNCATE public.items_2")
    keep(engine, quick)
    assert value(sql, "SELECT count(*) FROM searchapp_data.source_rows") == 0


def test_a_row_that_a_trigger_of_the_users_refuses_is_parked(sql: SQL, engine: Engine, quick: QuickRegistry) -> None:
    sql.execute(PRODUCTS)
    sql.execute(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN IF NEW.id = 2 THEN RAISE 'tents are not to be touched'; END IF; RETURN NEW; END$$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON public.products FOR EACH ROW EXECUTE FUNCTION public.refuse()"
    )
    sql.execute(ADD)
    keep(engine, quick)
    assert embedded(sql) == {1: True, 2: False, 3: True, 4: False}
    assert "tents are not to be touched" in value(sql, "SELECT error FROM searchapp_data.failures WHERE key = '2'")


def test_a_column_with_a_time_of_the_last_change_may_be_polled(sql: SQL, engine: Engine, quick: QuickRegistry) -> None:
    """The user's trigger writes the time of our own update, too."""
    sql.execute(PRODUCTS)
    sql.execute(
        "ALTER TABLE public.products ADD updated_at timestamptz DEFAULT clock_timestamp();"
        "CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END$$;"
        "CREATE TRIGGER touch BEFORE UPDATE ON public.products FOR EACH ROW EXECUTE FUNCTION public.touch()"
    )
    sql.execute(ADD.replace("'embedding')", "'embedding', poll => 'updated_at')").encode())
    keep(engine, quick)
    keep(engine, quick)
    assert len(quick.quick.encoded) == 3
    sql.execute("UPDATE public.products SET description = 'A text' WHERE id = 3")
    keep(engine, quick)
    assert holds(sql, 3, "A text")


def test_another_model_may_be_named(sql: SQL, engine: Engine, quick: QuickRegistry, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "tiny")
    sql.execute(PRODUCTS.replace("vector(384)", "vector(32)").encode())
    sql.execute(ADD.replace("'embedding')", f"'embedding', model => '{folder}')").encode())
    keep(engine, quick)
    assert embedded(sql) == {1: True, 2: True, 3: True, 4: False}


def test_a_column_of_other_dimensions_than_the_named_models_is_refused(
    sql: SQL, engine: Engine, registry: Registry, tmp_path: Path
) -> None:
    model = registry.model(save_encoder(tmp_path / "tiny"))
    sql.execute(PRODUCTS)
    definition = Definition("products", "public.products", ["id"], ["name"], into_column="embedding", model=model.name)
    with pytest.raises(ColumnUnfit, match=f"has 384 dimensions; the embeddings of {model.name} have 32"):
        definitions.add(engine, definition, model)
    assert value(sql, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'public.products'::regclass") == 0


@pytest.mark.parametrize(
    ("prepare", "add", "error"),
    [
        ("ALTER TABLE public.products ALTER embedding TYPE vector(3)", "", "has 3 dimensions; the embeddings of"),
        ("", "metadata => '{price}'", "a column of the table itself needs no metadata"),
        ("", "collection => 'others'", "leave one of both out"),
        ("CREATE VIEW public.shown AS SELECT * FROM public.products", "poll => 'price'", "shown is no table"),
    ],
)
def test_columns_that_cannot_be_kept_are_refused(sql: SQL, prepare: str, add: str, error: str) -> None:
    sql.execute(PRODUCTS)
    sql.execute(prepare.encode() or b"SELECT")
    statement = ADD.replace("'embedding')", f"'embedding'{', ' if add else ''}{add})")
    statement = statement.replace("public.products", "public.shown") if "VIEW" in prepare else statement
    with pytest.raises(psycopg.Error, match=error):
        sql.execute(statement.encode())
    assert value(sql, "SELECT count(*) FROM searchapp.sources") == 0


def test_a_column_whose_dimensions_change_breaks_the_source(
    products: SQL, engine: Engine, quick: QuickRegistry
) -> None:
    products.execute("ALTER TABLE public.products ALTER embedding TYPE vector(3) USING NULL")
    products.execute("UPDATE public.products SET description = 'A text'")
    keep(engine, quick)
    assert products.execute("SELECT state, reason FROM searchapp.sources").fetchall() == [
        (
            "broken",
            "the column embedding of public.products has 3 dimensions; the embeddings of all-MiniLM-L6-v2 have 384",
        )
    ]
    products.execute("ALTER TABLE public.products ALTER embedding TYPE vector(384)")
    products.execute("SELECT searchapp.resume_source('products')")
    keep(engine, quick)
    assert embedded(products) == dict.fromkeys((1, 2, 3, 4), True)


def test_a_removed_source_leaves_the_column_as_it_is(products: SQL) -> None:
    products.execute("SELECT searchapp.remove_source('products')")
    assert embedded(products) == {1: True, 2: True, 3: True, 4: False}
    assert value(products, "SELECT count(*) FROM searchapp_data.source_rows") == 0
    assert value(products, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'public.products'::regclass") == 0


def test_writers_and_workers_do_not_wait_for_each_other(products: SQL, engine: Engine, quick: QuickRegistry) -> None:
    """Nobody deadlocks, and in the end the vectors are of the texts."""
    products.execute("INSERT INTO public.products SELECT n, NULL, 'text ' || n FROM generate_series(10, 200) n")

    def write() -> None:
        random = np.random.default_rng(3)
        with psycopg.connect(products.info.dsn, autocommit=True) as other:
            for _ in range(300):
                with other.transaction():
                    for key in random.integers(10, 200, 20):
                        other.execute(
                            "UPDATE public.products SET description = 'text ' || %s WHERE id = %s",
                            [int(random.integers(50)), int(key)],
                        )

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        keep(engine, quick)
    writer.join()
    for _ in range(3):
        retry(products)
        keep(engine, quick)
    rows = products.execute("SELECT id, description FROM public.products WHERE id >= 10").fetchall()
    assert all(holds(products, key, text) for key, text in rows)
