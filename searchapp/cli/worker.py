"""``searchapp worker``."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Annotated

import typer

from searchapp import settings
from searchapp.connecting import open_engine
from searchapp.encoders import registry
from searchapp.worker import Worker


def worker(
    once: Annotated[bool, typer.Option("--once", help="Answer what waits now, and end.")] = False,
) -> None:
    """Encode the queries that are asked for from SQL, until Ctrl-C or SIGTERM ends it. Several share the work.

    It connects as a member of searchapp_owner.
    """
    made = Worker(open_engine(), registry.shared(settings.read().home))

    def stop(number: int, _: FrameType | None) -> None:
        made.stop()
        signal.signal(number, signal.SIG_DFL)  # asked twice, it ends at once

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if once:
        answered = made.run_once()
        print(f"answered {answered:,} {'query' if answered == 1 else 'queries'}")
    else:
        made.run()
