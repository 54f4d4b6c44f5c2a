"""How the values of users' columns are read: as text where Python, or JSON, has nothing like them."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format

# What Python knows some values of: no infinity, no year 10,000, no 24:00.
_OFTEN = ("date", "time", "timetz", "timestamp", "timestamptz", "interval")
# What JSON has no place for.
_NEVER = (
    *("inet", "cidr"),
    *("int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange"),
    *("int4multirange", "int8multirange", "nummultirange", "datemultirange", "tsmultirange", "tstzmultirange"),
)


class _Text(Loader):
    def load(self, data: Buffer) -> Any:
        return bytes(data).decode()


def register(adapters: AdaptersMap) -> None:
    """Read what a connection gives so, from here on."""
    for name in _OFTEN:
        adapters.register_loader(name, _or_text(_loader(name)))
    for name in _NEVER:
        adapters.register_loader(name, _Text)


def _loader(name: str) -> Any:
    return psycopg.adapters.get_loader(psycopg.adapters.types[name].oid, Format.TEXT)


def _or_text(known: Any) -> type[Loader]:
    """Reads as a loader does, and as text what that one cannot."""

    class OrText(Loader):  # not of that class, whose own method is called from C whatever stands here
        def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
            super().__init__(oid, context)
            self._known = known(oid, context)

        def load(self, data: Buffer) -> Any:
            text = bytes(data)
            if text.endswith(b"infinity"):  # psycopg takes that interval for none at all
                return text.decode()
            try:
                return self._known.load(text)
            except psycopg.DataError:
                return text.decode()

    return OrText
