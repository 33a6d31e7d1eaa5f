"""Facts about the feature vectors of a prepared data set."""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import Float, Float32
from numpy.typing import NDArray

from athwe_core.analysis.audit.result import FeatureFacts

PAIRS = 20_000
"""Random pairs of feature rows whose cosine is averaged."""
ROWS_A_BLOCK = 4096
"""Feature rows that are in memory at a time."""
DIGEST_BYTES = 16


def feature_facts(table: Float[np.ndarray, "V F"] | None, seed: int) -> FeatureFacts | None:
    """Coverage, duplicates, scale and spread of the vectors of one modality.

    A mapped table is read block by block, so memory does not grow with its width.

    Args:
        table: row 0 is the padding; None = the data set has no such features.
        seed: of the pairs whose cosine is averaged.
    """
    if table is None:
        return None
    num_items, width = len(table) - 1, table.shape[1]
    digests, norms = _row_digests_and_norms(table)
    present = np.flatnonzero(norms > 0)
    if not len(present):
        return FeatureFacts(
            width=width, coverage=0.0, duplicates=0.0, norm_mean=0.0, norm_sd=0.0, norm_median=0.0, mean_cosine=0.0
        )
    lengths = norms[present]
    cosines = _pair_cosines(table, norms, present, seed)
    return FeatureFacts(
        width=width,
        coverage=len(present) / num_items,
        duplicates=1 - len(np.unique(digests[present])) / len(present),
        norm_mean=float(lengths.mean()),
        norm_sd=float(lengths.std()),
        norm_median=float(np.median(lengths)),
        mean_cosine=float(cosines.mean()) if len(cosines) else 1.0,
    )


def _row_digests_and_norms(
    table: Float[np.ndarray, "V F"],
) -> tuple[NDArray[np.void], Float32[np.ndarray, "V"]]:
    """16 bytes for each row, equal for equal rows, and its norm; row 0, the padding, has norm 0."""
    digests = np.zeros(len(table), np.dtype((np.void, DIGEST_BYTES)))
    norms = np.zeros(len(table), np.float32)
    for begin in range(1, len(table), ROWS_A_BLOCK):
        block = np.asarray(table[begin : begin + ROWS_A_BLOCK], np.float32) + 0.0  # -0 equals 0
        norms[begin : begin + len(block)] = np.linalg.norm(block, axis=1)
        found = [hashlib.blake2b(row.tobytes(), digest_size=DIGEST_BYTES).digest() for row in block]
        digests[begin : begin + len(block)] = np.frombuffer(b"".join(found), digests.dtype)
    return digests, norms


def _pair_cosines(
    table: Float[np.ndarray, "V F"], norms: Float32[np.ndarray, "V"], present: NDArray[np.int64], seed: int
) -> Float32[np.ndarray, "P"]:
    """Cosines of `PAIRS` random pairs of present rows, without the pairs of a row with itself."""
    first, second = present[np.random.default_rng(seed).integers(0, len(present), (2, PAIRS))]
    first, second = first[first != second], second[first != second]
    cosines = np.zeros(len(first), np.float32)
    for begin in range(0, len(first), ROWS_A_BLOCK):
        block = slice(begin, begin + ROWS_A_BLOCK)
        left, right = (
            np.asarray(table[rows[block]], np.float32) / norms[rows[block], None] for rows in (first, second)
        )
        cosines[block] = np.einsum("pf,pf->p", left, right)
    return cosines
