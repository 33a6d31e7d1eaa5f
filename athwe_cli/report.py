"""`athwe report`: one page about a data set and the runs on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from athwe_cli import options as opt
from athwe_cli.errors import one_line_errors
from athwe_cli.pages import write_page
from athwe_cli.render import Output

if TYPE_CHECKING:
    from athwe_core.data.prepare import PreparedDataset
    from athwe_core.runs.find import RunFolder


@one_line_errors
def report(
    dataset: opt.Dataset = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            help="A finished run to show: a path, dataset/preset/name, a unique preset/name or name, or last. Repeatable. "
            "Default: the newest of each preset, four at most, with its other seeds.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="The page. Default: RUNS/DATASET/report.html.", show_default=False)
    ] = None,
    prepared: opt.PreparedDir = opt.PREPARED_DIR,
    runs: opt.RunsDir = opt.RUNS_DIR,
    as_json: opt.Json = False,
) -> None:
    """Write one HTML page: the result, a comparison of runs, groups, learning curves, experiments, and how to repeat each.

    The page is one file and needs no network. Its tables and figures can be saved from it.

    Example: athwe report --dataset Toys_and_Games
    """
    from athwe_core.runs.find import find_run

    output = Output(as_json=as_json)
    name, why = opt.choose_dataset(dataset, runs)
    output.note(f"data set {name} ({why})")
    from athwe_core.analysis.pages.html import report_page
    from athwe_core.analysis.pages.report import collect_report, draw_figures

    chosen = None if run is None else [find_run(runs, text, dataset=name) for text in run]
    data = _open(name, chosen, prepared, runs)
    found = collect_report(data, runs, runs=chosen)
    page = to or runs / data.name / "report.html"
    figures = draw_figures(found, data)
    shown = ", ".join(each["run"] for each in found["runs"]) or "no finished run yet"
    output.note(f"prepared version {data.version}; {shown}; {len(found['experiments'])} experiments")
    if found["verdict"] is not None:
        output.note(found["verdict"])
    write_page(page, lambda origin: report_page(found, figures, origin), dataset=data.name, runs=runs, output=output)
    output.json({**found, "page": str(page)})


def _open(name: str, chosen: list[RunFolder] | None, prepared: Path, runs: Path) -> PreparedDataset:
    """The version of the first chosen run, else of the newest finished run, else the current version."""
    from athwe_core.data.prepare import open_prepared
    from athwe_core.runs.find import FINISHED, list_runs

    finished = [each for each in list_runs(runs, dataset=name) if each.manifest().get("status") == FINISHED]
    run = chosen[0] if chosen else finished[-1] if finished else None
    return open_prepared(name, prepared_dir=prepared) if run is None else run.open_data(prepared)
