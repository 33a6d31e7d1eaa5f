"""`athwe tune`: search the configuration with optuna."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from athwe_cli import options as opt
from athwe_cli.errors import one_line_errors
from athwe_cli.launchers import Launcher, RayAddress, ray_or_none, require_launcher
from athwe_cli.render import Output, metrics_table
from athwe_cli.settings import configure, open_or_prepare
from athwe_cli.signals import noted_signals
from athwe_cli.training_display import TrainingDisplay

if TYPE_CHECKING:
    from athwe_core.analysis.tuning.search_space import SearchSpace, Values
    from athwe_core.analysis.tuning.tune import TuningResult

SHOWN_TRIALS = 10


@one_line_errors
def tune(
    dataset: opt.Dataset = None,
    preset: opt.Preset = "athwe",
    space: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with configuration keys, each with {choices: [...]} or {low, high, step, log}. Default: the "
            "search space of the model; for HM4SR and ATHWE that of the HM4SR paper.",
            show_default=False,
        ),
    ] = None,
    trials: Annotated[int, typer.Option(help="Trials of the study in total, those of earlier calls included.")] = 20,
    epochs: Annotated[int | None, typer.Option(help="Train each trial for at most so many epochs.")] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the proposals. Every trial trains with the seed of the configuration.")
    ] = 0,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Trials at once, each in a process of its own. A proposal learns from those that have ended. Default: 1; "
            "with --launcher ray as many as the cluster has room for.",
            show_default=False,
        ),
    ] = None,
    launcher: Launcher = "local",
    ray_address: RayAddress = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the study. Default: data set and preset.", show_default=False)
    ] = None,
    overrides: opt.Set = None,
    config: opt.ConfigFile = None,
    data: opt.DataDir = opt.DATA_DIR,
    prepared: opt.PreparedDir = opt.PREPARED_DIR,
    runs: opt.RunsDir = opt.RUNS_DIR,
    track: opt.Track = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the search space and its size, and stop.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Search for a better configuration with optuna. Each trial is a run; it is stopped early where other trials did better.

    The best trial is chosen on validation alone; its test scores are shown once, at the end. Ctrl-C saves; the same command
    continues. The best configuration is written to best.yaml, for train --config.

    Example: athwe tune --dataset Toys_and_Games --preset hm4sr --trials 40

    Example: athwe tune --dataset demo --space mine.yaml --trials 10 --epochs 5 --set training.lr=0.003
    """
    output = Output(as_json=as_json)
    require_launcher(launcher, ray_address)
    chosen, why = opt.choose_dataset(dataset, runs)
    output.note(f"data set {chosen} ({why})")
    from athwe_core.analysis.tuning.search_space import combinations, parse_space, read_space

    found = open_or_prepare(chosen, None, data, prepared, output)
    base = configure(preset, chosen, config, {"training.epochs": epochs}, overrides or [], found, output)
    parsed = parse_space(read_space(space, model=base.model.name), base)
    if dry_run:
        output.table(_space_table(parsed, combinations(parsed)))
        output.json({"space": {key: str(part) for key, part in parsed.items()}, "combinations": combinations(parsed)})
        return
    from athwe_core.analysis.experiments.launch import local_launcher
    from athwe_core.analysis.tuning.tune import Tuning
    from athwe_core.analysis.tuning.tune import tune as run_study
    from athwe_core.errors import require
    from athwe_core.evaluation.metrics import metric_name

    require(jobs is None or jobs >= 1, "--jobs", "must be at least 1", jobs)
    study = name or f"{chosen}-{preset}"
    tuning = Tuning(space=parsed, base=base, prepared=found, runs_dir=runs, preset=preset, name=study, seed=seed)
    output.note(f"prepared version {found.version}, {found.rules}; study {tuning.folder}")
    command = shlex.join(["athwe", *sys.argv[1:]])
    display = _Display(output, metric=metric_name(base.training.selection_metric))
    where = ray_or_none(launcher, ray_address, [base] * trials, jobs=jobs, runs=runs, found=found, output=output)
    with where as launched, noted_signals() as received:
        try:
            result = run_study(
                tuning,
                trials=trials,
                command=command,
                listener=display,
                should_stop=lambda: bool(received),
                track=track or (),
                launcher=launched or (local_launcher([base], jobs=jobs) if jobs not in (None, 1) else None),
            )
        finally:
            display.close()
    if result is None:
        output.note(f"stopped and saved. Continue with the same command: {command}")
        raise typer.Exit(128 + received[0])
    _show(result, output)
    output.json(result)


