"""What the README tells people to type works."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from tests.conftest import ROOT, Run

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_python_of_the_readme_runs(
    url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with Session(engine) as session:
        names: dict[str, Any] = {"engine": engine, "session": session, "vector": np.ones(384, dtype=np.float32)}
        names |= {"documents": [{"key": "1", "text": "Red shoes"}], "vectors": np.ones((1, 384))}
        for block in blocks("python"):
            waited = eval(compile(block, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True), names)
            if inspect.iscoroutine(waited):
                asyncio.run(waited)
            else:
                db = names["db"]
        assert len(names["rows"]) == 2
        assert names["products"] == names["documents"] == []
        assert len(names["hits"]) == 2
        assert (names["near"], len(names["second"])) == (0, 1)
        db.close()
    assert capsys.readouterr().out.startswith("1 0.")


def test_commands_of_the_readme_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "articles.jsonl").write_text(
        '{"id": 1, "text": "Red shoes", "lang": "en", "year": 2024}\n{"id": 2, "text": "Rote Schuhe", "lang": "de"}\n'
    )
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("searchapp ")]
    commands += re.findall(r"`(searchapp ingest [^`]*--vectors [^`]*)`", README)
    np.save(tmp_path / "articles.npy", np.eye(2, 384))
    assert len(commands) >= 3
    for command in commands:
        done = run(*shlex.split(command, comments=True)[1:])
        assert done.returncode == 0, (command, done.stderr)
        if "search " in command:
            assert "1 hit" in done.stdout


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)$", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
