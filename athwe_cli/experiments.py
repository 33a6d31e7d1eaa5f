"""What `ablate`, `sweep` and `table1` share: their options, the plan and the progress display."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from athwe_cli.experiment_tables import cost_table, quick_look, result_table
from athwe_cli.launchers import ray_or_none
from athwe_cli.render import Output
from athwe_cli.signals import noted_signals
from athwe_cli.training_display import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from athwe_core.analysis.experiments.plan import Experiment, Plan, PlannedRun
    from athwe_core.analysis.experiments.ray_launcher import RayLauncher
    from athwe_core.data.prepare import PreparedDataset
    from athwe_core.runs.find import RunFolder

Seeds = Annotated[int, typer.Option("--seeds", help="Number of seeds. N means the seeds 0 to N-1.")]
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", help="Train at most so many epochs, for a quick look. Every output says so."),
]
Metric = Annotated[str, typer.Option("--metric", help="Metric of change and test: ndcg@k, mrr@k or hit@k.")]
Split = Annotated[str, typer.Option("--split", help="Split of change and test: validation or test.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        help="Runs to train at once, each in a process of its own. Default: one for each CUDA device, else 1; with "
        "--launcher ray as many as the cluster has room for.",
        show_default=False,
    ),
]
Version = Annotated[str | None, typer.Option("--version", help="Prepared version. Default: the current one.")]
Name = Annotated[str | None, typer.Option("--name", help="Name of the result. Default: the time.", show_default=False)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print which runs would be trained and how long that takes, and stop.")
]


def refuse_seed(overrides: list[str]) -> None:
    """Refuse `--set training.seed`, which --seeds replaces here."""
    from athwe_core.errors import ConfigError

    for text in overrides:
        if text.partition("=")[0].strip() == "training.seed":
            raise ConfigError("--set training.seed", "cannot be set here", remedy="Use --seeds instead")


def run_and_show(
    experiment: Experiment,
    found: PreparedDataset,
    *,
    runs: Path,
    jobs: int | None,
    name: str | None,
    dry_run: bool,
    output: Output,
    track: list[str] | None = None,
    launcher: str = "local",
    ray_address: str | None = None,
) -> None:
    """Show the plan, train the missing runs, write and show the result.

    Raises: typer.Exit with 130 or 143 when interrupted.
    """
    from athwe_core.analysis.experiments.execute import configs_to_train
    from athwe_core.analysis.experiments.plan import plan_experiment
    from athwe_core.analysis.experiments.result import aggregate
    from athwe_core.analysis.experiments.result_folder import require_free_name, write_result

    require_free_name(runs, found.name, experiment.kind, name)
    plan = plan_experiment(experiment, found, runs_dir=runs)
    command = shlex.join(["athwe", *sys.argv[1:]])
    to_train = configs_to_train(plan)
    where = ray_or_none(launcher, ray_address, to_train, jobs=jobs, runs=runs, found=found, output=output)
    with where as launched:
        folders = _train(plan, launched, jobs=jobs, dry_run=dry_run, command=command, output=output, track=track)
    if folders is None:
        return
    aggregated = aggregate(plan, folders, command=command)
    if experiment.kind == "models":
        from athwe_core.analysis.experiments.model_table import complete

        complete(aggregated, plan, folders, notify=output.note)
    result = write_result(aggregated, runs_dir=runs, name=name)
    output.table(result_table(result, rules=found.rules))
    if experiment.kind == "models":
        output.table(cost_table(result))
    output.note(f"result folder {result['folder']}")
    output.json(result)


def _train(
    plan: Plan,
    launcher: RayLauncher | None,
    *,
    jobs: int | None,
    dry_run: bool,
    command: str,
    output: Output,
    track: list[str] | None,
) -> dict[str, RunFolder] | None:
    """Show the plan and train the missing runs; None after a dry run. Raises typer.Exit when interrupted."""
    from athwe_core.analysis.experiments.execute import default_jobs, run_all
    from athwe_core.analysis.experiments.time_estimate import estimate
    from athwe_core.errors import require

    if launcher is not None:
        jobs = launcher.jobs
    jobs = default_jobs(plan) if jobs is None else jobs
    require(jobs >= 1, "--jobs", "must be at least 1", jobs)
    expected = estimate(plan, jobs=jobs)
    lines = [*_plan_lines(plan), f"estimated {duration(expected.seconds)} ({expected.basis})"]
    for line in lines:
        (output.out if dry_run else output.err).print(line, markup=False, highlight=False, soft_wrap=True)
    if dry_run:
        output.json(plan.facts() | {"estimate": {"seconds": expected.seconds, "basis": expected.basis, "jobs": jobs}})
        return None
    display = ExperimentDisplay(output, total=len(plan.to_train()))
    with noted_signals() as received:
        try:
            folders = run_all(
                plan,
                jobs=jobs,
                command=command,
                listener=display,
                should_stop=lambda: bool(received),
                track=track or (),
                launcher=launcher,
            )
        finally:
            display.close()
    if folders is None:
        output.note(f"stopped and saved. Continue with the same command: {command}")
        raise typer.Exit(128 + received[0])
    return folders


def _plan_lines(plan: Plan) -> list[str]:
    experiment = plan.experiment
    lines = list(experiment.notes)
    if experiment.quick_epochs is not None:
        lines.append(quick_look(experiment.quick_epochs))
    lines.append(f"{len(plan.runs)} runs: {_actions(plan.runs)}")
    for variant in experiment.variants:
        changes = f" ({' '.join(variant.changes)})" if variant.changes else ""
        lines.append(f"  {variant.label}{changes}: {_actions(plan.of_variant(variant))}")
    return lines


def _actions(runs: Iterable[PlannedRun]) -> str:
    """`2 new, 1 reused`."""
    counts = Counter(run.action for run in runs)
    return ", ".join(f"{counts[action]} {action}" for action in ("new", "resumed", "reused") if counts[action])


class ExperimentDisplay:
    """The experiment's listener: in a terminal a progress bar for each run under way, everywhere a line for each epoch."""

    def __init__(self, output: Output, *, total: int) -> None:
        self.output, self.total, self.done = output, total, 0
        self._began = time.monotonic()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._best: dict[str, str] = {}
        self._epochs: dict[str, tuple[str, int]] = {}
        self._last_line: dict[str, float] = {}

    def run_reused(self, run: PlannedRun) -> None:
        """Print nothing: the plan names the reused runs."""

    def run_begins(self, run: PlannedRun) -> None:
        """Print that it begins or continues."""
        how = f"continues as {run.existing.name}" if run.existing is not None else "begins"
        self.output.note(f"{_name(run)} {how}")

    def epoch_begins(
        self, run: PlannedRun, epoch: int, *, epochs: int, steps: int, done: int, best: float | None
    ) -> None:
        """Show the bar."""
        self._best[run.identity] = f"best {best:.4f}" if best is not None else ""
        header = f"epoch {epoch}/{epochs}"
        self._epochs[run.identity] = header, steps
        self._last_line[run.identity] = time.monotonic()
        if self.output.err.is_terminal:
            self._remove(run)
            self._tasks[run.identity] = self._live().add_task(
                escape(f"{_name(run)} {header}"), total=steps, completed=done, best=self._best[run.identity]
            )

    def step_ends(self, run: PlannedRun, step: int, means: dict[str, float]) -> None:
        """Move the bar, or print a line a minute."""
        now = time.monotonic()
        if self._bars is not None:
            self._bars.update(self._tasks[run.identity], completed=step)
        elif now - self._last_line[run.identity] > 60:
            self._last_line[run.identity] = now
            header, steps = self._epochs[run.identity]
            self.output.note(f"{_name(run)} {header}: step {step}/{steps}")

    def epoch_ends(self, run: PlannedRun, record: Mapping[str, Any], *, is_best: bool) -> None:
        """Print the epoch's line."""
        from athwe_core.evaluation.metrics import metric_name
        from athwe_core.runs.schema import selected

        name, value = selected(record)
        mark = "best so far" if is_best else self._best[run.identity]
        self.output.note(
            f"{_name(run)} epoch {record['epoch']:3}  {record['seconds']:5.1f} s  "
            f"validation {metric_name(name)} {value:.4f} ({mark})"
        )

    def note(self, run: PlannedRun, text: str) -> None:
        """Print it."""
        self.output.note(f"{_name(run)} {text}")

    def run_ends(self, run: PlannedRun, outcome: str) -> None:
        """Print the outcome and the remaining time."""
        self._remove(run)
        text = f"{_name(run)} {outcome}"
        if outcome == "finished":
            self.done += 1
            gone = time.monotonic() - self._began
            left = gone / self.done * (self.total - self.done)
            text += f": {self.done} of {self.total} runs in {duration(gone)}"
            text += f", about {duration(left)} left" if self.done < self.total else ""
        self.output.note(text)

    def close(self) -> None:
        """Remove the bars."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _live(self) -> Progress:
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=16),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("[bold]{task.fields[best]}[/]"),
                console=self.output.err,
                transient=True,
            )
            self._bars.start()
        return self._bars

    def _remove(self, run: PlannedRun) -> None:
        task = self._tasks.pop(run.identity, None)
        if task is not None:
            self._live().remove_task(task)


def _name(run: PlannedRun) -> str:
    return f"[{run.label}, seed {run.seed}]"
