"""Named places at which the tests kill the process, to see that nothing is lost.

``SEARCHAPP_FAULT=after-staging`` kills at that place, ``after-staging:3`` when it is passed for the third time. Without
the variable a place costs one look at the environment.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading

_passings = itertools.count(1)


def point(name: str) -> None:
    """Kill this process here if the environment says so."""
    wanted, _, number = os.environ.get("SEARCHAPP_FAULT", "").partition(":")
    if wanted == name and next(_passings) >= int(number or 1):
        os.kill(os.getpid(), signal.SIGKILL)


def delayed_point(name: str, seconds: float = 0.05) -> None:
    """Kill this process a moment later, in the middle of the statement that follows."""
    threading.Timer(seconds, point, [name]).start() if os.environ.get("SEARCHAPP_FAULT") == name else None
