"""Running the command ``searchapp`` as a process: several calls side by side, and calls that must not load a model."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from searchapp import cli
from tests import forking

Done = subprocess.CompletedProcess[str]


def run_command(
    url: str, folder: Path, *arguments: str, stdin: bytes = b"", stdout: int | None = None, **environment: str
) -> Done:
    """Run the command in a folder, on a database."""
    given = {**os.environ, "DATABASE_URL": url, **environment}
    return forking.run_command(arguments, folder=folder, environment=given, stdin=stdin, stdout=stdout)


def programs(url: str) -> Path:
    """The folder of the server's own programs, psql among them."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT setting FROM pg_config WHERE name = 'BINDIR'").fetchone()
    assert row is not None
    return Path(row[0])


def psql(url: str, statements: str) -> str:
    """What psql prints, its errors too."""
    command = [str(programs(url) / "psql"), "--no-psqlrc", "--quiet", "--set=VERBOSITY=terse", url]
    out, both = subprocess.PIPE, subprocess.STDOUT
    options = {**os.environ, "PGOPTIONS": "-c searchapp.timeout=60s"}  # a worker may be loading its model
    done = subprocess.run(command, input=statements, stdout=out, stderr=both, text=True, env=options, check=False)
    return done.stdout


def run_all(url: str, folder: Path, calls: Iterable[Sequence[str]]) -> list[Done]:
    """Run the command once a call, two at a time: most of it is importing."""
    with ThreadPoolExecutor(2) as pool:  # whose threads would wait for each other
        return list(pool.map(lambda call: run_command(url, folder, *call, OMP_NUM_THREADS="1"), calls))


def forbid_models(folder: Path) -> None:
    """Let every process that runs in this folder and loads a model fail: its modules are found before all others."""
    for name in ("sentence_transformers", "onnxruntime"):
        (folder / f"{name}.py").write_text("raise SystemExit('a model was loaded')\n")


def call(*arguments: str) -> int:
    """The exit code of the command in this process, where no model is loaded for it and no server asked."""
    return cli._run(list(arguments), debug=False)


def error_of(done: Done) -> str:
    """The error that a call ended with, which is one line and the only one."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("searchapp: error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("searchapp: error: ").strip()
