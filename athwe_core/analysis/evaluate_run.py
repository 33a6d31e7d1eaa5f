"""A finished run judged on a split: metrics, groups and the two baselines, from its best weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from athwe_core.data.prepare import PreparedDataset
from athwe_core.data.split import ALL_DATA, REFIT
from athwe_core.errors import ConfigError
from athwe_core.evaluation.baselines import popularity_ranks, transition_ranks
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.evaluation.groups import group_metrics, per_user_frame
from athwe_core.evaluation.metrics import mean_metrics
from athwe_core.runs.find import PER_USER, RunFolder
from athwe_core.training.build import build_best
from athwe_core.training.ranking_progress import RankingProgress


def baseline_metrics(
    prepared: PreparedDataset, *, split: str, exclude_seen: bool, ks: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Metrics of ranking by popularity and by what followed the last item in training."""
    ranks = {
        "popularity": popularity_ranks(prepared, split=split, exclude_seen=exclude_seen),
        "last-item transition": transition_ranks(prepared, split=split, exclude_seen=exclude_seen),
    }
    return {name: mean_metrics(found, ks) for name, found in ranks.items()}


def evaluate_run(
    run: RunFolder,
    prepared: PreparedDataset,
    *,
    split: str,
    exclude_seen: bool | None = None,
    ks: Sequence[int] | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Rank every user of `split` with the best weights of `run`.

    Args:
        exclude_seen, ks: the run's own where None.
        notify: called with a sentence a minute on how far the ranking is.
    Returns: run, split, users, metrics, groups, baselines, and under which rules (exclude_seen, tie_order, data_version).
    Ranks go to the run's `per_user.parquet`, beside those of the other split; to `per_user.<rule>.parquet` where seen items
    are treated otherwise than in training.
    Raises:
        CheckpointError: The run has no best weights yet.
        ConfigError: It was trained on the items of this split.
    """
    if prepared.split_rule == ALL_DATA:
        why = "was trained on all data: nothing is held out to evaluate it on"
        raise ConfigError(f"run {run.name}", why, remedy="Evaluate the run that it followed")
    if prepared.split_rule == REFIT and split == "validation":
        raise ConfigError(f"run {run.name}", "was trained on the validation items too", remedy="Use --split test")
    config = run.config()
    rule = config.evaluation.exclude_seen if exclude_seen is None else exclude_seen
    ks = config.evaluation.ks if ks is None else ks
    setup = build_best(run, prepared)
    ranks = rank_users(
        setup.model, prepared, split=split, exclude_seen=rule, on_progress=RankingProgress(split, notify)
    )
    frame = per_user_frame(prepared, ranks, split=split)
    has_own_rule = rule == config.evaluation.exclude_seen
    run.write_ranks(
        frame, file=PER_USER if has_own_rule else f"per_user.{'exclude' if rule else 'include'}_seen.parquet"
    )
    return {
        "run": run.name,
        "split": split,
        "users": len(ranks),
        "metrics": mean_metrics(ranks, ks),
        "groups": group_metrics(frame, ks),
        "baselines": baseline_metrics(prepared, split=split, exclude_seen=rule, ks=ks),
        "exclude_seen": rule,
        "tie_order": prepared.manifest["statistics"]["tie_order"],
        "split_rule": prepared.split_rule,
        "data_version": prepared.version,
    }
