"""One user looked at closely: the history, what each run recommends, and why (figure 6 of the HM4SR paper and more)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from athwe_core.analysis.case_study.explain import explain
from athwe_core.analysis.case_study.item_metadata import ItemFacts
from athwe_core.analysis.case_study.loaded_run import CaseRun, CaseRuns, ranks, top_items
from athwe_core.analysis.case_study.result import CaseStudy, HistoryItem, Recommendation, Subject, Target, Why
from athwe_core.analysis.case_study.select_user import Case
from athwe_core.errors import ConfigError, DataError


@torch.inference_mode()
def case_study(
    opened: CaseRuns, case: Case, *, k: int = 10, exclude_seen: bool | None = None, explained: int | None = None
) -> CaseStudy:
    """What each run recommends after a history, and why, as plain values that JSON can hold.

    Args:
        opened: from `open_runs`. Each run is explained; the first gives the target's `rank`.
        case: the history and its target.
        k: recommendations of each run, >= 1.
        exclude_seen: leave the items of the whole history out of the ranking, but never the target. None = as the first run
            was trained. All runs follow one rule, so their ranks can be compared.
        explained: internal id of the item that `why` explains; None = the target, or the first recommendation where there is
            no target.
    Returns: the case study.
    Raises:
        ConfigError: `k` is below 1.
        DataError: The history holds every item, so there is none to recommend.
    """
    if k < 1:
        raise ConfigError("--k", "must be positive", k)
    prepared, items, runs = opened.prepared, opened.items, opened.runs
    rule = runs[0].config.evaluation.exclude_seen if exclude_seen is None else exclude_seen
    length = min(max(run.config.model.max_length for run in runs), len(case.item_ids))
    target = None if case.target is None else case.target[0]
    seen = sorted(set(case.item_ids) - {target}) if rule else []
    views = {run.name: _view(run, case, items, k=k, seen=seen, shown=length, explained=explained) for run in runs}
    return {
        "dataset": prepared.name,
        "data_version": prepared.version,
        "tie_order": prepared.manifest["statistics"]["tie_order"],
        "split_rule": prepared.split_rule,
        "split": case.split,
        "user": case.user,
        "picked": case.picked,
        "history": _history(case, items, length),
        "earlier_items": len(case.item_ids) - length,
        "target": _target(case, items, {name: why["rank"] for name, (_, why) in views.items()}),
        "recommendations": {name: recommended for name, (recommended, _) in views.items()},
        "why": {name: why for name, (_, why) in views.items()},
        "runs": {run.name: run.facts() for run in runs},
        "k": k,
        "exclude_seen": rule,
    }


def _history(case: Case, items: ItemFacts, length: int) -> list[HistoryItem]:
    gaps = [None, *np.diff(case.timestamps).tolist()]
    first = len(case.item_ids) - length
    return [
        {
            "position": at - first,
            **items.of(case.item_ids[at]),
            "date": utc_date(case.timestamps[at]),
            "timestamp": case.timestamps[at],
            "gap_seconds": gaps[at],
        }
        for at in range(first, len(case.item_ids))
    ]


def utc_date(seconds: int) -> str:
    """`2014-03-01` for unix seconds of any size."""
    return str(np.datetime64(seconds, "s").astype("datetime64[D]"))


def _target(case: Case, items: ItemFacts, rank_by_run: dict[str, float]) -> Target | None:
    if case.target is None:
        return None
    item, seconds = case.target
    return {
        **items.of(item),
        "date": utc_date(seconds),
        "timestamp": seconds,
        "gap_seconds": seconds - case.timestamps[-1],
        "rank": next(iter(rank_by_run.values())),
        "ranks": rank_by_run,
    }


def _view(
    run: CaseRun, case: Case, items: ItemFacts, *, k: int, seen: list[int], shown: int, explained: int | None
) -> tuple[list[Recommendation], Why]:
    """What one run recommends, and why."""
    history = run.window(case)
    found = run.forward(history)
    excluded: Int64[Tensor, " E"] = torch.tensor(seen, dtype=torch.int64, device=found.scores.device)
    top = top_items(found.scores, k=k, excluded=excluded)
    if not top:
        raise DataError("history", f"holds every item of the catalogue: run {run.name} has none to recommend")
    target = None if case.target is None else case.target[0]
    past = set(case.item_ids)
    recommended: list[Recommendation] = [
        {
            "rank": ranks(found.scores[None], item, excluded=excluded)[0],
            **items.of(item),
            "score": float(found.scores[item]),
            "by_modality": parts,
            "in_history": item in past,
            "is_target": item == target,
        }
        for item, parts in zip(top, run.by_modality(found, top), strict=True)
    ]
    subject = explained or target or top[0]
    named = Subject(item_id=items.item_ids[subject], title=items.titles[subject], is_target=subject == target)
    if explained is not None and subject != target:
        named["is_chosen"] = True
    why = explain(
        run,
        history,
        found,
        subject,
        named=named,
        top=top,
        excluded=excluded,
        item_ids=items.item_ids,
        first_position=shown - len(history[0]),
    )
    return recommended, why
