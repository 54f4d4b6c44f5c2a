"""A full disk under the server: one line that says so, searches go on, and with room again all is made up for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from searchapp import database
from searchapp.client import Client
from searchapp.ingest.documents import Fields
from searchapp.ingest.readers import open_source
from tests import conftest
from tests.acceptance import commands
from tests.conftest import Run

DOCUMENTS = 300
FULL = "No space left on device"


@pytest.fixture(scope="module")
def disk(server: database.Parameters) -> Iterator[Path]:
    """A disk of 16 MB, on which the run's server has the tablespace ``small``."""
    folder = Path(tempfile.mkdtemp(prefix="searchapp-tests-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0755", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.partition(os.linesep)[0]}")
    try:
        with psycopg.connect(**server) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
        assert row is not None
        place = folder / "space"
        place.mkdir(mode=0o700)
        shutil.chown(place, Path(row[0]).owner(), Path(row[0]).group())
        conftest._administer(server, f"CREATE TABLESPACE small LOCATION '{place}'")
        yield folder
        conftest._administer(server, "DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


@pytest.fixture
def url(server: database.Parameters, template: str, disk: Path) -> Iterator[str]:
    """A migrated database that lies on the small disk, its temporary tables too."""
    make_room(disk)
    with conftest.temporary_database(server, f"{template} TABLESPACE small") as url:
        yield url


def fill_up(disk: Path) -> None:
    """Leave 100 kB."""
    room = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes(room.f_bavail * room.f_frsize - 100_000))


def make_room(disk: Path) -> None:
    (disk / "ballast").unlink(missing_ok=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "things.jsonl"
    path.write_text("".join(json.dumps({"id": n, "text": f"shoes, size {n}"}) + "\n" for n in range(DOCUMENTS)))
    return path


def counts(url: str) -> tuple[int, int]:
    """How many documents there are, and how many of these have their chunk."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*), count(c.document_id) FROM searchapp_data.documents d"
            " LEFT JOIN searchapp_data.chunks c ON c.document_id = d.id"
        ).fetchone()
    assert row is not None
    return row


def test_a_disk_that_is_full_while_documents_are_written(
    run: Run, db: Client, url: str, disk: Path, source: Path
) -> None:
    db.ingest([{"key": "hat", "text": "A blue woollen hat"}], collection="things")
    fill_up(disk)
    assert FULL in commands.error_of(run("ingest", str(source), "--collection", "things"))
    assert counts(url) == (1, 1)
    found = run("search", "headgear", "--collection", "things", "--json")
    assert (found.returncode, found.stderr) == (0, "")
    assert [hit["key"] for hit in json.loads(found.stdout)["hits"]] == ["hat"]
    make_room(disk)
    assert db.ingest(open_source(source, Fields()), collection="things").documents == DOCUMENTS
    assert counts(url) == (DOCUMENTS + 1, DOCUMENTS + 1)


def test_a_disk_that_is_full_while_the_index_is_built(run: Run, db: Client, disk: Path, source: Path) -> None:
    """Searches are exact until `searchapp db maintain` has found room for the index."""
    put_in_without_index(db, source)
    fill_up(disk)
    for command in (["ingest", str(source), "--collection", "things"], ["db", "maintain"]):
        said = commands.error_of(run(*command))
        assert FULL in said
        assert "searches are exact and slower until: searchapp db maintain" in said
        assert answer(db) == ("42", 10, True)
    make_room(disk)
    assert run("db", "maintain").returncode == 0
    assert answer(db) == ("42", 10, False)


def put_in_without_index(db: Client, source: Path) -> None:
    """Ingest in a transaction of the caller's, which makes no index."""
    assert db._engine is not None
    with db._engine.begin() as connection:
        mine = Client(connection=connection, registry=db._registry)
        mine.ingest(open_source(source, Fields()), collection="things")


def answer(db: Client) -> tuple[str, int, bool]:
    """The first hit's key, how many hits there are, and whether they come without an index."""
    hits = db.search("shoes, size 42", collection="things")
    return hits[0].key, len(hits), not db.space("things").indexed
