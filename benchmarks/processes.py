"""The command as a process: a first search, and the memory that an ingest takes."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import timing
from benchmarks.bench import MODEL, Bench, benchmark
from benchmarks.environment import ROOT
from benchmarks.goals import Result
from searchapp.ingest.documents import Document

COMMAND = (sys.executable, "-m", "searchapp")
# So few words are left of a line where memory is measured: encoding whole ones would take longer than all the rest.
WORDS = 2
POLLED = 0.02  # seconds


def cold_process(bench: Bench) -> Result:
    """A fresh process, from its start to its end, that prints ten hits; the graph was exported before."""
    name = bench.collection(bench.rows).name
    bench.registry.encoder(MODEL)
    queries = itertools.cycle(bench.corpus.queries)

    def search() -> float:
        command = ["search", next(queries), "--collection", name, "--json"]
        started = time.perf_counter()
        printed = run(bench.url, command)
        took = time.perf_counter() - started
        if len(json.loads(printed)["hits"]) != 10:
            raise RuntimeError("the command did not print ten hits")
        return took

    timing.warm_up({"search": search}, bench.say)
    rounds = timing.take_turns({"search": search}, bench.sizes.rounds, bench.say)
    return Result({"cold process to the first hit": rounds.median("search")}, rounds.details("s"))


def ingest_memory(bench: Bench) -> Result:
    """The resident memory of an ingest of all documents, and of a third of them."""
    bench.registry.encoder(MODEL)
    third = bench.rows // 3
    sizes = {count: memory_of_ingest(bench, bench.corpus.documents[:count]) for count in (third, bench.rows)}
    return Result(
        {
            "ingest memory: all documents against a third": sizes[bench.rows] / sizes[third],
            "ingest memory: resident, GB": sizes[bench.rows] / 1e9,
        },
        {
            "documents": f"{bench.rows:,} and {third:,}: the first {WORDS} words of each line, by searchapp ingest",
            **{f"resident at {count:,} documents, MB": size / 1e6 for count, size in sizes.items()},
        },
    )


def memory_of_ingest(bench: Bench, documents: Sequence[Document]) -> int:
    """Ingest documents' first words by the command; the most memory that it had resident, in bytes."""
    bench.say(f"ingesting {len(documents):,} short texts")
    name = f"memory_{len(documents)}"
    source = bench.home / f"{name}.jsonl"
    with source.open("w", encoding="utf-8") as file:
        for document in documents:
            print(json.dumps({"id": document.key, "text": first_words(document.text)}), file=file)
    most = most_resident(bench.url, ["ingest", str(source), "--collection", name])
    source.unlink()
    if (count := bench.db.count(collection=name)) != len(documents):
        raise RuntimeError(f"of {len(documents):,} documents {count:,} were ingested")
    bench.drop(name)
    return most


def first_words(text: str) -> str:
    """The beginning of a text.

    >>> first_words("vim: Vi IMproved")
    'vim: Vi'
    """
    return " ".join(text.split()[:WORDS])


def run(url: str, arguments: Sequence[str]) -> str:
    """Run the command on a database; what it printed.

    :raises RuntimeError: it failed; with its last line.
    """
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, **surroundings(url))
    check(done.returncode, done.stderr)
    printed: str = done.stdout
    return printed


def most_resident(url: str, arguments: Sequence[str]) -> int:
    """Run the command on a database; the most memory that it had resident, in bytes.

    Not by ``ru_maxrss``: that counts what this process had when it forked.

    :raises RuntimeError: it failed, or the system does not say how much memory a process has.
    """
    most = 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([*COMMAND, *arguments], stdout=output, stderr=output, **surroundings(url))
        try:
            while process.poll() is None:
                most = max(most, resident(process.pid))
                time.sleep(POLLED)
        finally:
            process.kill()
        output.seek(0)
        check(process.returncode, output.read())
    if not most:
        raise RuntimeError("the system does not say how much memory a process has (Linux does, in /proc)")
    return most


def surroundings(url: str) -> dict[str, Any]:
    """What a process of the command is given."""
    return {"env": {**os.environ, "DATABASE_URL": url}, "cwd": ROOT, "stdin": subprocess.DEVNULL}


def resident(pid: int) -> int:
    """The most memory that a running process has had resident, in bytes; 0 where the system does not say."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else 0


def check(status: int, printed: str) -> None:
    """Check that a command has not failed.

    :raises RuntimeError: it has; with its last line.
    """
    if status:
        lines = [line for line in printed.splitlines() if line.strip()]
        raise RuntimeError(f"the command failed: {lines[-1] if lines else status}")


COLD = benchmark("cold process", cold_process, {"cold process to the first hit": ("<= 1.2", "s")})
MEMORY = benchmark(
    "ingest memory",
    ingest_memory,
    {
        "ingest memory: all documents against a third": ("<= 1.1", "x"),
        "ingest memory: resident, GB": ("<= 1.2", "GB"),
    },
)
