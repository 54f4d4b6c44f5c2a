"""Measuring: sides that take turns, and what is made of their rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
# Does what is measured and returns the figure, mostly seconds.
Side = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Rounds:
    """What each side gave in each round."""

    figures: Mapping[str, list[float]]

    def median(self, side: str) -> float:
        """A side's median over the rounds."""
        return statistics.median(self.figures[side])

    def ratio(self, side: str, other: str) -> float:
        """How many times ``other`` a side is: the median of the rounds' ratios.

        Not the ratio of the medians: what slows the machine down for a while slows both sides of a round.

        >>> Rounds({"a": [1.0, 20.0, 3.0], "b": [2.0, 20.0, 6.0]}).ratio("a", "b")
        0.5
        """
        pairs = zip(self.figures[side], self.figures[other], strict=True)
        return statistics.median(one / another for one, another in pairs)

    def details(self, unit: str, scale: float = 1.0) -> dict[str, Any]:
        """The medians, and all rounds under ``rounds, <unit>``.

        :param scale: what the figures are multiplied by, so that they are in ``unit``.
        """
        medians = {f"{side}, {unit}": self.median(side) * scale for side in self.figures}
        rounds = {side: [figure * scale for figure in figures] for side, figures in self.figures.items()}
        return {**medians, f"rounds, {unit}": rounds}


def warm_up(sides: Mapping[str, Side], say: Callable[[str], None]) -> None:
    """Run all sides once, so that nothing is done for the first time while it is measured."""
    say("warm-up")
    for run in sides.values():
        run()


def take_turns(sides: Mapping[str, Side], rounds: int, say: Callable[[str], None]) -> Rounds:
    """Run all sides one after the other, round by round."""
    figures: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(1, rounds + 1):
        for side, run in sides.items():
            say(f"round {number} of {rounds}: {side}")
            figures[side].append(run())
    return Rounds(figures)


def seconds(run: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def timed(run: Callable[[], object]) -> Side:
    """The side whose figure is the seconds that ``run`` takes."""
    return lambda: seconds(run)


def p50(run: Callable[[T], object], items: Iterable[T]) -> float:
    """The median of the seconds that ``run`` takes with each of ``items``."""
    return statistics.median(_durations(run, items))


def p95(run: Callable[[T], object], items: Iterable[T]) -> float:
    """The seconds that ``run`` takes at most with 95 in a hundred of ``items``."""
    return statistics.quantiles(_durations(run, items), n=20, method="inclusive")[-1]


def _durations(run: Callable[[T], object], items: Iterable[T]) -> list[float]:
    durations = []
    for item in items:
        started = time.perf_counter()
        run(item)
        durations.append(time.perf_counter() - started)
    return durations
