"""The result of an experiment: means, spreads, changes and paired tests of its runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, median, stdev
from typing import Literal, NotRequired, TypedDict

import numpy as np
import polars as pl
from jaxtyping import Float64
from safetensors import SafetensorError, safe_open

import athwe_core
from athwe_core.analysis.experiments.plan import Plan, Variant
from athwe_core.errors import CheckpointError
from athwe_core.evaluation.metrics import per_user_metrics
from athwe_core.evaluation.significance import holm, paired_test, paired_test_over_seeds
from athwe_core.runs.checkpoint import WEIGHTS
from athwe_core.runs.find import RunFolder, git_commit

SPLITS = ("validation", "test")

CHANCE = 0.05
"""A difference is beyond chance where the corrected p-value of its test is below this."""

TestedOver = Literal["users and seeds", "users"]
"""What a p-value generalises to. With one seed on a side it is `users`: how much the seed matters is then unknown."""


class Spread(TypedDict):
    """A metric over the seeds."""

    mean: float
    sd: float | None
    """Sample standard deviation; None for one seed."""
    values: list[float]


class Software(TypedDict):
    """The version of athwe that wrote a result."""

    version: str
    git_commit: str | None


class VariantResult(TypedDict):
    """The runs of one variant, one for each seed."""

    label: str
    values: dict[str, object]
    """The changed configuration keys with their values."""
    changes: list[str]
    """The same, each as for `--set`."""
    runs: list[str]
    metrics: dict[str, dict[str, Spread]]
    """By split and metric."""
    change_percent: float | None
    """Of the metric of the experiment, against the reference; None for the reference, and where there is none."""
    p_value: float | None
    """Of the paired test against the reference; None where `change_percent` has no reference."""
    p_holm: float | None
    """`p_value` corrected by Holm's rule for the number of variants tested."""
    p_over: TestedOver | None
    epochs: list[int]
    seconds_per_epoch: float
    parameters: int
    without_seen: NotRequired[dict[str, Spread]]
    """Metrics of the split with seen items taken out of the ranking; in a table of models."""
    published: NotRequired[dict[str, float]]
    """Test metrics of the model in the paper's table; in a table of models, where the paper has the data set."""


class BaselineResult(TypedDict):
    """A baseline that counts instead of being trained."""

    label: str
    metrics: dict[str, float]
    """Of the split of the experiment."""
    without_seen: dict[str, float]
    """The same with seen items taken out of the ranking."""


