"""``searchapp search``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import searchapp
from searchapp import errors
from searchapp.cli import options, output
from searchapp.search import hybrid
from searchapp.search.request import check_query, request


def search(
    query: Annotated[
        str,
        typer.Argument(
            metavar="QUERY", help='What to look for, in plain words; "a phrase" must be there, an -excluded word not.'
        ),
    ],
    collection: options.Collection,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", help="How many hits, 1 to 100,000.")] = 10,
    offset: Annotated[
        int, typer.Option("--offset", metavar="N", help="How many of the nearest are left out before them.")
    ] = 0,
    filter: options.Filter = None,
    min_score: Annotated[
        float | None, typer.Option("--min-score", metavar="X", help="Only hits of at least this score.")
    ] = None,
    max_distance: Annotated[
        float | None, typer.Option("--max-distance", metavar="X", help="Only hits no farther than this.")
    ] = None,
    mode: options.Mode = None,
    fusion: Annotated[
        str | None,
        typer.Option(
            "--fusion", metavar="NAME", help="How a hybrid's two scores become one: convex (default), or rrf, by ranks."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="X,Y", help="Of meaning and of words in a hybrid. Default: 0.8,0.2."),
    ] = None,
    highlight: Annotated[
        bool, typer.Option("--highlight", help="With --json, --jsonl: say where words of the query stand in passages.")
    ] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with every passage instead of asking the index.")
    ] = False,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="TEXT", help="The next page: what --json gave as cursor.")
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
    """Find the documents that mean what the query means, have its words, or both."""
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
    fused: dict[str, Any] = {"fusion": fusion, "weights": options.parse_weights(weights)}
    hybrid.fusion(fusion, fused["weights"])
    readable = not (json or jsonl or csv)
    with searchapp.connect() as db:
        if explain:
            explanation = db.explain(query, collection=collection, mode=mode, **fused, **wanted)
            output.print_explanation(explanation, as_json=json)
            return
        marked = highlight or readable
        hits = db.search(query, collection=collection, mode=mode, cursor=cursor, highlight=marked, **fused, **wanted)
    if json:
        output.print_json(output.hits_as_json(hits))
    elif jsonl:
        for hit in hits:
            output.print_json(hit._asdict())
    elif csv:
        output.print_csv(hits)
    else:
        output.print_hits(hits)
