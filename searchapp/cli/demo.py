"""``searchapp demo``: real search over real text, from nothing."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import searchapp
from searchapp import schema
from searchapp.cli import corpus, ingest, output
from searchapp.connecting import open_engine

COLLECTION = "demo_stdlib"
QUESTIONS = (
    "run a shell command and capture its output",
    "remove duplicates while keeping order",
    "make a temporary folder that is deleted afterwards",
    "measure the execution time of a small piece of code",
    "find the most common elements",
    "pick a random item",
)


def demo() -> None:
    """Search Python's own documentation. The first time it is ingested."""
    engine = open_engine(migrate=False)
    schema.upgrade(engine)
    with searchapp.connect(engine=engine) as db:
        print(f"reading the docstrings of Python {sys.version.split()[0]}'s standard library ...", flush=True)
        documents = list(corpus.documents())
        with ingest.progress_bar(len(documents), lambda made: made.documents) as show:
            summary = db.ingest(
                documents, collection=COLLECTION, chunk_tokens=0, prune=True, yes=True, on_progress=show
            )
        ingest.report(summary, None, as_json=False)
        for question in QUESTIONS:
            print(f"\n? {question}")
            output.print_hits(db.search(question, collection=COLLECTION, limit=3))
    print(f"\nNow ask your own:  {_command()} search 'parse command line options' --collection {COLLECTION}")


def _command() -> str:
    """How this command is to be typed: by its name where the shell finds it, else by its path."""
    if shutil.which("searchapp"):
        return "searchapp"
    return os.path.relpath(Path(sys.executable).with_name("searchapp"))
