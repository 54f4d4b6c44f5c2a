"""Options that several commands share, and how they are read."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import typer

from searchapp import errors
from searchapp.search import arrangement as arranging
from searchapp.search import filters
from searchapp.search.arrangement import arrangement

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


Passages = Annotated[
    int, typer.Option("--passages", metavar="N", help="Show up to so many of a hit's nearest passages.")
]
Diversity = Annotated[
    float | None,
    typer.Option("--diversity", metavar="X", help="How much hits are to differ from each other (MMR), 0 to 1."),
]
Boost = Annotated[
    list[str] | None,
    typer.Option(
        "--boost",
        metavar="FIELD:WEIGHT:PIVOT",
        help="A number that counts by WEIGHT beside the distance, and by half of it where it is PIVOT. Repeatable.",
    ),
]
Decay = Annotated[
    list[str] | None,
    typer.Option(
        "--decay",
        metavar="FIELD:WEIGHT:HALF",
        help="A date that counts by WEIGHT if it is now, and by half of it HALF away, such as 30d or 12h; a number with"
        " FIELD:WEIGHT:HALF:ORIGIN. Repeatable.",
    ),
]
GroupBy = Annotated[
    str | None, typer.Option("--group-by", metavar="FIELD", help="The nearest --limit groups of one value in a field.")
]
GroupSize = Annotated[int, typer.Option("--group-size", metavar="N", help="How many hits a group has at most.")]

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def parse_arrangement(
    passages: int,
    diversity: float | None,
    boosts: list[str] | None,
    decays: list[str] | None,
    group_by: str | None,
    group_size: int,
) -> dict[str, Any]:
    """Read the options of how an answer is arranged, as the plain calls take them.

    :raises errors.InvalidInput: a value that cannot be.
    """
    boost = [_boost(each) for each in boosts or ()] + [_decay(each) for each in decays or ()]
    told: dict[str, Any] = {
        "passages": passages,
        "diversity": diversity,
        "boost": boost,
        "group_by": group_by,
        "group_size": group_size,
    }
    arrangement(**told)
    return told


def _boost(text: str) -> arranging.Boost:
    field, *numbers = text.split(":")
    if len(numbers) != 2:
        raise errors.InvalidInput(f"--boost is {text!r}; expected FIELD:WEIGHT:PIVOT, such as stars:0.2:100")
    return arranging.Boost(field, *(_number(each, "--boost") for each in numbers))


def _decay(text: str) -> arranging.Decay:
    field, *rest = text.split(":")
    if len(rest) not in {2, 3}:
        raise errors.InvalidInput(f"--decay is {text!r}; expected FIELD:WEIGHT:HALF, such as published:0.3:30d")
    weight, half_life = _number(rest[0], "--decay"), rest[1]
    if len(rest) == 3:
        return arranging.Decay(field, weight, _number(half_life, "--decay"), _number(rest[2], "--decay"))
    if half_life[-1:] not in _UNITS:
        units = ", ".join(f"{letter} ({name})" for letter, name in _UNITS.items())
        raise errors.InvalidInput(f"--decay has the half-life {half_life!r}; expected a number with {units}")
    amount = _number(half_life[:-1], "--decay")
    try:
        return arranging.Decay(field, weight, timedelta(**{_UNITS[half_life[-1]]: amount}))
    except (OverflowError, ValueError) as exc:
        raise errors.InvalidInput(f"--decay has the half-life {half_life!r}; expected over 0, and finite") from exc


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError as exc:
        raise errors.InvalidInput(f"{option} has {text!r} where a number is expected") from exc


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
    if no_chunking and tokens is not None:
        raise errors.InvalidInput("give --chunk-tokens or --no-chunking, not both")
    if tokens is not None and tokens <= 0:
        raise errors.InvalidInput(f"--chunk-tokens is {tokens}; expected at least 8, or --no-chunking")
    return 0 if no_chunking else tokens
