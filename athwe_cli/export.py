"""`athwe export`: a trained run for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from athwe_cli import options as opt
from athwe_cli.errors import one_line_errors
from athwe_cli.render import Output


@one_line_errors
def export(
    to: Annotated[Path, typer.Option(help="New folder.", metavar="DIR")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="vectors: of items and users as npy and parquet, whose products are the scores; onnx: a graph from "
            "histories to user vectors and the best items; hub: a model of the Hugging Face hub, which works without the "
            "data set.",
        ),
    ],
    run: opt.Run = "last",
    dataset: opt.Dataset = None,
    k: Annotated[int, typer.Option("--k", help="Of onnx: items for each history.")] = 100,
    with_columns: Annotated[
        str | None,
        typer.Option("--with", help="Of hub: comma-separated columns of the items to publish.", metavar="COLUMNS"),
    ] = None,
    data_licence: Annotated[
        str | None, typer.Option(help="Of hub: licence of the data, for the model card.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    prepared: opt.PreparedDir = opt.PREPARED_DIR,
    runs: opt.RunsDir = opt.RUNS_DIR,
    as_json: opt.Json = False,
) -> None:
    """Write the best weights of a run in a form that other programs read.

    onnx needs pip install 'athwe[onnx]'. A folder of the form hub is a run for athwe recommend, on this machine by its path,
    from the hub by hf:OWNER/NAME.

    Example: athwe export --run paper --to vectors --format vectors

    Example: athwe export --run paper --to model --format hub --with title --data-licence CC-BY-4.0
    """
    from athwe_core.errors import require
    from athwe_core.runs.find import find_run

    output = Output(as_json=as_json)
    require(k >= 1, "--k", "must be at least 1", k)
    name, why = (dataset, "--dataset") if run != "last" else opt.choose_dataset(dataset, runs)
    if run == "last":
        output.note(f"data set {name} ({why})")
    found = find_run(runs, run, dataset=name, notify=output.note)
    data = found.open_data(prepared)
    output.note(f"run {found.name}, prepared version {data.version}")
    from athwe_core.serving.export import export_run

    exported = export_run(
        found,
        data,
        to,
        form=form,
        k=k,
        columns=opt.names(with_columns) or (),
        data_licence=data_licence,
        overwrite=overwrite,
    )
    size = sum(exported.files.values())
    output.note(f"exported to {exported.path}: {', '.join(exported.files)} ({size / 1e6:,.1f} MB)")
    output.json({"run": found.name, "format": form, "to": str(exported.path), "files": exported.files})
