"""EXPLAIN of a statement as SQLAlchemy runs it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, Select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ClauseElement, Executable


class Explain(Executable, ClauseElement):
    """The statement under EXPLAIN ANALYZE."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(Explain)
def _compile(element: Explain, compiler: Any, **options: Any) -> str:
    return f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {compiler.process(element.statement, **options)}"


def explain(engine: Engine, statement: Select[Any]) -> str:
    """The plan that was run, as text."""
    with engine.begin() as connection:
        return "\n".join(row[0] for row in connection.execute(Explain(statement)))
