"""``searchapp collection``."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

import searchapp
from searchapp.cli import options, output
from searchapp.spaces import CollectionInfo

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The collection's name.")]


@app.command("list")
def list_collections(json: options.Json = False) -> None:
    """List all collections."""
    with searchapp.connect() as db:
        found = db.collections()
    if json:
        output.print_json([dataclasses.asdict(each) for each in found])
    else:
        output.print_table(
            [_row(each) for each in found], "no collections yet; make one: searchapp ingest FILE -c NAME"
        )


@app.command()
def create(
    name: Name,
    model: options.Model = None,
    chunk_tokens: options.ChunkTokens = None,
    no_chunking: options.NoChunking = False,
) -> None:
    """Make an empty collection."""
    with searchapp.connect() as db:
        space = db.create_collection(name, model=model, chunk_tokens=options.chunk_tokens(chunk_tokens, no_chunking))
    print(f"created {name} ({space.model}, {space.dimensions} dimensions; {space.chunking})")


@app.command()
def show(name: Name, json: options.Json = False) -> None:
    """Show what a collection holds and how it was made."""
    with searchapp.connect() as db:
        found = db.describe(name)
    if json:
        output.print_json(dataclasses.asdict(found))
        return
    for field, value in (dataclasses.asdict(found) | {"bytes": output.human_bytes(found.bytes)}).items():
        print(f"{field:<12} {'not measured' if value is None else value}")


@app.command()
def drop(name: Name) -> None:
    """Drop a collection with all its documents."""
    with searchapp.connect() as db:
        documents = db.count(collection=name)
        db.drop_collection(name)
    print(f"dropped {name} with its {output.counted(documents, 'document')}")


def _row(found: CollectionInfo) -> dict[str, Any]:
    return {
        "name": found.name,
        "documents": found.documents,
        "chunks": found.chunks,
        "model": found.model,
        "size": output.human_bytes(found.bytes),
    }
