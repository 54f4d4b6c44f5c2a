"""What ``searchapp.add_source`` takes, what it refuses, and what is left of that."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql as sqls
from sqlalchemy import Engine

from searchapp.client import Client
from searchapp.encoders.registry import Registry
from tests.sources import SQL, QuickRegistry, keep, keys, value

PRODUCTS = """
CREATE TABLE public.products (
  id bigint PRIMARY KEY, name text, description text, price numeric, made date, code text UNIQUE, embedding vector(384)
);
CREATE TABLE public.others (id int PRIMARY KEY);
CREATE VIEW public.shown AS SELECT * FROM public.products;
CREATE TEMPORARY TABLE fleeting (id int PRIMARY KEY, body text);
CREATE TABLE public.animals (id int PRIMARY KEY, body text);
CREATE TABLE public.cats () INHERITS (public.animals);
INSERT INTO public.products SELECT n, 'name ' || n, 'text ' || n, n FROM generate_series(1, 5) n;
"""


@pytest.fixture
def sql(sql: SQL) -> SQL:
    sql.execute(PRODUCTS)
    return sql


def add(sql: SQL, name: str = "products", table: str = "public.products", **options: Any) -> None:
    options = {"key": ["id"], "text": ["description"], **options}
    named = sqls.SQL(", ").join(
        sqls.SQL("{} => {}").format(sqls.Identifier(option), sqls.Literal(given)) for option, given in options.items()
    )
    sql.execute(
        sqls.SQL("SELECT searchapp.add_source({}, {}, {})").format(sqls.Literal(name), sqls.Literal(table), named)
    )


def left(sql: SQL) -> tuple[int, int, int, int]:
    """How many sources, triggers, functions of these, and temporary tables there are."""
    row = sql.execute("""
      SELECT (SELECT count(*) FROM searchapp_data.sources), (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal),
        (SELECT count(*) FROM pg_proc WHERE proname ~ '^source_[0-9]+_'),
        (SELECT count(*) FROM pg_class WHERE relname = 'searchapp_source_check')
    """).fetchone()
    assert row is not None
    return (row[0], row[1], row[2], row[3])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "Products"}, "the name 'Products' is not allowed"),
        ({"collection": "a b"}, "the name 'a b' is not allowed"),
        ({"collection": "collections"}, "reserved"),
        ({"table": "pg_catalog.pg_class"}, "in a schema of the system or of searchapp"),
        ({"table": "searchapp_data.documents"}, "in a schema of the system or of searchapp"),
        ({"table": "fleeting", "text": ["body"]}, "is a temporary table, which workers do not see"),
        ({"table": "public.shown"}, "is no table, so it can have no triggers"),
        ({"table": "public.animals", "text": ["body"]}, "has tables that inherit from it"),
        ({"text": ["descriptoin"]}, "has no column 'descriptoin'; did you mean description?"),
        ({"title": "nam"}, "has no column 'nam'; did you mean name?"),
        ({"metadata": ["prize"]}, "has no column 'prize'; did you mean price?"),
        ({"key": []}, "a source needs the columns of its key"),
        ({"key": ["price"]}, "the key price is of the type numeric"),
        ({"key": ["name"]}, "(name) is no key of public.products"),
        ({"key": ["code"]}, "(code) is no key of public.products"),
        ({"key": ["id", "name"]}, "(id, name) is no key of public.products"),
        ({"text": []}, "a source needs the columns of its text"),
        ({"text": ["price"]}, "the column price is of the type numeric; expected text"),
        ({"where": "price >"}, "cannot be used: syntax error"),
        ({"where": "made > now()"}, "must be marked IMMUTABLE"),
        ({"where": "random() < 1"}, "must be marked IMMUTABLE"),
        ({"where": "EXISTS (SELECT FROM public.others)"}, "cannot use subquery in the condition"),
        ({"where": "nothing = 1"}, 'column "nothing" does not exist'),
        ({"where": "price"}, "cannot be used"),
        ({"where": "true); DROP TABLE public.products; --"}, "cannot be used"),
        ({"where": "1 / 0 = 1"}, "cannot be used: division by zero"),
        ({"into_column": "price"}, "the column price of public.products is no vector"),
        ({"into_column": "embedding", "collection": "things"}, "leave one of both out"),
        ({"into_column": "embedding", "metadata": ["price"]}, "needs no metadata"),
        ({"into_column": "embedding", "title": "embedding"}, "embedding cannot be read and written by the same source"),
        ({"into_column": "embedding", "where": "embedding IS NULL"}, "embedding cannot be read and written"),
        ({"where": "true) UNION SELECT FROM public.others WHERE (true"}, "cannot be used: syntax error"),
        ({"where": "true --"}, "cannot be used: syntax error"),
        ({"where": "count(*) > 1"}, "aggregate functions are not allowed"),
        ({"where": "id IN (SELECT 1)"}, "cannot use subquery in the condition"),
        ({"where": "id = $1"}, "there is no parameter $1"),
        ({"where": "ctid = '(0,1)'"}, "system columns"),
        ({"where": "others.id = 1"}, "missing FROM-clause entry"),
        ({"where": ""}, "cannot be used: syntax error"),
        ({"where": "made > '\n' || nothing"}, "cannot be used"),
        ({"poll": "mad"}, "has no column 'mad'; did you mean made?"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(sql: SQL, options: dict[str, Any], said: str) -> None:
    with pytest.raises(psycopg.Error) as refused:
        add(sql, **options)
    message = refused.value.diag.message_primary or ""
    assert said in message
    assert "\n" not in message
    assert left(sql) == (0, 0, 0, 0)
    assert value(sql, "SELECT count(*) FROM public.products") == 5


def test_what_is_taken_is_refused(sql: SQL, db: Client) -> None:
    add(sql)
    add(sql, "vectors", into_column="embedding", text=["name"])
    db.ingest([{"key": "a", "text": "of its own"}], collection="articles")
    for options, said in (
        ({}, "there is a source products already"),
        ({"name": "again", "collection": "products"}, "is kept by the source products already"),
        ({"name": "again", "collection": "articles"}, "has documents of its own"),
        ({"name": "again", "into_column": "embedding"}, "is kept by the source vectors already"),
    ):
        with pytest.raises(psycopg.Error, match=said):
            add(sql, **options)
    sql.execute("SELECT searchapp.remove_source('vectors'); SELECT searchapp.remove_source('products')")
    assert left(sql) == (0, 0, 0, 0)


def test_rights_that_are_missing_are_named(sql: SQL) -> None:
    owned = (
        "SELECT count(*) FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner"
        " WHERE p.proname ~ '^source_1_' AND r.rolname = 'searchapp_owner'"
    )

    def refused(said: str) -> None:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=re.escape(said)):
            add(sql)
        sql.execute("RESET ROLE")

    with ExitStack() as stack:
        sql.execute("CREATE ROLE clerk; CREATE ROLE keeper")
        sql.execute("GRANT searchapp_owner TO keeper; GRANT searchapp_writer TO clerk")
        stack.callback(sql.execute, "DROP OWNED BY clerk, keeper; DROP ROLE clerk, keeper")
        stack.callback(sql.execute, "RESET ROLE")
        sql.execute("SET ROLE clerk")
        refused("role clerk may not change sources")
        sql.execute("SET ROLE keeper")
        refused("run: GRANT SELECT ON public.products TO keeper")
        sql.execute("GRANT SELECT ON public.products TO keeper; SET ROLE keeper")
        refused("run: GRANT TRIGGER ON public.products TO keeper")
        sql.execute("GRANT TRIGGER ON public.products TO keeper")
        sql.execute("ALTER TABLE public.products ENABLE ROW LEVEL SECURITY; SET ROLE keeper")
        refused("row-level security hides rows of public.products from role keeper")
        sql.execute("ALTER TABLE public.products DISABLE ROW LEVEL SECURITY; SET ROLE keeper")
        add(sql)
        sql.execute("SELECT searchapp.pause_source('products', true); SELECT searchapp.resume_source('products')")
        assert value(sql, owned) == 2
        sql.execute("SELECT searchapp.remove_source('products')")


def test_a_key_whose_equal_values_are_written_differently_is_refused(sql: SQL) -> None:
    try:
        sql.execute(
            "CREATE COLLATION public.caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        )
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this PostgreSQL is built without ICU, which has the only collations of that kind")
    sql.execute("CREATE TABLE public.tags (name text COLLATE public.caseless PRIMARY KEY, body text)")
    with pytest.raises(
        psycopg.errors.DatatypeMismatch, match="expected whole numbers, text or uuid, whose equal values"
    ):
        add(sql, "tags", "public.tags", key=["name"], text=["body"])


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DROP TABLE public.products CASCADE", "the table public.products is gone"),
        ("ALTER TABLE public.products SET SCHEMA aside", "the table public.products is called aside.products now"),
        ("ALTER SCHEMA public RENAME TO open", "the table public.products is called open.products now"),
        ("ALTER TABLE public.products RENAME embedding TO e", "the table public.products has no embedding any more"),
        (
            "ALTER TABLE public.products DROP description CASCADE",
            "the table public.products has no description any more",
        ),
        (
            "ALTER TABLE public.products DROP CONSTRAINT products_pkey",
            "id is no key of the table public.products any more",
        ),
        (
            "REVOKE SELECT ON public.products FROM keeper",
            "role keeper may not read the table public.products; run: GRANT SELECT ON public.products TO keeper",
        ),
        (
            "REVOKE UPDATE ON public.products FROM keeper",
            "role keeper may not write the column embedding of public.products;"
            " run: GRANT UPDATE (embedding) ON public.products TO keeper",
        ),
        (
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
            "role keeper may not use the schema public; run: GRANT USAGE ON SCHEMA public TO keeper",
        ),
        (
            "ALTER TABLE public.products ENABLE ROW LEVEL SECURITY",
            "row-level security hides rows of public.products from role keeper; run: ALTER ROLE keeper BYPASSRLS",
        ),
    ],
)
def test_what_becomes_of_a_table_is_told(sql: SQL, statement: str, problem: str) -> None:
    asked = "SELECT searchapp_private.source_problem(s) FROM searchapp_data.sources s"
    add(sql, into_column="embedding")
    with sql.transaction(force_rollback=True):
        sql.execute("CREATE ROLE keeper; CREATE SCHEMA aside; GRANT searchapp_owner TO keeper")
        sql.execute("GRANT SELECT, UPDATE ON public.products TO keeper; SET LOCAL ROLE keeper")
        assert value(sql, asked) is None
        sql.execute("RESET ROLE")
        sql.execute(statement)
        sql.execute("SET LOCAL ROLE keeper")
        assert value(sql, asked) == problem


def test_a_condition_means_what_it_meant_when_it_was_added(sql: SQL, engine: Engine, registry: Registry) -> None:
    add(sql, where="price > 1) OR (name LIKE '100%' AND name ~ ':x'")
    assert value(sql, 'SELECT "where" FROM searchapp.sources').startswith("((price >")
    keep(engine, QuickRegistry(registry))
    assert keys(sql) == ["2", "3", "4", "5"]
    sql.execute("UPDATE public.products SET price = 0 WHERE id = 2")
    keep(engine, QuickRegistry(registry))
    assert keys(sql) == ["3", "4", "5"]


def test_watched_columns_are_altered_while_it_is_paused(sql: SQL, engine: Engine, registry: Registry) -> None:
    add(sql)
    keep(engine, QuickRegistry(registry))
    sql.execute("DROP VIEW public.shown")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="used in a trigger definition"):
        sql.execute("ALTER TABLE public.products ALTER id TYPE text USING 'p' || id")
    sql.execute("SELECT searchapp.pause_source('products', drop_triggers => true)")
    sql.execute("ALTER TABLE public.products ALTER id TYPE text USING 'p' || id")
    sql.execute("SELECT searchapp.resume_source('products')")
    keep(engine, QuickRegistry(registry))
    assert keys(sql) == ["p1", "p2", "p3", "p4", "p5"]


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).filter(
    lambda name: len(name.encode()) < 50
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(schema="a.b", table="%s %1$I", columns=["$body$; RAISE 'run'; $body$", "'\\", "$1"])
@example(schema="$function$", table="OLD", columns=["a$function$b", "NEW", "OLD"])
@example(schema='"', table="searchapp_rows", columns=["key", "keys", "before"])
@given(schema=NAMES, table=NAMES, columns=st.lists(NAMES, min_size=3, max_size=3, unique=True))
def test_names_are_names_whatever_stands_in_them(sql: SQL, schema: str, table: str, columns: list[str]) -> None:
    key, body, other = columns
    place = sqls.Identifier(f"s {schema}", table)
    with sql.transaction(force_rollback=True):
        sql.execute(sqls.SQL("CREATE SCHEMA {}").format(sqls.Identifier(f"s {schema}")))
        sql.execute(
            sqls.SQL("CREATE TABLE {} ({} text PRIMARY KEY, {} text, {} text)").format(
                place, sqls.Identifier(key), sqls.Identifier(body), sqls.Identifier(other)
            )
        )
        add(sql, "odd", place.as_string(sql), key=[key], text=[body], metadata=[other])
        sql.execute(sqls.SQL("INSERT INTO {} VALUES ('k', 'b', 'o')").format(place))
        sql.execute(sqls.SQL("UPDATE {} SET {} = 'c'").format(place, sqls.Identifier(other)))
        assert value(sql, "SELECT count(*) FROM searchapp_data.changes WHERE key = 'k'") == 2
        assert value(sql, "SELECT searchapp_private.source_problem(s) FROM searchapp_data.sources s") is None
