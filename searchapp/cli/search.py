"""What asks: ``searchapp search``, ``similar``, ``facets`` and ``context``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import searchapp
from searchapp import errors
from searchapp.cli import options, output
from searchapp.search import hybrid, reranking
from searchapp.search.arrangement import arrangement
from searchapp.search.context import check_budget
from searchapp.search.examples import check_examples
from searchapp.search.question import AVERAGE
from searchapp.search.request import check_query, request


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
    passages: options.Passages = 1,
    diversity: options.Diversity = None,
    boost: options.Boost = None,
    decay: options.Decay = None,
    group_by: options.GroupBy = None,
    group_size: options.GroupSize = 3,
    rerank: Annotated[
        str | None,
        typer.Option(
            "--rerank",
            metavar="NAME|PATH",
            help="A cross-encoder that reads the best hits again and puts them in order.",
        ),
    ] = None,
    rerank_top: Annotated[
        int, typer.Option("--rerank-top", metavar="N", help="How many hits it reads at least, 1 to 1,000.")
    ] = reranking.DEFAULT_TOP,
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
    arranged = options.parse_arrangement(passages, diversity, boost, decay, group_by, group_size)
    if explain and (jsonl or csv or cursor is not None or rerank is not None or arrangement(**arranged)):
        raise errors.InvalidInput(
            "--explain takes --json, but neither --jsonl nor --csv nor --cursor, nor what arranges or reranks hits"
        )
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
    asked = request(**wanted, arrangement=arrangement(**arranged))
    if rerank is not None:
        reranking.candidates(asked, rerank, rerank_top, cursor)
    fused: dict[str, Any] = {"fusion": fusion, "weights": options.parse_weights(weights)}
    hybrid.fusion(fusion, fused["weights"])
    readable = not (json or jsonl or csv)
    with searchapp.connect() as db:
        if explain:
            explanation = db.explain(query, collection=collection, mode=mode, **fused, **wanted)
            output.print_explanation(explanation, as_json=json)
            return
        marked = highlight or readable
        wanted |= {"rerank": rerank, "rerank_top": rerank_top, **arranged}
        hits = db.search(query, collection=collection, mode=mode, cursor=cursor, highlight=marked, **fused, **wanted)
    output.print_answer(hits, json, jsonl, csv)


def similar(
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="Documents that hits are to be like.")],
    collection: options.Collection,
    unlike: Annotated[
        list[str] | None, typer.Option("--unlike", metavar="KEY", help="One they are to be unlike. Repeatable.")
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            metavar="NAME",
            help="average: near to all examples on average; best_score: compared with every one.",
        ),
    ] = AVERAGE,
    limit: options.Limit = 10,
    offset: options.Offset = 0,
    filter: options.Filter = None,
    min_score: options.MinScore = None,
    max_distance: options.MaxDistance = None,
    passages: options.Passages = 1,
    diversity: options.Diversity = None,
    boost: options.Boost = None,
    decay: options.Decay = None,
    group_by: options.GroupBy = None,
    group_size: options.GroupSize = 3,
    exact: options.Exact = False,
    cursor: options.Cursor = None,
    timeout: options.Timeout = None,
    json: options.Json = False,
    jsonl: options.Jsonl = False,
    csv: options.Csv = False,
) -> None:
    """Find the documents that mean what others of the collection mean; these are left out."""
    output.check_form(json, jsonl, csv)
    arranged = options.parse_arrangement(passages, diversity, boost, decay, group_by, group_size)
    wanted: dict[str, Any] = {
        "limit": limit,
        "offset": offset,
        "filter": options.parse_filter(filter),
        "min_score": min_score,
        "max_distance": max_distance,
        "exact": exact,
        "timeout": timeout,
    }
    check_examples(keys, unlike or (), strategy, arrangement(**arranged))  # before the database is asked for anything
    request(**wanted)
    by_examples = len(keys) > 1 or bool(unlike) or strategy != AVERAGE
    if by_examples and cursor is not None:
        raise errors.InvalidInput(
            "--cursor goes with a single KEY and the strategy average; with what else is asked there is --offset"
        )
    with searchapp.connect() as db:
        if by_examples:
            hits = db.search_by_examples(
                keys, unlike or (), collection=collection, strategy=strategy, **wanted, **arranged
            )
        else:
            hits = db.similar(keys[0], collection=collection, cursor=cursor, **wanted, **arranged)
    output.print_answer(hits, json, jsonl, csv)


def facets(
    field: Annotated[str, typer.Argument(metavar="FIELD", help="A field of the metadata, with dots into objects.")],
    collection: options.Collection,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", help="How many values.")] = 20,
    filter: options.Filter = None,
    query: Annotated[
        str | None,
        typer.Option("--query", metavar="TEXT", help="Count in the first hits of this search, not in all documents."),
    ] = None,
    first: Annotated[
        int | None, typer.Option("--first", metavar="N", help="In how many hits, with --query (default 100).")
    ] = None,
    mode: options.Mode = None,
    timeout: options.Timeout = None,
    json: options.Json = False,
) -> None:
    """Count the documents of each value of a field."""
    asked: dict[str, Any] = {
        "filter": options.parse_filter(filter),
        "query": query,
        "first": first,
        "mode": mode,
        "timeout": timeout,
    }
    with searchapp.connect() as db:
        found = db.facets(field, collection=collection, limit=limit, **asked)
    if json:
        values = [count._asdict() for count in found]
        output.print_json({"field": found.field, "values": values, "first": found.first})
        return
    rows = [{"value": output.shown_value(value), "documents": f"{count:,}"} for value, count in found]
    output.print_table(rows, f"no document has a value in {output.one_line(field)}")


def context(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The question that is to be answered.")],
    collection: options.Collection,
    token_budget: Annotated[
        int, typer.Option("--token-budget", metavar="N", help="How many tokens there may be, by the model's tokenizer.")
    ] = 2000,
    mode: options.Mode = None,
    filter: options.Filter = None,
    min_score: options.MinScore = None,
    max_distance: options.MaxDistance = None,
    neighbours: Annotated[
        int, typer.Option("--neighbours", metavar="N", help="How many passages before and behind belong to each.")
    ] = 1,
    timeout: options.Timeout = None,
    json: options.Json = False,
) -> None:
    """Put the best passages for a question together, as numbered sources for a language model."""
    check_query(query, mode)  # before the database is asked for anything
    check_budget(token_budget, neighbours)
    with searchapp.connect() as db:
        found = db.context(
            query,
            collection=collection,
            token_budget=token_budget,
            mode=mode,
            filter=options.parse_filter(filter),
            min_score=min_score,
            max_distance=max_distance,
            neighbours=neighbours,
            timeout=timeout,
        )
    if json:
        passages = [passage._asdict() for passage in found.passages]
        output.print_json({"passages": passages, "text": found.text, "tokens": found.tokens})
    elif found.text:
        print(output.printable(found.text))
    else:
        print("nothing was found")
