"""`athwe table1`: models side by side under the same seeds."""

from __future__ import annotations

from typing import Annotated

import typer

from athwe_cli import experiments as exp
from athwe_cli import options as opt
from athwe_cli.errors import one_line_errors
from athwe_cli.launchers import Launcher, RayAddress, require_launcher
from athwe_cli.render import Output
from athwe_cli.settings import open_or_prepare


@one_line_errors
def table1(
    dataset: opt.Dataset = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            help="A model of the table. Repeatable. Default: the thirteen models of the paper's table 1, hm4sr and athwe.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="The preset that the others are tested against. Default: hm4sr, else the first.", show_default=False
        ),
    ] = None,
    seeds: exp.Seeds = 3,
    epochs: exp.Epochs = None,
    metric: exp.Metric = "ndcg@10",
    split: exp.Split = "test",
    jobs: exp.Jobs = None,
    launcher: Launcher = "local",
    ray_address: RayAddress = None,
    overrides: opt.Set = None,
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
    """Train the models of the paper's table 1 with several seeds each, and show them side by side with paired tests.

    Every model is trained as its preset says, on the same split, and ranked twice: with seen items left in, as in the paper,
    and taken out. Models whose features the data set lacks are left out, with a note. Finished runs are reused. Ctrl-C saves;
    the same command continues. The result is written to RUNS/DATASET/experiments.

    Example: athwe table1 --dataset demo --preset sasrec --preset gru4rec --seeds 2 --epochs 2

    Example: athwe table1 --dataset Toys_and_Games --dry-run
    """
    output = Output(as_json=as_json)
    exp.refuse_seed(overrides or [])
    require_launcher(launcher, ray_address)
    chosen, why = opt.choose_dataset(dataset, runs)
    output.note(f"data set {chosen} ({why})")
    from athwe_core.analysis.experiments.model_table import TABLE_1, model_table
    from athwe_core.config import nested, parse_override

    found = open_or_prepare(chosen, version, data, prepared, output)
    flags = {"training.device": device, "training.precision": precision}
    changes = [nested(key, value) for key, value in flags.items() if value is not None]
    experiment = model_table(
        preset or TABLE_1,
        found,
        changes=[*changes, *map(parse_override, overrides or [])],
        reference=against,
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
