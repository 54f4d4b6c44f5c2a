"""``searchapp search`` and ``searchapp similar``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import searchapp
from searchapp import errors
from searchapp.cli import options, output
from searchapp.search import hybrid
from searchapp.search.request import check_key, check_query, request


def search(
    query: Annotated[
        str,
        typer.Argument(
            metavar="QUERY", help='What to look for, in plain words; "a phrase" must be there, an -excluded word not.'
        ),
    ],
    collection: options.Collection,
    limit: options.Limit = 10,
    offset: options.Offset = 0,
    filter: options.Filter = None,
    min_score: options.MinScore = None,
    max_distance: options.MaxDistance = None,
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
    exact: options.Exact = False,
    cursor: options.Cursor = None,
    timeout: options.Timeout = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell how it is answered instead: which index, how long, what would help.")
    ] = False,
    json: options.Json = False,
    jsonl: options.Jsonl = False,
    csv: options.Csv = False,
) -> None:
    """Find the documents that mean what the query means, have its words, or both."""
    output.check_form(json, jsonl, csv)
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
    output.print_answer(hits, json, jsonl, csv)


def similar(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The document's key.")],
    collection: options.Collection,
    limit: options.Limit = 10,
    offset: options.Offset = 0,
    filter: options.Filter = None,
    min_score: options.MinScore = None,
    max_distance: options.MaxDistance = None,
    exact: options.Exact = False,
    cursor: options.Cursor = None,
    timeout: options.Timeout = None,
    json: options.Json = False,
    jsonl: options.Jsonl = False,
    csv: options.Csv = False,
) -> None:
    """Find the documents that mean what one of the collection means, which is left out."""
    output.check_form(json, jsonl, csv)
    wanted: dict[str, Any] = {
        "limit": limit,
        "offset": offset,
        "filter": options.parse_filter(filter),
        "min_score": min_score,
        "max_distance": max_distance,
        "exact": exact,
        "timeout": timeout,
    }
    check_key(key)  # before the database is asked for anything
    request(**wanted)
    with searchapp.connect() as db:
        hits = db.similar(key, collection=collection, cursor=cursor, **wanted)
    output.print_answer(hits, json, jsonl, csv)
