"""Which vectors can be compared, and how they travel."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from searchapp import vectors
from searchapp.wire import ArrayParameter, array_header, packed


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (0.0, "the vector is zero"),
        (np.nan, "the vector has NaN"),
        (-np.inf, "the vector has infinity"),
        (1e30, r"length is 2e\+30, too far from 1"),
        (1e-30, "length is 2e-30, too far from 1"),
    ],
)
def test_what_cannot_be_compared_is_told_with_the_reason(value: float, reason: str) -> None:
    vector = np.full(4, value, dtype=np.float32)
    assert not vectors.is_usable(vector)
    assert vectors.unusable(np.stack([np.ones(4, dtype=np.float32), vector])).tolist() == [False, True]
    with pytest.raises(ValueError, match=reason):
        raise ValueError(vectors.why_unusable(vector))


def test_a_vector_of_any_sane_length_can_be_compared() -> None:
    for length in (1e-10, 1.0, 1e10):
        assert vectors.is_usable(np.array([length, 0], dtype=np.float32))


def test_vectors_are_packed_as_pgvector_sends_them() -> None:
    one = packed(np.array([[1.5, -2.0]], dtype=np.float32)).tobytes()
    assert one == struct.pack(">ihhff", 12, 2, 0, 1.5, -2.0)
    assert ArrayParameter([[1.5, -2.0]], 77).vectors.dtype == np.float32
    assert array_header(77, 1) == struct.pack(">5i", 1, 0, 77, 1, 1)
