"""Options that several commands share, and where things are by default."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Data set: a folder NAME under --data, or demo. Default: ATHWE_DATASET, else that of the newest finished run, "
        "else demo.",
        show_default=False,
    ),
]
DataDir = Annotated[Path, typer.Option("--data", envvar="ATHWE_DATA", help="Folder with the data sets; only read.")]
PreparedDir = Annotated[Path, typer.Option("--prepared", envvar="ATHWE_PREPARED", help="Folder of prepared versions.")]
RunsDir = Annotated[Path, typer.Option("--runs", envvar="ATHWE_RUNS", help="Folder of runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; everything else goes to stderr.")]
Run = Annotated[
    str,
    typer.Option("--run", help="A path, dataset/preset/name, a unique name, or last."),
]
Preset = Annotated[str, typer.Option("--preset", help="athwe, athwe-published or hm4sr.")]
Batching = Annotated[
    str | None, typer.Option("--batching", help="packed: every position supervised; prefix: one row per target.")
]
Precision = Annotated[str | None, typer.Option("--precision", help="auto, fp32 or bf16.")]
Compile = Annotated[
    str | None, typer.Option("--compile", help="auto (on CUDA), on or off: steps through torch's compiler.")
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Any configuration key: a.b=value. Repeatable.", metavar="KEY=VALUE")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file of configuration keys, over the preset.")]

DATA_DIR, PREPARED_DIR, RUNS_DIR = Path("dataset"), Path("prepared"), Path("runs")


def choose_dataset(given: str | None, runs_dir: Path) -> tuple[str, str]:
    """The data set to work on and why it is that one."""
    from athwe_core.runs.find import FINISHED, list_runs

    if given is not None:
        return given, "--dataset"
    if os.environ.get("ATHWE_DATASET"):
        return os.environ["ATHWE_DATASET"], "ATHWE_DATASET"
    finished = [run for run in list_runs(runs_dir) if run.manifest().get("status") == FINISHED]
    if finished:
        return str(finished[-1].manifest()["data"]["name"]), "the newest finished run"
    return "demo", "no run yet"
