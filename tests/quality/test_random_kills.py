"""Thirty kills of an ingest at random moments: each time the next run ends with the rows of an undisturbed one."""

from __future__ import annotations

import random
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from searchapp import database
from searchapp.encoders import weights
from searchapp.encoders.registry import Registry
from tests import conftest
from tests.acceptance import killing
from tests.acceptance.test_kills import ingest

pytestmark = pytest.mark.quality

KILLS = 30


def test_kills_at_random_moments_lose_nothing(
    server: database.Parameters, template: str, registry: Registry, tmp_path: Path
) -> None:
    source = killing.write_source(tmp_path)
    registry.encoder(weights.DEFAULT)  # its graph is exported now, not in the run whose time is taken
    chance = random.Random(2026)
    with ExitStack() as stack:
        undisturbed = stack.enter_context(conftest.temporary_database(server, template))
        started = time.monotonic()
        whole = killing.start_ingest(source, undisturbed)
        assert whole.wait() == 0
        whole.communicate()
        duration = time.monotonic() - started
        expected = killing.rows(undisturbed)
        killed = 0
        for _ in range(KILLS):
            with conftest.temporary_database(server, template) as url, killing.searching([url], registry):
                process = killing.start_ingest(source, url)
                try:
                    process.wait(timeout=chance.uniform(0.3, 1.1) * duration)
                    process.communicate()
                except subprocess.TimeoutExpired:
                    killing.kill(process)
                    killed += 1
                ingest(url, source, registry)
                killing.assert_same_rows(killing.rows(url), expected)
        print(f"\n{killed} of {KILLS} runs were killed before their end, after up to {duration:.1f} s")
        assert killed >= KILLS / 2
