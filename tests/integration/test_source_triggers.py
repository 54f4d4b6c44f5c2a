"""What a source's triggers note, and that they keep nobody from anything."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack

import psycopg
import pytest
from psycopg import sql as sqls

from searchapp import database, schema
from tests.acceptance.commands import programs
from tests.servers import temporary_server
from tests.sources import SQL, value

ITEMS = """
CREATE TABLE public.items (
  id int PRIMARY KEY, body text, price numeric, data json, note text,
  shown text GENERATED ALWAYS AS (coalesce(body, '') || '!') STORED
);
INSERT INTO public.items SELECT n, 'text ' || n, n, '{}' FROM generate_series(1, 5) n;
SELECT searchapp.add_source('items', 'public.items', '{id}', '{body}', metadata => '{price,data}');
"""
# Who writes to a table without naming it: foreign keys, and a view.
MAKERS = """
CREATE TABLE public.makers (name text PRIMARY KEY);
INSERT INTO public.makers VALUES ('a');
ALTER TABLE public.items ADD maker text REFERENCES public.makers ON DELETE CASCADE ON UPDATE CASCADE;
UPDATE public.items SET maker = 'a' WHERE id < 3;
CREATE VIEW public.some AS SELECT id, body FROM public.items WHERE id < 4;
"""
PARTS = """
CREATE TABLE public.parts (shop int, sku text, body text, PRIMARY KEY (shop, sku)) PARTITION BY LIST (shop);
CREATE TABLE public.parts_1 PARTITION OF public.parts FOR VALUES IN (1);
CREATE TABLE public.parts_2 PARTITION OF public.parts FOR VALUES IN (2);
SELECT searchapp.add_source('parts', 'public.parts', '{shop,sku}', '{body}');
"""


def noted(sql: SQL) -> list[str | None]:
    """The keys that were noted since this was asked last, in their order; the lanes of a TRUNCATE as one None."""
    rows = sql.execute("WITH c AS (DELETE FROM searchapp_data.changes RETURNING *) SELECT key, lane FROM c ORDER BY id")
    found = rows.fetchall()
    emptied = [lane for key, lane in found if key is None]
    assert len(emptied) in (0, 16, 32)
    return [key for key, _ in found if key is not None] + [None] * (len(emptied) // 16)


@pytest.mark.parametrize(
    ("statement", "keys"),
    [
        ("INSERT INTO public.items (id) VALUES (10), (11)", ["10", "11"]),
        ("INSERT INTO public.items (id) VALUES (1) ON CONFLICT DO NOTHING", []),
        ("INSERT INTO public.items (id) VALUES (1), (12) ON CONFLICT (id) DO UPDATE SET body = 'new'", ["1", "12"]),
        ("UPDATE public.items SET body = 'new' WHERE id = 1", ["1"]),
        ("UPDATE public.items SET body = body, note = 'new'", []),
        ("UPDATE public.items SET price = 1.00 WHERE id = 1", ["1"]),
        ("UPDATE public.items SET data = '{ }' WHERE id = 2", ["2"]),
        ("UPDATE public.items SET id = 20 WHERE id = 3", ["20", "3"]),
        ("DELETE FROM public.items WHERE id < 3", ["1", "2"]),
        ("DELETE FROM public.items WHERE false", []),
        ("TRUNCATE public.items", [None]),
        (
            "WITH a AS (INSERT INTO public.items (id) VALUES (6)), b AS (DELETE FROM public.items WHERE id = 1)"
            " UPDATE public.items SET body = 'new' WHERE id = 2",
            ["1", "2", "6"],
        ),
        ("DELETE FROM public.makers WHERE name = 'a'", ["1", "2"]),
        ("UPDATE public.makers SET name = 'b'", []),
        ("INSERT INTO public.some VALUES (3, 'new') ON CONFLICT (id) DO UPDATE SET body = excluded.body", ["3"]),
        ("BEGIN; SAVEPOINT s; DELETE FROM public.items; ROLLBACK TO s; COMMIT", []),
        (
            "MERGE INTO public.items i USING (VALUES (1), (30)) v (id) ON i.id = v.id"
            " WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (v.id)",
            ["1", "30"],
        ),
    ],
)
def test_what_is_noted_of_a_statement(sql: SQL, statement: str, keys: list[str | None]) -> None:
    sql.execute(ITEMS + MAKERS)
    sql.execute(statement)
    assert sorted(noted(sql), key=str) == sorted(keys, key=str)


def test_copied_rows_are_noted(sql: SQL) -> None:
    sql.execute(ITEMS)
    with sql.cursor() as cursor, cursor.copy("COPY public.items (id, body) FROM STDIN") as copying:
        copying.write("40\ttext\n41\ttext\n")
    assert noted(sql) == ["40", "41"]


def test_generated_columns_and_what_other_triggers_change_are_watched(sql: SQL) -> None:
    sql.execute(ITEMS)
    sql.execute("SELECT searchapp.add_source('shown', 'public.items', '{id}', '{shown}')")
    sql.execute(
        "CREATE FUNCTION public.change() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN NEW.body := 'by a trigger ' || NEW.note; RETURN NEW; END$$;"
        " CREATE TRIGGER change BEFORE UPDATE ON public.items FOR EACH ROW EXECUTE FUNCTION public.change()"
    )
    sql.execute("UPDATE public.items SET note = 'new' WHERE id = 1")
    assert noted(sql) == ["1", "1"]


def test_partitions_are_watched_wherever_rows_go(sql: SQL) -> None:
    sql.execute(PARTS)
    sql.execute("INSERT INTO public.parts VALUES (1, 'a', 'x'), (2, 'b,\"', 'x')")
    sql.execute("INSERT INTO public.parts_1 VALUES (1, 'c', 'x')")
    assert noted(sql) == ["{1,a}", '{2,"b,\\""}', "{1,c}"]
    sql.execute("UPDATE public.parts SET shop = 2 WHERE sku = 'a'")
    assert noted(sql) == ["{1,a}", "{2,a}"]
    sql.execute("UPDATE public.parts_2 SET body = 'y' WHERE sku = 'a'; DELETE FROM public.parts WHERE sku = 'c'")
    assert noted(sql) == ["{2,a}", "{1,c}"]
    sql.execute("TRUNCATE public.parts_2")
    assert noted(sql) == [None]
    sql.execute("TRUNCATE public.parts")
    assert noted(sql) == [None, None]
    sql.execute("CREATE TABLE public.parts_3 PARTITION OF public.parts FOR VALUES IN (3)")
    sql.execute("INSERT INTO public.parts VALUES (3, 'd', 'x')")
    assert noted(sql) == ["{3,d}"]


def test_a_partition_is_watched_whoever_writes_to_it(sql: SQL) -> None:
    sql.execute(PARTS)
    sql.execute("SELECT searchapp.add_source('one', 'public.parts_1', '{sku,shop}', '{body}')")
    sql.execute("INSERT INTO public.parts VALUES (1, 'a', 'x'); INSERT INTO public.parts_1 VALUES (1, 'b', 'x')")
    assert sorted(noted(sql), key=str) == ["{1,a}", "{1,b}", "{a,1}", "{b,1}"]
    sql.execute("UPDATE public.parts SET shop = 2 WHERE sku = 'a'; DELETE FROM public.parts WHERE sku = 'b'")
    assert sorted(noted(sql), key=str) == ["{1,a}", "{1,b}", "{2,a}", "{a,1}", "{b,1}"]


def test_a_table_that_inherits_is_watched_whoever_writes_to_it(sql: SQL) -> None:
    sql.execute("CREATE TABLE public.things (id int, body text)")
    sql.execute("CREATE TABLE public.more (PRIMARY KEY (id)) INHERITS (public.things)")
    sql.execute("SELECT searchapp.add_source('more', 'public.more', '{id}', '{body}')")
    sql.execute("INSERT INTO public.more VALUES (80), (81); UPDATE public.things SET body = 'x' WHERE id = 80")
    assert noted(sql) == ["80", "81", "80"]
    sql.execute("DELETE FROM public.things")
    assert sorted(noted(sql), key=str) == ["80", "81"]


def test_a_table_that_becomes_a_partition_is_watched_again_once_it_is_looked_at(sql: SQL) -> None:
    sql.execute(PARTS)
    sql.execute("CREATE TABLE public.parts_4 (LIKE public.parts INCLUDING ALL)")
    sql.execute("SELECT searchapp.add_source('four', 'public.parts_4', '{sku,shop}', '{body}')")
    sql.execute("ALTER TABLE public.parts ATTACH PARTITION public.parts_4 FOR VALUES IN (4)")
    ensure = "SELECT searchapp_private.ensure_triggers(s) FROM searchapp_data.sources s WHERE s.name = 'four'"
    assert (value(sql, ensure), value(sql, ensure)) == (2, 0)
    sql.execute("INSERT INTO public.parts VALUES (4, 'a', 'x')")
    assert sorted(noted(sql), key=str) == ["{4,a}", "{a,4}"]
    sql.execute("ALTER TABLE public.parts DETACH PARTITION public.parts_4; SELECT searchapp.remove_source('four')")
    assert value(sql, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'public.parts_4'::regclass") == 0


@pytest.mark.parametrize(
    ("kind", "key"), [("uuid", "6f0e0f1c-0000-4000-8000-000000000001"), ("smallint", "7"), ("text", "k'\"\\é ")]
)
def test_keys_of_other_types(sql: SQL, kind: str, key: str) -> None:
    sql.execute(sqls.SQL("CREATE DOMAIN public.number AS {}").format(sqls.SQL(kind)))
    sql.execute('CREATE TABLE public."Odd, Table" ("the ""Key" public.number PRIMARY KEY, "a text" text)')
    sql.execute("SELECT searchapp.add_source('odd', 'public.\"Odd, Table\"', ARRAY['the \"Key'], '{a text}')")
    sql.execute("INSERT INTO public.\"Odd, Table\" VALUES (%s, 'x')", [key])
    sql.execute('UPDATE public."Odd, Table" SET "a text" = \'y\'')
    assert noted(sql) == [key, key]


def test_who_may_write_to_the_table_sets_them_off(sql: SQL) -> None:
    sql.execute(ITEMS)
    with ExitStack() as stack:
        sql.execute("CREATE ROLE application; GRANT SELECT, INSERT, UPDATE, TRUNCATE ON public.items TO application")
        stack.callback(sql.execute, "DROP OWNED BY application; DROP ROLE application")
        sql.execute("SET ROLE application")
        sql.execute("UPDATE public.items SET body = 'new' WHERE id = 1; INSERT INTO public.items (id) VALUES (9)")
        sql.execute("TRUNCATE public.items")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            sql.execute("SELECT * FROM searchapp_data.changes")
        sql.execute("RESET ROLE")
        assert noted(sql) == ["1", "9", None]


# What a role may make in schemas of its own, to be run with the rights of the triggers' functions.
SHADOWS = """
CREATE FUNCTION {schema}.spy() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'run as %', current_user; END$$;
CREATE FUNCTION {schema}.ne(pg_catalog.text, pg_catalog.text) RETURNS boolean LANGUAGE sql AS $$SELECT {schema}.spy()$$;
CREATE FUNCTION {schema}.ne(bigint, int) RETURNS boolean LANGUAGE sql AS $$SELECT {schema}.spy()$$;
CREATE OPERATOR {schema}.<> (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = {schema}.ne);
CREATE OPERATOR {schema}.& (LEFTARG = bigint, RIGHTARG = int, FUNCTION = {schema}.ne);
CREATE FUNCTION {schema}.hashtextextended(pg_catalog.text, bigint) RETURNS bigint LANGUAGE sql
  AS $$SELECT {schema}.spy()::int$$;
