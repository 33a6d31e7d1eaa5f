"""What the runs of an experiment come to: means, spreads, changes and paired tests, as one JSON-ready dictionary."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import polars as pl
from safetensors import SafetensorError, safe_open

import athwe_core
from athwe_core.analysis.experiments.plan import Plan
from athwe_core.errors import CheckpointError, ConfigError, require
from athwe_core.evaluation.metrics import per_user_metrics
from athwe_core.evaluation.significance import holm, paired_test
from athwe_core.runs.checkpoint import WEIGHTS
from athwe_core.runs.find import RunFolder, git_commit

SPLITS = ("validation", "test")
EXPERIMENTS = "experiments"
"""Folder of a data set's experiments, beside its presets."""


def spread(values: Sequence[float]) -> dict[str, Any]:
    """`mean`, sample standard deviation `sd` (None of one value) and the `values` themselves."""
    return {"mean": mean(values), "sd": stdev(values) if len(values) > 1 else None, "values": list(values)}


def change_percent(value: float, reference: float) -> float | None:
    """How much more than the reference; None where that is 0."""
    return None if reference == 0 else 100 * (value / reference - 1)


def user_values(runs: Sequence[RunFolder], *, metric: str, split: str) -> pl.DataFrame:
    """`user_id` and `value`: the metric of each user, averaged over the runs, in the order of the ids."""
    frames = []
    for run in runs:
        frame = run.ranks(split)
        values = per_user_metrics(frame["rank"].to_numpy(), (int(metric.split("@")[1]),))[metric]
        frames.append(frame.select("user_id").with_columns(value=pl.Series(values)))
    return pl.concat(frames).group_by("user_id").agg(pl.col("value").mean()).sort("user_id")


def p_value(a: pl.DataFrame, b: pl.DataFrame) -> float:
    """Paired test over the users that two frames of `user_values` share."""
    both = a.join(b, on="user_id", how="inner", suffix="_of_other")
    return paired_test(both["value"].to_numpy(), both["value_of_other"].to_numpy())


def num_parameters(run: RunFolder) -> int:
    """Numbers in the floating-point tensors of the run's best weights, from the file's header.

    Raises: CheckpointError when the file is missing or unreadable.
    """
    path = run.best / WEIGHTS
    try:
        with safe_open(path, framework="numpy") as file:
            parts = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 - it is no mapping
            return sum(math.prod(part.get_shape()) for part in parts if part.get_dtype().startswith(("F", "BF")))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(str(path), f"must be a readable safetensors file ({error})") from None


def aggregate(plan: Plan, runs: Mapping[str, RunFolder], *, command: str) -> dict[str, Any]:
    """The result of an experiment without its `folder`.

    Args:
        runs: identity to finished run.
        command: what to type to do it again.
    Returns: kind, dataset, preset, data_version, tie_order, split_rule, exclude_seen, seeds, quick_epochs, metric, split,
        varied, variants (label, values, changes, runs, metrics, change_percent, p_value, p_holm, epochs,
        seconds_per_epoch, parameters), notes, command, athwe.
    `p_value` is that of the paired test against the reference over users, each the mean over the seeds; `p_holm` corrects for
    the number of variants tested. Both and the change are None for the reference, and for all where there is none.
    """
    experiment, prepared = plan.experiment, plan.prepared
    folders = [[runs[planned.identity] for planned in plan.of_variant(variant)] for variant in experiment.variants]
    variants = [
        {
            "label": variant.label,
            "values": variant.values,
            "changes": list(variant.changes),
            **_measured(of_variant),
            "change_percent": None,
            "p_value": None,
            "p_holm": None,
        }
        for variant, of_variant in zip(experiment.variants, folders, strict=True)
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
        "notes": list(experiment.notes),
        "command": command,
        "athwe": {"version": athwe_core.__version__, "git_commit": git_commit()},
    }


