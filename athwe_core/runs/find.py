"""Runs on disk: `RUNS/<dataset>/<preset>/<name>/` with configuration, provenance, metrics, checkpoints and ranks."""

from __future__ import annotations

import difflib
import platform
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import athwe_core
from athwe_core.errors import CheckpointError, ConfigError
from athwe_core.runs.run import (
    CONFIG,
    FINISHED,
    INIT_FROM,
    INTERRUPTED,
    MANIFEST,
    METRICS,
    PER_USER,
    RUNNING,
    TRAINED,
    RunFolder,
    refusals,
    write_manifest,
)
from athwe_core.safe_write import UNFINISHED, replace_text, sync

if TYPE_CHECKING:
    from athwe_core.config import Config
    from athwe_core.data.store.dataset import PreparedDataset

__all__ = [
    "CONFIG",
    "FINISHED",
    "INTERRUPTED",
    "MANIFEST",
    "METRICS",
    "PER_USER",
    "RUNNING",
    "TRAINED",
    "RunFolder",
    "broken_runs",
    "create_run",
    "find_run",
    "git_commit",
    "list_runs",
    "short_names",
]


def create_run(
    runs_dir: Path,
    config: Config,
    prepared: PreparedDataset,
    *,
    preset: str,
    name: str | None,
    command: str,
    init_from: str | None = None,
) -> RunFolder:
    """Make a new run folder with configuration and provenance.

    Args:
        runs_dir: Folder of runs, made where it is missing.
        config: The complete configuration.
        prepared: The data that the run will be trained on.
        preset: The preset the configuration started from, the middle part of the run's name.
        name: Last part of the run's name; None = the time now.
        command: What the user typed.
        init_from: The run or file whose weights it starts from; training waits for a checkpoint with them. None = none.
    Raises:
        ConfigError: The name is taken or is no plain folder name; the run cannot start, see `require_startable`.
        CheckpointError: The folder cannot be made, or the disk has no room for the checkpoints.
    """
    import yaml

    from athwe_core.config import config_tree
    from athwe_core.runs.start import require_startable

    if name is not None and (name != Path(name).name or name in ("", "last") or name.startswith(".")):
        raise ConfigError("--name", "must be a plain name other than last, without a leading dot", name)
    require_startable(config, prepared, Path(runs_dir))
    parent = Path(runs_dir) / prepared.name / preset
    folder = _new_folder(parent, name, resumed=f"{prepared.name}/{preset}/{name}")
    facts = {
        "status": RUNNING,
        "preset": preset,
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="microseconds"),
        "seed": config.training.seed,
        "data": {
            "name": prepared.name,
            "version": prepared.version,
            "content_hash": prepared.manifest["content_hash"],
            "tie_order": prepared.manifest["statistics"]["tie_order"],
            "split_rule": prepared.split_rule,
        },
        "versions": _versions(),
        **({} if init_from is None else {INIT_FROM: init_from}),
    }
    try:
        with refusals(folder):
            replace_text(folder / CONFIG, yaml.safe_dump(config_tree(config), sort_keys=False))
            write_manifest(folder, facts)
            sync(parent)
    except CheckpointError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return RunFolder(folder)


def _new_folder(parent: Path, name: str | None, *, resumed: str) -> Path:
    folder = parent / (name or datetime.now().strftime("%Y%m%d-%H%M%S"))
    try:
        if name is not None and _is_half_made(folder):
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except FileExistsError:
        if name is not None:
            remedy = f"Choose another, go on with --resume {resumed}, or delete the folder"
            raise ConfigError("--name", f"must be new under {parent}", name, remedy) from None
        folder = parent / datetime.now().strftime("%Y%m%d-%H%M%S-%f")
        folder.mkdir(parents=True)
    except OSError as error:
        raise CheckpointError(str(folder), f"must be a folder that can be made ({error.strerror})") from None
    return folder


def _is_half_made(folder: Path) -> bool:
    """Whether a process was killed while it made this run."""
    return folder.is_dir() and all(path.name == CONFIG or UNFINISHED in path.name for path in folder.iterdir())


