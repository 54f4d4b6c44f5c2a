"""What docs/sources.md shows is what comes out, in psql."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import psycopg

from tests.acceptance.commands import psql
from tests.acceptance.test_sql_page import BLOCK, run, trimmed
from tests.conftest import ROOT
from tests.workers import wait_for, worker_process

IN_STEP = """
SELECT bool_and(backfilled AND pending = 0 AND checked_at IS NOT NULL OR state <> 'running')
FROM searchapp.source_status
"""


def test_the_page_is_true(url: str, tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "sources.md").read_text(encoding="utf-8"))
    assert len(blocks) > 25
    with ExitStack() as workers:
        for place, (kind, block) in enumerate(blocks):
            if kind == "sh":
                for line in block.splitlines():
                    if line == "searchapp worker &":
                        workers.enter_context(worker_process(url))
                    else:
                        run(url, tmp_path, line)
            elif kind == "sql":
                said = psql(url, block)
                shown = blocks[place + 1] if place + 1 < len(blocks) else ("", "")
                if shown[0] == "text":
                    assert trimmed(said) == trimmed(shown[1]), block
            wait_for(lambda: in_step(url))


def in_step(url: str) -> bool:
    """Whether nothing waits: the moment that the page speaks of is over."""
    with psycopg.connect(url) as connection:
        row = connection.execute(IN_STEP).fetchone()
    assert row is not None
    return row[0] is not False
