"""Augmented views of sequences whose choices even out the time intervals between items (TiCoSeRec).

Rows are rectangles: `items` holds the ids of B rows, right-padded with 0 to L positions, `lengths` the number n >= 1 of items
of each row, and `gaps[j]` the seconds between item j and the next one. `modes` are `minimum` and `maximum`. No function
draws: random choices are arguments.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int64
from torch import Tensor

Mode = Literal["minimum", "maximum"]


def counts_of(lengths: Int64[Tensor, "*B"], rate: float) -> Int64[Tensor, "*B"]:
    """floor(rate * n) for each row.

    Args:
        lengths: n of each row.
        rate: share of the items, in [0, 1].
    Returns: whole numbers in 0..n.
    """
    return (lengths.double() * rate + 1e-9).long()  # 0.7 * 10 is 7, also where its product is 6.999...


def by_gap(
    gaps: Int64[Tensor, "B L"], known: Int64[Tensor, " B"], count: Int64[Tensor, " B"], mode: Mode
) -> Bool[Tensor, "B L"]:
    """Items with the smallest or the largest gaps.

    Args:
        gaps: seconds to the next item.
        known: number of gaps of each row, from the first on; further items are not chosen.
        count: items to choose.
        mode: which gaps. Of equal gaps `minimum` takes the earlier and `maximum` the later.
    Returns: True for chosen items, `min(count, known)` in each row.
    Source: TiCoSeRec, the positions that its operators choose.
    """
    is_known = torch.arange(gaps.shape[1], device=gaps.device) < known[:, None]
    order = torch.where(is_known, gaps, torch.iinfo(gaps.dtype).max).argsort(dim=1, stable=True)
    rank = order.argsort(dim=1)
    if mode == "maximum":
        rank = known[:, None] - 1 - rank
    return is_known & (rank < count[:, None])


def window_start(
    gaps: Int64[Tensor, "B L"],
    lengths: Int64[Tensor, " B"],
    count: Int64[Tensor, " B"],
    mode: Mode,
    *,
    num_gaps: Int64[Tensor, " B"],
) -> Int64[Tensor, " B"]:
    """Start of the window of `count` items whose gaps have the smallest or the largest variance; ties go to the last.

    Args:
        gaps: seconds to the next item.
        lengths: n of each row.
        count: items of the window, in 1..n.
        mode: which variance.
        num_gaps: gaps of the window that count, from its first on: count - 1 are those between its items, count - 2 those
            that the published code uses.
    Returns: 0..n - count.
    """
    L = gaps.shape[1]
    place = torch.arange(L, device=gaps.device)
    windows = F.pad(gaps, (0, L - 1)).unfold(1, L, 1).double()  # [b, s, j] is the gap of item s + j
    counted = (place < num_gaps[:, None])[:, None]
    number = num_gaps.clamp(min=1)[:, None]
    mean = torch.where(counted, windows, 0).sum(2) / number
    variance = torch.where(counted, (windows - mean[..., None]) ** 2, 0).sum(2) / number
    variance = variance if mode == "minimum" else -variance
    variance = torch.where(place <= (lengths - count)[:, None], variance, torch.inf)
    return torch.where(variance == variance.amin(dim=1, keepdim=True), place, -1).amax(dim=1)


def crop(
    items: Int64[Tensor, "B L"], start: Int64[Tensor, " B"], count: Int64[Tensor, " B"]
) -> tuple[Int64[Tensor, "B L"], Int64[Tensor, " B"]]:
    """A window of each row.

    Args:
        items: rows.
        start: first item of the window.
        count: items of the window, >= 1.
    Returns: rows and their lengths.
    Source: TiCoSeRec, Ti-Crop.
    """
    L = items.shape[1]
    place = torch.arange(L, device=items.device)
    found = items.gather(1, (start[:, None] + place).clamp(max=L - 1))
    return torch.where(place < count[:, None], found, 0), count


def reorder(
    items: Int64[Tensor, "B L"], start: Int64[Tensor, " B"], count: Int64[Tensor, " B"], order: Int64[Tensor, "B L"]
) -> Int64[Tensor, "B L"]:
    """A window of each row in another order.

    Args:
        items: rows.
        start: first item of the window.
        count: items of the window.
        order: place i of the window gets its old place order[i]; only the first `count` entries are read.
    Returns: rows.
    Source: TiCoSeRec, Ti-Reorder.
    """
    place = torch.arange(items.shape[1], device=items.device) - start[:, None]
    is_inside = (place >= 0) & (place < count[:, None])
    source = order.gather(1, place.clamp(min=0)) + start[:, None]
    return torch.where(is_inside, items.gather(1, torch.where(is_inside, source, 0)), items)


def mask(items: Int64[Tensor, "B L"], chosen: Bool[Tensor, "B L"]) -> Int64[Tensor, "B L"]:
    """Chosen items become padding inside the row.

    Args:
        items: rows.
        chosen: True for items to mask.
    Returns: rows.
    Source: TiCoSeRec, Ti-Mask.
    """
    return items.masked_fill(chosen, 0)


def substitute(
    items: Int64[Tensor, "B L"], chosen: Bool[Tensor, "B L"], similar: Int64[Tensor, " V"]
) -> Int64[Tensor, "B L"]:
    """Chosen items become their most similar ones.

    Args:
        items: rows.
        chosen: True for items to replace.
        similar: the most similar item of each item.
    Returns: rows.
    Source: TiCoSeRec, Ti-Substitute.
    """
    return torch.where(chosen, similar[items], items)


def insert(
    items: Int64[Tensor, "B L"],
    lengths: Int64[Tensor, " B"],
    chosen: Bool[Tensor, "B L"],
    similar: Int64[Tensor, " V"],
    *,
    max_length: int,
) -> tuple[Int64[Tensor, "B M"], Int64[Tensor, " B"]]:
    """After each chosen item comes its most similar one; the last `max_length` items stay.

    Args:
        items: rows.
        lengths: n of each row.
        chosen: True for items with a new one behind them.
        similar: the most similar item of each item.
        max_length: M, positions of the result.
    Returns: rows and their lengths.
    Source: TiCoSeRec, Ti-Insert.
    """
    L = items.shape[1]
    chosen = chosen & (torch.arange(L, device=items.device) < lengths[:, None])
    grown = lengths + chosen.sum(1)
    cut = (grown - max_length).clamp(min=0)[:, None]
    place = torch.arange(L, device=items.device) + chosen.cumsum(1) - chosen.long() - cut
    overflow = max_length  # one more position takes what is cut and what is padding
    is_item = items > 0
    found = items.new_zeros(len(items), max_length + 1)
    found.scatter_(1, torch.where(is_item & (place >= 0), place, overflow), items)
    found.scatter_(1, torch.where(chosen & (place + 1 >= 0), place + 1, overflow), similar[items])
    return found[:, :max_length], grown - cut[:, 0]


def share_of_least_variance(
    gaps: Int64[Tensor, "B L"], known: Int64[Tensor, " B"], row_mask: Bool[Tensor, " B"], share: float
) -> Bool[Tensor, " B"]:
    """Rows whose gaps are already the most even: those with the smallest variance.

    Args:
        gaps: seconds to the next item.
        known: number of gaps of each row; rows with none are the most even.
        row_mask: False = padding, which is no row.
        share: of the rows, in [0, 1].
    Returns: True for floor(share * rows) rows.
    Source: TiCoSeRec, the choice of uniform sequences.
    """
    is_known = torch.arange(gaps.shape[1], device=gaps.device) < known[:, None]
    number = known.clamp(min=1)[:, None]
    mean = torch.where(is_known, gaps, 0).sum(1, keepdim=True).double() / number
    variance = torch.where(is_known, (gaps - mean) ** 2, 0).sum(1) / number[:, 0]
    rank = torch.where(row_mask, variance, torch.inf).argsort(stable=True).argsort()
    return rank < counts_of(row_mask.sum(), share)