def _versions() -> dict[str, str | None]:
    import numpy as np
    import torch

    return {
        "athwe": athwe_core.__version__,
        "git_commit": git_commit(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def git_commit() -> str | None:
    """Commit of a source checkout of athwe; None for an installed copy."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "rev-parse", "HEAD"]
        found = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def list_runs(runs_dir: Path, *, dataset: str | None = None) -> list[RunFolder]:
    """Runs whose manifest can be read, oldest start first; see `broken_runs` for the others."""
    found = [(run, run.manifest()) for run in _run_folders(runs_dir, dataset) if run.damage is None]
    return [run for run, _ in sorted(found, key=lambda pair: (pair[1].get("started", ""), pair[0].name))]


def broken_runs(runs_dir: Path, *, dataset: str | None = None) -> dict[str, CheckpointError]:
    """What is wrong with each run whose manifest cannot be read, by name."""
    return {run.name: run.damage for run in _run_folders(runs_dir, dataset) if run.damage is not None}


def _run_folders(runs_dir: Path, dataset: str | None) -> list[RunFolder]:
    """Folders of runs by name; hidden folders hold what is unfinished."""
    found = [path.parent for path in Path(runs_dir).glob(f"*/*/*/{MANIFEST}")]
    runs = [RunFolder(path) for path in found if not any(part.startswith(".") for part in path.parts[-3:])]
    return sorted((run for run in runs if dataset in (None, run.path.parts[-3])), key=lambda run: run.name)


def find_run(
    runs_dir: Path,
    text: str,
    *,
    dataset: str | None = None,
    unfinished: bool = False,
    allow_broken: bool = False,
    notify: Callable[[str], None] = lambda _: None,
) -> RunFolder:
    """Find the run that a path, `dataset/preset/name`, `last`, or a unique `preset/name` or `name` means.

    Args:
        runs_dir: Folder of runs.
        text: What the user typed.
        dataset: Where `last` looks; None = everywhere.
        unfinished: `last` is the newest run that can be resumed instead of the newest finished one; without such a run
            it is the newest of all.
        allow_broken: A run whose manifest cannot be read is found too, by its path or name.
        notify: Called with one sentence for each broken run that `last` passes over.
    Raises:
        ConfigError: There is no such run (the message lists near names), or more than one.
        CheckpointError: The run is there and its manifest cannot be read, unless that is allowed.
    """
    broken = broken_runs(runs_dir, dataset=dataset if text == "last" else None)
    runs = list_runs(runs_dir, dataset=dataset if text == "last" else None)
    if text == "last":
        for name, error in broken.items():
            notify(f"run {name} is broken and is left out: {error}")
        is_wanted = (lambda status: status not in (FINISHED, TRAINED)) if unfinished else (lambda s: s == FINISHED)
        wanted = [run for run in runs if is_wanted(run.manifest().get("status"))]
        if runs:
            return (wanted or runs)[-1]
        where = f"{runs_dir}/{dataset}" if dataset else str(runs_dir)
        remedy = f"Type: athwe train --dataset {dataset or 'demo'}"
        raise ConfigError("--run last", f"must find a run in {where}", remedy=remedy)
    if (Path(text) / MANIFEST).is_file():
        found = RunFolder(Path(text).resolve())
        return found if allow_broken else _whole(found)
    everything = [*runs, *(RunFolder(Path(runs_dir, *name.split("/"))) for name in broken)]
    matches = [run for run in everything if text in short_names(run.name)]
    if len(matches) == 1:
        return matches[0] if allow_broken else _whole(matches[0])
    names = [f"{run.name} (broken)" if run.name in broken else run.name for run in (matches or everything)]
    if matches:
        raise ConfigError("--run", f"must name one run, and {len(matches)} have it: {', '.join(names)}", text)
    near = difflib.get_close_matches(
        text, [*names, *(short for run in runs for short in short_names(run.name)[1:])], n=3
    )
    newest = f"Newest: {', '.join(names[-3:])}" if names else "Train one first: athwe train --dataset demo"
    remedy = f"Did you mean {', '.join(near)}?" if near else newest
    raise ConfigError("--run", f"must be a run in {runs_dir}", text, remedy)


def short_names(name: str) -> list[str]:
    """What a run may be called: `dataset/preset/name`, `preset/name` and `name`."""
    parts = name.split("/")
    return ["/".join(parts[first:]) for first in range(len(parts))]


def _whole(run: RunFolder) -> RunFolder:
    if (damage := run.damage) is not None:
        raise damage
    return run
