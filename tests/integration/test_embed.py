"""``searchapp.embed()`` in SQL: what it gives, what it waits for, and what it keeps from whom."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors as refused

from searchapp import database, errors, link, schema
from searchapp.client import Client
from searchapp.encoders import weights
from searchapp.encoders.registry import Registry
from searchapp.vectors import Array
from searchapp.worker import Worker
from tests import conftest
from tests.servers import temporary_server
from tests.tiny_models import save_encoder
from tests.workers import wait_for, working

url, db = conftest.shared_address()
_numbers = itertools.count(1)

DOCUMENTS = [
    {"key": str(number), "text": text}
    for number, text in enumerate(["red running shoes", "crimson sneakers", "a blue woollen hat", "a cat on the mat"])
]
EMBED = "SELECT searchapp.embed(%s, 'things')::real[]"
PROBLEM = "SELECT searchapp_private.link_problem()"
CALL = "CALL searchapp.embed_query(%s, 'things')"


def new() -> str:
    """A query that nobody has asked."""
    return f"a query that is new, number {next(_numbers)}"


@pytest.fixture(scope="module", autouse=True)
def things(url: str, db: Client) -> None:
    db.ingest(DOCUMENTS, collection="things")
    make_link(url)


@pytest.fixture
def worker(url: str, registry: Registry) -> Iterator[Worker]:
    with working(url, registry) as worker:
        yield worker


@pytest.fixture
def silent(url: str) -> Iterator[None]:
    """A worker that shows itself, and answers nothing."""
    execute(url, "INSERT INTO searchapp_data.workers (host, doing) VALUES ('nowhere', 'answering')")
    yield
    execute(url, "DELETE FROM searchapp_data.workers")


@pytest.fixture(scope="module")
def reader(url: str) -> str:
    """The address of the database for somebody who may only read."""
    return make_reader(url)


def make_reader(url: str) -> str:
    name = f"reader_{next(_numbers)}_{database.parse_url(url)['dbname']}"
    granted = "searchapp_reader"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN".encode())
        if not value(url, "SELECT to_regrole('searchapp_reader') IS NOT NULL"):
            granted = name
            for right in ("USAGE ON SCHEMA", "SELECT ON ALL TABLES IN SCHEMA", "EXECUTE ON ALL ROUTINES IN SCHEMA"):
                connection.execute(f"GRANT {right} searchapp, searchapp_data TO {name}".encode())
        else:
            connection.execute(f"GRANT {granted} TO {name}".encode())
    return database.conninfo({**database.parse_url(url), "user": name})


def make_link(url: str, **place: Any) -> link.Link:
    with conftest.engine_on(url) as engine:
        return link.make(engine, **place)


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def value(url: str, statement: str, *parameters: Any) -> Any:
    """The one value that a statement gives, in a session of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        return first(connection, statement, *parameters)


def first(connection: psycopg.Connection[Any], statement: str, *parameters: Any) -> Any:
    row = connection.execute(statement.encode(), parameters or None).fetchone()
    assert row is not None
    return row[0]


def embed(url: str, query: str) -> Array:
    return np.array(value(url, EMBED, query), np.float32)


def called(url: str, query: str) -> Array:
    return np.array(json.loads(value(url, CALL, query)), np.float32)


def is_of(found: Array, query: str, registry: Registry) -> bool:
    """Whether an embedding is that of a query, but for the last bits, which depend on what it is encoded beside."""
    return np.allclose(found, registry.encode_query(weights.DEFAULT, query), atol=1e-6)


@contextmanager
def refusing(kind: type[psycopg.Error] | str, *parts: str) -> Iterator[None]:
    """Expect an error, by its class or its SQLSTATE, that says these things in one line."""
    with pytest.raises(psycopg.Error) as caught:
        yield
    assert caught.value.sqlstate == (kind if isinstance(kind, str) else kind.sqlstate), caught.value
    message = caught.value.diag.message_primary or ""
    assert "\n" not in message
    for part in parts:
        assert part in message


# What it gives


