"""All that is known of a data set: its facts, its newest runs side by side, its experiments, and how to get them again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from athwe_core.analysis.case_study.sentences import run_label
from athwe_core.analysis.case_study.study import utc_date
from athwe_core.analysis.experiments.comparison import compare_runs
from athwe_core.analysis.experiments.plan import run_identity, with_seed
from athwe_core.analysis.experiments.result_folder import list_results
from athwe_core.analysis.figures.plots import (
    ablation_figure,
    groups_figure,
    inline_svg,
    learning_curves,
    sweep_figure,
    time_bins,
    time_distribution,
)
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import AthweError, DataError
from athwe_core.evaluation.metrics import metric_name
from athwe_core.runs.find import FINISHED, RunFolder, list_runs
from athwe_core.runs.schema import selected

MOST_RUNS = 4
METRIC = "ndcg@10"
_KINDS: dict[str, Callable[[Mapping[str, Any]], Figure]] = {"ablation": ablation_figure, "sweep": sweep_figure}
_EXPERIMENT_COMMANDS = ("athwe ablate", "athwe sweep", "athwe tune")


def collect_report(
    prepared: PreparedDataset, runs_dir: Path, *, runs: Sequence[RunFolder] | None = None
) -> dict[str, Any]:
    """Everything the report says, as JSON-ready values, and its figures.

    Args:
        runs: finished ones to show; None = the newest of each preset that was trained on this version, `MOST_RUNS` at most,
            compared together with those that differ from them in the seed only.
    Returns: dataset, data_version, content_hash, tie_order, split_rule, statistics, notes, written (UTC), time_distribution
        (edges in seconds, counts), runs, comparison (None without runs), groups, experiments, figures (name -> SVG).
    Raises: DataError for a result of an experiment that is no JSON; ConfigError and CheckpointError as `compare_runs`.
    """
    experiments = _experiments(runs_dir, prepared.name)
    finished = [run for run in list_runs(runs_dir, dataset=prepared.name) if _fits(run, prepared)]
    chosen = _newest_of_each_preset(finished, experiments) if runs is None else list(runs)
    compared = chosen if runs is not None else _with_other_seeds(chosen, finished)
    comparison = compare_runs(compared, metric=METRIC, force=True) if compared else None
    edges, counts = time_bins(prepared.timestamps)
    report = {
        "dataset": prepared.name,
        "data_version": prepared.version,
        "content_hash": prepared.manifest["content_hash"],
        "tie_order": prepared.manifest["statistics"]["tie_order"],
        "split_rule": prepared.split_rule,
        "statistics": prepared.statistics,
        "notes": list(prepared.manifest["notes"]),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "time_distribution": {"edges": edges.tolist(), "counts": counts.tolist()},
        "runs": [_run_facts(run) for run in chosen],
        "comparison": comparison,
        "groups": {} if comparison is None else _groups_by_row(comparison),
        "experiments": experiments,
    }
    return report | {"figures": _figures(report, prepared)}


def _fits(run: RunFolder, prepared: PreparedDataset) -> bool:
    """Finished on this content, by a configuration that this version of athwe reads, with its ranks there."""
    manifest = run.manifest()
    same = manifest.get("data", {}).get("content_hash") == prepared.manifest["content_hash"]
    return same and manifest.get("status") == FINISHED and run.per_user.exists() and _identity(run) is not None


def _experiments(runs_dir: Path, dataset: str) -> list[dict[str, Any]]:
    found = []
    for path in list_results(runs_dir, dataset):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(str(path), f"must be readable JSON ({error})", remedy="Delete its folder") from None
        if isinstance(result, dict) and result.get("kind") in _KINDS:
            found.append(result)
    return found


def _newest_of_each_preset(finished: Iterable[RunFolder], experiments: Sequence[Mapping[str, Any]]) -> list[RunFolder]:
    """Newest last; of the runs of experiments only those of the preset as it is, trained to its end."""
    own: set[str] = set()
    changed: set[str] = set()
    for result in experiments:
        for variant in result["variants"]:
            is_own = variant["change_percent"] is None and result["quick_epochs"] is None
            (own if is_own else changed).update(variant["runs"])
    newest: dict[str, RunFolder] = {}
    for run in finished:
        manifest = run.manifest()
        of_experiment = run.name in changed or manifest["command"].startswith(_EXPERIMENT_COMMANDS)
        if run.name in own or not of_experiment:
            newest.pop(manifest["preset"], None)
            newest[manifest["preset"]] = run
    return list(newest.values())[-MOST_RUNS:]


def _with_other_seeds(chosen: Sequence[RunFolder], finished: Sequence[RunFolder]) -> list[RunFolder]:
    identities = {_identity(run) for run in chosen}
    others = [run for run in finished if run not in chosen and _identity(run) in identities]
    return [*chosen, *others]


def _identity(run: RunFolder) -> str | None:
    """Equal for runs that differ only in the seed; None for a configuration of another version of athwe."""
    try:
        return run_identity(with_seed(run.config(), 0), run.manifest()["data"]["content_hash"])
    except AthweError:
        return None


def _run_facts(run: RunFolder) -> dict[str, Any]:
    manifest = run.manifest()
    again = ["athwe", "train", "--dataset", manifest["data"]["name"], "--version", manifest["data"]["version"]]
    again += ["--preset", manifest["preset"], "--config", str(run.path / "config.yaml")]
    kept = ("preset", "seed", "started", "device", "precision", "data", "versions", "command")
    return {
        "run": run.name,
        "label": run_label(run.name),
        **{name: manifest.get(name) for name in kept},
        **manifest.get("results", {}),
        "again": shlex.join(again),
        "records": run.metrics(),
    }


def _groups_by_row(comparison: Mapping[str, Any]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """The comparison's groups in the shape of `group_metrics`, by label of the row."""
    return {
        row["label"]: {
            kind: {
                bucket: {"users": entry["users"], METRIC: entry[row["label"]]}
                for bucket, entry in buckets.items()
                if row["label"] in entry
            }
            for kind, buckets in comparison["groups"].items()
        }
        for row in comparison["rows"]
    }


