"""Comparing sources with their tables: what no trigger told of is found, and nothing else."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from searchapp import errors
from searchapp.encoders.registry import Registry
from searchapp.sources import backfill, checking, comparing
from tests.sources import SQL, QuickRegistry, keep, keys, long_ago, stored, value

PRODUCTS = """
CREATE TABLE public.products (id bigint PRIMARY KEY, name text, description text, price numeric);
INSERT INTO public.products SELECT n, 'name ' || n, 'text ' || n, n + 0.50 FROM generate_series(1, 20) n;
SELECT searchapp.add_source('products', 'public.products', '{id}', '{description}', title => 'name',
  metadata => '{price}');
"""
DISABLE = "ALTER TABLE public.products DISABLE TRIGGER ALL"
ENABLE = "ALTER TABLE public.products ENABLE TRIGGER ALL"


@pytest.fixture
def products(sql: SQL, engine: Engine, quick: QuickRegistry) -> SQL:
    sql.execute(PRODUCTS)
    keep(engine, quick)
    return sql


def found(engine: Engine, registry: Registry, name: str = "products", *, repair: bool = False) -> dict[str, Any]:
    checked = checking.check(engine, registry, name, repair=repair)
    assert all(each.count == len(each.keys) for each in checked.kinds.values())
    return {kind: each.keys for kind, each in checked.kinds.items() if each.keys}


@pytest.mark.usefixtures("products")
def test_what_is_in_step_does_not_differ(engine: Engine, quick: QuickRegistry) -> None:
    assert found(engine, quick) == {}
    assert checking.check(engine, quick, "products").comparison.rows == 20


def test_what_happens_while_triggers_are_disabled_is_found(products: SQL, engine: Engine, quick: QuickRegistry) -> None:
    products.execute(DISABLE)
    products.execute("INSERT INTO public.products VALUES (30, 'new', 'a new text', 1), (31, 'none', ' ', 1)")
    products.execute("UPDATE public.products SET description = 'another text' WHERE id = 2")
    products.execute("UPDATE public.products SET price = price + 1 WHERE id = 3")
    products.execute("UPDATE public.products SET description = NULL WHERE id = 4")
    products.execute("UPDATE public.products SET id = 50 WHERE id = 5")
    products.execute("DELETE FROM public.products WHERE id = 6")
    products.execute(ENABLE)
    differences = {"missing": ["30", "50"], "changed": ["2", "3"], "gone": ["4", "5", "6"]}
    assert found(engine, quick) == differences
    assert keep(engine, quick) == 0  # it was compared a moment ago
    long_ago(products)
    encoded = len(quick.quick.encoded)
    assert keep(engine, quick) == 7
    assert len(quick.quick.encoded) == encoded + 3
    assert found(engine, quick) == {}
    assert keys(products) == sorted([str(n) for n in (1, 2, 3, *range(7, 21), 30, 50)])
    assert ("2", "name 2", "another text") in stored(products)


def test_repair_has_a_worker_put_it_right(products: SQL, engine: Engine, quick: QuickRegistry) -> None:
    products.execute("SET session_replication_role = replica")
    products.execute("DELETE FROM public.products WHERE id = 6")
    products.execute("SET session_replication_role = origin")
    assert found(engine, quick, repair=True) == {"gone": ["6"]}
    assert found(engine, quick) == {}  # it waits in the log
    assert keep(engine, quick) == 1
    assert len(keys(products)) == 19


def test_what_waits_in_the_log_does_not_differ(products: SQL, engine: Engine, quick: QuickRegistry) -> None:
    products.execute("UPDATE public.products SET description = 'another text' WHERE id = 2")
    products.execute("DELETE FROM public.products WHERE id = 6")
    products.execute("INSERT INTO public.products VALUES (30, 'new', 'a new text', 1)")
    assert found(engine, quick) == {}
    products.execute("TRUNCATE public.products")
    assert found(engine, quick) == {}
    keep(engine, quick)
    assert keys(products) == []


def test_metadata_is_compared_as_it_is_stored(sql: SQL, engine: Engine, quick: QuickRegistry) -> None:
    sql.execute(
        "CREATE TABLE public.things (id uuid PRIMARY KEY, body text, a numeric, b float8, c jsonb, d timestamptz,"
        " e text[], f bigint, g date, h boolean, i interval)"
    )
    sql.execute(
        "INSERT INTO public.things VALUES (gen_random_uuid(), 'a text', 1.50, 0.1, '{\"x\": [1.0, null]}', now(),"
        " '{a,b}', 9007199254740993, current_date, true, '1 day'), "
        "(gen_random_uuid(), 'no metadata', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
    )
    sql.execute(
        "SELECT searchapp.add_source('things', 'public.things', '{id}', '{body}', metadata => '{a,b,c,d,e,f,g,h}')"
    )
    assert keep(engine, quick) == 2
    assert len(keys(sql)) == 2
    assert found(engine, quick, "things") == {}


def test_documents_that_lost_their_passages_are_written_anew(
    products: SQL, engine: Engine, quick: QuickRegistry
) -> None:
    products.execute(
        "DELETE FROM searchapp_data.chunks c USING searchapp_data.documents d"
        " WHERE c.document_id = d.id AND d.key = '7'"
    )
    assert found(engine, quick, repair=True) == {"changed": ["7"]}
    keep(engine, quick)
    assert value(products, "SELECT count(*) FROM searchapp_data.chunks") == 20


def test_rows_that_have_failed_do_not_differ_until_the_source_is_resumed(
    products: SQL, engine: Engine, quick: QuickRegistry
) -> None:
    products.execute(DISABLE)
    products.execute("INSERT INTO public.products VALUES (30, 'new', 'a new text', 1)")
    products.execute("DELETE FROM public.products WHERE id = 6")
    for key in ("30", "6", "no such row"):
        products.execute(
            "INSERT INTO searchapp_data.failures (source_id, key, attempts, error)"
            " SELECT id, %s, 6, 'RuntimeError: too bad' FROM searchapp_data.sources",
            [key],
        )
    assert found(engine, quick) == {"gone": ["6"]}
    long_ago(products)
    keep(engine, quick)
    assert products.execute("SELECT key FROM searchapp_data.failures").fetchall() == [("30",)]
    products.execute("SELECT searchapp.pause_source('products'), searchapp.resume_source('products')")
    keep(engine, quick)
    assert products.execute("SELECT key FROM searchapp_data.failures").fetchall() == []
    assert "30" in keys(products)


def test_a_resumed_source_is_compared_at_once(products: SQL, engine: Engine, quick: QuickRegistry) -> None:
    products.execute("SELECT searchapp.pause_source('products', drop_triggers => true)")
    products.execute("ALTER TABLE public.products ALTER description TYPE varchar(100), ALTER id TYPE text")
    products.execute("UPDATE public.products SET description = 'another text' WHERE id = '2'")
    products.execute("INSERT INTO public.products VALUES ('a', 'new', 'a new text', 1)")
    products.execute("DELETE FROM public.products WHERE id = '6'")
    assert keep(engine, quick) == 0
    products.execute("SELECT searchapp.resume_source('products')")
    assert value(products, "SELECT checked_at FROM searchapp.source_status") is None
    assert keep(engine, quick) == 3
    assert ("2", "name 2", "another text") in stored(products)
    assert "a" in keys(products)
    assert "6" not in keys(products)
    assert value(products, "SELECT checked_at > now() - interval '1 minute' FROM searchapp.source_status")
    products.execute("UPDATE public.products SET id = 'b' WHERE id = 'a'")
    keep(engine, quick)
    assert {"a", "b"} & set(keys(products)) == {"b"}


def test_a_source_that_is_resumed_while_it_is_read_is_compared(
    sql: SQL, engine: Engine, quick: QuickRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "PAGE", 5)
    advance = backfill.advance

    def interrupted(session: Any, source: Any) -> bool:
        advanced = advance(session, source)
        monkeypatch.setattr(backfill, "advance", advance)
        sql.execute("SELECT searchapp.pause_source('products', drop_triggers => true)")
        sql.execute("DELETE FROM public.products WHERE id = 1")
        sql.execute("UPDATE public.products SET description = 'another text' WHERE id = 2")
        sql.execute("SELECT searchapp.resume_source('products')")
        return advanced

    monkeypatch.setattr(backfill, "advance", interrupted)
    sql.execute(PRODUCTS)
    keep(engine, quick)
    assert found(engine, quick) == {}
    assert len(keys(sql)) == 19


def test_a_source_that_is_resumed_while_it_is_compared_is_compared_anew(
    products: SQL, engine: Engine, quick: QuickRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "PAGE", 5)
    repair = comparing.repair

    def interrupted(session: Any, source: Any, comparison: Any) -> None:
        repair(session, source, comparison)
        monkeypatch.setattr(comparing, "repair", repair)
        products.execute("SELECT searchapp.pause_source('products', drop_triggers => true)")
        products.execute("UPDATE public.products SET description = 'another text' WHERE id = 2")
        products.execute("SELECT searchapp.resume_source('products')")

    monkeypatch.setattr(comparing, "repair", interrupted)
    long_ago(products)
    keep(engine, quick)
    assert ("2", "name 2", "another text") in stored(products)


def test_rows_that_change_while_they_are_compared_do_not_differ(
    products: SQL, engine: Engine, quick: QuickRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "PAGE", 1)
    advance = comparing.Comparison.advance
    numbers = iter(range(1000))

    def busy(self: Any, connection: Any, source: Any) -> list[str]:
        compared = advance(self, connection, source)
        number = next(numbers)
        products.execute("UPDATE public.products SET description = %s WHERE id = %s", [f"text {number}", number % 20])
        products.execute("UPDATE public.products SET id = id + 1000 WHERE id = %s", [number % 7])
        if number % 3 == 0:
            keep(engine, quick)
        return compared

    monkeypatch.setattr(comparing.Comparison, "advance", busy)
    checked = checking.check(engine, quick, "products")
    assert not checked.comparison.differs


def test_partitions_that_come_and_go_are_found(sql: SQL, engine: Engine, quick: QuickRegistry) -> None:
    sql.execute(
        "CREATE TABLE public.events (day int, id text, body text, PRIMARY KEY (day, id)) PARTITION BY LIST (day);"
        "CREATE TABLE public.events_1 PARTITION OF public.events FOR VALUES IN (1);"
        "CREATE TABLE public.events_2 (LIKE public.events INCLUDING ALL);"
        "INSERT INTO public.events VALUES (1, 'a', 'one a'), (1, 'b,\"\\', 'one b');"
        "INSERT INTO public.events_2 VALUES (2, 'a', 'two a');"
        "SELECT searchapp.add_source('events', 'public.events', '{day,id}', '{body}')"
    )
    keep(engine, quick)
    assert len(keys(sql)) == 2
    sql.execute("ALTER TABLE public.events ATTACH PARTITION public.events_2 FOR VALUES IN (2)")
    assert found(engine, quick, "events") == {"missing": ["{2,a}"]}
    long_ago(sql)
    assert keep(engine, quick) == 1
    sql.execute("TRUNCATE public.events_2")  # the comparison has given the new partition its trigger
    keep(engine, quick)
    assert len(keys(sql)) == 2
    sql.execute("ALTER TABLE public.events DETACH PARTITION public.events_1")
    long_ago(sql)
    assert keep(engine, quick) == 2
    assert keys(sql) == []


def test_triggers_that_are_gone_are_made_anew(products: SQL, engine: Engine, quick: QuickRegistry) -> None:
    count = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'public.products'::regclass"
    assert value(products, count) == 4
    for event in ("update", "insert"):
        products.execute(f"DROP TRIGGER searchapp_1_{event} ON public.products".encode())
    long_ago(products)
    keep(engine, quick)
    assert value(products, count) == 4


def test_triggers_that_may_not_be_made_are_told_of(
    products: SQL, engine: Engine, quick: QuickRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    products.execute("DROP TRIGGER searchapp_1_update ON public.products")
    products.execute("UPDATE public.products SET description = 'another text' WHERE id = 2")
    long_ago(products)
    with psycopg.connect(products.info.dsn) as other:
        other.execute("LOCK TABLE public.products IN ROW EXCLUSIVE MODE")
        keep(engine, quick)
    assert "triggers that the table of the source products lacks cannot be made: canceling" in caplog.text
    assert ("2", "name 2", "another text") in stored(products)


@pytest.mark.parametrize("page", [1, 7, 20, 1000])
def test_any_page_finds_the_same(
    products: SQL, engine: Engine, quick: QuickRegistry, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(comparing, "PAGE", page)
    products.execute(DISABLE)
    products.execute("UPDATE public.products SET id = id + 100 WHERE id IN (1, 20)")
    products.execute("UPDATE public.products SET description = 'x' WHERE id IN (2, 19)")
    checked = checking.check(engine, quick, "products")
    assert {kind: sorted(each.keys) for kind, each in checked.kinds.items()} == {
        "missing": ["101", "120"],
        "changed": ["19", "2"],
        "gone": ["1", "20"],
    }


def test_no_more_waits_in_the_log_than_may(
    products: SQL, engine: Engine, quick: QuickRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "WAITING", 4)
    monkeypatch.setattr(comparing, "PAGE", 3)
    products.execute(DISABLE)
    products.execute("UPDATE public.products SET description = 'x'")
    checked = checking.check(engine, quick, "products", repair=True)
    assert (checked.comparison.changed.count, checked.put, checked.complete) == (20, 4, False)
    assert value(products, "SELECT count(*) FROM searchapp_data.changes") == 4
    keep(engine, quick)
    assert {row[2] for row in stored(products)} == {"x"}


def test_the_condition_is_compared(sql: SQL, engine: Engine, quick: QuickRegistry) -> None:
    sql.execute("CREATE TABLE public.keyed (key text, searchapp_key int, body text, PRIMARY KEY (key, searchapp_key))")
    sql.execute("INSERT INTO public.keyed SELECT 'k', n, 'text ' || n FROM generate_series(1, 5) n")
    sql.execute(
        "SELECT searchapp.add_source('keyed', 'public.keyed', '{key,searchapp_key}', '{body}',"
        " \"where\" => 'key <> ''x''')"
    )
    keep(engine, quick)
    sql.execute("ALTER TABLE public.keyed DISABLE TRIGGER ALL")
    sql.execute("UPDATE public.keyed SET key = 'x' WHERE searchapp_key = 1")
    assert found(engine, quick, "keyed", repair=True) == {"gone": ["{k,1}"]}
    keep(engine, quick)
    assert len(keys(sql)) == 4


def test_what_cannot_be_compared_is_told(sql: SQL, engine: Engine, quick: QuickRegistry) -> None:
    sql.execute(PRODUCTS)
    with pytest.raises(errors.InvalidInput, match="is being read for the first time"):
        found(engine, quick)
    with pytest.raises(errors.SearchAppError, match="no source 'product'; did you mean products"):
        found(engine, quick, "product")
    sql.execute("ALTER TABLE public.products RENAME TO goods")
    with pytest.raises(
        errors.InvalidInput, match=r"cannot be compared: the table public.products is called public.goods now"
    ):
        found(engine, quick)
