"""The wheel works in an empty environment, in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.quality

TORCH = "torch==2.13.0"  # as in the Makefile


def test_the_wheel_works_in_an_empty_environment(empty_url: str, tmp_path: Path) -> None:
    wheel = build(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert "searchapp/migrations/env.py" in names
    assert any(name.startswith("searchapp/migrations/versions/0001") for name in names)
    assert not any(name.startswith(("tests/", "migrations/")) for name in names)

    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    folder = tmp_path / "empty"
    folder.mkdir()
    run(environment / "bin" / "python", "-m", "pip", "install", "--quiet", TORCH, cwd=folder)
    run(environment / "bin" / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    command = environment / "bin" / "searchapp"
    assert run(command, "db", "upgrade", cwd=folder, DATABASE_URL=empty_url).startswith("migrated from nothing")
    (folder / "things.jsonl").write_text(
        '{"id": "shoes", "text": "Red running shoes"}\n{"id": "hat", "text": "A hat"}\n'
    )
    ingested = run(command, "ingest", "things.jsonl", "-c", "things", "--json", cwd=folder, DATABASE_URL=empty_url)
    assert json.loads(ingested)["documents"] == 2
    found = run(command, "search", "crimson sneakers", "-c", "things", "--json", cwd=folder, DATABASE_URL=empty_url)
    assert json.loads(found)["hits"][0]["key"] == "shoes"


def build(folder: Path) -> Path:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    [wheel] = folder.glob("*.whl")
    return wheel


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
