"""EXPLAIN of a statement as SQLAlchemy runs it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, Select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ClauseElement, Executable


class Explain(Executable, ClauseElement):
    """The statement under EXPLAIN ANALYZE."""

    inherit_cache = False

    def __init__(self, statement: Select[Any], costs: bool) -> None:
        self.statement = statement
        self.costs = "ON" if costs else "OFF"


@compiles(Explain)
def _compile(element: Explain, compiler: Any, **options: Any) -> str:
    return f"EXPLAIN (ANALYZE, COSTS {element.costs}, TIMING OFF) {compiler.process(element.statement, **options)}"


def explain(engine: Engine, statement: Select[Any], *, costs: bool = False) -> str:
    """The plan that was run, as text.

    :param costs: with what the planner expected.
    """
    with engine.begin() as connection:
        return "\n".join(row[0] for row in connection.execute(Explain(statement, costs)))
