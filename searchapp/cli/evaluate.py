"""``searchapp eval``."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import searchapp
from searchapp.cli import ingest, options, output
from searchapp.evaluation.runs import Comparison, Evaluated


class _RunUnlessNamed(TyperGroup):
    """``eval FOLDER`` is ``eval run FOLDER``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(no_args_is_help=True, cls=_RunUnlessNamed, subcommand_metavar="FOLDER | compare RUN RUN")


@app.command()
def run(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="In BEIR's layout: corpus.jsonl, queries.jsonl, qrels/test.tsv.")
    ],
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection",
            "-c",
            metavar="NAME",
            help="Whose hits are measured, as it is. Default: eval_ and the folder's name, made of the corpus.",
        ),
    ] = None,
    mode: options.Mode = None,
    model: options.Model = None,
    chunk_tokens: Annotated[
        int | None,
        typer.Option("--chunk-tokens", metavar="N", help="Tokens a passage of a new collection. Default: no chunking."),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option("--vectors", metavar="FILE.npy", help="Embeddings of the corpus that are there already."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Measure how good the hits are on labelled data, and store the run."""
    tokens = options.chunk_tokens(chunk_tokens, no_chunking=False)
    given = None if vectors is None else ingest.read_array(vectors)
    with ExitStack() as stack:
        db = stack.enter_context(searchapp.connect())
        show = stack.enter_context(ingest.progress_bar(None, lambda made: made.documents))
        found = db.evaluate(
            folder,
            collection=collection,
            mode=mode,
            model=model,
            chunk_tokens=tokens,
            vectors=given,
            on_progress=show,
        )
    if json:
        output.print_json(_flat(found))
        return
    print(f"run {found.run}: {found.dataset}, {found.queries:,} queries in the mode {found.mode}")
    for name, value in found.measures.items():
        print(f"{name:<12} {value:.4f}")
    print(f"{'p50, p95':<12} {found.p50:.1f} ms, {found.p95:.1f} ms in the database")


@app.command()
def compare(
    one: Annotated[int, typer.Argument(metavar="RUN", help="The run that is compared with.")],
    other: Annotated[int, typer.Argument(metavar="RUN", help="The run that is compared.")],
    json: options.Json = False,
) -> None:
    """Compare two runs on the same data: what differs, how likely by chance, and which queries moved most."""
    with searchapp.connect() as db:
        found = db.compare(one, other)
    if json:
        output.print_json(dataclasses.asdict(found))
    else:
        _print_comparison(found)


def _flat(found: Evaluated) -> dict[str, Any]:
    values = dataclasses.asdict(found)
    measured = values.pop("measures")
    return {**measured, **values}


def _print_comparison(found: Comparison) -> None:
    print(f"run {found.other} against run {found.one}, on {found.queries:,} queries")
    output.print_table(
        [
            {
                "measure": each.measure,
                f"run {found.one}": f"{each.one:.4f}",
                f"run {found.other}": f"{each.other:.4f}",
                "difference": f"{each.difference:+.4f}",
                "p": f"{each.p:.4f}",
            }
            for each in found.differences
        ],
        none="",
    )
    if found.moved:
        print("\nmoved most, by ndcg@10:")
    for moved in found.moved:
        print(f"{moved.one:.3f} -> {moved.other:.3f}  {moved.query_id}  {output.one_line(moved.query)}")
