"""Options that several commands share, default folders, and the choice of a data set."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer


def _preset_names() -> str:
    """Names of the presets in this package, without loading the models."""
    files = (file.name for file in (resources.files("athwe_core") / "presets").iterdir())
    return ", ".join(sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml")))


def _lower_case(preset: str) -> str:
    """Presets are the same in upper and lower case."""
    return preset.lower()


Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Data set: the name of a folder under --data, or demo. Default: ATHWE_DATASET, else the data set of the newest "
        "finished run, else demo.",
        show_default=False,
    ),
]
DataDir = Annotated[
    Path, typer.Option("--data", envvar="ATHWE_DATA", help="Folder of the data sets. Only athwe download writes to it.")
]
PreparedDir = Annotated[Path, typer.Option("--prepared", envvar="ATHWE_PREPARED", help="Folder of prepared versions.")]
RunsDir = Annotated[Path, typer.Option("--runs", envvar="ATHWE_RUNS", help="Folder of runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; everything else goes to stderr.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before removing.")]
Verify = Annotated[
    bool,
    typer.Option("--verify", help="Read every file of the prepared version and compare it with its checksum first."),
]
Run = Annotated[
    str,
    typer.Option("--run", help="Run: a path, DATASET/PRESET/NAME, a unique PRESET/NAME or NAME, or last."),
]
Preset = Annotated[
    str,
    typer.Option(
        "--preset",
        help=f"Preset: {_preset_names()}, or one of an installed package (glossary: preset).",
        callback=_lower_case,
    ),
]
Batching = Annotated[
    str | None,
    typer.Option(
        "--batching",
        help="packed: all positions of a history at once; prefix: one row per target (glossary: packed, prefix row).",
    ),
]
Precision = Annotated[str | None, typer.Option("--precision", help="auto, fp32 or bf16.")]
Compile = Annotated[
    str | None,
    typer.Option(
        "--compile",
        help="Compile training steps with torch.compile, on CUDA record them as graphs: auto (on CUDA only), on or off.",
    ),
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set a configuration key, e.g. model.dropout=0.3. Repeatable.", metavar="KEY=VALUE"),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        help="Also record every epoch with tensorboard, mlflow or wandb (pip install 'athwe[NAME]'). Repeatable.",
        metavar="NAME",
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file of configuration keys, which override the preset.")
]

UserColumn = Annotated[str | None, typer.Option(help="Of a table. Default: detected and reported.")]
ItemColumn = Annotated[str | None, typer.Option(help="Of a table. Default: detected and reported.")]
TimeColumn = Annotated[str | None, typer.Option(help="Of a table. Default: detected and reported.")]
Columns = Annotated[
    str | None,
    typer.Option(help="Of a table without header line: comma-separated names of all columns: user,item,rating,time."),
]
Quotes = Annotated[
    str,
    typer.Option(
        help="Of a delimited table: double (fields may stand in double quotes), none (quotes are ordinary characters) or "
        "auto (double, but notices quotes that do not pair)."
    ),
]
TimeUnit = Annotated[
    str,
    typer.Option(
        help="Of a table: s, ms, us, ns, minutes, hours or days since 1970, excel (days as spreadsheets count), year, "
        "yyyymmdd, iso, month/day/year, day/month/year; auto detects and reports it."
    ),
]
TimeFormat = Annotated[
    str | None, typer.Option(help="Of a table: format of other dates as in Python's strptime: '%d.%m.%Y %H:%M'.")
]
MaxBadLines = Annotated[
    float, typer.Option(help="Largest share of a file's lines that may be unreadable and are dropped; more stops.")
]
MaxMissingIds = Annotated[
    float,
    typer.Option(
        help="Largest share of rows whose user or item is a placeholder (nan, null, None, NA, -1, empty) and that are "
        "dropped; more stops."
    ),
]

RunOrHub = Annotated[
    str,
    typer.Option(
        "--run",
        help="Run: a path, DATASET/PRESET/NAME, a unique name, or last; or a model that was exported for the hub: a folder, "
        "or hf:OWNER/NAME.",
    ),
]

DATA_DIR, PREPARED_DIR, RUNS_DIR = Path("dataset"), Path("prepared"), Path("runs")


def names(columns: str | None) -> tuple[str, ...] | None:
    """Comma-separated names; None where the option is not given."""
    return None if columns is None else tuple(part.strip() for part in columns.split(","))


def choose_dataset(given: str | None, runs_dir: Path) -> tuple[str, str]:
    """Choose the data set of a command.

    Args:
        given: Value of `--dataset`, or None.
        runs_dir: Folder of runs.

    Returns:
        The name of the data set, and the reason for the choice.
    """
    from athwe_core.runs.find import FINISHED, list_runs

    if given is not None:
        return given, "--dataset"
    if os.environ.get("ATHWE_DATASET"):
        return os.environ["ATHWE_DATASET"], "ATHWE_DATASET"
    finished = [run for run in list_runs(runs_dir) if run.manifest().get("status") == FINISHED]
    if finished:
        return str(finished[-1].manifest()["data"]["name"]), "the newest finished run"
    return "demo", "no finished run"
