"""``searchapp source`` and ``searchapp status``."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

import searchapp
from searchapp import database, errors, settings
from searchapp.cli import options, output, source_check
from searchapp.connecting import opened
from searchapp.encoders import registry
from searchapp.sources import definitions, failures
from searchapp.sources.definitions import Definition, SourceInfo, SourceStatus

app = typer.Typer(no_args_is_help=True)
app.command("check")(source_check.check)

# Between looks how far a source is.
LOOK_SECONDS = 0.5
# So many failures are shown.
SHOWN = 5

Name = Annotated[str, typer.Argument(metavar="NAME", help="The source's name.")]


@app.command()
def add(
    name: Name,
    table: Annotated[str, typer.Option("--table", metavar="TABLE", help="The table, such as public.products.")],
    key: Annotated[str, typer.Option("--key", metavar="A,B", help="The columns that identify a row.")],
    text: Annotated[str, typer.Option("--text", metavar="A,B", help="The columns that are read.")],
    title: Annotated[str | None, typer.Option("--title", metavar="A", help="The column that is the title.")] = None,
    metadata: Annotated[
        str | None,
        typer.Option("--metadata", metavar="A,B", help="The columns that hits have."),
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="SQL", help="Which rows count, by their own columns: 'price > 0'.")
    ] = None,
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", metavar="NAME", help="Default: of the source's name.")
    ] = None,
    into: Annotated[
        str | None,
        typer.Option("--into", metavar="COLUMN", help="A vector column of the table instead."),
    ] = None,
    model: options.Model = None,
    poll: Annotated[
        str | None,
        typer.Option("--poll", metavar="COLUMN", help="No triggers: look for rows that this column says have changed."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until workers have read all rows.")] = False,
) -> None:
    """Keep a table in step with a collection, the rows that it has and what becomes of them: by searchapp worker."""
    made = None if model is None else registry.shared(settings.read().home).model(model)
    definition = Definition(
        name=name,
        table=table,
        key=_names(key),
        text=_names(text),
        title=title,
        metadata=_names(metadata or ""),
        where=where,
        collection=collection,
        into_column=into,
        model=None if made is None else made.name,
        poll=poll,
    )
    with opened() as engine:
        definitions.add(engine, definition, made)
        kept = f"the column {into}" if into else f"the collection {collection or name}"
        print(f"added {name}: {table} is kept in {kept}" + ("" if wait else "; by: searchapp worker"))
        if wait:
            _wait(engine, name)


@app.command("list")
def list_sources(json: options.Json = False) -> None:
    """List all sources."""
    with opened() as engine, database.translated(), engine.begin() as connection:
        found = definitions.listed(connection)
    if json:
        output.print_json([dataclasses.asdict(each) for each in found])
    else:
        output.print_table(
            [_row(each) for each in found], "no sources yet; add one: searchapp source add NAME --table TABLE ..."
        )


@app.command()
def pause(
    name: Name,
    drop_triggers: Annotated[
        bool, typer.Option("--drop-triggers", help="Take its triggers away, so that watched columns can be altered.")
    ] = False,
) -> None:
    """Let workers leave a source alone; what changes meanwhile is noted, or found when it is resumed."""
    with opened() as engine:
        definitions.pause(engine, name, drop_triggers=drop_triggers)
    print(f"paused {name}" + (", without triggers" if drop_triggers else ""))


@app.command()
def resume(name: Name) -> None:
    """Let workers go on with a source that was paused, or was broken and is mended; they compare all of it."""
    with opened() as engine:
        definitions.resume(engine, name)
    print(f"resumed {name}")


@app.command()
def remove(
    name: Name,
    drop: Annotated[bool, typer.Option("--drop", help="Drop its collection, too.")] = False,
) -> None:
    """Take a source and its triggers away. Its collection stays, and is like any other from then on."""
    with opened() as engine:
        collection = definitions.remove(engine, name)
        print(f"removed {name}" + ("" if drop or collection is None else f"; the collection {collection} stays"))
    if drop and collection is not None:
        with searchapp.connect() as db:
            db.drop_collection(collection)
        print(f"dropped {collection}")


@app.command("status")
def source_status(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Of one source.")] = None,
    json: options.Json = False,
) -> None:
    """Say how far sources are: what is pending, what has failed, how long it will take."""
    _print_status(name, json)


def status(json: options.Json = False) -> None:
    """Say how far all sources are, and how many workers are alive."""
    _print_status(None, json)


def _print_status(name: str | None, json: bool) -> None:
    with opened() as engine, database.translated(), engine.begin() as connection:
        found = definitions.status(connection, name)
        workers = definitions.workers(connection)
    if json:
        output.print_json({"workers": workers, "sources": [_as_json(each) for each in found]})
        return
    output.print_table([_status_row(each) for each in found], "no sources yet")
    for each in found:
        if each.reason is not None:
            print(f"{each.name} is broken: {each.reason}")
    print(f"{output.counted(workers, 'worker')} alive" + ("" if workers else "; start one: searchapp worker"))


def _wait(engine: Engine, name: str) -> None:
    """Show how a source is read, until all of it is; then say what has failed."""
    with _bar() as show:
        while not (found := _look(engine, name)).is_done:
            if found.state != "running":
                raise errors.SearchAppError(f"the source {name} is {found.state}" + _because(found.reason))
            show(found)
            time.sleep(LOOK_SECONDS)
    if found.failed or found.retrying:
        with database.translated(), engine.begin() as connection:
            failed = failures.listed(connection, name)
        for each in failed[:SHOWN]:
            print(f"the row {each.key} has failed: {each.error}")
        have = "has" if len(failed) == 1 else "have"
        print(f"{output.counted(len(failed), 'row')} {have} failed; see: searchapp worker failed --source {name}")
    print(f"{name} is in step")


def _look(engine: Engine, name: str) -> SourceStatus:
    with database.translated(), engine.begin() as connection:
        return definitions.status(connection, name)[0]


@contextmanager
def _bar() -> Iterator[Callable[[SourceStatus], None]]:
    """A progress bar on a terminal; in a pipe a word where nobody works."""
    told: list[bool] = []

    def tell(found: SourceStatus) -> None:
        if not found.workers and not told:
            told.append(True)
            print("no worker is alive; start one: searchapp worker", file=sys.stderr)

    if not sys.stderr.isatty():
        yield tell
        return
    from rich import progress
    from rich.console import Console

    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[said]}"),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("reading", total=None, said="")

        def show(found: SourceStatus) -> None:
            left = "" if found.time_left is None else f", {_duration(found.time_left)} left"
            said = f"{found.rate or 0:,.0f} rows/s{left}" if found.workers else "no worker is alive: searchapp worker"
            done = max(found.read - found.pending, 0)
            bar.update(task, total=max(found.rows, found.read) or None, completed=done, said=said)

        yield show


def _row(found: SourceInfo) -> dict[str, Any]:
    kept = f"the column {found.into_column}" if found.collection is None else found.collection
    watched = "triggers" if found.polled_by is None else f"looks at {found.polled_by}"
    return {"name": found.name, "table": found.table, "kept in": kept, "watched by": watched, "state": found.state}


def _status_row(found: SourceStatus) -> dict[str, Any]:
    return {
        "name": found.name,
        "state": found.state if found.backfilled or found.state != "running" else "first reading",
        "pending": f"{found.pending:,}",
        "oldest": "" if found.oldest is None else _duration(found.oldest),
        "retrying": f"{found.retrying:,}",
        "failed": f"{found.failed:,}",
        "rows/s": "" if found.rate is None else f"{found.rate:,.1f}",
        "time left": "" if found.time_left is None else _duration(found.time_left),
    }


def _as_json(found: SourceStatus) -> dict[str, Any]:
    values = dataclasses.asdict(found)
    for name in ("oldest", "time_left"):
        values[name] = None if values[name] is None else round(values[name].total_seconds(), 3)
    return values | {"checked_at": found.checked_at and found.checked_at.isoformat()}


def _duration(time: timedelta) -> str:
    """A time for people.

    >>> _duration(timedelta(seconds=3.2)), _duration(timedelta(minutes=75))
    ('3.2 s', '1:15:00 h')
    """
    seconds = time.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{timedelta(seconds=round(seconds))} h"


def _because(reason: str | None) -> str:
    return "" if reason is None else f": {reason}"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
