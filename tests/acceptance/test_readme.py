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
import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from searchapp.client import Client
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
            elif isinstance(names["db"], Client):
                db = names["db"]
        assert len(names["rows"]) == 2
        assert names["products"] == names["documents"] == []
        assert len(names["hits"]) == 2
        assert (names["near"], len(names["second"])) == (0, 1)
        db.close()
    assert capsys.readouterr().out.startswith("1 0.")


def test_commands_of_the_readme_run(run: Run, tmp_path: Path, url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE TABLE public.products (id int PRIMARY KEY, name text, description text, price int, brand text)"
        )
    (tmp_path / "articles.jsonl").write_text(
        '{"id": 1, "text": "Red shoes", "lang": "en", "year": 2024}\n{"id": 2, "text": "Rote Schuhe", "lang": "de"}\n'
        '{"id": 3, "text": "XC-4711, running shoes, made in Portugal", "lang": "en", "year": 2019}\n'
    )
    (tmp_path / "scifact" / "qrels").mkdir(parents=True)
    (tmp_path / "scifact" / "corpus.jsonl").write_text('{"_id": "1", "title": "Shoes", "text": "Red running shoes"}\n')
    (tmp_path / "scifact" / "queries.jsonl").write_text('{"_id": "7", "text": "red shoes"}\n')
    (tmp_path / "scifact" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n7\t1\t1\n")
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("searchapp ")]
    commands += re.findall(r"`(searchapp ingest [^`]*--vectors [^`]*)`", README)
    np.save(tmp_path / "articles.npy", np.eye(3, 384))
    assert len(commands) >= 3
    for command in commands:
        done = run(*shlex.split(command, comments=True)[1:])
        assert done.returncode == 0, (command, done.stderr)
        if "search " in command:
            assert re.search(r"\b[1-9] hits?\b", done.stdout), (command, done.stdout)


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)$", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
