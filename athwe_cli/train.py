"""`athwe train`: train a preset on a data set, or resume a run."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from athwe_cli import options as opt
from athwe_cli.errors import one_line_errors
from athwe_cli.render import Output
from athwe_cli.settings import configure, open_or_prepare
from athwe_cli.train_run import log_heading, show_plan, train_and_show
from athwe_cli.train_start import (
    epochs_of_all_data,
    followed_run,
    refuse_refit,
    refuse_settings,
    restarted,
    resumed_run,
)

if TYPE_CHECKING:
    from athwe_core.distributed import ProcessGroup
    from athwe_core.runs.find import RunFolder


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
    refit: Annotated[
        Literal["validation"] | None,
        typer.Option(
            help="Train on training and validation items, from the start and for --epochs, and rank the test items. Such a "
            "result is never compared (glossary: refit).",
            show_default=False,
        ),
    ] = None,
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

    Example: athwe train --dataset Toys_and_Games --epochs 8 --refit validation

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
        refuse_settings(context)
    if refit is not None:
        refuse_refit(epochs=epochs, follow=follow, all_data=all_data)
    is_first = os.environ.get("RANK", "0") == "0"
    output = Output(as_json=as_json, is_silent=not is_first)
    resumed = before = None
    if is_first:  # the first lines come before the libraries, which take seconds
        again = resume or restarted(name)
        if again is not None:
            resumed = resumed_run(again, epochs or patience, dataset, runs, prepared, output)
        else:
            before = None if follow is None else followed_run(context, follow, runs, dataset, output)
            dataset, why = opt.choose_dataset(dataset, runs) if before is None else (before.dataset, "that of --from")
            output.note(f"data set {dataset} ({why})")
    if track:
        from athwe_core.training.tracking.listener import require_trackers

        require_trackers(track)

    from athwe_core.distributed import init_distributed

    with init_distributed() as world:

        def first_run() -> RunFolder | None:
            """The run to resume, or a new one; None for a dry run."""
            if resumed is not None:
                if resume is not None and (epochs is not None or patience is not None):
                    from athwe_core.runs.extend import extend_run

                    extend_run(resumed, epochs=epochs, patience=patience)
                return resumed
            assert dataset is not None
            found = open_or_prepare(dataset, version, data, prepared, output, check_all=verify)
            if all_data:
                flags["training.epochs"] = epochs_of_all_data(epochs, before)
                found = found.without_held_out()
            elif refit is not None:
                found = found.with_validation_for_training()
            of_preset = preset if before is None else before.preset
            base = None if before is None else before.configuration
            settings = configure(of_preset, dataset, config, flags, overrides or [], found, output, base=base)
            start, weights_of = None, init_from if before is None else str(before.run.path)
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
                show_plan(settings, found, output, world)
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


def _same_run(world: ProcessGroup, first_run: Callable[[], RunFolder | None]) -> RunFolder | None:
    """The run that the first process finds or creates, on every process."""
    from athwe_core.runs.find import RunFolder

    run = first_run() if world.is_first else None
    path = world.text_of_first("" if run is None else str(run.path.resolve()))
    return RunFolder(Path(path)) if path else None
