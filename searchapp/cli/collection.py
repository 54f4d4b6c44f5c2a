"""``searchapp collection``."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

import searchapp
from searchapp import fields
from searchapp.cli import options, output
from searchapp.spaces import CollectionInfo

app = typer.Typer(no_args_is_help=True)
field_app = typer.Typer(no_args_is_help=True)
app.add_typer(field_app, name="field", help="Declare fields of the metadata, and take that back.")

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
    language: options.Language = None,
    no_words: options.NoWords = False,
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            metavar="NAME:TYPE",
            help="Declare a field (again for more): a number, text or date, such as year:number.",
        ),
    ] = None,
) -> None:
    """Make an empty collection."""
    declared = fields.as_mapping(fields.parse_all(field or []))
    with searchapp.connect() as db:
        space = db.create_collection(
            name,
            model=model,
            chunk_tokens=options.chunk_tokens(chunk_tokens, no_chunking),
            language=language,
            words=not no_words,
            fields=declared,
        )
    words = f"words: {space.language}" if space.language else "no words"
    print(f"created {name} ({space.model}, {space.dimensions} dimensions; {space.chunking}; {words})")


@app.command()
def show(name: Name, json: options.Json = False) -> None:
    """Show what a collection holds and how it was made."""
    with searchapp.connect() as db:
        found = db.describe(name)
    if json:
        output.print_json(dataclasses.asdict(found))
        return
    declared = ", ".join(map(str, fields.from_mapping(found.fields))) or "none declared"
    words = "none" if found.language is None else found.language
    if found.language is not None and not found.words_complete:
        words += f", not of all documents yet; go on: searchapp index words --collection {name}"
    shown = {"fields": declared, "language": words, "bytes": output.human_bytes(found.bytes)}
    for field, value in (dataclasses.asdict(found) | shown).items():
        if field != "words_complete":
            print(f"{field:<12} {'not measured' if value is None else value}")


@app.command()
def drop(name: Name) -> None:
    """Drop a collection with all its documents."""
    with searchapp.connect() as db:
        documents = db.count(collection=name)
        db.drop_collection(name)
    print(f"dropped {name} with its {output.counted(documents, 'document')}")


@field_app.command("add")
def add_field(
    name: Name, field: Annotated[str, typer.Argument(metavar="FIELD:TYPE", help="Such as year:number.")]
) -> None:
    """Declare a field: its index makes filters on it faster. Searches and writers go on meanwhile."""
    declared = fields.parse(field)
    with searchapp.connect() as db:
        db.add_field(name, declared.name, declared.type)
    print(f"declared {declared} of {name}")


@field_app.command("drop")
def drop_field(name: Name, field: Annotated[str, typer.Argument(metavar="FIELD", help="The field's name.")]) -> None:
    """Take a field's declaration back, with its index; filters on it go on working."""
    with searchapp.connect() as db:
        db.drop_field(name, field)
    print(f"{field} of {name} is no longer declared")


def _row(found: CollectionInfo) -> dict[str, Any]:
    return {
        "name": found.name,
        "documents": found.documents,
        "chunks": found.chunks,
        "model": found.model,
        "size": output.human_bytes(found.bytes),
    }
