"""``searchapp source check``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from searchapp import database, settings
from searchapp.cli import output
from searchapp.cli.options import Json
from searchapp.connecting import opened
from searchapp.encoders import registry
from searchapp.roles import OWNER, needed
from searchapp.sources import checking
from searchapp.sources.checking import Checked
from searchapp.sources.comparing import Found


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The source's name.")],
    repair: Annotated[bool, typer.Option("--repair", help="Have workers put right what differs.")] = False,
    json: Json = False,
) -> None:
    """Compare a source with its table: which rows are missing, changed or gone, save those that wait to be read."""
    with opened() as engine, needed(OWNER, lambda: database.user_of(engine)):
        checked = checking.check(engine, registry.shared(settings.read().home), name, repair=repair)
    if json:
        output.print_json(_as_json(name, checked, repair))
    else:
        _print(name, checked, repair)


def _print(name: str, checked: Checked, repair: bool) -> None:
    comparison = checked.comparison
    rows = output.counted(comparison.rows, "row")
    if not comparison.differs:
        print(f"{name} is as its table: {rows} compared")
        return
    print(f"{name} differs from its table: {rows} compared")
    for kind, found in checked.kinds.items():
        if found.count:
            print(f"{kind:<8} {found.count:,}: {_shown(found)}")
    if not repair:
        print(f"workers put that right within the hour; at once: searchapp source check {name} --repair")
    else:
        rest = "" if checked.complete else ", and compares the rest itself"
        print(f"a worker puts {checked.put:,} of them right{rest}")


def _shown(found: Found) -> str:
    more = ", ..." if found.count > len(found.keys) else ""
    return ", ".join(output.one_line(key) for key in found.keys) + more


def _as_json(name: str, checked: Checked, repair: bool) -> dict[str, Any]:
    kinds = {kind: {"count": found.count, "keys": found.keys} for kind, found in checked.kinds.items()}
    repaired = {"put": checked.put, "complete": checked.complete} if repair else {}
    return {"source": name, "rows": checked.comparison.rows, **kinds, **repaired}
