"""Runs on disk: `RUNS/<dataset>/<preset>/<name>/` with configuration, provenance, metrics, checkpoints and ranks."""

from __future__ import annotations

import difflib
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import yaml

import athwe_core
from athwe_core.config import Config, config_tree
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import CheckpointError, ConfigError
from athwe_core.runs.run import (
    CONFIG,
    FINISHED,
    INTERRUPTED,
    MANIFEST,
    METRICS,
    PER_USER,
    RUNNING,
    RunFolder,
    refusals,
    write_manifest,
)
from athwe_core.safe_write import UNFINISHED, replace_text, sync

__all__ = [
    "CONFIG",
    "FINISHED",
    "INTERRUPTED",
    "MANIFEST",
    "METRICS",
    "PER_USER",
    "RUNNING",
    "RunFolder",
    "create_run",
    "find_run",
    "git_commit",
    "list_runs",
]


def create_run(
    runs_dir: Path, config: Config, prepared: PreparedDataset, *, preset: str, name: str | None, command: str
) -> RunFolder:
    """A new run folder with configuration and provenance.

    Args:
        preset: the preset the configuration started from, the middle part of the run's name.
        name: last part of the run's name; None = the time now.
    Raises: ConfigError when the name is taken or is no plain folder name.
    """
    if name is not None and (name != Path(name).name or name in ("", ".", "..", "last")):
        raise ConfigError("--name", "must be a plain name other than last", name)
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
        if name is not None and _is_stillborn(folder):
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


def _is_stillborn(folder: Path) -> bool:
    """Whether it is what a process left that was killed while it made a run."""
    return folder.is_dir() and all(path.name == CONFIG or UNFINISHED in path.name for path in folder.iterdir())


def _versions() -> dict[str, str | None]:
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
    """Runs, oldest start first."""
    found = [RunFolder(path.parent) for path in Path(runs_dir).glob(f"*/*/*/{MANIFEST}")]
    found = [run for run in found if dataset in (None, run.path.parts[-3])]
    return sorted(found, key=lambda run: (run.manifest().get("started", ""), run.name))


def find_run(runs_dir: Path, text: str, *, dataset: str | None = None, unfinished: bool = False) -> RunFolder:
    """The run that a path, `dataset/preset/name`, a unique name, or `last` means.

    Args:
        dataset: where `last` looks; None = everywhere.
        unfinished: `last` is the newest run that can be gone on with instead of the newest finished one; without such a run
            it is the newest of all.
    Raises: ConfigError when there is none (naming near ones), or more than one.
    """
    runs = list_runs(runs_dir, dataset=dataset if text == "last" else None)
    if text == "last":
        wanted = [run for run in runs if (run.manifest().get("status") == FINISHED) != unfinished]
        if runs:
            return (wanted or runs)[-1]
        where = f"{runs_dir}/{dataset}" if dataset else str(runs_dir)
        remedy = f"Type: athwe train --dataset {dataset or 'demo'}"
        raise ConfigError("--run last", f"must find a run in {where}", remedy=remedy)
    if (Path(text) / MANIFEST).is_file():
        return RunFolder(Path(text).resolve())
    matches = [run for run in runs if text in (run.name, run.path.name)]
    if len(matches) == 1:
        return matches[0]
    names = [run.name for run in (matches or runs)]
    if matches:
        raise ConfigError("--run", f"must name one run, and {len(matches)} have it: {', '.join(names)}", text)
    near = difflib.get_close_matches(text, [*names, *(run.path.name for run in runs)], n=3)
    newest = f"Newest: {', '.join(names[-3:])}" if names else "Train one first: athwe train --dataset demo"
    remedy = f"Did you mean {', '.join(near)}?" if near else newest
    raise ConfigError("--run", f"must be a run in {runs_dir}", text, remedy)
