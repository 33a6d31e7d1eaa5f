"""One scale for vectors from anywhere: encoders and files give rows of any length, and training is sensitive to it.

All rows are multiplied by one number, so that the median length of a row is the square root of the width and one element
is about 1. Angles and the ratio of two lengths stay: unit rows would lose the second, and a scale for each dimension both.
The median is used because a few very long rows would move a mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

FORMAT = 1  # raise when the same vectors give others
_ROWS_A_BLOCK = 65_536
_SAME = 1e-3
"""A median length so close to the usual one is left as it is: half precision rounds by as much."""


@dataclass(frozen=True)
class VectorScale:
    """Lengths of the rows that are not zero, as they were given.

    Attributes:
        median, least, most: Of the lengths, > 0.
        factor: All rows were multiplied by it; 1 = their scale was kept.
    """

    median: float
    least: float
    most: float
    factor: float

    def note(self, kind: str, width: int) -> str:
        """What the user should know.

        Args:
            kind: `text` or `image`.
            width: Of the vectors.
        """
        found = f"{kind} vectors have lengths of {self.least:.3g} to {self.most:.3g}, median {self.median:.3g}"
        if self.factor == 1:
            return f"{found}, kept as they are; the usual median is {np.sqrt(width):.3g}"
        return f"{found}: normalised to a median of {np.sqrt(width):.3g} (--keep-feature-scale keeps them)"


def measure_scale(vectors: Float[np.ndarray, "V F"], *, keep: bool) -> VectorScale | None:
    """Measure the lengths of the rows, and the factor that brings their median to the square root of the width.

    Args:
        vectors: Finite; zero rows are items without a vector and do not count.
        keep: The factor is 1.
    Returns:
        None where all rows are zero.
    """
    lengths = row_lengths(vectors)
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return None
    median = float(np.median(lengths))
    factor = float(np.sqrt(vectors.shape[1])) / median
    is_kept = keep or abs(factor - 1) < _SAME
    return VectorScale(median, float(lengths.min()), float(lengths.max()), 1.0 if is_kept else factor)


def multiply(vectors: Float[np.ndarray, "V F"], factor: float) -> None:
    """Multiply vectors in place, block by block in float64."""
    for begin in range(0, len(vectors), _ROWS_A_BLOCK):
        block = slice(begin, begin + _ROWS_A_BLOCK)
        vectors[block] = vectors[block].astype(np.float64) * factor


def row_lengths(vectors: Float[np.ndarray, "V F"]) -> Float64[np.ndarray, "V"]:
    """Euclidean length of each row in float64, block by block."""
    lengths = np.empty(len(vectors))
    for begin in range(0, len(vectors), _ROWS_A_BLOCK):
        block = slice(begin, begin + _ROWS_A_BLOCK)
        lengths[block] = np.linalg.norm(vectors[block].astype(np.float64), axis=1)
    return lengths
