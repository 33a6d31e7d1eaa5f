"""NDCG, MRR and Hit at k from the rank of each user's one held-out item: per user first, the mean second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from athwe_core.errors import DataError


def per_user_metrics(ranks: Float64[np.ndarray, "U"], ks: Sequence[int]) -> dict[str, Float64[np.ndarray, "U"]]:
    """Metrics of each user, whose one relevant item has rank r; all are 0 where r > k.

        ndcg@k = 1 / log2(r + 1)        mrr@k = 1 / r        hit@k = 1

    The ideal DCG of one relevant item is 1, so NDCG equals DCG.

    Args:
        ranks: (U,) >= 1; a rank that ties share may be a half-integer.
        ks: cut-offs, each >= 1.
    Returns: (U,) arrays in [0, 1] under `ndcg@k` for each k, then `mrr@k`, then `hit@k`.
    Raises:
        DataError: There are no ranks, or one is below 1 or NaN.
    Source: Jarvelin and Kekalainen 2002 for NDCG; Voorhees 1999 for the reciprocal rank.
    """
    ranks = np.asarray(ranks, np.float64)
    if not len(ranks):
        raise DataError("ranks", "must not be empty: there is no user to evaluate")
    if not (ranks >= 1).all():
        raise DataError("ranks", "must be >= 1", float(ranks[~(ranks >= 1)][0]))
    gains = {"ndcg": 1 / np.log2(ranks + 1), "mrr": 1 / ranks, "hit": np.ones_like(ranks)}
    return {f"{metric}@{k}": np.where(ranks <= k, gain, 0.0) for metric, gain in gains.items() for k in ks}


def metric_name(metric: str) -> str:
    """The name of a metric as people write it: `NDCG@10` for `ndcg@10`, `Hit@5` for `hit@5`; without a cut-off `NDCG`."""
    name, at, k = metric.partition("@")
    return f"{'Hit' if name == 'hit' else name.upper()}{at}{k}"


def mean_metrics(ranks: Float64[np.ndarray, "U"], ks: Sequence[int]) -> dict[str, float]:
    """Means of `per_user_metrics` over users.

    Args:
        ranks, ks: as in `per_user_metrics`.
    Returns: means in [0, 1], in the same order of keys.
    Raises:
        DataError: As in `per_user_metrics`.
    """
    return {name: float(values.mean()) for name, values in per_user_metrics(ranks, ks).items()}
