"""Experiments to plan and run, and a listener that remembers."""

from typing import Any

from athwe_core.analysis.experiments.plan import Experiment, PlannedRun, Variant
from athwe_core.config import Config


def experiment_of(*configs: Config, seeds: tuple[int, ...] = (0,), **settings: object) -> Experiment:
    """Variants named `v0`, `v1` and so on, the first of which is the reference."""
    variants = tuple(Variant(f"v{i}", f"variant-{i}", (), {}, config) for i, config in enumerate(configs))
    fields: dict[str, object] = {"kind": "ablation", "metric": "ndcg@10", "split": "test", "reference": 0, **settings}
    return Experiment(preset="athwe", variants=variants, seeds=seeds, **fields)  # type: ignore[arg-type]


class Memory:
    """An experiment's listener that writes down (what, run) and counts the epochs."""

    def __init__(self) -> None:
        self.on_progress: list[tuple[str, str]] = []
        self.epochs: list[tuple[str, int]] = []
        self.notes: list[str] = []
        self.steps = 0

    def run_reused(self, run: PlannedRun) -> None:
        self.on_progress.append(("reused", _name(run)))

    def run_begins(self, run: PlannedRun) -> None:
        self.on_progress.append(("begins", _name(run)))

    def epoch_begins(
        self, run: PlannedRun, epoch: int, *, epochs: int, steps: int, done: int, best: float | None
    ) -> None:
        assert done < steps
        assert epoch <= epochs

    def step_ends(self, run: PlannedRun, step: int, means: dict[str, float]) -> None:
        assert means["total"] > 0
        self.steps += 1

    def epoch_ends(self, run: PlannedRun, record: dict[str, Any], *, is_best: bool) -> None:
        self.epochs.append((_name(run), record["epoch"]))

    def note(self, run: PlannedRun, text: str) -> None:
        self.notes.append(f"{_name(run)}: {text}")

    def run_ends(self, run: PlannedRun, outcome: str) -> None:
        self.on_progress.append((outcome, _name(run)))


def _name(run: PlannedRun) -> str:
    return f"{run.label} s{run.seed}"