class _Display(TrainingDisplay):
    """Training as `athwe train` shows it, between a line for each trial's beginning and end."""

    def __init__(self, output: Output, *, metric: str) -> None:
        super().__init__(output)
        self._metric = metric

    def trial_begins(self, number: int, *, trials: int, values: Values, run: str) -> None:
        """Print its values."""
        self.output.note(f"trial {number} ({trials} in all): {_values(values)}; run {run}")

    def trial_ends(self, number: int, *, state: str, value: float | None) -> None:
        """Print its outcome."""
        self.close()
        ending = f"best validation {self._metric} {value:.4f}" if value is not None else state
        self.output.note(f"trial {number}: {ending}")

    def note(self, text: str) -> None:
        """Print it."""
        self.output.note(text)


def _values(values: Values) -> str:
    """`pcl.weight=0.3, ...`: keys without their top section."""
    values = {key.partition(".")[2]: value for key, value in values.items()}
    return ", ".join(f"{key}={f'{value:.4g}' if isinstance(value, float) else value}" for key, value in values.items())


def _space_table(space: SearchSpace, count: int | None) -> Table:
    size = f"{count:,} combinations" if count is not None else "continuous"
    table = Table(title=f"search space, {size}", title_justify="left")
    table.add_column("key")
    table.add_column("values", overflow="fold")
    for key, part in space.items():
        table.add_row(key, escape(str(part)))
    return table


def _show(result: TuningResult, output: Output) -> None:
    import yaml

    for note in result["notes"]:
        output.note(note)
    trials, best = result["trials"], result["best"]
    ordered = sorted(trials, key=lambda trial: (trial["state"] != "complete", -(trial["value"] or 0)))
    pruned = sum(trial["state"] == "pruned" for trial in trials)
    title = f"{result['dataset']}, validation, {len(trials)} trials, {pruned} pruned"
    table = Table(title=escape(title), title_justify="left")
    for column in ("trial", "NDCG@20", "epochs"):
        table.add_column(column, justify="right")
    table.add_column("values", overflow="fold")
    for trial in ordered[:SHOWN_TRIALS]:
        value = f"{trial['value']:.4f}" if trial["state"] == "complete" else trial["state"]
        table.add_row(str(trial["number"]), value, str(trial["epochs"]), escape(_values(trial["values"])))
    output.table(table)
    if result["importance"] is not None:
        shares = Table(title="importance of the keys", title_justify="left")
        shares.add_column("key")
        shares.add_column("share", justify="right")
        for key, share in result["importance"].items():
            shares.add_row(key, f"{100 * share:.0f} %")
        output.table(shares)
    title = f"{result['dataset']}, test, chosen on validation"
    ks = tuple(sorted({int(metric.split("@")[1]) for metric in best["test"]}))
    for shown in (ks[i : i + 2] for i in range(0, len(ks), 2)):
        output.table(metrics_table({f"trial {best['number']}": best["test"]}, title=escape(title), ks=shown))
    output.out.print(yaml.safe_dump(best["values"], sort_keys=False).rstrip(), markup=False)
    output.note(f"complete in {best['config']}, epochs as in the trials. Train it with another seed:")
    train = ["athwe", "train", "--dataset", result["dataset"], "--preset", result["preset"], "--config", best["config"]]
    output.note(f"{shlex.join(train)} --seed 1")
