"""The shape of a report: what `athwe report --json` prints and its page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from athwe_core.analysis.experiments.comparison import Comparison
from athwe_core.analysis.experiments.result import ExperimentResult
from athwe_core.analysis.pages.download import PageFigure

Groups = dict[str, dict[str, dict[str, float]]]
"""`users` and metrics by grouping and group of users."""


class TimeBins(TypedDict):
    """Interactions in bins of equal width."""

    edges: list[int]
    """Unix seconds, one more than there are counts."""
    counts: list[int]


class ReportedRun(TypedDict):
    """A finished run: where it came from, what it reached, and how to train it again."""

    run: str
    label: str
    """The name without the data set."""
    preset: str
    seed: int
    started: str
    device: str | None
    precision: str | None
    data: Mapping[str, str]
    """Name, version, content_hash, tie_order and split_rule of the prepared version."""
    versions: Mapping[str, str | None]
    """Of athwe and what it runs on."""
    command: str
    best_epoch: int
    epochs: int
    seconds_per_epoch: float
    metric: str
    """The validation metric that chose the best epoch."""
    best_value: float
    """Its value there."""
    validation: dict[str, float]
    test: dict[str, float]
    again: str
    """A command that trains with the same configuration on the same version."""
    records: Sequence[Mapping[str, Any]]
    """Lines of the run's `metrics.jsonl`."""


class Report(TypedDict):
    """What is known of a prepared version and its runs."""

    dataset: str
    data_version: str
    content_hash: str
    tie_order: str
    split_rule: str
    statistics: Mapping[str, Any]
    """Of the prepared version's manifest."""
    notes: list[str]
    written: str
    """UTC."""
    time_distribution: TimeBins
    runs: list[ReportedRun]
    verdict: str | None
    """The comparison in a sentence or two; None without runs."""
    comparison: Comparison | None
    """None without runs."""
    baselines: dict[str, dict[str, float]]
    """Test metrics of baselines without training, by name, under the comparison's rule for seen items; empty without runs."""
    groups: dict[str, Groups]
    """By label of a row of the comparison."""
    experiments: list[ExperimentResult]
    """Oldest first."""


class Figures(TypedDict):
    """The figures of a report."""

    time: PageFigure
    curves: PageFigure | None
    """None without runs, as the next one."""
    groups: PageFigure | None
    experiments: list[PageFigure]
    """One for each experiment."""
