"""``searchapp search``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import searchapp
from searchapp import errors
from searchapp.cli import options, output
from searchapp.search.request import check_query, request


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for, in plain words.")],
    collection: options.Collection,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", help="How many hits, 1 to 100,000.")] = 10,
    offset: Annotated[
        int, typer.Option("--offset", metavar="N", help="How many of the nearest are left out before them.")
    ] = 0,
    filter: options.Filter = None,
    min_score: Annotated[
        float | None, typer.Option("--min-score", metavar="X", help="Only hits of at least this score, 1 - distance.")
    ] = None,
    max_distance: Annotated[
        float | None, typer.Option("--max-distance", metavar="X", help="Only hits no farther than this.")
    ] = None,
    mode: Annotated[str, typer.Option("--mode", metavar="MODE", help="How the question is asked: vector.")] = "vector",
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with every passage instead of asking the index.")
    ] = False,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="TEXT", help="The next page: what --exact --json gave as cursor.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", help="Let the database end the search after so long."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell how it is answered instead: which index, how long, what would help.")
    ] = False,
    json: options.Json = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON object a hit.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
) -> None:
    """Find the documents whose passages mean what the query means."""
    if sum((json, jsonl, csv)) > 1:
        raise errors.InvalidInput("give one of --json, --jsonl and --csv")
    if explain and (jsonl or csv or cursor is not None):
        raise errors.InvalidInput("--explain takes --json, but neither --jsonl nor --csv nor --cursor")
    wanted: dict[str, Any] = {
        "limit": limit,
        "offset": offset,
        "filter": options.parse_filter(filter),
        "min_score": min_score,
        "max_distance": max_distance,
        "exact": exact,
        "timeout": timeout,
    }
    check_query(query, mode)  # before the database is asked for anything
    request(**wanted)
    with searchapp.connect() as db:
        if explain:
            explanation = db.explain(query, collection=collection, mode=mode, **wanted)
            output.print_explanation(explanation, as_json=json)
            return
        hits = db.search(query, collection=collection, mode=mode, cursor=cursor, **wanted)
    if json:
        output.print_json(output.hits_as_json(hits))
    elif jsonl:
        for hit in hits:
            output.print_json(hit._asdict())
    elif csv:
        output.print_csv(hits)
    else:
        output.print_hits(hits)
