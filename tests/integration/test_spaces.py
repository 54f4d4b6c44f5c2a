"""Collections and spaces under others' eyes: races, open transactions, drops that were interrupted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, text

import searchapp
from searchapp import errors, maintenance, schema
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.ingest.documents import Document
from tests.made_up import fill, random_vectors

A = {"key": "a", "text": "Red running shoes", "metadata": {"state": "old"}}


def partitions(engine: Engine) -> set[str]:
    with engine.begin() as connection:
        names = "SELECT relname FROM pg_class WHERE relname ~ '^(documents|chunks)_[0-9]+$' AND relkind = 'r'"
        return set(connection.scalars(text(names)))


def test_one_of_those_who_create_a_collection_at_once_does(engine: Engine, registry: Registry) -> None:
    def create(_: int) -> bool:
        try:
            Client(engine, registry=registry).create_collection("things")
        except errors.CollectionExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1
    assert len(partitions(engine)) == 2


def test_collections_dropped_at_once_are_all_gone(db: Client, engine: Engine, registry: Registry) -> None:
    names = [f"things_{number}" for number in range(8)]
    for name in names:
        db.create_collection(name)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: Client(engine, registry=registry).drop_collection(name), names))
    db.maintain()
    assert db.collections() == []
    assert partitions(engine) == set()


def test_a_drop_takes_the_counts_of_words(db: Client, engine: Engine) -> None:
    for name in ("mine", "other"):
        db.ingest([{"key": "a", "text": "A cat"}], collection=name)
    space = db.space("other")
    db.drop_collection("mine")
    db.maintain()
    with engine.connect() as connection:
        counts = connection.execute(text("SELECT collection_id, term FROM searchapp_data.term_counts")).all()
    assert counts == [(space.collection_id, "cat")]


def test_an_interrupted_drop_is_finished(db: Client, engine: Engine, url: str) -> None:
    one, two = db.create_collection("one"), db.create_collection("two")
    with engine.begin() as connection:
        maintenance.retire(connection, "one")
        maintenance.retire(connection, "two")
    with psycopg.connect(url) as reader:  # an open transaction that has read the table lets no detach end
        reader.execute("SELECT count(*) FROM searchapp_data.chunks")
        with psycopg.connect(url, autocommit=True) as dropping:
            dropping.execute("SET lock_timeout = '100ms'")
            partition = f"searchapp_data.chunks_{two.id}"
            with pytest.raises(psycopg.errors.LockNotAvailable):
                dropping.execute(
                    f"ALTER TABLE searchapp_data.chunks DETACH PARTITION {partition} CONCURRENTLY".encode()
                )
    with psycopg.connect(url) as connection:
        pending = connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending"
        ).fetchall()
    assert pending == [(f"searchapp_data.chunks_{two.id}",)]
    assert one.id < two.id
    assert db.maintain().dropped == 4
    assert partitions(engine) == set()
    assert db.maintain().dropped == 0


def test_a_drop_beside_a_long_reader_says_what_is_left_to_do(
    db: Client, engine: Engine, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("searchapp.partitions.LOCK_TIMEOUT", "100ms")
    db.create_collection("things")
    with psycopg.connect(url) as reader:
        reader.execute("SELECT count(*) FROM searchapp_data.chunks")
        db.drop_collection("things")
    assert "searchapp db maintain" in caplog.text
    assert db.collections() == []
    assert db.maintain().dropped > 0
    assert partitions(engine) == set()


def test_downgrading_drops_what_a_killed_drop_left_behind(db: Client, engine: Engine) -> None:
    space = db.create_collection("things")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        table = f"searchapp_data.chunks_{space.id}"
        connection.exec_driver_sql(f"ALTER TABLE searchapp_data.chunks DETACH PARTITION {table} CONCURRENTLY")
    schema.downgrade(engine, "base")
    assert partitions(engine) == set()
    schema.upgrade(engine)
    db.create_collection("things")


def test_an_index_that_cannot_be_built_now_is_built_by_maintain(
    db: Client, engine: Engine, registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("searchapp.partitions.LOCK_TIMEOUT", "100ms")
    db.create_collection("things")
    with engine.connect() as connection:  # a caller's transaction that has written and stays open
        Client(connection=connection, registry=registry).ingest([A], collection="things")
        db.ingest([{"key": "b", "text": "A hat"}], collection="things")
        assert "searchapp db maintain" in caplog.text
        assert [hit.key for hit in db.search("a hat", collection="things")] == ["b"]
        connection.commit()
    assert not db.space("things").indexed
    db.maintain()
    assert db.space("things").indexed
    assert {hit.key for hit in db.search("a hat", collection="things")} == {"a", "b"}


def test_callers_transactions_into_one_new_collection_do_not_deadlock(
    db: Client, engine: Engine, registry: Registry
) -> None:
    db.create_collection("things")
    with engine.connect() as one, engine.connect() as two:
        Client(connection=one, registry=registry).ingest([A], collection="things")
        Client(connection=two, registry=registry).ingest([A | {"key": "b"}], collection="things")
        one.commit()
        two.commit()
    assert db.count(collection="things") == 2


def test_an_empty_source_makes_no_collection_and_no_index(db: Client) -> None:
    assert db.ingest([], collection="things").documents == 0
    assert db.ingest([{"key": "x", "text": ""}], collection="things", on_rejected=lambda _: None).rejected == 1
    assert db.collections() == []
    db.create_collection("things")
    db.maintain()
    assert not db.space("things").indexed


def test_an_engine_in_autocommit_still_has_transactions(url: str, registry: Registry) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), isolation_level="AUTOCOMMIT")
    levels: list[str] = []
    db = Client(engine, registry=registry)
    with db._transaction() as connection:
        levels.append(str(connection.scalar(text("SHOW transaction_isolation"))))
        first = connection.scalar(text("SELECT txid_current()"))
        assert connection.scalar(text("SELECT txid_current()")) == first
    assert levels == ["read committed"]
    with engine.connect() as connection, pytest.raises(errors.InvalidInput, match="autocommit"):
        searchapp.connect(connection=connection)
    engine.dispose()


def test_delete_by_filter_leaves_what_no_longer_matches(
    db: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from searchapp.ingest import load

    db.ingest([A], collection="things")
    lock = load.lock_documents

    def change_and_lock(*arguments: object) -> object:
        with engine.begin() as connection:
            connection.execute(text('UPDATE searchapp_data.documents SET metadata = \'{"state": "new"}\''))
        return lock(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(load, "lock_documents", change_and_lock)
    assert db.delete(collection="things", filter={"state": "old"}) == 0
    assert db.count(collection="things") == 1


def test_other_chunking_is_refused_though_the_collection_is_made_meanwhile(db: Client) -> None:
    def documents() -> object:
        db.create_collection("things", chunk_tokens=64)
        yield Document(key="b", text="A hat", title=None, metadata={})

    with pytest.raises(errors.CollectionMismatch, match="made with 64 tokens"):
        db.ingest(documents(), collection="things", chunk_tokens=128)  # type: ignore[arg-type]
    assert db.count(collection="things") == 0


def test_a_search_follows_a_collection_that_is_made_anew(db: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    db.ingest([A], collection="things")
    encode = db._registry.encode_query
    asked: list[str] = []

    def encode_and_switch(name: str, query: str) -> object:
        if not asked:
            asked.append(query)
            db.drop_collection("things")
            db.ingest([{"key": "b", "text": "A hat"}], collection="things")
        return encode(name, query)

    monkeypatch.setattr(db._registry, "encode_query", encode_and_switch)
    assert [hit.key for hit in db.search("a hat", collection="things")] == ["b"]


def test_a_changed_document_loses_its_chunks_in_all_spaces(db: Client, engine: Engine) -> None:
    db.ingest([A], collection="things")
    space = db.space("things")
    with engine.begin() as connection:  # a second space of the collection, as a change of model will make
        second = connection.scalar(
            text(
                "SELECT searchapp_data.create_space(collection_id, model_id, chunking)"
                " FROM searchapp_data.spaces WHERE id = :id"
            ),
            {"id": space.id},
        )
        connection.execute(
            text(
                "INSERT INTO searchapp_data.chunks SELECT :second, document_id, position, start, length, embedding"
                " FROM searchapp_data.chunks"
            ),
            {"second": second},
        )
    db.ingest([A | {"text": "x"}], collection="things")
    with engine.begin() as connection:
        lengths = connection.execute(text("SELECT space_id, length FROM searchapp_data.chunks")).all()
    assert lengths == [(space.id, 1)]


def test_a_reader_of_the_parents_can_list_collections(db: Client, engine: Engine) -> None:
    fill(db, "things", [each[None] for each in random_vectors(3)])
    with engine.begin() as connection:
        connection.execute(text("CREATE ROLE looker"))
        connection.execute(text("GRANT USAGE ON SCHEMA searchapp_data TO looker"))
        connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA searchapp_data TO looker"))
        for partition in ("documents_1", "chunks_1"):
            connection.execute(text(f"REVOKE ALL ON searchapp_data.{partition} FROM looker"))
    try:
        with engine.connect() as connection:
            connection.execute(text("SET ROLE looker"))
            ours = Client(connection=connection, registry=db._registry)
            assert [(each.documents, each.chunks) for each in ours.collections()] == [(3, 3)]
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP OWNED BY looker"))
            connection.execute(text("DROP ROLE looker"))
