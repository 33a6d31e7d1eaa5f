"""Whether two models differ on the same users: paired t-tests, and Holm's correction for several tests."""

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
    Source: Student 1908; for rankings, Smucker et al. 2007.
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


def paired_test_over_seeds(a: Float64[np.ndarray, "S U"], b: Float64[np.ndarray, "R U"]) -> float:
    """Two-sided p-value that the mean difference is 0, where both the users and the seeds are random samples.

        d_u = mean_s a_su - mean_r b_ru
        v   = var_u(d) / U + var_s(mean_u a) / S + var_r(mean_u b) / R
        t   = mean(d) / sqrt(v)
        degrees of freedom (Satterthwaite) = v^2 / (v_1^2 / (U - 1) + v_2^2 / (S - 1) + v_3^2 / (R - 1))

    v_1, v_2 and v_3 are the three parts of v. The test answers whether new seeds and new users would show a difference too;
    `paired_test` of the seeds' means answers this for new users and the same trained weights. It is a little conservative,
    as how users and seeds interact is counted in each part.

    Args:
        a, b: a metric of the same users, in the same order, under two models, each trained with several seeds; U, S, R >= 2.
    Returns: p in [0, 1]; 1.0 where nothing differs, 0.0 where every user differs by the same amount under every seed.
    Raises:
        DataError: The two do not hold the same number of users, or fewer than two users or seeds.
    Source: Satterthwaite 1946, "An approximate distribution of estimates of variance components".
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(*a.shape, *b.shape) < 2:
        rule = "must have two or more seeds on both sides, and the same two or more users"
        raise DataError("paired test over seeds", rule, (a.shape, b.shape))
    differences = a.mean(axis=0) - b.mean(axis=0)
    seed_means = (a.mean(axis=1), b.mean(axis=1))
    parts = np.array([values.var(ddof=1) / len(values) for values in (differences, *seed_means)])
    counts = np.array([len(values) for values in (differences, *seed_means)])
    mean, variance = differences.mean(), parts.sum()
    if variance <= (1e-12 * np.abs(differences).max()) ** 2:
        return 1.0 if mean == 0 else 0.0
    from scipy import stats  # noqa: PLC0415 - takes half a second, and only tests need it

    freedom = variance**2 / (parts**2 / (counts - 1)).sum()
    return float(2 * stats.t.sf(abs(mean) / np.sqrt(variance), freedom))


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
