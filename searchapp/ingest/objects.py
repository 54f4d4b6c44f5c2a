"""A caller's own objects as rows to ingest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from searchapp.ingest.documents import Document, InvalidRow, Rejected, from_object


class Objects:
    """Mappings and objects as documents; a faulty one comes as a ``Rejected``, with its number, from 1, as its line."""

    def __init__(self, objects: Iterable[Any]) -> None:
        self._objects = objects
        self._number = 0

    def __iter__(self) -> Iterator[Document | Rejected]:
        for each in self._objects:
            self._number += 1
            yield each if isinstance(each, Rejected) else self._read(each)

    def reject_last(self, reason: str, key: str) -> Rejected:
        """Reject the object that came last."""
        return self._rejected(reason, key)

    def _read(self, each: Any) -> Document | Rejected:
        try:
            return from_object(each)
        except InvalidRow as exc:
            return self._rejected(exc.reason, exc.key)

    def _rejected(self, reason: str, key: str | None) -> Rejected:
        return Rejected(f"document {self._number}", self._number, reason, key)
