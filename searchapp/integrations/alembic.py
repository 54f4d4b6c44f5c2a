"""Operations for migrations of your own: ``op.add_source`` and ``op.drop_source``, after

    import searchapp.integrations.alembic

They write SQL, so they work offline (``--sql``) as well. searchapp's own migrations must have been run before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import Text, cast, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, REGCLASS, array


@Operations.register_operation("add_source")
class AddSource(MigrateOperation):
    """Keeps a table in step with a collection: ``searchapp source add``."""

    def __init__(self, name: str, **definition: Any) -> None:
        self.name = name
        self.definition = definition

    @classmethod
    def add_source(
        cls,
        operations: Operations,
        name: str,
        *,
        table: str,
        key: Sequence[str],
        text: Sequence[str],
        title: str | None = None,
        metadata: Sequence[str] = (),
        where: str | None = None,
        collection: str | None = None,
        into_column: str | None = None,
        model: str | None = None,
        poll: str | None = None,
    ) -> None:
        """Let workers keep a table in step, from this migration on.

        :param table: as PostgreSQL writes it, such as ``public.products``; it must be there.
        :param key, text, metadata: names of columns.
        :param where: SQL on the row's own columns; the other parameters are those of ``searchapp.add_source`` as well.
        """
        definition = {"title": title, "where": where, "collection": collection, "into_column": into_column}
        definition |= {"model": model, "poll": poll}
        lists = {"key": _names(key), "text": _names(text), "metadata": _names(metadata)}
        operations.invoke(cls(name, table=table, **lists, **definition))

    def reverse(self) -> DropSource:
        return DropSource(self.name)


@Operations.register_operation("drop_source")
class DropSource(MigrateOperation):
    """Takes a source and its triggers away; its collection stays: ``searchapp source remove``."""

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def drop_source(cls, operations: Operations, name: str) -> None:
        """Take a source and its triggers away."""
        operations.invoke(cls(name))


@Operations.implementation_for(AddSource)
def add_source(operations: Operations, operation: AddSource) -> None:
    """Run, or write, what adds the source."""
    given = operation.definition
    order = ("key", "text", "title", "metadata", "where", "collection", "into_column", "model", "poll")
    values = [_array(given[name]) if isinstance(given[name], list) else literal(given[name], Text()) for name in order]
    table = cast(literal(given["table"], Text()), REGCLASS())
    operations.execute(select(func.searchapp.add_source(literal(operation.name, Text()), table, *values)))


@Operations.implementation_for(DropSource)
def drop_source(operations: Operations, operation: DropSource) -> None:
    """Run, or write, what takes the source away."""
    operations.execute(select(func.searchapp.remove_source(literal(operation.name, Text()))))


def _names(given: Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _array(names: list[str]) -> Any:
    """The names as an array that can be written as SQL, an empty one too."""
    return cast(array([literal(name, Text()) for name in names], type_=Text()), ARRAY(Text()))
