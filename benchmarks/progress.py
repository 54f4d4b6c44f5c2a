"""Lines of progress on stderr, so that nobody wonders what takes so long."""

from __future__ import annotations

import sys
import time


class Progress:
    """Prints lines with the seconds since it was made.

    ``doing`` is what is measured at the moment, and stands before the words.
    """

    def __init__(self) -> None:
        self.doing = ""
        self._started = time.monotonic()

    def say(self, words: str) -> None:
        """Print one line."""
        seconds = time.monotonic() - self._started
        print(f"[{seconds:5.0f} s] {self.doing}{': ' if self.doing else ''}{words}", file=sys.stderr, flush=True)
