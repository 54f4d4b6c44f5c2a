"""``searchapp tune``."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

import searchapp
from searchapp.cli import options, output
from searchapp.evaluation.tuning import Measured, check_recall


def tune(
    collection: options.Collection,
    recall: Annotated[
        float, typer.Option("--recall", metavar="X", help="How much of the ten nearest is to be found, up to 1.")
    ] = 0.99,
    json: options.Json = False,
) -> None:
    """Measure how much the index finds of what exact search does, and set it to be as fast as the recall allows."""
    check_recall(recall)  # before the database is asked for anything
    shown: list[Measured] = []

    def show(measured: Measured) -> None:
        if not shown:
            print("ef_search  recall@10    p50 ms    p95 ms")
        shown.append(measured)
        mark = "  chosen" if measured.recall >= recall else ""
        figures = f"{measured.recall:9.4f}  {measured.p50_ms:8.2f}  {measured.p95_ms:8.2f}"
        print(f"{measured.ef_search:9}  {figures}{mark}", flush=True)

    with searchapp.connect() as db:
        tuned = db.tune(collection, recall=recall, on_measured=None if json else show)
    if json:
        output.print_json(dataclasses.asdict(tuned))
    else:
        chosen, asked = tuned.chosen.ef_search, output.counted(tuned.queries, "document")
        print(f"{collection} is searched with ef_search {chosen} from now on (before: {tuned.before}; asked: {asked})")