@pytest.mark.parametrize(
    "query",
    [
        "red shoes",
        'it\'s a \\ "test" %s $1 $$ :name ; -- /*',
        "東京 café \U0001f389\n\ttwo lines",
        " x ",
        "word " * 1600,
    ],
)
def test_the_embedding_is_that_of_the_client(url: str, registry: Registry, worker: Worker, query: str) -> None:
    assert is_of(embed(url, query), query, registry)
    worker.stop()
    assert is_of(embed(url, query), query, registry)  # kept
    named = value(url, "SELECT searchapp.embed_with(%s, %s)::real[]", query, weights.DEFAULT)
    assert named == value(url, EMBED, query)


@pytest.mark.usefixtures("worker")
def test_hits_are_those_of_a_search(url: str, db: Client) -> None:
    query = new()
    hits = db.search(query, collection="things", mode="vector")
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT d.key, c.embedding <=> searchapp.embed(%s, 'things') FROM searchapp_data.chunks c"
            " JOIN searchapp_data.documents d ON d.id = c.document_id WHERE c.space_id = %s ORDER BY 2, 1",
            [query, db.space("things").id],
        ).fetchall()
    assert [key for key, _ in found] == [hit.key for hit in hits]
    assert [distance for _, distance in found] == pytest.approx([hit.distance for hit in hits], abs=1e-6)


