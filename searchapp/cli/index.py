"""``searchapp index``."""

from __future__ import annotations

import typer

import searchapp
from searchapp.cli import ingest, options, output
from searchapp.ingest.backfill import Backfilled
from searchapp.ingest.ingestion import Progress

app = typer.Typer(no_args_is_help=True)


@app.callback()
def root() -> None:
    """Make indexes of collections that lack them."""


@app.command()
def words(collection: options.Collection, language: options.Language = None) -> None:
    """Make words for a collection that has none, so that it is searched by them, too. Interrupted, it goes on later."""
    with searchapp.connect() as db:
        total = db.count(collection=collection)
        with ingest.progress_bar(total, lambda made: made.documents, "making words") as show:

            def told(made: Backfilled) -> None:
                if show is not None:
                    show(Progress(made.documents))

            made = db.make_words(collection, language=language, on_progress=told)
        found = db.space(collection).language
    print(f"{collection} has words ({found}): {output.counted(made, 'document')} read")
