"""An index whose build is interrupted: searches go on, exactly, and say so, until `searchapp db maintain` makes it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from searchapp.client import Client
from tests.acceptance import killing
from tests.conftest import Run


@pytest.mark.parametrize("ended", ["the server's session", "the client"])
def test_an_index_that_is_interrupted_is_made_by_maintain(
    run: Run, db: Client, url: str, tmp_path: Path, ended: str
) -> None:
    source = tmp_path / "things.jsonl"
    source.write_text("".join(json.dumps({"id": n, "text": f"shoes, size {n}"}) + "\n" for n in range(300)))
    db.create_collection("things")
    with psycopg.connect(url) as holder:
        holder.execute("SELECT FROM searchapp_data.spaces FOR NO KEY UPDATE")  # so that no build ends uncaught
        ingest = killing.start_ingest(source, url)
        session = indexing_session(url, ingest)
        if ended == "the client":
            killing.kill(ingest)
            assert ingest.returncode == -signal.SIGKILL
        else:
            holder.execute("SELECT pg_terminate_backend(%s)", [session])
            output, said = ingest.communicate(timeout=60)
            assert (ingest.returncode, output, said.count(b"\n")) == (2, b"", 1)
            assert b"terminating connection due to administrator command" in said
            assert b"searches are exact and slower until: searchapp db maintain" in said
    assert answer(db) == ("42", 10, True)
    assert not db.describe("things").indexed
    assert run("db", "maintain").returncode == 0
    assert answer(db) == ("42", 10, False)
    assert db.describe("things").indexed


def indexing_session(url: str, ingest: subprocess.Popen[bytes]) -> int:
    """Wait until an index is being built; the process id of the server's session that builds it."""
    building = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND query ~ '^SELECT searchapp_data.build_index'"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        while ingest.poll() is None:
            if row := connection.execute(building).fetchone():
                return int(row[0])
            time.sleep(0.001)
    pytest.fail(f"the ingest has ended: {ingest.communicate()}")


def answer(db: Client) -> tuple[str, int, bool]:
    """The first hit's key, how many hits there are, and whether they come without an index."""
    hits = db.search("shoes, size 42", collection="things")
    return hits[0].key, len(hits), not db.space("things").indexed
