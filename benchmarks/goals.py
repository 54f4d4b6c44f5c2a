"""Goals: what is to be reached, and whether it was."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """A goal's name, what its figure must be (``>= 1.5``, ``<= 50``, or ``none``), and the figure's unit."""

    goal: str
    target: str
    unit: str


@dataclass(frozen=True, slots=True)
class Goal:
    """A target with what was measured: None where it could not be, for ``reason``."""

    goal: str
    measured: float | None
    target: str
    unit: str
    met: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a benchmark found: a figure for each of its goals, by name, and whatever else is worth keeping."""

    measured: Mapping[str, float]
    details: dict[str, Any] = field(default_factory=dict)


def is_met(measured: float | None, target: str) -> bool:
    """Whether a figure is as it should be.

    >>> is_met(1.6, ">= 1.5"), is_met(1.6, "<= 1.5"), is_met(1.6, "none"), is_met(None, "none")
    (True, False, True, False)
    """
    if measured is None:
        return False
    if target == "none":
        return True
    found = re.fullmatch(r"(<=|>=) ([0-9.]+)", target)
    if found is None:
        raise ValueError(f"the target is {target!r}; expected >= or <= and a number, or none")
    bound = float(found[2])
    return measured <= bound if found[1] == "<=" else measured >= bound


def judge(target: Target, result: Result) -> Goal:
    """Compare a benchmark's figure with its target."""
    measured = result.measured[target.goal]
    return Goal(target.goal, measured, target.target, target.unit, is_met(measured, target.target))


def failed(target: Target, reason: str) -> Goal:
    """The entry of a goal that could not be measured."""
    return Goal(target.goal, None, target.target, target.unit, False, reason)
