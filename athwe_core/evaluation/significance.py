"""Whether two models differ on the same users: paired t-test, and Holm's correction for several tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from athwe_core.errors import DataError


def paired_test(a: Float64[np.ndarray, "U"], b: Float64[np.ndarray, "U"]) -> float:
    """Two-sided p-value of the paired t-test of two models; the hypothesis is that their mean difference over users is 0.

        t = mean(d) / (std(d) / sqrt(U))        d = a - b        U - 1 degrees of freedom

    Args:
        a, b: (U,) a metric of the same users, in the same order, under each model; U >= 2.
    Returns: p in [0, 1]; 1.0 where no user differs, 0.0 where every user differs by the same amount.
    Raises:
        DataError: `a` and `b` have different lengths, or fewer than two users.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or len(a) < 2:
        raise DataError("paired test", "must have the same two or more users on both sides", (len(a), len(b)))
    differences = a - b
    if not differences.any():
        return 1.0
    if np.ptp(differences) <= 1e-12 * np.abs(differences).max():
        return 0.0
    from scipy import stats  # noqa: PLC0415 - the import takes half a second

    return float(stats.ttest_rel(a, b).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for the number of tests by Holm's step-down rule.

        adjusted of the i-th smallest of m = max over j <= i of min(1, (m - j + 1) p_j)

    Args:
        p_values: of all tests that were made, each in [0, 1].
    Returns: adjusted p-values in [0, 1], in the order of the arguments.
    Source: Holm 1979.
    """
    count = len(p_values)
    adjusted, largest = [0.0] * count, 0.0
    for rank, index in enumerate(sorted(range(count), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
