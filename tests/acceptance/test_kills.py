"""A killed ingest leaves whole documents, searches go on, and another run ends with the rows of an undisturbed one."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

from searchapp import database
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.ingest.documents import Fields
from searchapp.ingest.ingestion import Summary
from searchapp.ingest.readers import open_source
from tests import conftest
from tests.acceptance import killing

FAULTS = (
    "after-staging",
    "between-documents-and-chunks:2",
    "before-commit:2",
    "before-index",
    "during-index",
)


def test_ingest_killed_at_each_fault_point_is_finished_by_the_next_run(
    server: database.Parameters, template: str, registry: Registry, tmp_path: Path
) -> None:
    source = killing.write_source(tmp_path)
    with ExitStack() as stack:
        urls = [stack.enter_context(conftest.temporary_database(server, template)) for _ in ("undisturbed", *FAULTS)]
        undisturbed, *disturbed = urls
        ingest(undisturbed, source, registry)
        expected = killing.rows(undisturbed)
        with killing.searching(disturbed, registry) as searches, ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda url, fault: kill_and_finish(url, fault, source, registry), disturbed, FAULTS))
        assert searches
        for url in disturbed:
            killing.assert_same_rows(killing.rows(url), expected)
            with psycopg.connect(url) as connection:
                assert connection.execute("SELECT state FROM searchapp_data.spaces").fetchall() == [("ready",)]


def kill_and_finish(url: str, fault: str, source: Path, registry: Registry) -> None:
    replacing = fault == "after-staging"
    if replacing:  # new documents are not staged
        put(url, [{"key": "0", "text": "an older text"}], registry)
    process = killing.start_ingest(source, url, SEARCHAPP_FAULT=fault)
    _, said = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, (fault, said)
    with psycopg.connect(url) as connection:
        whole = "SELECT count(*), count(c.document_id) FROM searchapp_data.documents d"
        counts = connection.execute(f"{whole} LEFT JOIN searchapp_data.chunks c ON c.document_id = d.id").fetchone()
    committed = 1000 if ":2" in fault else killing.DOCUMENTS if "index" in fault else int(replacing)
    assert counts == (committed, committed)
    ingest(url, source, registry)


def ingest(url: str, source: Path, registry: Registry) -> None:
    summary = put(url, open_source(source, Fields()), registry)
    assert summary.documents + summary.unchanged == killing.DOCUMENTS
    assert summary.rejected == 0


def put(url: str, documents: Iterable[Any], registry: Registry) -> Summary:
    engine = database.create_engine(database.parse_url(url))
    try:
        return Client(engine, registry=registry).ingest(documents, collection="things")
    finally:
        engine.dispose()
