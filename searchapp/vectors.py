"""Embeddings as arrays, and which of them can be compared."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

# Below, float32 loses the digits of a vector's squared length.
LEAST_SQUARE = 1e-30


def unusable(vectors: Array) -> npt.NDArray[np.bool_]:
    """Which of the vectors, shape (n_vectors, dimensions), have no direction that can be compared in float32.

    They are zero, have NaN or infinity, or are so long or short that their squares are no float32 numbers.
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
        faulty: npt.NDArray[np.bool_] = ~(np.isfinite(squares) & (squares > LEAST_SQUARE))
    return faulty


def is_usable(vector: Array) -> bool:
    """Whether one vector, shape (dimensions,), can be compared; see :func:`unusable`."""
    with np.errstate(over="ignore", invalid="ignore"):
        return LEAST_SQUARE < float(np.dot(vector, vector)) < math.inf


def why_unusable(vector: Array) -> str:
    """Say what is wrong with an unusable vector."""
    if np.isnan(vector).any():
        return "the vector has NaN"
    if np.isinf(vector).any():
        return "the vector has infinity"
    if not vector.any():
        return "the vector is zero; it has no direction"
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return f"the vector's length is {length:.3g}, too far from 1 to be compared; scale it to length 1"
