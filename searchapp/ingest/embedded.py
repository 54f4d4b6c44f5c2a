"""Documents that bring their own embeddings, made somewhere else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from searchapp import errors, vectors
from searchapp.ingest.documents import Document, Rejected
from searchapp.vectors import Array

# So many vectors of an array are checked at a time.
BLOCK = 4096


class Rows(Protocol):
    """What is ingested: a source, or a caller's own documents."""

    def __iter__(self) -> Iterator[Document | Rejected]: ...

    def reject_last(self, reason: str, key: str) -> Rejected:
        """Reject the row that came last, though it is a sound document."""
        ...


class Embedded:
    """Rows whose documents have a checked embedding each: float32, shape (dimensions,). Others are rejected.

    :param rows: the documents; rows that are rejected have a vector as well.
    :param given: the vectors, row by row: shape (n_rows, dimensions), or any iterable; None: the documents' own.
    :param dimensions: what the vectors must have; None: what the first sound one has.
    :raises errors.ModelMismatch: an array's vectors have other dimensions.
    :raises errors.InvalidInput: there are not as many vectors as rows; while iterating where that is not known before.
    """

    def __init__(self, rows: Rows, given: Iterable[Any] | None, dimensions: int | None) -> None:
        self.dimensions = dimensions
        self._rows = rows
        self._given = given
        if isinstance(given, np.ndarray):
            self._given = self._check_array(given)

    def __iter__(self) -> Iterator[Document | Rejected]:
        given = None if self._given is None else self._checked(self._given)
        count = 0
        for count, row in enumerate(self._rows, start=1):
            vector, reason = (None, "") if given is None else next(given, (None, None))
            if reason is None:
                raise _mismatch(f"more than {count - 1:,}", f"{count - 1:,}")
            if isinstance(row, Rejected):
                yield row
                continue
            if given is None:
                vector, reason = self._check(row.embedding)
            if vector is None:
                yield self._rows.reject_last(reason, row.key)
            else:
                row.embedding = vector
                yield row
        if given is not None and next(given, None) is not None:
            raise _mismatch(f"{count:,}", f"more than {count:,}")

    def reject_last(self, reason: str, key: str) -> Rejected:
        """Reject the row that came last."""
        return self._rows.reject_last(reason, key)

    def _check_array(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise errors.InvalidInput(
                f"the vectors are an array of shape {array.shape} and type {array.dtype}; expected numbers, a row each"
            )
        self.dimensions = self.dimensions or array.shape[1]
        if array.shape[1] != self.dimensions:
            raise errors.ModelMismatch(
                f"the vectors have {array.shape[1]} dimensions, the model's have {self.dimensions}"
            )
        return array

    def _checked(self, given: Iterable[Any]) -> Iterator[tuple[Array | None, str]]:
        """Each vector, or None and why it cannot be used."""
        if not isinstance(given, np.ndarray):
            yield from map(self._check, given)
            return
        for start in range(0, len(given), BLOCK):
            block = np.asarray(given[start : start + BLOCK], dtype=np.float32)
            unusable = vectors.unusable(block)
            for vector, faulty in zip(block, unusable, strict=True):
                yield (None, vectors.why_unusable(vector)) if faulty else (vector, "")

    def _check(self, given: Any) -> tuple[Array | None, str]:
        if given is None:
            return None, "no vector"
        try:
            vector = np.asarray(given, dtype=np.float32)
        except (TypeError, ValueError):
            return None, "the vector is not a list of numbers"
        if vector.ndim != 1:
            return None, "the vector is not a list of numbers"
        if vector.size != (self.dimensions or vector.size):
            return None, f"the vector has {vector.size} dimensions, expected {self.dimensions}"
        if not vectors.is_usable(vector):
            return None, vectors.why_unusable(vector)
        self.dimensions = vector.size
        return vector, ""


def check_lengths(rows: object, given: object) -> None:
    """Check that there are as many vectors as rows, where both are known before anything is read.

    :raises errors.InvalidInput: there are not.
    """
    if isinstance(rows, Sized) and isinstance(given, Sized) and len(rows) != len(given):
        raise _mismatch(f"{len(rows):,}", f"{len(given):,}")


def _mismatch(rows: str, given: str) -> errors.InvalidInput:
    return errors.InvalidInput(f"there are {rows} rows, and {given} vectors; expected a vector for each row, in order")
