"""``searchapp get`` and ``searchapp delete``."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

import searchapp
from searchapp import errors
from searchapp.cli import options, output


def get(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The document's key.")],
    collection: options.Collection,
    json: options.Json = False,
) -> None:
    """Print one document."""
    with searchapp.connect() as db:
        document = db.get(key, collection=collection)
    if document is None:
        raise errors.InvalidInput(f"the collection {collection} has no document {key!r}")
    if json:
        output.print_json(dataclasses.asdict(document))
        return
    output.print_document(document)


def delete(
    collection: options.Collection,
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="The documents' keys.")] = None,
    filter: options.Filter = None,
    json: options.Json = False,
) -> None:
    """Delete documents by their keys, or all that a filter keeps."""
    parsed = options.parse_filter(filter)
    with searchapp.connect() as db:
        deleted = db.delete(keys or None, collection=collection, filter=parsed)
    if json:
        output.print_json({"deleted": deleted})
    else:
        print(f"deleted {output.counted(deleted, 'document')}")