def _figures(report: Mapping[str, Any], prepared: PreparedDataset) -> dict[str, Any]:
    """time, curves and groups (None without runs) as SVG, and one for each experiment."""
    name, runs = report["dataset"], report["runs"]
    drawn: dict[str, Any] = {
        "time": inline_svg(
            time_distribution(prepared.timestamps, dataset=name),
            title=f"Interactions of {name} over time",
            description=_time_described(report["time_distribution"]),
        ),
        "curves": None,
        "groups": None,
    }
    if runs:
        best = [f"{run['label']}: {_best_epoch(run)}" for run in runs]
        drawn["curves"] = inline_svg(
            learning_curves({run["label"]: run["records"] for run in runs}),
            title="Learning curves",
            description=f"Loss terms and the validation metric that chooses the best epoch. Best: {', '.join(best)}.",
        )
        drawn["groups"] = inline_svg(
            groups_figure(report["groups"], METRIC),
            title=f"{metric_name(METRIC)} by group of users",
            description="Bars by history length, popularity of the target and same-day target; the table has the numbers.",
        )
    drawn["experiments"] = [
        inline_svg(
            _KINDS[result["kind"]](result),
            title=f"{result['kind'].capitalize()} of {result['preset']}: {metric_name(result['metric'])}",
            description=f"{_best_described(result)} {result['folder']}",
        )
        for result in report["experiments"]
    ]
    return drawn


def _best_epoch(run: Mapping[str, Any]) -> str:
    name, value = selected(run["records"][run["best_epoch"] - 1])
    return f"{metric_name(name)} {value:.4f} at epoch {run['best_epoch']}"


def _time_described(found: Mapping[str, Any]) -> str:
    counts, edges = found["counts"], found["edges"]
    at = counts.index(max(counts))
    first, last = utc_date(edges[at]), utc_date(edges[at + 1])
    return f"Most interactions in one of {len(counts)} bins: {max(counts):,}, from {first} to {last}."


def _best_described(result: Mapping[str, Any]) -> str:
    metric = result["metric"]
    means = {variant["label"]: variant["metrics"][result["split"]][metric]["mean"] for variant in result["variants"]}
    best = max(means, key=lambda label: means[label])
    low = min(means, key=lambda label: means[label])
    return f"{metric_name(metric)} is highest for {best} ({means[best]:.4f}) and lowest for {low} ({means[low]:.4f})."
