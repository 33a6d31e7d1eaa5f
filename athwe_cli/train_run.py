"""What `athwe train` does once the run or its plan is there: show the plan, or train and show the results."""

from __future__ import annotations

import shlex
import signal
import sys
from typing import TYPE_CHECKING

import typer

from athwe_cli.render import Output, metrics_table
from athwe_cli.signals import noted_signals
from athwe_cli.training_display import TrainingDisplay

if TYPE_CHECKING:
    from athwe_core.config import Config
    from athwe_core.data.prepare import PreparedDataset
    from athwe_core.distributed import ProcessGroup
    from athwe_core.runs.find import RunFolder


FEW_STEPS = 400
"""Steps of a whole run below which `train` says that more epochs may be better, where its last epoch was the best."""


def log_heading() -> str:
    """Time, command and versions, in one line."""
    from datetime import datetime
    from platform import python_version

    import torch

    import athwe_core

    versions = f"athwe {athwe_core.__version__}, Python {python_version()}, torch {torch.__version__}"
    return f"{datetime.now().astimezone().isoformat(timespec='seconds')} {shlex.join(['athwe', *sys.argv[1:]])} ({versions})"


def show_plan(settings: Config, found: PreparedDataset, output: Output, world: ProcessGroup) -> None:
    """Print the configuration and the estimate of the memory, of several processes for each."""
    import yaml

    from athwe_core.config import config_tree
    from athwe_core.training.memory_estimate import estimate_memory

    tree, memory = config_tree(settings), estimate_memory(found, settings, world=world)
    if not output.as_json:
        typer.echo(yaml.safe_dump(tree, sort_keys=False))
    parts: dict[str, int | None] = {"features": memory.features, "weights": memory.state}
    parts |= {"a step": memory.step, "ranking": memory.evaluation}
    if not memory.is_measured:
        parts |= {"a step": None, "ranking": None}
    shown = ", ".join(f"{name} {'not measured' if value is None else _size(value)}" for name, value in parts.items())
    each = "" if world.size == 1 else f" for each of {world.size} processes"
    output.note(f"memory on {memory.device}{each}: about {_size(memory.peak)} at the peak ({shown})")
    if settings.training.shard_tables and world.size == 1:
        output.note("training.shard_tables divides weights and features of items: see it with --dry-run under torchrun")
    if memory.available is not None:
        remedy = "choose a smaller --batch-targets or --set model.hidden_size=N"
        verdict = "the run fits" if memory.fits else f"the run does not fit: {remedy}"
        output.note(f"{_size(memory.available)} of memory are free{each}: {verdict}")
    output.json({"config": tree, "memory": memory.facts()})


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def train_and_show(
    run: RunFolder,
    found: PreparedDataset,
    checkpoint_minutes: float,
    track: list[str],
    output: Output,
    world: ProcessGroup,
) -> None:
    """Train a run to its end, and show its results.

    Raises: typer.Exit with 130 or 143 when interrupted; the run is saved.
    """
    from athwe_core.analysis.evaluate_run import baseline_metrics
    from athwe_core.training.loop import train as run_training
    from athwe_core.training.tracking.listener import tracked

    display = TrainingDisplay(output)
    with noted_signals(keep_after_error=world.size > 1) as received:
        try:
            with tracked(display, track if world.is_first else [], run, notify=output.note) as listener:
                result = run_training(
                    run,
                    found,
                    listener=listener,
                    should_stop=lambda: bool(received),
                    checkpoint_minutes=checkpoint_minutes,
                    notify=output.note,
                    world=world,
                )
        finally:
            display.close()
    if not result.finished:
        output.note(f"stopped and saved. Resume with: athwe train --resume {run.name}")
        # under torchrun the signal may have reached another process of the job
        raise typer.Exit(128 + (received or [signal.SIGTERM])[0])
    if not world.is_first:
        return
    config, results = run.config(), result.results
    if "test" not in results:
        output.note(f"trained on all data for {results['epochs']} epochs: there are no results; run folder {run.path}")
        output.json({"run": run.name, "preset": run.manifest()["preset"], **results})
        return
    exclude_seen = config.evaluation.exclude_seen
    baselines = baseline_metrics(found, split="test", exclude_seen=exclude_seen, ks=config.evaluation.ks)
    preset = run.manifest()["preset"]
    ks = tuple(k for k in config.evaluation.ks if k <= 10) or config.evaluation.ks[:1]
    users = len(found.split.users("test"))
    epochs = f"best epoch {results['best_epoch']} of {results['epochs']}"
    title = f"{found.name}, test, {users:,} users, {found.rules}, {epochs}"
    output.table(metrics_table(baselines | {preset: results["test"]}, title=title, ks=ks))
    output.note(f"{results['seconds_per_epoch']:.1f} s per epoch; run folder {run.path}")
    if "validation" not in results:
        output.note("trained on validation items too: this result is never compared with those that held them out")
    steps, planned = sum(record["steps"] for record in run.metrics()), config.training.epochs
    if "validation" in results and results["best_epoch"] == planned > 1 and steps < FEW_STEPS:
        output.note(f"{steps:,} steps are few, and the last epoch was the best: try --epochs {2 * planned}")
    output.note(f"Next: athwe case-study --run {run.name} --random 1")
    output.note(f"Or: athwe recommend --run {run.name} --to best.parquet")
    output.json({"run": run.name, "preset": preset, **results})