class ExperimentResult(TypedDict):
    """The content of an experiment's `result.json`."""

    kind: str
    dataset: str
    preset: str
    data_version: str
    tie_order: str
    split_rule: str
    exclude_seen: bool
    seeds: list[int]
    quick_epochs: int | None
    metric: str
    split: str
    varied: list[str]
    variants: list[VariantResult]
    baselines: NotRequired[list[BaselineResult]]
    """In a table of models."""
    test: str | None
    """What the p-values are of, a sentence; None where nothing was tested."""
    notes: list[str]
    command: str
    athwe: Software
    folder: NotRequired[str]


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation over the seeds, with the values themselves."""
    return {"mean": mean(values), "sd": stdev(values) if len(values) > 1 else None, "values": list(values)}


def mean_and_sd(value: Spread) -> str:
    """`0.0592 ± 0.0011`; the mean alone of one seed."""
    return f"{value['mean']:.4f}" + ("" if value["sd"] is None else f" ± {value['sd']:.4f}")


def p_text(p: float | None, *, untested: str = "") -> str:
    """A p-value with three decimals, `< 0.001` below that, and `untested` for None."""
    return untested if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def change_percent(value: float, reference: float) -> float | None:
    """By how many percent `value` is above the reference; None where that is 0."""
    return None if reference == 0 else 100 * (value / reference - 1)


def user_values(runs: Sequence[RunFolder], *, metric: str, split: str) -> pl.DataFrame:
    """The metric of each user under each run.

    Args:
        runs: of one variant, >= 1.
        metric: e.g. `ndcg@10`.
        split: `validation` or `test`.
    Returns: `user_id` and a column for each run, by user id; users that all runs have.
    """
    found: pl.DataFrame | None = None
    for number, run in enumerate(runs):
        ranks = run.ranks(split)
        values = per_user_metrics(ranks["rank"].to_numpy(), (int(metric.split("@")[1]),))[metric]
        frame = ranks.select("user_id").with_columns(pl.Series(f"run_{number}", values))
        found = frame if found is None else found.join(frame, on="user_id", how="inner")
    assert found is not None
    return found.sort("user_id")


def paired_p_value(a: Float64[np.ndarray, "S U"], b: Float64[np.ndarray, "R U"]) -> tuple[float, TestedOver]:
    """p-value of the paired test between two models, and what it generalises to.

    Args:
        a, b: a metric by seed and user, the same users in the same order.
    Returns: over users and seeds where both models have several seeds, else over users, each averaged over the seeds.
    """
    if min(len(a), len(b)) > 1:
        return paired_test_over_seeds(a, b), "users and seeds"
    return paired_test(a.mean(axis=0), b.mean(axis=0)), "users"


def p_value_of_users(a: pl.DataFrame, b: pl.DataFrame) -> tuple[float, TestedOver]:
    """`paired_p_value` of the users that two frames of `user_values` share."""
    both = a.join(b, on="user_id", how="inner", suffix="_of_other").drop("user_id").to_numpy().T
    return paired_p_value(both[: a.width - 1], both[a.width - 1 :])


def describe_test(tested_over: Iterable[TestedOver | None]) -> str | None:
    """What the p-values of several tests are of, as a sentence without its full stop; None for no test."""
    found = {over for over in tested_over if over is not None}
    if not found:
        return None
    if found == {"users and seeds"}:
        return "p is of a paired t-test over users and seeds, after Holm's correction"
    if found == {"users"}:
        return (
            "p is of a paired t-test over users, after Holm's correction. It leaves out the spread over seeds, "
            "which takes several seeds on both sides"
        )
    return (
        "p is of a paired t-test over users and seeds, after Holm's correction; over users only "
        "where a side has one seed"
    )


def num_parameters(run: RunFolder) -> int:
    """How many numbers the floating-point tensors of the run's best weights have, read from the file's header.

    Raises: CheckpointError when the file is missing or unreadable.
    """
    path = run.best / WEIGHTS
    try:
        with safe_open(path, framework="numpy") as file:
            parts = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 - it is no mapping
            return sum(math.prod(part.get_shape()) for part in parts if part.get_dtype().startswith(("F", "BF")))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(str(path), f"must be a readable safetensors file ({error})") from None


def aggregate(plan: Plan, runs: Mapping[str, RunFolder], *, command: str) -> ExperimentResult:
    """The result of an experiment, without its `folder`.

    Args:
        plan: with its variants and seeds.
        runs: identity to finished run, one for each run of the plan.
        command: the command that does it again.
    Raises: CheckpointError for a run whose ranks or weights are missing or unreadable.
    """
    experiment, prepared = plan.experiment, plan.prepared
    folders = [[runs[planned.identity] for planned in plan.of_variant(variant)] for variant in experiment.variants]
    variants = [
        _variant_result(variant, of_variant) for variant, of_variant in zip(experiment.variants, folders, strict=True)
    ]
    if experiment.reference is not None:
        _compare(variants, folders, experiment.reference, metric=experiment.metric, split=experiment.split)
    return {
        "kind": experiment.kind,
        "dataset": prepared.name,
        "preset": experiment.preset,
        "data_version": prepared.version,
        "tie_order": prepared.manifest["statistics"]["tie_order"],
        "split_rule": prepared.split_rule,
        "exclude_seen": experiment.variants[0].config.evaluation.exclude_seen,
        "seeds": list(experiment.seeds),
        "quick_epochs": experiment.quick_epochs,
        "metric": experiment.metric,
        "split": experiment.split,
        "varied": list(experiment.varied),
        "variants": variants,
        "test": describe_test(variant["p_over"] for variant in variants),
        "notes": list(experiment.notes),
        "command": command,
        "athwe": {"version": athwe_core.__version__, "git_commit": git_commit()},
    }


def _variant_result(variant: Variant, runs: Sequence[RunFolder]) -> VariantResult:
    """Of its runs, not compared yet."""
    results = [run.manifest()["results"] for run in runs]
    return {
        "label": variant.label,
        "values": variant.values,
        "changes": list(variant.changes),
        "runs": [run.name for run in runs],
        "metrics": {
            split: {name: spread([result[split][name] for result in results]) for name in results[0][split]}
            for split in SPLITS
        },
        "change_percent": None,
        "p_value": None,
        "p_holm": None,
        "p_over": None,
        "epochs": [result["epochs"] for result in results],
        "seconds_per_epoch": median(result["seconds_per_epoch"] for result in results),
        "parameters": num_parameters(runs[0]),
    }


def _compare(
    variants: list[VariantResult], folders: list[list[RunFolder]], reference: int, *, metric: str, split: str
) -> None:
    """Set change and p-values of all variants but the reference."""
    base = variants[reference]["metrics"][split][metric]["mean"]
    of_reference = user_values(folders[reference], metric=metric, split=split)
    others = [index for index in range(len(variants)) if index != reference]
    p_values = []
    for index in others:
        variant = variants[index]
        variant["change_percent"] = change_percent(variant["metrics"][split][metric]["mean"], base)
        of_variant = user_values(folders[index], metric=metric, split=split)
        p, variant["p_over"] = p_value_of_users(of_variant, of_reference)
        variant["p_value"] = p
        p_values.append(p)
    for index, adjusted in zip(others, holm(p_values), strict=True):
        variants[index]["p_holm"] = adjusted
