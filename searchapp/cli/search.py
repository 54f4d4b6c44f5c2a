"""``searchapp search``."""

from __future__ import annotations

from typing import Annotated

import typer

import searchapp
from searchapp import errors
from searchapp.cli import options, output
from searchapp.client import check_search


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for, in plain words.")],
    collection: options.Collection,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", help="How many hits, 1 to 100,000.")] = 10,
    filter: options.Filter = None,
    mode: Annotated[str, typer.Option("--mode", metavar="MODE", help="How the question is asked: vector.")] = "vector",
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with every passage instead of asking the index.")
    ] = False,
    json: options.Json = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON object a hit.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
) -> None:
    """Find the documents whose passages mean what the query means."""
    if sum((json, jsonl, csv)) > 1:
        raise errors.InvalidInput("give one of --json, --jsonl and --csv")
    parsed = options.parse_filter(filter)
    check_search(query, mode, limit, parsed)  # before the database is asked for anything
    with searchapp.connect() as db:
        hits = db.search(query, collection=collection, mode=mode, limit=limit, filter=parsed, exact=exact)
    if json:
        output.print_json(output.hits_as_json(hits))
    elif jsonl:
        for hit in hits:
            output.print_json(hit._asdict())
    elif csv:
        output.print_csv(hits)
    else:
        output.print_hits(hits)
