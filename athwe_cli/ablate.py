"""`athwe ablate`: how much each part of a model contributes."""

from __future__ import annotations

from typing import Annotated

import typer

from athwe_cli import experiments as exp
from athwe_cli import options as opt
from athwe_cli.errors import one_line_errors
from athwe_cli.launchers import Launcher, RayAddress, require_launcher
from athwe_cli.render import Output
from athwe_cli.settings import configure, open_or_prepare


@one_line_errors
def ablate(
    remove: Annotated[
        list[str] | None,
        typer.Option(
            "--remove",
            help="Part of the model, e.g. PCL or Text; A+B removes both. Repeatable. Without --remove and --all, the message "
            "lists the parts.",
            metavar="NAME",
        ),
    ] = None,
    remove_all: Annotated[bool, typer.Option("--all", help="Remove each part of the preset in turn.")] = False,
    dataset: opt.Dataset = None,
    preset: opt.Preset = "athwe",
    seeds: exp.Seeds = 3,
    epochs: exp.Epochs = None,
    metric: exp.Metric = "ndcg@10",
    split: exp.Split = "test",
    jobs: exp.Jobs = None,
    launcher: Launcher = "local",
    ray_address: RayAddress = None,
    overrides: opt.Set = None,
    config: opt.ConfigFile = None,
    batching: opt.Batching = None,
    device: opt.Device = None,
    precision: opt.Precision = None,
    version: exp.Version = None,
    name: exp.Name = None,
    track: opt.Track = None,
    dry_run: exp.DryRun = False,
    data: opt.DataDir = opt.DATA_DIR,
    prepared: opt.PreparedDir = opt.PREPARED_DIR,
    runs: opt.RunsDir = opt.RUNS_DIR,
    as_json: opt.Json = False,
) -> None:
    """Train the full model and variants without one of its parts, and compare them.

    Finished runs of the same configuration and data are reused. Ctrl-C saves; the same command continues. The result, with
    its figure and tables, is written to RUNS/DATASET/experiments.

    Example: athwe ablate --dataset demo --remove PCL --remove TMoE+CP --seeds 2

    Example: athwe ablate --dataset Toys_and_Games --all --jobs 2
    """
    output = Output(as_json=as_json)
    exp.refuse_seed(overrides or [])
    require_launcher(launcher, ray_address)
    chosen, why = opt.choose_dataset(dataset, runs)
    output.note(f"data set {chosen} ({why})")
    from athwe_core.analysis.experiments.ablation import ablation

    found = open_or_prepare(chosen, version, data, prepared, output)
    flags = {"training.batching": batching, "training.device": device, "training.precision": precision}
    experiment = ablation(
        configure(preset, chosen, config, flags, overrides or [], found, output),
        found,
        preset=preset,
        remove=remove or [],
        remove_all=remove_all,
        seeds=range(seeds),
        metric=metric,
        split=split,
        quick_epochs=epochs,
    )
    exp.run_and_show(
        experiment,
        found,
        runs=runs,
        jobs=jobs,
        name=name,
        dry_run=dry_run,
        output=output,
        track=track,
        launcher=launcher,
        ray_address=ray_address,
    )
