"""What `ablate`, `sweep` and `table1` share: their options, the plan, the progress display and the table of results."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from athwe_cli.render import Output
from athwe_cli.signals import noted_signals
from athwe_cli.training_display import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from athwe_core.analysis.experiments.plan import Experiment, Plan, PlannedRun
    from athwe_core.analysis.experiments.result import ExperimentResult
    from athwe_core.data.prepare import PreparedDataset

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
        help="Runs to train at once, each in a process of its own. Default: one for each CUDA device, else 1.",
        show_default=False,
    ),
]
Version = Annotated[str | None, typer.Option("--version", help="Prepared version. Default: the current one.")]
Name = Annotated[str | None, typer.Option("--name", help="Name of the result. Default: the time.", show_default=False)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print which runs would be trained and how long that takes, and stop.")
]

WIDE_LABEL = 16
"""Longest label that leaves room for three metrics in 80 columns."""


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
) -> None:
    """Show the plan, train the missing runs, write and show the result.

    Raises: typer.Exit with 130 or 143 when interrupted.
    """
    from athwe_core.analysis.experiments.execute import default_jobs, run_all
    from athwe_core.analysis.experiments.plan import plan_experiment
    from athwe_core.analysis.experiments.result import aggregate
    from athwe_core.analysis.experiments.result_folder import require_free_name, write_result
    from athwe_core.analysis.experiments.time_estimate import estimate
    from athwe_core.errors import require

    require_free_name(runs, found.name, experiment.kind, name)
    plan = plan_experiment(experiment, found, runs_dir=runs)
    jobs = default_jobs(plan) if jobs is None else jobs
    require(jobs >= 1, "--jobs", "must be at least 1", jobs)
    expected = estimate(plan, jobs=jobs)
    lines = [*_plan_lines(plan), f"estimated {duration(expected.seconds)} ({expected.basis})"]
    for line in lines:
        (output.out if dry_run else output.err).print(line, markup=False, highlight=False, soft_wrap=True)
    if dry_run:
        output.json(plan.facts() | {"estimate": {"seconds": expected.seconds, "basis": expected.basis, "jobs": jobs}})
        return
    command = shlex.join(["athwe", *sys.argv[1:]])
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
            )
        finally:
            display.close()
    if folders is None:
        output.note(f"stopped and saved. Continue with the same command: {command}")
        raise typer.Exit(128 + received[0])
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


def quick_look(epochs: int) -> str:
    """How outputs mark an experiment with `--epochs`."""
    return f"quick look: at most {epochs} epoch{'s' * (epochs > 1)}"


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


def result_table(result: ExperimentResult, *, rules: str) -> Table:
    """One row for each variant: metrics, change and p-value. It fits into 80 columns."""
    from athwe_core.analysis.experiments.result import mean_and_sd, p_text
    from athwe_core.evaluation.metrics import metric_name

    split, metric, seeds = result["split"], result["metric"], len(result["seeds"])
    shown = _shown_metrics(result)
    of = f"sweep of {', '.join(result['varied'])}\n" if result["varied"] else ""
    what = {"ablation": f"ablation of {result['preset']}", "models": "models"}.get(result["kind"], result["preset"])
    where = f"{what} on {result['dataset']}, {split}, {seeds} seed{'s' * (seeds > 1)}"
    quick = "" if result["quick_epochs"] is None else f"\n{quick_look(result['quick_epochs'])}"
    compared = any(variant["p_holm"] is not None for variant in result["variants"])
    base = next((v["label"] for v in result["variants"] if v["p_holm"] is None), "") if compared else ""
    caption = f"%: change of {metric_name(metric)} against {base}. {result['test']}"
    table = Table(
        title=escape(f"{of}{where}\n{rules}{quick}"),
        title_justify="left",
        caption=escape(caption) if compared else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("", overflow="fold")
    for name in shown:
        table.add_column(metric_name(name), justify="right", no_wrap=True)
    table.add_column("%", justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    for variant in result["variants"]:
        cells = [compact(mean_and_sd(variant["metrics"][split][name])) for name in shown]
        change, p = variant["change_percent"], variant["p_holm"]
        cells += [
            "" if change is None else f"{change:+.1f}",
            compact(p_text(p)),
        ]
        table.add_row(escape(variant["label"]), *cells)
    for baseline in result.get("baselines", []):
        table.add_row(escape(baseline["label"]), *(f"{baseline['metrics'][name]:.4f}" for name in shown))
    return table


def cost_table(result: ExperimentResult) -> Table:
    """The metric with seen items taken out and in the paper, and what each model costs. It fits into 80 columns."""
    from athwe_core.analysis.experiments.result import mean_and_sd
    from athwe_core.evaluation.metrics import metric_name

    metric, variants = result["metric"], result["variants"]
    in_paper = any(metric in variant.get("published", {}) for variant in variants)
    title = f"{metric_name(metric)} with seen items taken out{', in the paper' * in_paper}, and cost"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    for name in ("unseen", *["paper"] * in_paper, "epochs", "s per epoch", "parameters"):
        table.add_column(name, justify="right", no_wrap=True)
    for variant in variants:
        published = variant.get("published", {}).get(metric)
        table.add_row(
            escape(variant["label"]),
            compact(mean_and_sd(variant["without_seen"][metric])),
            *["" if published is None else f"{published:.4f}"] * in_paper,
            ", ".join(map(str, variant["epochs"])),
            f"{variant['seconds_per_epoch']:.1f}",
            f"{variant['parameters']:,}",
        )
    for baseline in result.get("baselines", []):
        table.add_row(escape(baseline["label"]), f"{baseline['without_seen'][metric]:.4f}")
    return table


def compact(number: str) -> str:
    """Without spaces, so that three metrics fit into 80 columns."""
    return number.replace(" ", "")


def _shown_metrics(result: ExperimentResult) -> list[str]:
    """The metrics of the paper's tables where they were measured, and always that of the experiment.

    Three, or two where labels are long.
    """
    there = result["variants"][0]["metrics"][result["split"]]
    wanted: list[str] = [name for name in ("ndcg@5", "ndcg@10", "mrr@10") if name in there]
    room = 2 if max(len(variant["label"]) for variant in result["variants"]) > WIDE_LABEL else 3
    return wanted[:room] if result["metric"] in wanted[:room] else [*wanted[: room - 1], result["metric"]]