@pytest.mark.usefixtures("worker")
def test_the_index_is_used_whatever_the_plan(url: str, db: Client) -> None:
    space = db.space("things")
    statement = (
        f"SELECT document_id FROM searchapp_data.chunks WHERE space_id = {space.id}"
        f" ORDER BY (embedding::vector(384)) <=> searchapp.embed(%s, 'things') LIMIT 2"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET enable_seqscan = off")
        for mode in ("force_custom_plan", "force_generic_plan"):
            connection.execute(f"SET plan_cache_mode = {mode}".encode())
            plan = connection.execute(b"EXPLAIN " + statement.encode(), [new()], prepare=True).fetchall()
            assert f"space_{space.id}_hnsw" in str(plan)
            assert len(connection.execute(statement.encode(), [new()], prepare=True).fetchall()) == 2


@pytest.fixture(scope="module")
def tiny(db: Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a model of 32 dimensions that wants a prompt; a collection of that name has it."""
    folder = save_encoder(tmp_path_factory.mktemp("models") / "tiny", query_prompt="query: ")
    db.ingest(DOCUMENTS, collection="tiny", model=folder)
    return folder


@pytest.mark.usefixtures("worker")
def test_a_model_with_a_prompt_encodes_as_in_a_search(url: str, registry: Registry, tiny: str) -> None:
    query = new()
    found = np.array(value(url, "SELECT searchapp.embed(%s, 'tiny')::real[]", query), np.float32)
    assert np.allclose(found, registry.encoder(tiny).encode_queries([query])[0], atol=1e-6)
    assert not np.allclose(found, registry.encoder(tiny).encode_documents([query])[0], atol=1e-3)


@pytest.mark.usefixtures("worker", "tiny")
def test_what_is_saved_follows_the_collection_to_another_model(url: str, db: Client) -> None:
    db.create_collection("moving")
    saved = f"CREATE VIEW public.saved AS SELECT vector_dims(searchapp.embed('{new()}', 'moving')) AS dimensions"
    execute(url, saved)
    assert value(url, "SELECT dimensions FROM public.saved") == 384
    small = db.space("tiny").id
    execute(url, f"UPDATE searchapp_data.collections SET active_space = {small} WHERE name = 'moving'")
    assert value(url, "SELECT dimensions FROM public.saved") == 32


# How often it asks


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM generate_series(1, 300) WHERE searchapp.embed(%s, 'things') IS NOT NULL",
        "SELECT count(searchapp.embed(t.query, 'things')) FROM generate_series(1, 300), (SELECT %s AS query) t",
        "WITH q AS MATERIALIZED (SELECT searchapp.embed(%s, 'things') AS v) SELECT count(*) FROM q",
        "SELECT count(*) FROM (SELECT FROM searchapp_data.chunks WHERE space_id = 1"
        " ORDER BY embedding <=> searchapp.embed(%s, 'things') LIMIT 3) c",
    ],
)
def test_a_text_is_asked_for_once(url: str, level: str, statement: str) -> None:
    name = database.parse_url(url)["dbname"]
    execute(url, f"ALTER DATABASE {name} SET track_functions = 'pl'")
    query = new()
    before = times_asked(url)
    with psycopg.connect(url) as connection:
        connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}, READ ONLY".encode())
        assert first(connection, "SELECT count(*) FROM searchapp_data.models") > 0  # its snapshot is taken
        first(connection, statement, query)
        first(connection, statement, query)
    wait_for(lambda: times_asked(url) > before)
    assert times_asked(url) - before <= 5  # not 300; each waits for 200 ms, of which a busy machine may need some


def times_asked(url: str) -> int:
    found = value(url, "SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname = 'ask'")
    return int(found)


@pytest.mark.usefixtures("worker")
def test_a_snapshot_may_have_several_texts(url: str, registry: Registry) -> None:
    queries = [new() for _ in range(3)]
    with psycopg.connect(url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for query in queries * 2:
            found = np.array(first(connection, EMBED, query), np.float32)
            assert is_of(found, query, registry)


def test_fifty_at_once_are_answered_where_connections_are_few(registry: Registry) -> None:
    with temporary_server(max_connections="60", max_wal_senders="0") as parameters:
        url = database.conninfo(parameters)
        with conftest.engine_on(url) as engine:
            schema.upgrade(engine)
            Client(engine, registry=registry).ingest(DOCUMENTS, collection="things")
            link.make(engine)
        reader = make_reader(url)
        queries = [new() for _ in range(50)]
        together = threading.Barrier(50)

        def ask(query: str) -> Array:
            with psycopg.connect(reader, autocommit=True) as connection:
                connection.execute("SET searchapp.timeout = '20s'")
                together.wait()
                return np.array(first(connection, EMBED, query), np.float32)

        with working(url, registry), ThreadPoolExecutor(50) as pool:
            found = list(pool.map(ask, queries))
        for query, vector in zip(queries, found, strict=True):
            assert is_of(vector, query, registry)


# What is in its way


def test_without_a_worker_the_error_names_the_command_at_once(url: str) -> None:
    began = time.monotonic()
    with refusing("SA020", "no worker has been seen for a minute", "start one: searchapp worker"):
        embed(url, new())
    assert time.monotonic() - began < 3


def test_a_request_outlives_whoever_asked_in_vain(url: str, registry: Registry) -> None:
    query = new()
    with refusing("SA020"):
        embed(url, query)
    with conftest.engine_on(url) as engine:
        assert Worker(engine, registry).run_once().queries >= 1
        assert Worker(engine, registry).run_once().queries == 0
    assert is_of(embed(url, query), query, registry)


@pytest.mark.usefixtures("silent")
def test_a_worker_that_does_not_answer_is_waited_for_as_long_as_is_set(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for setting, shown in (("300ms", "0.3"), ("1", "1")):
            connection.execute(f"SET searchapp.timeout = '{setting}'".encode())
            began = time.monotonic()
            with refusing(
                "SA020", f"no worker has answered within {shown} s; start one, or one more: searchapp worker"
            ):
                first(connection, EMBED, new())
            assert float(shown) <= time.monotonic() - began < float(shown) + 2
        connection.execute("SET searchapp.timeout = 'soon'")
        with refusing(refused.InvalidParameterValue, "searchapp.timeout is 'soon'; expected a time such as 5s"):
            first(connection, EMBED, new())


@pytest.mark.usefixtures("silent")
def test_a_statement_timeout_and_a_cancellation_end_it(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET statement_timeout = '300ms'")
        began = time.monotonic()
        with refusing(refused.QueryCanceled):
            first(connection, EMBED, new())
        assert time.monotonic() - began < 1.5  # 0.5 where nothing else runs
        connection.execute("SET statement_timeout = 0")
        threading.Timer(0.3, connection.cancel_safe).start()
        with refusing(refused.QueryCanceled):
            first(connection, EMBED, new())
        assert time.monotonic() - began < 3
        wait_for(lambda: not askers(url), seconds=3)


def askers(url: str) -> int:
    """How many second sessions there are in this database."""
    statement = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename LIKE 'searchapp_asker_%'"
    )
    return int(value(url, statement))


@pytest.mark.usefixtures("silent")
def test_what_a_dead_worker_had_taken_is_anothers(url: str, registry: Registry) -> None:
    query = new()
    with ThreadPoolExecutor(1) as pool, closing(psycopg.connect(url)) as dying:
        execute(url, f"CALL searchapp.embed_query('{query}', 'things', 0)")
        held = "DELETE FROM searchapp_private.query_requests RETURNING text"
        assert query in str(dying.execute(held.encode()).fetchall())
        with working(url, registry):
            waiting = pool.submit(embed, url, query)
            time.sleep(0.5)
            assert not waiting.done()
            execute(url, f"SELECT pg_terminate_backend({dying.info.backend_pid})")
            assert is_of(waiting.result(), query, registry)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("model", "said"),
    [("/nowhere/model", "/nowhere/model is not a model's folder"), (weights.DEFAULT, "other weights of")],
)
def test_a_model_that_cannot_be_loaded_is_told_to_whoever_asks(url: str, db: Client, model: str, said: str) -> None:
    name = f"modelless_{next(_numbers)}"
    space = db.create_collection(name)
    execute(
        url,
        "WITH m AS (INSERT INTO searchapp_data.models (name, provider, revision, dimensions, max_tokens)"
        f" VALUES ('{model}', 'sentence-transformers', 'other', 384, 256) RETURNING id)"
        f" UPDATE searchapp_data.spaces SET model_id = m.id FROM m WHERE spaces.id = {space.id}",
    )
    with refusing("SA022", f"cannot encode by {model}", said):
        value(url, f"SELECT searchapp.embed(%s, '{name}')", new())


def test_a_model_that_is_only_named_encodes_nothing(url: str, db: Client, registry: Registry) -> None:
    vectors = registry.encoder(weights.DEFAULT).encode_documents(["a", "b"])
    db.load_vectors(DOCUMENTS[:2], vectors, collection="brought", model="text-embedding-3-small")
    for statement in (
        "SELECT searchapp.embed('a', 'brought')",
        "SELECT searchapp.embed_with('a', 'text-embedding-3-small')",
        "CALL searchapp.embed_query('a', 'brought')",
    ):
        with refusing(refused.FeatureNotSupported, "text-embedding-3-small", "searchapp.search_by_vector"):
            value(url, statement)


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ("NULL, 'things'", refused.NullValueNotAllowed, "the query is null"),
        ("'a', NULL", refused.NullValueNotAllowed, "the collection is null"),
        ("E' \\n', 'things'", refused.InvalidParameterValue, "the query is empty"),
        ("repeat('é', 8001), 'things'", refused.InvalidParameterValue, "8001 characters; at most 8,000 can be encoded"),
        ("'a', 'thing'", refused.UndefinedObject, "no collection 'thing'; did you mean things"),
        ("'a', E'x'' \\\\; DROP TABLE y --'", refused.UndefinedObject, "no collection "),
    ],
)
def test_arguments_that_cannot_be_are_refused(url: str, arguments: str, kind: type[psycopg.Error], said: str) -> None:
    for statement in ("SELECT searchapp.embed({})", "CALL searchapp.embed_query({})"):
        with refusing(kind, said):
            value(url, statement.format(arguments))


def test_a_model_that_is_unknown_is_refused_with_the_near_ones(url: str) -> None:
    with refusing(
        refused.UndefinedObject, "no collection has the model 'all-MiniLM-L6-v1'; did you mean all-MiniLM-L6"
    ):
        value(url, "SELECT searchapp.embed_with('a', 'all-MiniLM-L6-v1')")
    with refusing(refused.NullValueNotAllowed, "the model is null"):
        value(url, "SELECT searchapp.embed_with('a', NULL)")


# Without the link


def test_a_call_fills_the_cache_where_there_is_no_link(db_url: str, registry: Registry) -> None:
    query = new()
    with conftest.engine_on(db_url) as engine, working(db_url, registry):
        Client(engine, registry=registry).create_collection("things")
        with refusing("SA021", "embed() has no link", "searchapp db embed-link"):
            embed(db_url, query)
        assert is_of(called(db_url, query), query, registry)
        assert is_of(embed(db_url, query), query, registry)


@pytest.fixture
def db_url(server: database.Parameters, template: str) -> Iterator[str]:
    """A migrated database for one test alone."""
    with conftest.temporary_database(server, template) as url:
        yield url


def test_a_copy_of_the_database_asks_for_a_link_of_its_own(
    db_url: str, server: database.Parameters, registry: Registry
) -> None:
    with conftest.engine_on(db_url) as engine:
        Client(engine, registry=registry).create_collection("things")
    make_link(db_url)
    with conftest.temporary_database(server, database.parse_url(db_url)["dbname"]) as copy, working(copy, registry):
        with refusing(
            "SA021", "this database is a copy, whose link leads to another one; run: searchapp db embed-link"
        ):
            embed(copy, new())
        assert make_link(copy).database == database.parse_url(copy)["dbname"]
        query = new()
        assert is_of(embed(copy, query), query, registry)
    assert value(db_url, "SELECT count(*) FROM searchapp_private.query_embeddings") == 0


def test_who_is_no_administrator_is_told_what_one_must_run(empty_url: str, registry: Registry) -> None:
    """As on a managed server: neither the migrating role nor the owner is a superuser."""
    name = f"ann_{next(_numbers)}_{database.parse_url(empty_url)['dbname']}"
    dbname = database.parse_url(empty_url)["dbname"]
    execute(empty_url, f"CREATE ROLE {name} LOGIN")
    execute(empty_url, f"GRANT CREATE ON DATABASE {dbname} TO {name}")
    execute(empty_url, "CREATE EXTENSION vector")
    url = database.conninfo({**database.parse_url(empty_url), "user": name})
    with conftest.engine_on(url) as engine:
        schema.upgrade(engine)
        assert value(url, PROBLEM) == "the extension dblink is not in the schema searchapp_private"
        with pytest.raises(errors.PermissionDenied) as caught:
            link.make(engine)
        _, _, rest = str(caught.value).partition("to run in the database ")
        assert rest.startswith(f"{dbname}: CREATE EXTENSION dblink")
        statements = rest.partition(": ")[2].removesuffix("; then again: searchapp db embed-link")
        execute(empty_url, statements)
        made = link.make(engine)
        assert (made.database, made.role[:16]) == (dbname, "searchapp_asker_")
        Client(engine, registry=registry).create_collection("things")
        with working(url, registry):
            query = new()
            assert is_of(embed(url, query), query, registry)


def test_an_address_that_is_not_this_servers_is_no_link(db_url: str) -> None:
    with (
        conftest.engine_on(db_url) as engine,
        pytest.raises(errors.DatabaseError, match=r"cannot log in: .*/nowhere.*pg_hba\.conf, or give --host"),
    ):
        link.make(engine, host="/nowhere")
    assert value(db_url, PROBLEM) == "embed() has no link to ask a worker by"


def test_dblink_of_somebody_elses_is_not_used(db_url: str) -> None:
    execute(db_url, "ALTER EXTENSION dblink SET SCHEMA public")
    with (
        conftest.engine_on(db_url) as engine,
        pytest.raises(
            errors.DatabaseError, match=r"dblink stands in the schema public, .*an administrator can move it"
        ),
    ):
        link.make(engine)
    assert value(db_url, PROBLEM) == "the extension dblink is not in the schema searchapp_private"


def test_a_downgrade_takes_the_link_with_it(db_url: str) -> None:
    with conftest.engine_on(db_url) as engine:
        link.make(engine)
        schema.downgrade(engine, "0006")
        assert value(db_url, "SELECT count(*) FROM pg_extension WHERE extname = 'dblink'") == 0
        schema.upgrade(engine)
        assert value(db_url, PROBLEM) == "embed() has no link to ask a worker by"
        link.make(engine)
        assert value(db_url, "SELECT searchapp_private.try_link()") is None


# What it keeps from whom


@pytest.mark.usefixtures("worker")
def test_an_open_transaction_of_somebody_who_asks_keeps_nobody_waiting(
    url: str, reader: str, registry: Registry
) -> None:
    query, known = new(), new()
    embed(url, known)
    with psycopg.connect(reader) as holder:
        for text in (query, known):
            holder.execute("SELECT searchapp.ask(%s, 'things')", [text])
        assert is_of(embed(url, query), query, registry)
        assert is_of(called(url, known), known, registry)


@pytest.mark.usefixtures("worker")
def test_a_reader_may_embed_and_call(reader: str, registry: Registry) -> None:
    for ask_for in (embed, called):
        query = new()
        assert is_of(ask_for(reader, query), query, registry)
    assert value(reader, "SELECT alive FROM searchapp.worker_status")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM searchapp_private.query_embeddings",
        "SELECT * FROM searchapp_private.secrets",
        "DELETE FROM searchapp_private.query_embeddings",
        "SELECT * FROM searchapp_private.query_requests",
        "INSERT INTO searchapp_private.query_requests (model_id, text_hash, text) VALUES (1, '', 'a')",
        "SELECT * FROM searchapp_private.dblink('searchapp_self', 'SELECT 1') AS t(a int)",
        "SELECT searchapp_private.dblink_connect('searchapp_self', 'host=nowhere.invalid')",
        "SELECT searchapp_private.dblink_exec('searchapp_self', 'SELECT 1')",
        "SELECT searchapp_private.ask_by_link('a', 1)",
        "SELECT searchapp_private.signature('a', 'b')",
        "SELECT searchapp_private.try_link()",
        "CREATE USER MAPPING FOR CURRENT_USER SERVER searchapp_self OPTIONS (user 'x', password 'y')",
        "ALTER SERVER searchapp_self OPTIONS (SET host 'nowhere.invalid')",
        "CREATE SERVER mine FOREIGN DATA WRAPPER dblink_fdw",
        "DELETE FROM searchapp_data.workers",
        "INSERT INTO searchapp_data.workers (host, doing) VALUES ('mine', 'nothing')",
    ],
)
def test_a_reader_may_nothing_else(reader: str, statement: str) -> None:
    with refusing(refused.InsufficientPrivilege):
        value(reader, statement)


def test_nobody_but_the_owner_sees_the_password(url: str, reader: str) -> None:
    options = "SELECT umoptions FROM pg_user_mappings WHERE srvname = 'searchapp_self'"
    assert "password=" in str(value(url, options))
    assert value(reader, options) is None


def test_the_asker_needs_its_password_and_may_only_ask(url: str) -> None:
    options = value(url, "SELECT umoptions FROM pg_user_mappings WHERE srvname = 'searchapp_self'")
    account = dict(each.split("=", 1) for each in options)
    found = database.parse_url(url)
    address = {name: found[name] for name in ("host", "port", "dbname")} | {"user": account["user"]}
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(database.conninfo(address))
    asker = database.conninfo({**address, "password": account["password"]})
    assert (
        value(asker, "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = current_user")
        is False
    )
    for statement in (
        "SELECT * FROM searchapp_private.query_embeddings",
        "SELECT * FROM searchapp_data.documents",
        "SELECT * FROM searchapp_data.workers",
        "SELECT searchapp_private.try_link()",
        "CREATE TABLE public.mine (a int)",
        "CREATE SCHEMA mine",
    ):
        with refusing(refused.InsufficientPrivilege):
            value(asker, statement)


@pytest.mark.usefixtures("worker")
def test_what_a_transaction_keeps_is_found_by_nobody_and_gone_with_it(url: str, reader: str) -> None:
    model = value(url, "SELECT min(id) FROM searchapp_data.models WHERE name = %s", weights.DEFAULT)
    secret = value(url, "SELECT secret FROM searchapp_private.secrets")
    query = new()
    with psycopg.connect(reader) as session:
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        first(session, EMBED, query)
        listed = session.execute("SHOW ALL").fetchall() + session.execute("SELECT name FROM pg_settings").fetchall()
        assert not [row for row in listed if row[0].startswith("searchapp.")]
        # who knows the secret finds it
        seed = first(
            session, "SELECT concat_ws(' ', pg_backend_pid(), transaction_timestamp(), %s::int, %s::text)", model, query
        )
        name = f"searchapp.kept_{hashlib.sha256(secret + seed.encode()).hexdigest()}"
        assert first(session, "SELECT current_setting(%s)", name).startswith("[")
        session.rollback()
        assert first(session, "SELECT current_setting(%s)", name) == ""


SHADOWS = """
CREATE FUNCTION {0}.sha256(bytea) RETURNS bytea LANGUAGE plpgsql AS $$BEGIN RAISE 'shadow'; END$$;
CREATE FUNCTION {0}.convert_to(text, name) RETURNS bytea LANGUAGE plpgsql AS $$BEGIN RAISE 'shadow'; END$$;
CREATE FUNCTION {0}.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE 'shadow'; END$$;
CREATE FUNCTION {0}.pg_sleep(float8) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'shadow'; END$$;
CREATE FUNCTION {0}.current_setting(text, bool) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE 'shadow'; END$$;
CREATE FUNCTION {0}.same(text, text) RETURNS bool LANGUAGE plpgsql AS $$BEGIN RAISE 'shadow'; END$$;
CREATE FUNCTION {0}.later(timestamptz, timestamptz) RETURNS bool LANGUAGE plpgsql AS $$BEGIN RAISE 'shadow'; END$$;
CREATE FUNCTION {0}.added(timestamptz, interval) RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE 'shadow'; END$$;
CREATE OPERATOR {0}.= (LEFTARG = text, RIGHTARG = text, FUNCTION = {0}.same);
CREATE OPERATOR {0}.> (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = {0}.later);
CREATE OPERATOR {0}.+ (LEFTARG = timestamptz, RIGHTARG = interval, FUNCTION = {0}.added);
CREATE DOMAIN {0}.vector AS text CHECK (false);
CREATE TEMP TABLE query_embeddings (model_id int, text_hash bytea, embedding text DEFAULT 'shadow');
CREATE TEMP TABLE workers AS SELECT now() AS seen_at;
CREATE TEMP TABLE collections AS SELECT 'things' AS name, 'ready' AS state, 1 AS active_space;
CREATE TEMP TABLE models AS SELECT 1 AS id;
CREATE TEMP TABLE pg_foreign_server AS SELECT 1 AS oid;
SET search_path = pg_temp, {0}, pg_catalog, public
"""


@pytest.mark.usefixtures("worker")
def test_shadows_on_the_search_path_change_nothing(url: str, reader: str, registry: Registry) -> None:
    role = database.parse_url(reader)["user"]
    execute(url, f"CREATE SCHEMA shadows AUTHORIZATION {role}")
    query, other = new(), new()
    with psycopg.connect(reader, autocommit=True) as session:
        session.execute(SHADOWS.format("shadows").encode())
        found = np.array(first(session, "SELECT searchapp.embed(%s, 'things')::real[]", query), np.float32)
        assert is_of(found, query, registry)
        found = np.array(json.loads(first(session, CALL, other)), np.float32)
        assert is_of(found, other, registry)


# The cache


def test_the_cache_is_bounded_and_the_oldest_go(db_url: str, registry: Registry) -> None:
    queries = [new() for _ in range(12)]
    with conftest.engine_on(db_url) as engine:
        Client(engine, registry=registry).create_collection("things")
        for part in (queries[:7], queries[7:]):
            for query in part:
                ask(db_url, query)
                ask(db_url, query)
            assert Worker(engine, registry, kept=5).run_once().queries == len(part)
    with psycopg.connect(db_url) as connection:
        hashes = connection.execute("SELECT text_hash FROM searchapp_private.query_embeddings").fetchall()
        assert {each for (each,) in hashes} == {hashlib.sha256(query.encode()).digest() for query in queries[7:]}


def ask(url: str, query: str) -> None:
    value(url, "SELECT searchapp.ask(%s, 'things')", query)


def test_workers_share(db_url: str, registry: Registry) -> None:
    queries = [new() for _ in range(80)]
    with conftest.engine_on(db_url) as engine:
        Client(engine, registry=registry).create_collection("things")
        for query in queries:
            ask(db_url, query)
        with working(db_url, registry), working(db_url, registry):
            wait_for(lambda: value(db_url, "SELECT count(*) FROM searchapp_private.query_requests") == 0)
    for query in queries[::20]:
        found = np.array(value(db_url, EMBED, query), np.float32)
        assert is_of(found, query, registry)


def test_a_worker_that_ends_takes_its_row_with_it(db_url: str, registry: Registry) -> None:
    status = "SELECT count(*) FROM searchapp.worker_status WHERE alive AND doing IN ('answering', 'loading')"
    with working(db_url, registry):
        assert value(db_url, status) == 1
    assert value(db_url, status) == 0
