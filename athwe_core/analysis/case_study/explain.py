"""Why a model ranks an item where it does: its own account, and what would change with another history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from athwe_core.analysis.case_study.loaded_run import CaseRun, ForwardPass, History, ranks, top_items
from athwe_core.analysis.case_study.result import BandEnergy, Influence, OtherGap, Subject, Why

SECONDS_PER_DAY = 86_400
OTHER_GAPS = {"one day": SECONDS_PER_DAY, "one week": 7 * SECONDS_PER_DAY, "one year": 365 * SECONDS_PER_DAY}
AS_IT_WAS = "as it was"


@torch.inference_mode()
def explain(
    run: CaseRun,
    history: History,
    found: ForwardPass,
    subject: int,
    *,
    named: Subject,
    top: list[int],
    excluded: Int64[Tensor, " E"],
    item_ids: Sequence[str],
    first_position: int,
) -> Why:
    """Why a run ranks an item where it does.

    Influence and other gaps come from scores alone. Everything else is the model's own account of itself, which it may
    leave out.

    Args:
        run: the run.
        history: its window, n items.
        found: the run's forward pass of `history`.
        subject: internal id of the explained item.
        named: the same item as readers see it.
        top: internal ids of the k best items for this history.
        excluded: internal ids that are left out of the ranking.
        item_ids: raw ids by internal id.
        first_position: position in the shown history where the window begins; added to the positions in `influence`.
    """
    rank, *_ = ranks(found.scores[None], subject, excluded=excluded)
    score = float(found.scores[subject])
    view = found.explanation
    return Why(
        subject=named,
        first_position=first_position,
        by_modality=run.by_modality(found, [subject])[0],
        score=score,
        rank=rank,
        temporal_gates=view.temporal_gates,
        interactive_gates=None if view.interactive_gates is None else dict(view.interactive_gates),
        wavelet_energy=_energy(view.wavelet_bands, view.wavelet_energy),
        frequency_energy=_energy(view.frequency_bands, view.frequency_energy),
        attention=dict(view.attention),
        attention_parts=dict(view.attention_parts),
        influence=_influence(
            run, history, subject, rank, score, excluded=excluded, item_ids=item_ids, first_position=first_position
        ),
        gaps=_gaps(run, history, subject, rank, score, top=top, excluded=excluded, item_ids=item_ids),
    )


def _energy(bands: Sequence[str], shares: Mapping[str, list[float]]) -> BandEnergy | None:
    """None for a model without bands."""
    return {"bands": list(bands), "share": dict(shares)} if bands else None


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
) -> list[Influence]:
    """Leave each item out once. The gap around it closes by the times that remain; no earlier item takes its place."""
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
) -> list[OtherGap]:
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
