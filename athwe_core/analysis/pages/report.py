"""What is known of a data set: its facts, its newest runs compared, its experiments, and how to repeat each."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from matplotlib.figure import Figure

from athwe_core.analysis.case_study.sentences import run_label
from athwe_core.analysis.case_study.study import utc_date
from athwe_core.analysis.evaluate_run import baseline_metrics
from athwe_core.analysis.experiments.comparison import Comparison, compare_runs
from athwe_core.analysis.experiments.plan import run_identity, with_seed
from athwe_core.analysis.experiments.result import ExperimentResult
from athwe_core.analysis.experiments.result_folder import list_results
from athwe_core.analysis.experiments.verdict import baseline_sentence, verdict
from athwe_core.analysis.figures.plots import (
    ablation_figure,
    groups_figure,
    learning_curves,
    sweep_figure,
    time_bins,
    time_distribution,
)
from athwe_core.analysis.pages.download import PageFigure, page_figure
from athwe_core.analysis.pages.result import Figures, Groups, Report, ReportedRun, TimeBins
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import AthweError, DataError
from athwe_core.evaluation.metrics import metric_name
from athwe_core.runs.find import FINISHED, RunFolder, list_runs
from athwe_core.runs.schema import selected

MOST_RUNS = 4
METRIC = "ndcg@10"
"""What the comparison and the groups are about."""
_KINDS: dict[str, Callable[[Mapping[str, Any]], Figure]] = {
    "ablation": ablation_figure,
    "sweep": sweep_figure,
    "models": ablation_figure,
}
_EXPERIMENT_COMMANDS = ("athwe ablate", "athwe sweep", "athwe tune")


def collect_report(prepared: PreparedDataset, runs_dir: Path, *, runs: Sequence[RunFolder] | None = None) -> Report:
    """Everything a report shows, as values that JSON can hold.

    Args:
        prepared: the prepared version.
        runs_dir: folder of all runs.
        runs: finished runs to show. None = the newest run of each preset on this version, at most `MOST_RUNS`; the
            comparison then adds runs that differ from them in the seed only.
    Returns: the report without its figures.
    Raises:
        DataError: The result of an experiment is not JSON.
        ConfigError: As `compare_runs` raises it.
        CheckpointError: A run is not finished or damaged.
    """
    experiments = _experiments(runs_dir, prepared.name)
    finished = [run for run in list_runs(runs_dir, dataset=prepared.name) if _fits(run, prepared)]
    chosen = _newest_of_each_preset(finished, experiments) if runs is None else list(runs)
    compared = chosen if runs is not None else _with_other_seeds(chosen, finished)
    comparison = compare_runs(compared, metric=METRIC, force=True) if compared else None
    baselines = {} if comparison is None else baselines_of(comparison, prepared)
    edges, counts = time_bins(prepared.timestamps)
    return {
        "dataset": prepared.name,
        "data_version": prepared.version,
        "content_hash": prepared.manifest["content_hash"],
        "tie_order": prepared.manifest["statistics"]["tie_order"],
        "split_rule": prepared.split_rule,
        "statistics": prepared.statistics,
        "notes": list(prepared.manifest["notes"]),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "time_distribution": {"edges": edges.tolist(), "counts": counts.tolist()},
        "runs": [_reported(run) for run in chosen],
        "verdict": None if comparison is None else result_sentences(comparison, baselines),
        "comparison": comparison,
        "baselines": baselines,
        "groups": {} if comparison is None else groups_by_row(comparison),
        "experiments": experiments,
    }


def baselines_of(comparison: Comparison, prepared: PreparedDataset) -> dict[str, dict[str, float]]:
    """Metrics of the baselines under the rules of a comparison; none where its rows follow different rules.

    Args:
        comparison: of runs on `prepared`.
        prepared: the prepared version.
    """
    rule = comparison["exclude_seen"]
    if rule is None or not comparison["comparable"]:
        return {}
    ks = sorted({int(name.split("@")[1]) for name in comparison["rows"][0]["metrics"]})
    return baseline_metrics(prepared, split=comparison["split"], exclude_seen=rule, ks=ks)


def result_sentences(comparison: Comparison, baselines: Mapping[str, Mapping[str, float]]) -> str:
    """What a comparison says, with its uncertainty, and how it stands to the baselines where there are some."""
    sentences = [verdict(comparison), *([baseline_sentence(comparison, baselines)] if baselines else [])]
    return " ".join(sentences)


def draw_figures(report: Report, prepared: PreparedDataset) -> Figures:
    """The figures of a report.

    Args:
        report: of `prepared`.
        prepared: the prepared version, for the times of its interactions.
    """
    name, runs = report["dataset"], report["runs"]
    time = page_figure(
        time_distribution(prepared.timestamps, dataset=name),
        stem=f"{name}-over-time",
        title=f"Interactions of {name} over time",
        description=_time_described(report["time_distribution"]),
    )
    experiments = [
        page_figure(
            _KINDS[result["kind"]](result),
            stem=f"{name}-{result['kind']}-{at}",
            title=f"{result['kind'].capitalize()} of {result['preset']}: {metric_name(result['metric'])}",
            description=f"{_best_described(result)} {result.get('folder', '')}",
        )
        for at, result in enumerate(report["experiments"], 1)
    ]
    if not runs:
        return {"time": time, "curves": None, "groups": None, "experiments": experiments}
    best = ", ".join(f"{run['label']}: {_best_epoch(run)}" for run in runs)
    curves = page_figure(
        learning_curves({run["label"]: run["records"] for run in runs}),
        stem=f"{name}-learning-curves",
        title="Learning curves",
        description=f"Loss terms and the validation metric that chooses the best epoch. Best: {best}.",
    )
    groups = draw_groups(report["groups"], METRIC, stem=name)
    return {"time": time, "curves": curves, "groups": groups, "experiments": experiments}


def draw_groups(groups: Mapping[str, Groups], metric: str, *, stem: str) -> PageFigure:
    """A metric by group of users.

    Args:
        groups: of `groups_by_row`.
        metric: e.g. `ndcg@10`.
        stem: first part of the names of its files.
    """
    return page_figure(
        groups_figure(groups, metric),
        stem=f"{stem}-groups",
        title=f"{metric_name(metric)} by group of users",
        description="Bars by history length, target popularity and day of the target; the table has the numbers.",
    )


def _fits(run: RunFolder, prepared: PreparedDataset) -> bool:
    """Finished on this content, with ranks, and with a configuration that this version of athwe reads."""
    manifest = run.manifest()
    same = manifest.get("data", {}).get("content_hash") == prepared.manifest["content_hash"]
    return same and manifest.get("status") == FINISHED and run.per_user.exists() and _identity(run) is not None


def _experiments(runs_dir: Path, dataset: str) -> list[ExperimentResult]:
    found: list[ExperimentResult] = []
    for path in list_results(runs_dir, dataset):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(str(path), f"must be readable JSON ({error})", remedy="Delete its folder") from None
        if isinstance(result, dict) and result.get("kind") in _KINDS:
            found.append(cast("ExperimentResult", result))
    return found


def _newest_of_each_preset(finished: Iterable[RunFolder], experiments: Sequence[ExperimentResult]) -> list[RunFolder]:
    """Newest last. Of the runs of experiments only those of the unchanged preset, trained to the end, are taken."""
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


def _reported(run: RunFolder) -> ReportedRun:
    manifest, records = run.manifest(), run.metrics()
    data, results = manifest["data"], manifest["results"]
    metric, best_value = selected(records[results["best_epoch"] - 1])
    again = ["athwe", "train", "--dataset", data["name"], "--version", data["version"]]
    again += ["--preset", manifest["preset"], "--config", str(run.path / "config.yaml")]
    return {
        "run": run.name,
        "label": run_label(run.name),
        "preset": manifest["preset"],
        "seed": manifest["seed"],
        "started": manifest["started"],
        "device": manifest.get("device"),
        "precision": manifest.get("precision"),
        "data": data,
        "versions": manifest["versions"],
        "command": manifest["command"],
        "best_epoch": results["best_epoch"],
        "epochs": results["epochs"],
        "seconds_per_epoch": results["seconds_per_epoch"],
        "metric": metric,
        "best_value": best_value,
        "validation": results["validation"],
        "test": results["test"],
        "again": shlex.join(again),
        "records": records,
    }


def groups_by_row(comparison: Comparison) -> dict[str, Groups]:
    """The comparison's groups in the shape of `group_metrics`, by label of the row."""
    metric = comparison["metric"]
    return {
        row["label"]: {
            kind: {
                bucket: {"users": entry["users"], metric: entry[row["label"]]}
                for bucket, entry in buckets.items()
                if row["label"] in entry
            }
            for kind, buckets in comparison["groups"].items()
        }
        for row in comparison["rows"]
    }


def _best_epoch(run: ReportedRun) -> str:
    return f"{metric_name(run['metric'])} {run['best_value']:.4f} at epoch {run['best_epoch']}"


def _time_described(found: TimeBins) -> str:
    counts, edges = found["counts"], found["edges"]
    at = counts.index(max(counts))
    first, last = utc_date(edges[at]), utc_date(edges[at + 1])
    return f"Most interactions in one of {len(counts)} bins: {max(counts):,}, from {first} to {last}."


def _best_described(result: ExperimentResult) -> str:
    metric = result["metric"]
    means = {variant["label"]: variant["metrics"][result["split"]][metric]["mean"] for variant in result["variants"]}
    best = max(means, key=lambda label: means[label])
    low = min(means, key=lambda label: means[label])
    return f"{metric_name(metric)} is highest for {best} ({means[best]:.4f}) and lowest for {low} ({means[low]:.4f})."
