"""The rank of each row's target among the whole catalogue: counted, never sorted or sampled."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from athwe_core.errors import AthweError


def target_ranks(
    scores: Float[Tensor, "B V"],
    targets: Int64[Tensor, " B"],
    *,
    excluded: tuple[Int64[Tensor, " E"], Int64[Tensor, " E"]] | None = None,
) -> Float32[Tensor, " B"]:
    """Expected rank of the target when items of equal score stand in random order.

        rank = 1 + #(score > target's score) + #(other items with score = target's score) / 2

    Args:
        scores: float32 or float64, not changed; half precision would tie items that differ. Column 0 is the padding and
            is never looked at. Infinities are legal.
        targets: 1..V-1; these and `excluded` are on the scores' device.
        excluded: (row, column) pairs of items to leave out of the ranking, such as the ones a user has seen, in any
            order and with repeats. A pair that names the row's target or the padding changes nothing.
    Returns: (B,) multiples of 1/2 in 1..V-1, on the scores' device; exact for V up to 2**23.
    Raises:
        AthweError: A score is NaN: against it every comparison is false, so the target would rank first.
    """
    assert scores.dtype in (torch.float32, torch.float64), f"scores must be float32 or float64, got {scores.dtype}"
    assert bool((targets > 0).all()), "targets must be items, got the padding"
    items = scores[:, 1:]
    _refuse_nan(items)
    target_scores = scores.gather(1, targets[:, None])
    # summed as int32: the default int64 sum of booleans is 20 times slower on a CPU
    above = (items > target_scores).sum(dim=1, dtype=torch.int32)
    equal = (items == target_scores).sum(dim=1, dtype=torch.int32) - 1  # without the target itself
    if excluded is not None:
        rows, columns = _distinct_others(*excluded, targets=targets, num_columns=scores.shape[1])
        excluded_scores, own_target = scores[rows, columns], target_scores[rows, 0]
        above.index_add_(0, rows, (excluded_scores > own_target).int(), alpha=-1)
        equal.index_add_(0, rows, (excluded_scores == own_target).int(), alpha=-1)
    return 1 + above + equal / 2


def _refuse_nan(items: Float[Tensor, "B items"]) -> None:
    """Raise AthweError that names the rows with a NaN; the maximum carries it, at the price of one pass."""
    rows = items.amax(dim=1).isnan().nonzero()[:, 0].tolist()
    if rows:
        named = ", ".join(map(str, rows[:8])) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
        remedy = "The network has diverged: take an earlier checkpoint or lower training.lr"
        raise AthweError(f"scores of row {named}", "must not be NaN", remedy=remedy)


def _distinct_others(
    rows: Int64[Tensor, " E"], columns: Int64[Tensor, " E"], *, targets: Int64[Tensor, " B"], num_columns: int
) -> tuple[Int64[Tensor, " K"], Int64[Tensor, " K"]]:
    """The pairs, each once, without those that name their row's target or the padding."""
    kept = (columns != targets[rows]) & (columns != 0)
    cells = torch.unique(rows[kept] * num_columns + columns[kept])
    return cells // num_columns, cells % num_columns
