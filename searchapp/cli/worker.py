"""``searchapp worker``."""

from __future__ import annotations

import dataclasses
import signal
from types import FrameType
from typing import Annotated, Any

import typer

from searchapp import database, settings
from searchapp.cli import output
from searchapp.cli.options import Json
from searchapp.connecting import open_engine, opened
from searchapp.encoders import registry
from searchapp.roles import OWNER, needed
from searchapp.sources import failures
from searchapp.sources.failures import Failure
from searchapp.worker import Worker

app = typer.Typer(invoke_without_command=True)

Source = Annotated[str | None, typer.Option("--source", metavar="NAME", help="Of this source alone.")]


@app.callback()
def worker(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Do what waits now, and end.")] = False,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=0, max=64, metavar="N", help="Batches of rows under way at a time.")
    ] = 1,
    poll_interval: Annotated[
        float,
        typer.Option("--poll-interval", min=0.01, max=3600, metavar="SECONDS", help="Between looks for changes."),
    ] = 0.2,
) -> None:
    """Encode what is asked for from SQL, and keep sources in step, until Ctrl-C or SIGTERM ends it. Several share the
    work.

    It connects as a member of searchapp_owner.
    """
    if context.invoked_subcommand is not None:
        return
    made = Worker(
        open_engine(), registry.shared(settings.read().home), concurrency=concurrency, poll_interval=poll_interval
    )

    def stop(number: int, _: FrameType | None) -> None:
        made.stop()
        signal.signal(number, signal.SIG_DFL)  # asked twice, it ends at once

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if once:
        done = made.run_once()
        queries = "query" if done.queries == 1 else "queries"
        rows = f", dealt with {output.counted(done.rows, 'row')}" if done.rows else ""
        print(f"answered {done.queries:,} {queries}{rows}")
    else:
        made.run()


@app.command()
def failed(source: Source = None, json: Json = False) -> None:
    """List rows of sources that could not be encoded: parked ones first, then those that are tried again."""
    with opened() as engine, database.translated(), engine.begin() as connection:
        found = failures.listed(connection, source)
    rows = [_row(each) for each in found]
    output.print_json(rows) if json else output.print_table(rows, none="no row has failed")


@app.command()
def retry(source: Source = None) -> None:
    """Have parked rows tried again."""
    with (
        opened() as engine,
        needed(OWNER, lambda: database.user_of(engine)),
        database.translated(),
        engine.begin() as connection,
    ):
        count = failures.retry_parked(connection, source)
    print(f"{output.counted(count, 'row')} will be tried again by a worker")


def _row(failure: Failure) -> dict[str, Any]:
    retry_at = None if failure.retry_at is None else failure.retry_at.isoformat(timespec="seconds")
    return dataclasses.asdict(failure) | {"retry_at": retry_at}
