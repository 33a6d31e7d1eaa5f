"""`athwe sweep`: a metric against the values of a setting."""

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
def sweep(
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            help="A configuration key and the values to try: a.b=v1,v2,... Repeatable; then every combination is tried.",
            metavar="KEY=VALUES",
        ),
    ] = None,
    dataset: opt.Dataset = None,
    preset: opt.Preset = "athwe",
    seeds: exp.Seeds = 3,
    epochs: exp.Epochs = None,
    metric: exp.Metric = "ndcg@10",
    split: exp.Split = "validation",
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
    """Train a preset with each value of a setting, or with each combination of the values of several.

    Variants are compared on validation, so that a choice made here does not depend on test items. Finished runs of the same
    configuration and data are reused. Ctrl-C saves; the same command continues. The result is written to
    RUNS/DATASET/experiments.

    Example: athwe sweep --dataset demo --vary losses.pcl.weight=0.1,0.3,1 --seeds 2

    Example: athwe sweep --vary model.modalities=[id],[id,text] --vary training.lr=1e-3,3e-3 --epochs 5
    """
    output = Output(as_json=as_json)
    exp.refuse_seed(overrides or [])
    require_launcher(launcher, ray_address)
    chosen, why = opt.choose_dataset(dataset, runs)
    output.note(f"data set {chosen} ({why})")
    from athwe_core.analysis.experiments.sweep import sweep as build

    found = open_or_prepare(chosen, version, data, prepared, output)
    flags = {"training.batching": batching, "training.device": device, "training.precision": precision}
    experiment = build(
        configure(preset, chosen, config, flags, overrides or [], found, output),
        found,
        preset=preset,
        vary=vary or [],
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
