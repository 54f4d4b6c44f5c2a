"""``searchapp db``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

import searchapp
from searchapp import database, database_settings, embedded, errors, link, schema, settings
from searchapp.connecting import link_embedded, opened

app = typer.Typer(no_args_is_help=True)

Sql = Annotated[bool, typer.Option("--sql", help="Print the SQL instead of running it; nothing is connected to.")]


@app.command()
def upgrade(
    revision: Annotated[str, typer.Argument(help="Where to: head, a revision; with --sql also FROM:TO.")] = "head",
    sql: Sql = False,
) -> None:
    """Migrate the database forward."""
    if sql:
        print(schema.script(revision), end="")
        return
    with opened(migrate=False) as engine:
        before = schema.upgrade(engine, revision)
        after = schema.current(engine)
        print(
            f"the database stands at {after} already"
            if before == after
            else f"migrated from {before or 'nothing'} to {after}"
        )
        if after == database.REVISION and settings.read().database_url is None:
            link_embedded(engine)


@app.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="Where to: base takes away all tables; with --sql FROM:TO.")],
    sql: Sql = False,
) -> None:
    """Migrate the database backward; what the tables hold is lost."""
    if sql:
        print(schema.script(revision, downgrade=True), end="")
        return
    with opened(migrate=False) as engine:
        schema.downgrade(engine, revision)
        print(f"the database stands at {schema.current(engine) or 'nothing'}")


@app.command()
def current() -> None:
    """Print the migration the database stands at."""
    with opened(migrate=False) as engine:
        found = schema.current(engine)
    print(f"{found or 'nothing'} (this searchapp needs {database.REVISION})")


@app.command()
def check() -> None:
    """Check that the database is as this code needs it."""
    with opened(migrate=False) as engine:
        found = schema.differences(engine)
    if found:
        raise errors.DatabaseError(f"the database differs from the models: {'; '.join(found)}")
    print("the database is as this searchapp needs it")


@app.command()
def url() -> None:
    """Print the database's address in one line that psql accepts."""
    parameters = _parameters()
    if settings.read().database_url is None:  # a psql older than ours does not know all that we set
        parameters = {name: parameters[name] for name in ("host", "port", "user", "dbname")}
    print(database.conninfo(parameters))


@app.command()
def stop() -> None:
    """Stop the embedded server."""
    home = settings.read().home
    print("stopped the embedded server" if embedded.stop(home) else "the embedded server does not run")


@app.command()
def shell() -> None:
    """Open psql on the database."""
    parameters = _parameters()
    password = parameters.pop("password", "")
    environment = {**os.environ, "PGPASSWORD": str(password)} if password else dict(os.environ)  # `ps` shows arguments
    try:
        program = str(embedded.binary(settings.read().home, "psql"))
    except errors.EmbeddedServerError:
        program = "psql"
    try:
        os.execvpe(program, [program, database.conninfo(parameters)], environment)
    except FileNotFoundError as exc:
        raise errors.InvalidInput("psql is not installed; searchapp db url prints the address for other tools") from exc


@app.command()
def maintain() -> None:
    """Drop what is retired, finish what was interrupted, make the indexes that are missing."""
    with searchapp.connect() as db:
        done = db.maintain()
    said = [f"dropped {done.dropped} retired partitions"] if done.dropped else []
    said += [f"made the index of {name}" for name in done.indexed]
    print("; ".join(said) or "nothing to do")


@app.command("embed-link")
def embed_link(
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="HOST", help="Where the server finds itself: a name, or its sockets' folder."),
    ] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="N", help="The port; default: the server's.")] = None,
) -> None:
    """Make the link by which searchapp.embed() asks a worker, or make it anew: after a restore, for one."""
    with opened(migrate=False) as engine:
        made = link.make(engine, host=host, port=port)
    print(f"searchapp.embed() asks a worker in a session of its own in this database, {made.database}:")
    print(f"  as the role {made.role}, which may only ask, and only here; it has a new, random password,")
    print(f"  which is stored in the user mapping of {made.owner} for the server searchapp_self,")
    print(f"  and can be read there by {made.owner} and by superusers (pg_user_mappings);")
    print(f"  at {made.host}, port {made.port}, which is where the server searchapp_self leads to")


@app.command("settings")
def show_settings(
    apply: Annotated[bool, typer.Option("--apply", help="Let the database have them, by ALTER DATABASE.")] = False,
) -> None:
    """Say whether the database has the settings that the collections' views need."""
    with opened(migrate=False) as engine:
        for setting in database_settings.settings(engine):
            if setting.is_set:
                print(f"{setting.name} is {setting.value}, as the collections' views need it")
            elif apply:
                database_settings.apply(engine, setting)
                print(f"{setting.statement}: sessions that begin from now on have it")
            else:
                print(
                    f"{setting.name} is {setting.found or 'not set'}: {setting.reason}; run: searchapp db settings"
                    f" --apply, or as the database's owner: {setting.statement}"
                )


def _parameters() -> database.Parameters:
    read = settings.read()
    if read.database_url is not None:
        return database.parse_url(read.database_url)
    return dict(embedded.start(read.home))
