"""The folder of an experiment's result, `RUNS/DATASET/experiments/KIND-NAME`: written whole, listed and read."""

from __future__ import annotations

import csv
import json
import os
from datetime import datetime
from pathlib import Path

from athwe_core.analysis.experiments.result import ExperimentResult
from athwe_core.errors import ConfigError, require
from athwe_core.safe_write import UNFINISHED, unfinished_folder

EXPERIMENTS = "experiments"
"""Folder of a data set's experiments, beside its presets."""
RESULT = "result.json"


def require_free_name(runs_dir: Path, dataset: str, kind: str, name: str | None) -> None:
    """Refuse a `--name` that is no plain folder name or that another experiment of the kind has.

    Raises: ConfigError in both cases.
    """
    if name is None:
        return
    require(name == Path(name).name and name not in ("", ".", ".."), "--name", "must be a plain name", name)
    folder = Path(runs_dir) / dataset / EXPERIMENTS / f"{kind}-{name}"
    if folder.exists():
        raise ConfigError("--name", f"must be new: {folder} exists", name, "Choose another, or delete the folder")


def write_result(result: ExperimentResult, *, runs_dir: Path, name: str | None) -> ExperimentResult:
    """Write `result.json`, `result.csv`, `figure.svg` and `figure.png` to a new folder, whole or not at all.

    Args:
        result: of `aggregate`.
        runs_dir: folder of runs.
        name: last part of the folder's name; None = the time now.
    Returns: the result with its `folder`.
    Raises: ConfigError when the name is taken.
    """
    require_free_name(runs_dir, result["dataset"], result["kind"], name)
    parent = Path(runs_dir) / result["dataset"] / EXPERIMENTS
    folder = parent / f"{result['kind']}-{name or datetime.now().strftime('%Y%m%d-%H%M%S')}"
    if folder.exists():
        folder = parent / f"{result['kind']}-{datetime.now().strftime('%Y%m%d-%H%M%S-%f')}"
    written: ExperimentResult = {**result, "folder": str(folder)}
    with unfinished_folder(parent) as temporary:
        _write_csv(temporary / "result.csv", written)
        _draw(written, temporary / "figure")
        (temporary / RESULT).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
        temporary.chmod(0o755)  # it was private while it was written
        os.rename(temporary, folder)
    return written


def list_results(runs_dir: Path, dataset: str) -> list[Path]:
    """The `result.json` of every experiment on a data set, the oldest first; what a killed process left is not among them."""
    folders = (Path(runs_dir) / dataset / EXPERIMENTS).glob("*")
    found = [folder / RESULT for folder in folders if not folder.name.startswith(UNFINISHED)]
    return sorted((path for path in found if path.is_file()), key=lambda path: (path.stat().st_mtime_ns, path))


def _write_csv(path: Path, result: ExperimentResult) -> None:
    """One line for each variant, split and metric; change and p-values on the line of the metric and split they are about."""
    seeds = [f"seed_{seed}" for seed in result["seeds"]]
    compared = ["change_percent", "p_value", "p_holm", "p_over"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["variant", "split", "metric", "mean", "sd", *seeds, *compared, "quick_epochs"])
        for variant in result["variants"]:
            own = [variant["change_percent"], variant["p_value"], variant["p_holm"], variant["p_over"]]
            for split, metrics in variant["metrics"].items():
                for metric, found in metrics.items():
                    is_about = (split, metric) == (result["split"], result["metric"])
                    tests = own if is_about else [None] * len(compared)
                    numbers = [found["mean"], found["sd"], *found["values"], *tests, result["quick_epochs"]]
                    writer.writerow([variant["label"], split, metric, *numbers])


def _draw(result: ExperimentResult, stem: Path) -> None:
    from athwe_core.analysis.figures.plots import ablation_figure, save_figure, sweep_figure  # noqa: PLC0415 - matplotlib

    draw = sweep_figure if result["kind"] == "sweep" else ablation_figure
    save_figure(draw(result), stem)