def _measured(runs: Sequence[RunFolder]) -> dict[str, Any]:
    results = [run.manifest()["results"] for run in runs]
    return {
        "runs": [run.name for run in runs],
        "metrics": {
            split: {name: spread([result[split][name] for result in results]) for name in results[0][split]}
            for split in SPLITS
        },
        "epochs": [result["epochs"] for result in results],
        "seconds_per_epoch": median(result["seconds_per_epoch"] for result in results),
        "parameters": num_parameters(runs[0]),
    }


def _compare(
    variants: list[dict[str, Any]], folders: list[list[RunFolder]], reference: int, *, metric: str, split: str
) -> None:
    """Padding in change and p-values of all variants but the reference."""
    base = variants[reference]["metrics"][split][metric]["mean"]
    users = user_values(folders[reference], metric=metric, split=split)
    others = [index for index in range(len(variants)) if index != reference]
    for index in others:
        variants[index]["change_percent"] = change_percent(variants[index]["metrics"][split][metric]["mean"], base)
        variants[index]["p_value"] = p_value(user_values(folders[index], metric=metric, split=split), users)
    for index, adjusted in zip(others, holm([variants[index]["p_value"] for index in others]), strict=True):
        variants[index]["p_holm"] = adjusted


def require_free_name(runs_dir: Path, dataset: str, kind: str, name: str | None) -> None:
    """Refuse a `--name` that is no plain folder name or that an experiment has already."""
    if name is None:
        return
    require(name == Path(name).name and name not in ("", ".", ".."), "--name", "must be a plain name", name)
    folder = Path(runs_dir) / dataset / EXPERIMENTS / f"{kind}-{name}"
    if folder.exists():
        raise ConfigError("--name", f"must be new: {folder} is there", name, "Choose another, or delete the folder")


def write_result(result: dict[str, Any], *, runs_dir: Path, name: str | None) -> dict[str, Any]:
    """Write `result.json`, `result.csv`, `figure.svg` and `figure.png` to a folder of their own, whole or not at all.

    Args:
        name: last part of the folder's name; None = the time now.
    Returns: the result with its `folder`, `runs_dir/<dataset>/experiments/<kind>-<name>`.
    Raises: ConfigError when the name is taken.
    """
    require_free_name(runs_dir, result["dataset"], result["kind"], name)
    parent = Path(runs_dir) / result["dataset"] / EXPERIMENTS
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f"{result['kind']}-{name or datetime.now().strftime('%Y%m%d-%H%M%S')}"
    if folder.exists():
        folder = parent / f"{result['kind']}-{datetime.now().strftime('%Y%m%d-%H%M%S-%f')}"
    result = result | {"folder": str(folder)}
    temporary = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=parent))
    try:
        (temporary / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        _write_csv(temporary / "result.csv", result)
        _draw(result, temporary / "figure")
        temporary.chmod(0o755)  # mkdtemp makes it private
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return result


def _write_csv(path: Path, result: dict[str, Any]) -> None:
    """One line per variant, split and metric; change and p-values beside the metric and split they are about."""
    seeds = [f"seed_{seed}" for seed in result["seeds"]]
    compared = ["change_percent", "p_value", "p_holm"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["variant", "split", "metric", "mean", "sd", *seeds, *compared, "quick_epochs"])
        for variant in result["variants"]:
            for split, metrics in variant["metrics"].items():
                for metric, found in metrics.items():
                    is_about = (split, metric) == (result["split"], result["metric"])
                    tests = [variant[name] if is_about else None for name in compared]
                    numbers = [found["mean"], found["sd"], *found["values"], *tests, result["quick_epochs"]]
                    writer.writerow([variant["label"], split, metric, *numbers])


def _draw(result: dict[str, Any], stem: Path) -> None:
    from athwe_core.analysis.figures.plots import ablation_figure, save_figure, sweep_figure  # noqa: PLC0415 - matplotlib

    draw = ablation_figure if result["kind"] == "ablation" else sweep_figure
    save_figure(draw(result), stem)
