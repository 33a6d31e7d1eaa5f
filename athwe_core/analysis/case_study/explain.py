"""Why a network ranks an item where it does: gates, bands, attention, and what would change if the history did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from athwe_core.analysis.case_study.loaded_run import CaseRun, ForwardPass, History, ranks, top_items
from athwe_core.models.protocol import Explanation

SECONDS_PER_DAY = 86_400
OTHER_GAPS = {"one day": SECONDS_PER_DAY, "one week": 7 * SECONDS_PER_DAY, "one year": 365 * SECONDS_PER_DAY}
AS_IT_WAS = "as it was"


@torch.inference_mode()
def explain(
    run: CaseRun,
    history: History,
    look: ForwardPass,
    subject: int,
    *,
    top: list[int],
    excluded: Int64[Tensor, " E"],
    item_ids: Sequence[str],
    first_position: int,
) -> dict[str, Any]:
    """Everything about the place of one item.

    Args:
        history: the run's window, n items; `look` is what the run makes of it.
        subject: internal id of the item explained.
        top: internal ids of the k best items for this history.
        excluded: items that are out of the ranking.
        item_ids: raw ids by internal id.
        first_position: added to the positions in `influence`: where the window begins in what the reader sees.
    Returns:
        by_modality, score, rank: of the subject; by_modality is empty for a model without such parts.
        temporal_gates: n lists of E; None without temporal experts.    interactive_gates: the same by modality.
        wavelet_energy: bands from slow to fast, and by modality the share of each in the sum of their squares; None without.
        attention: by modality (empty without attention), for each layer n weights of the last position, mean over heads.
        influence: for each position, what leaving it out changes: rank and score without it, less those with it.
        gaps: rank, score and top items with the last item moved to another time after the one before.
        The last two are empty for a history of one item.
    """
    rank, *_ = ranks(look.scores[None], subject, excluded=excluded)
    score = float(look.scores[subject])
    return {
        "first_position": first_position,
        "by_modality": run.by_modality(look, [subject])[0],
        "score": score,
        "rank": rank,
        **_inside(look.explanation),
        "influence": _influence(
            run, history, subject, rank, score, excluded=excluded, item_ids=item_ids, first_position=first_position
        ),
        "gaps": _gaps(run, history, subject, rank, score, top=top, excluded=excluded, item_ids=item_ids),
    }


def _inside(view: Explanation) -> dict[str, Any]:
    """What the model tells of itself; None or empty where it has no such part."""
    bands = {"bands": list(view.wavelet_bands), "share": dict(view.wavelet_energy)}
    return {
        "temporal_gates": view.temporal_gates,
        "interactive_gates": None if view.interactive_gates is None else dict(view.interactive_gates),
        "wavelet_energy": bands if view.wavelet_bands else None,
        "attention": dict(view.attention),
    }


def _influence(
    run: CaseRun,
    history: History,
    subject: int,
    rank: float,
    score: float,
    *,
    excluded: Int64[Tensor, " E"],
    item_ids: Sequence[str],
    first_position: int,
) -> list[dict[str, Any]]:
    """Leave each item out once; the intervals are those of the times that remain, and no earlier item moves in."""
    items, times = history
    if len(items) == 1:
        return []
    shorter = [(items[:i] + items[i + 1 :], times[:i] + times[i + 1 :]) for i in range(len(items))]
    scores = run.scores(shorter)
    return [
        {
            "position": first_position + position,
            "item_id": item_ids[items[position]],
            "rank_without": without,
            "rank_change": without - rank,
            "score_change": float(scores[position, subject]) - score,
        }
        for position, without in enumerate(ranks(scores, subject, excluded=excluded))
    ]


def _gaps(
    run: CaseRun,
    history: History,
    subject: int,
    rank: float,
    score: float,
    *,
    top: list[int],
    excluded: Int64[Tensor, " E"],
    item_ids: Sequence[str],
) -> list[dict[str, Any]]:
    items, times = history
    if len(items) == 1:
        return []
    before = times[-2]
    scores = run.scores([(items, [*times[:-1], before + gap]) for gap in OTHER_GAPS.values()])
    found = [(AS_IT_WAS, times[-1] - before, rank, score, top)]
    for row, (label, gap), other in zip(
        scores, OTHER_GAPS.items(), ranks(scores, subject, excluded=excluded), strict=True
    ):
        found.append((label, gap, other, float(row[subject]), top_items(row, k=len(top), excluded=excluded)))
    return [
        {
            "label": label,
            "gap_seconds": gap,
            "rank": rank_then,
            "score": score_then,
            "kept": len(set(top) & set(top_then)),
            "top": [item_ids[item] for item in top_then],
        }
        for label, gap, rank_then, score_then, top_then in found
    ]
