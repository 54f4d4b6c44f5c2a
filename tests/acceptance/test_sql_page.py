"""What docs/sql.md shows is what comes out, in psql."""

from __future__ import annotations

import json
import re
import shlex
from contextlib import ExitStack
from pathlib import Path

from tests.acceptance.commands import psql, run_command
from tests.conftest import ROOT
from tests.workers import worker_process

PRODUCTS = [
    ("trainers", "Trainers", "Light shoes for running on roads and tracks", {"season": "summer", "stock": 7}),
    ("boots", "Winter boots", "Lined leather boots that keep feet dry in snow", {"season": "winter", "stock": 0}),
    ("clogs", "Clogs", "Wooden shoes with a leather upper", {"season": "summer", "stock": 3}),
    ("hat", "Woollen hat", "A knitted hat that covers the ears", {"season": "winter", "stock": 12}),
    ("scarf", "Scarf", "A long warm scarf of merino wool", {"season": "winter", "stock": 4}),
    ("lamp", "Desk lamp", "A lamp with an arm, bright enough for reading at night", {"season": "winter", "stock": 9}),
]
BLOCK = re.compile(r"^```(sh|sql|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_page_is_true(url: str, tmp_path: Path) -> None:
    rows = [{"key": key, "title": title, "text": text, **more} for key, title, text, more in PRODUCTS]
    (tmp_path / "products.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    blocks = BLOCK.findall((ROOT / "docs" / "sql.md").read_text(encoding="utf-8"))
    assert len(blocks) > 15
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
    psql(url, "DROP ROLE ann")  # which is the cluster's


def trimmed(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def run(url: str, folder: Path, line: str) -> str:
    """What a command of the page prints."""
    name, *arguments = shlex.split(line, comments=True)
    assert name == "searchapp"
    done = run_command(url, folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout
