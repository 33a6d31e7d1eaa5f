"""`athwe train`: train a preset on a data set, or resume a run."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from athwe_cli import options as opt
from athwe_cli.errors import one_line_errors
from athwe_cli.render import Output
from athwe_cli.settings import configure, open_or_prepare
from athwe_cli.train_run import log_heading, show_plan, train_and_show

if TYPE_CHECKING:
    from athwe_core.distributed import ProcessGroup
    from athwe_core.runs.find import RunFolder


USED_WITH_RESUME = {"resume", "epochs", "patience", "verify", "dataset", "data", "prepared", "runs"}
USED_WITH_RESUME |= {"checkpoint_minutes", "track", "as_json"}
"""Parameters that a resumed run accepts."""


@one_line_errors
def train(
    context: typer.Context,
    dataset: opt.Dataset = None,
    preset: opt.Preset = "athwe",
    batching: opt.Batching = None,
    modalities: Annotated[
        str | None,
        typer.Option(
            help="Inputs of the model, separated by commas: id, and text, image or both (glossary: modality).",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Maximum number of epochs (glossary: early stop).")] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after this many epochs without a better validation metric (glossary: early stop)."),
    ] = None,
    batch_targets: Annotated[
        int | None, typer.Option(help="Supervised positions per optimiser step (glossary: batch targets).")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of Adam.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of initial weights, shuffles, dropout and masks.")] = None,
    device: opt.Device = None,
    precision: opt.Precision = None,
    compiler: opt.Compile = None,
    overrides: opt.Set = None,
    config: opt.ConfigFile = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run. Default: date and time.", show_default=False)
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(help="Resume this run instead of starting a new one (glossary: resume).", metavar="RUN"),
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            help="Start from the best weights of this run, or from those of a safetensors file. What fits is loaded, what "
            "does not is reported; item vectors are matched by item id.",
            metavar="RUN_OR_FILE",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Retrain this run: its preset and configuration, starting from its best weights. Items are matched by id, "
            "new ones start anew, and what was matched is reported.",
            metavar="RUN",
            show_default=False,
        ),
    ] = None,
    all_data: Annotated[
        bool,
        typer.Option(
            "--all-data",
            help="Train on every interaction, with nothing held out, for as many epochs as the best one of --from, or for "
            "--epochs. Such a run has no results and is never compared.",
        ),
    ] = False,
    version: Annotated[
        str | None, typer.Option(help="Prepared version of the data set. Default: the current one.")
    ] = None,
    verify: opt.Verify = False,
    data: opt.DataDir = opt.DATA_DIR,
    prepared: opt.PreparedDir = opt.PREPARED_DIR,
    runs: opt.RunsDir = opt.RUNS_DIR,
    checkpoint_minutes: Annotated[
        float,
        typer.Option(
            help="Maximum minutes between two checkpoints within an epoch. Each epoch ends with a checkpoint."
        ),
    ] = 10.0,
    track: opt.Track = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the complete configuration and an estimate of the memory, and exit."),
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Train a model until a validation metric stops improving, then rank the whole catalogue for every user.

    A data set without a prepared version is first prepared with the default options. Ctrl-C saves the run; --resume
    continues it as if it had not stopped. A finished run continues with more --epochs, or more --patience where it has
    stopped early.

    Several devices: torchrun --nproc-per-node N -m athwe_cli train ...

    Example: athwe train --dataset demo

    Example: athwe train --resume last --epochs 60

    Example: athwe train --dataset Toys_and_Games --preset hm4sr --seed 1 --set model.dropout=0.3

    Example: athwe train --dataset demo --preset sasrec --init-from last

    Example: athwe train --from Toys_and_Games/hm4sr/paper --all-data

    Example: athwe train --dataset demo --track tensorboard
    """
    flags = {
        "training.batching": batching,
        "model.modalities": None if modalities is None else [part.strip() for part in modalities.split(",")],
        "training.epochs": epochs,
        "training.patience": patience,
        "training.batch_targets": batch_targets,
        "training.lr": lr,
        "training.seed": seed,
        "training.device": device,
        "training.precision": precision,
        "training.compiler": compiler,
    }
    if resume is not None:
        _refuse_settings(context)
    if track:
        from athwe_core.training.tracking.listener import require_trackers

        require_trackers(track)

    from athwe_core.distributed import init_distributed

    with init_distributed() as world:
        output = Output(as_json=as_json, is_silent=not world.is_first)

        def first_run() -> RunFolder | None:
            """Find or create the run; None for a dry run."""
            again = resume or _restarted(name)
            if again is not None:
                from athwe_core.runs.find import find_run

                run = find_run(runs, again, dataset=dataset, unfinished=True, notify=output.note)
                if resume is not None and (epochs is not None or patience is not None):
                    from athwe_core.runs.extend import extend_run

                    extend_run(run, epochs=epochs, patience=patience)
                _note_resumed(run, prepared, output)
                return run
            before = None if follow is None else _followed(context, follow, runs, dataset, output)
            chosen, why = opt.choose_dataset(dataset, runs) if before is None else (before.dataset, "that of --from")
            output.note(f"data set {chosen} ({why})")
            found = open_or_prepare(chosen, version, data, prepared, output, check_all=verify)
            if all_data:
                flags["training.epochs"] = _epochs_of_all_data(epochs, before)
                found = found.without_held_out()
            of_preset = preset if before is None else before.preset
            base = None if before is None else before.configuration
            settings = configure(of_preset, chosen, config, flags, overrides or [], found, output, base=base)
            start, weights_of = None, init_from if before is None else before.run
            if weights_of is not None:
                from athwe_core.training.initial_weights import (
                    build_from,
                    find_initial_weights,
                    save_first_checkpoint,
                )

                initial = find_initial_weights(weights_of, runs, prepared)
                start, notes = build_from(settings, found, initial)
                for note in notes:
                    output.note(note)
            if dry_run:
                show_plan(settings, found, output)
                return None
            from athwe_core.runs.find import create_run

            command = shlex.join(["athwe", *sys.argv[1:]])
            source = None if start is None else initial.source
            run = create_run(runs, settings, found, preset=of_preset, name=name, command=command, init_from=source)
            if start is not None:
                save_first_checkpoint(run, start)
            return run

        run = _same_run(world, first_run)
        if run is None:
            return
        if world.is_first:
            from athwe_core.runs.run import LOG

            output.log_to(run.path / LOG, heading=log_heading())
        found = run.open_data(prepared, check_all=verify and resume is not None)
        output.note(f"prepared version {found.version}, {found.rules}; run {run.name}")
        train_and_show(run, found, checkpoint_minutes, track or [], output, world)


