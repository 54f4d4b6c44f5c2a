"""Options that several commands share, and how they are read."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from searchapp.search import filters

Collection = Annotated[str, typer.Option("--collection", "-c", metavar="NAME", help="The collection's name.")]
Filter = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="JSON",
        help='What the metadata must satisfy, such as \'{"lang": "en", "year": {"$gte": 2020}}\'.',
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NAME|PATH", help="A model's name or folder. A new collection's default: all-MiniLM-L6-v2."
    ),
]
ChunkTokens = Annotated[
    int | None,
    typer.Option(
        "--chunk-tokens",
        metavar="N",
        help="Tokens a passage. A new collection's default: as many as the model reads.",
    ),
]
NoChunking = Annotated[bool, typer.Option("--no-chunking", help="One passage a document, cut at the model's length.")]

Mode = Annotated[
    str | None,
    typer.Option(
        "--mode",
        metavar="MODE",
        help="vector: by meaning; text: by words; hybrid: by both, the default where the collection has words.",
    ),
]
Language = Annotated[
    str | None,
    typer.Option(
        "--language",
        metavar="NAME",
        help="The text search configuration that words are read by. A new collection's default: english.",
    ),
]
NoWords = Annotated[
    bool, typer.Option("--no-words", help="A new collection has no words: it is searched by meaning alone.")
]

Limit = Annotated[int, typer.Option("--limit", "-n", metavar="N", help="How many hits, 1 to 100,000.")]
Offset = Annotated[int, typer.Option("--offset", metavar="N", help="How many of the nearest are left out before them.")]
MinScore = Annotated[float | None, typer.Option("--min-score", metavar="X", help="Only hits of at least this score.")]
MaxDistance = Annotated[
    float | None, typer.Option("--max-distance", metavar="X", help="Only hits no farther than this.")
]
Exact = Annotated[bool, typer.Option("--exact", help="Compare with every passage instead of asking the index.")]
Cursor = Annotated[
    str | None, typer.Option("--cursor", metavar="TEXT", help="The next page: what --json gave as cursor.")
]
Timeout = Annotated[
    float | None, typer.Option("--timeout", metavar="SECONDS", help="Let the database end the search after so long.")
]
Jsonl = Annotated[bool, typer.Option("--jsonl", help="Print one JSON object a hit.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")]


def parse_filter(text: str | None) -> dict[str, Any] | None:
    """Read ``--filter``.

    :raises errors.InvalidFilter: it is no JSON object.
    """
    return None if text is None else filters.parse(text)


def parse_weights(text: str | None) -> tuple[str, ...] | None:
    """Read ``--weights``: two numbers, which are looked at later."""
    return None if text is None else tuple(text.split(","))


def chunk_tokens(tokens: int | None, no_chunking: bool) -> int | None:
    """What ``--chunk-tokens`` and ``--no-chunking`` mean together.

    :raises errors.InvalidInput: both were given, or a number that is none.
    """
    from searchapp import errors

    if no_chunking and tokens is not None:
        raise errors.InvalidInput("give --chunk-tokens or --no-chunking, not both")
    if tokens is not None and tokens <= 0:
        raise errors.InvalidInput(f"--chunk-tokens is {tokens}; expected at least 8, or --no-chunking")
    return 0 if no_chunking else tokens
