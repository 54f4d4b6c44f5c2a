"""The tree of commands."""

from __future__ import annotations

from typing import Annotated

import typer

import searchapp
from searchapp.cli import collection, db, demo, documents, evaluate, index, ingest, search, source, tune, worker

app = typer.Typer(
    name="searchapp",
    help="Semantic search that lives in the PostgreSQL you already run.",
    epilog="The database is DATABASE_URL, else an embedded server under SEARCHAPP_HOME, started when needed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"searchapp {searchapp.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error comes from (anywhere on the line).")
    ] = False,
) -> None:
    """Semantic search that lives in the PostgreSQL you already run."""


app.command("demo")(demo.demo)
app.command("ingest")(ingest.ingest)
app.command("search")(search.search)
app.command("similar")(search.similar)
app.command("facets")(search.facets)
app.command("context")(search.context)
app.command("get")(documents.get)
app.command("delete")(documents.delete)
app.command("tune")(tune.tune)
app.add_typer(collection.app, name="collection", help="List, create, show and drop collections.")
app.add_typer(index.app, name="index", help="Make indexes of collections that lack them.")
app.add_typer(evaluate.app, name="eval", help="Measure how good hits are on labelled data; compare two such runs.")
app.add_typer(worker.app, name="worker")
app.add_typer(source.app, name="source", help="Keep tables of yours in step with collections.")
app.command("status")(source.status)
app.add_typer(db.app, name="db", help="Look after the database.")