@dataclass(frozen=True)
class _Followed:
    """The run that --from names: what a new run takes from it."""

    run: str
    dataset: str
    preset: str
    configuration: dict[str, object]
    best_epoch: int | None


def _followed(context: typer.Context, name: str, runs: Path, dataset: str | None, output: Output) -> _Followed:
    """Find the run that --from names. Raises ConfigError for options that cannot be combined with it."""
    from athwe_core.config import config_tree
    from athwe_core.errors import ConfigError
    from athwe_core.runs.find import find_run

    typed = [option for option in ("preset", "init_from", "config") if _is_typed(context, option)]
    if typed:
        options = ", ".join(f"--{option.replace('_', '-')}" for option in typed)
        raise ConfigError("--from", f"cannot be combined with {options}", remedy="Change keys with --set")
    run = find_run(runs, name, dataset=dataset, notify=output.note)
    manifest = run.manifest()
    best_epoch = manifest.get("results", {}).get("best_epoch")
    return _Followed(
        str(run.path), dataset or manifest["data"]["name"], manifest["preset"], config_tree(run.config()), best_epoch
    )


def _epochs_of_all_data(epochs: int | None, before: _Followed | None) -> int:
    """Epochs of a training that has nothing to stop early on."""
    found = epochs or (before and before.best_epoch)
    if not found:
        from athwe_core.errors import ConfigError

        rule = "needs the number of epochs, since nothing is held out to stop early on"
        raise ConfigError("--all-data", rule, remedy="Add --from RUN, a finished run, or --epochs N")
    return found


def _note_resumed(run: RunFolder, prepared: Path, output: Output) -> None:
    """Say that the run continues, or that it is finished and whether newer prepared data exist."""
    from athwe_core.data.store.dataset import current_version
    from athwe_core.runs.find import FINISHED, TRAINED

    manifest = run.manifest()
    if manifest["status"] not in (FINISHED, TRAINED):
        output.note(f"resuming run {run.name}")
        return
    epochs = manifest["results"]["epochs"]
    output.note(f"run {run.name} is finished. To continue it: athwe train --resume {run.name} --epochs {2 * epochs}")
    data = manifest["data"]
    current = current_version(data["name"], prepared_dir=prepared)
    if current not in (None, data["version"]):
        again = f"athwe train --dataset {data['name']}"
        output.note(f"{data['name']} has a newer prepared version, {current}. To train on it: {again}")


def _refuse_settings(context: typer.Context) -> None:
    """Refuse options that would change the configuration of a resumed run, by their names as typed."""
    others = [each for each in context.command.params if each.name not in USED_WITH_RESUME]
    typed = [each.opts[0] for each in others if _is_typed(context, each.name)]
    if typed:
        from athwe_core.errors import ConfigError

        rule = f"cannot be combined with {', '.join(typed)}: a resumed run keeps its configuration"
        raise ConfigError("--resume", rule, remedy="Remove the other options, or start a new run without --resume")


def _is_typed(context: typer.Context, parameter: str | None) -> bool:
    source = context.get_parameter_source(parameter or "")
    return source is not None and source.name == "COMMANDLINE"


def _restarted(name: str | None) -> str | None:
    """Name of the run to resume if torchrun restarted this process after a failure (--max-restarts)."""
    if os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") == "0":
        return None
    if name is None:
        from athwe_core.errors import ConfigError

        rule = "must be given with torchrun --max-restarts, so that a restarted process finds its run"
        raise ConfigError("--name", rule, remedy="Add --name NAME, or --resume RUN")
    return name if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" else None


def _same_run(world: ProcessGroup, first_run: Callable[[], RunFolder | None]) -> RunFolder | None:
    """The run that the first process finds or creates, on every process."""
    from athwe_core.runs.find import RunFolder

    run = first_run() if world.is_first else None
    path = world.text_of_first("" if run is None else str(run.path.resolve()))
    return RunFolder(Path(path)) if path else None