CREATE DOMAIN {schema}.text AS pg_catalog.text CHECK ({schema}.spy());
CREATE DOMAIN {schema}._text AS pg_catalog.text[] CHECK ({schema}.spy());
CREATE DOMAIN {schema}.int2 AS pg_catalog.int2 CHECK ({schema}.spy());
CREATE DOMAIN {schema}.int4 AS pg_catalog.int4 CHECK ({schema}.spy());
CREATE TABLE {schema}.changes (id int);
"""


@pytest.mark.parametrize("path", ["shadow, pg_temp, pg_catalog", "pg_catalog, shadow"])
@pytest.mark.parametrize("schema", ["shadow", "pg_temp"])
def test_nobody_has_the_owners_rights_by_names_of_his_own(sql: SQL, url: str, schema: str, path: str) -> None:
    sql.execute(ITEMS + PARTS)
    sql.execute("""
      CREATE ROLE application; CREATE SCHEMA shadow AUTHORIZATION application;
      GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON public.items, public.parts TO application;
    """)
    with ExitStack() as stack:
        stack.callback(sql.execute, "DROP OWNED BY application CASCADE; DROP ROLE application")
        application = stack.enter_context(psycopg.connect(url, autocommit=True))
        application.execute("SET ROLE application; CREATE TEMPORARY TABLE first (id int)")
        application.execute(sqls.SQL(SHADOWS).format(schema=sqls.SQL(schema)))
        application.execute("GRANT USAGE ON SCHEMA shadow TO PUBLIC")
        application.execute(sqls.SQL("SET search_path = {}").format(sqls.SQL(path)))
        for statement in (
            "UPDATE public.items SET body = 'new' WHERE id = 1",
            "UPDATE public.items SET id = 50 WHERE id = 2",
            "INSERT INTO public.items (id) VALUES (60)",
            "DELETE FROM public.items WHERE id = 3",
            "INSERT INTO public.parts VALUES (1, 'a', 'x')",
            "UPDATE public.parts SET shop = 2",
            "TRUNCATE public.items",
        ):
            application.execute(statement)
        assert noted(sql) == ["1", "50", "2", "60", "3", "{1,a}", "{1,a}", "{2,a}", None]


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_transactions_beside_each_other_go_on(sql: SQL, url: str, level: str) -> None:
    sql.execute(ITEMS)
    write_beside_each_other(url, level, "id")
    assert sorted(key or "" for key in noted(sql)) == ["1", "2", "70", "71"]


def write_beside_each_other(url: str, level: str, key: str) -> None:
    """Two transactions that have nothing to do with each other write to rows of the same table."""
    update = sqls.SQL("UPDATE public.items SET body = 'new' WHERE {} = %s").format(sqls.Identifier(key))
    insert = sqls.SQL("INSERT INTO public.items ({}) VALUES (%s)").format(sqls.Identifier(key))
    with psycopg.connect(url) as one, psycopg.connect(url) as other:
        for connection, updated, inserted in ((one, 1, 70), (other, 2, 71)):
            connection.execute(sqls.SQL("SET TRANSACTION ISOLATION LEVEL {}").format(sqls.SQL(level)))
            connection.execute("SET LOCAL enable_seqscan = off")  # which would lock all rows, sources or not
            connection.execute(update, [updated])
            connection.execute(insert, [inserted])
        other.commit()
        one.commit()


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_statements_go_on_after_the_key_was_renamed(sql: SQL, url: str, level: str) -> None:
    sql.execute(ITEMS)
    sql.execute("ALTER TABLE public.items RENAME id TO number; ALTER TABLE public.items DROP CONSTRAINT items_pkey")
    sql.execute("CREATE INDEX ON public.items (number)")
    write_beside_each_other(url, level, "number")
    sql.execute("UPDATE public.items SET body = 'newer'; DELETE FROM public.items WHERE number < 4")
    # one a transaction, though each row of it has lost its key
    assert value(sql, "SELECT count(*) FROM searchapp_data.changes WHERE key IS NULL AND lane = 0") == 3
    assert value(sql, "SELECT searchapp_private.source_problem(s) FROM searchapp_data.sources s") == (
        "the table public.items has no id any more"
    )


def test_prepared_transactions_and_a_restored_database() -> None:
    with temporary_server(max_prepared_transactions="5") as parameters:
        engine = database.create_engine(parameters)
        schema.upgrade(engine)
        engine.dispose()
        url = database.conninfo(parameters)
        with psycopg.connect(url, autocommit=True) as sql:
            sql.execute(ITEMS + PARTS)
            sql.execute("BEGIN; UPDATE public.items SET body = 'new' WHERE id = 1; TRUNCATE public.parts")
            sql.execute("PREPARE TRANSACTION 'p'")
            sql.execute("COMMIT PREPARED 'p'")
            assert noted(sql) == ["1", None, None]
            sql.execute("CREATE DATABASE copy TEMPLATE template0")
        copy = database.conninfo({**parameters, "dbname": "copy"})
        folder = programs(url)
        dump = subprocess.run([folder / "pg_dump", "--format=custom", url], capture_output=True, check=True).stdout
        subprocess.run([folder / "pg_restore", "--exit-on-error", f"--dbname={copy}"], input=dump, check=True)
        with psycopg.connect(copy, autocommit=True) as sql:
            sql.execute("UPDATE public.items SET body = 'newer'; INSERT INTO public.parts VALUES (1, 'z', 'x')")
            assert sorted(str(key) for key in noted(sql)) == ["1", "2", "3", "4", "5", "{1,z}"]
