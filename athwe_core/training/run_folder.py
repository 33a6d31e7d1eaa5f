"""A run on disk: `RUNS/<dataset>/<preset>/<name>/` with configuration, provenance, metrics, checkpoints and ranks."""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml

import athwe_core
from athwe_core.config import Config, config_from_tree, config_tree
from athwe_core.data.prepared import PreparedDataset, open_prepared
from athwe_core.durable import replace_text
from athwe_core.errors import CheckpointError, ConfigError, DataError

if TYPE_CHECKING:
    import polars as pl

CONFIG, MANIFEST, METRICS, PER_USER = "config.yaml", "manifest.json", "metrics.jsonl", "per_user.parquet"
FINISHED, RUNNING, INTERRUPTED = "finished", "running", "interrupted"


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run and what is written to them."""

    path: Path

    @property
    def name(self) -> str:
        """dataset/preset/name, by which every command finds the run."""
        return "/".join(self.path.parts[-3:])

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last"

    @property
    def previous(self) -> Path:
        """The checkpoint before the last, for when the last is damaged."""
        return self.path / "checkpoints" / "previous"

    @property
    def per_user(self) -> Path:
        return self.path / PER_USER

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; the system lets go of it when the process ends, however it ends.

        Raises: CheckpointError when another process holds it.
        """
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            rule = f"is being trained by process {self.manifest().get('process', 'unknown')}"
            raise CheckpointError(f"run {self.name}", rule, remedy="Wait for it, or end it first") from None
        finally:
            os.close(folder)

    def config(self) -> Config:
        """The complete configuration."""
        try:
            tree = yaml.safe_load((self.path / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise CheckpointError(str(self.path / CONFIG), f"must be readable YAML ({error})") from None
        return config_from_tree(tree)

    def manifest(self) -> dict[str, Any]:
        """Provenance, status and, once finished, results."""
        try:
            manifest = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(str(self.path / MANIFEST), f"must be readable JSON ({error})") from None
        if not isinstance(manifest, dict):
            raise CheckpointError(str(self.path / MANIFEST), "must be the manifest of a run")
        return manifest

    def update_manifest(self, **facts: Any) -> None:
        """Add facts to the manifest, replacing the file whole."""
        path = self.path / MANIFEST
        manifest = (self.manifest() if path.exists() else {}) | facts
        replace_text(path, json.dumps(manifest, indent=2) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """One record per finished epoch."""
        path = self.path / METRICS
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def write_metrics(self, records: list[dict[str, Any]]) -> None:
        """Replace the epoch records."""
        replace_text(self.path / METRICS, "".join(json.dumps(record) + "\n" for record in records))

    def ranks(self, split: str) -> pl.DataFrame:
        """Lines of `per_user.parquet` of a split (see `per_user_frame`), in the order of users.

        Raises: CheckpointError when the file is unreadable or has none of the split.
        """
        import polars as pl  # noqa: PLC0415 - training does without

        remedy = f"Rank the users again: athwe evaluate --run {self.name} --split {split}"
        try:
            frame = pl.read_parquet(self.per_user, glob=False).filter(pl.col("split") == split)
        except (OSError, pl.exceptions.PolarsError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(str(self.per_user), f"must be readable parquet ({reason})", remedy=remedy) from None
        if frame.is_empty():
            raise CheckpointError(str(self.per_user), f"must hold ranks of the {split} split", remedy=remedy)
        return frame

    def open_data(self, prepared_dir: Path) -> PreparedDataset:
        """The prepared version the run was trained on.

        Raises: DataError when it is gone or its content is another one now.
        """
        data = self.manifest()["data"]
        prepared = open_prepared(data["name"], prepared_dir=prepared_dir, version=data["version"])
        if prepared.manifest["content_hash"] != data["content_hash"]:
            raise DataError(
                f"prepared data set {data['name']} version {data['version']}",
                f"must be the one run {self.name} was trained on, content {data['content_hash'][:12]}",
                prepared.manifest["content_hash"][:12],
                "Prepare it again from the same files, or train again",
            )
        return prepared


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
    folder = parent / (name or datetime.now().strftime("%Y%m%d-%H%M%S"))
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if name is not None:
            remedy = f"Choose another, go on with --resume {prepared.name}/{preset}/{name}, or delete the folder"
            raise ConfigError("--name", f"must be new under {parent}", name, remedy) from None
        folder = parent / datetime.now().strftime("%Y%m%d-%H%M%S-%f")
        folder.mkdir(parents=True)
    except OSError as error:
        raise CheckpointError(str(folder), f"must be a folder that can be made ({error.strerror})") from None
    run = RunFolder(folder)
    (folder / CONFIG).write_text(yaml.safe_dump(config_tree(config), sort_keys=False), encoding="utf-8")
    run.update_manifest(
        status=RUNNING,
        preset=preset,
        command=command,
        started=datetime.now(UTC).isoformat(timespec="microseconds"),
        seed=config.training.seed,
        data={
            "name": prepared.name,
            "version": prepared.version,
            "content_hash": prepared.manifest["content_hash"],
            "tie_order": prepared.manifest["statistics"]["tie_order"],
            "split_rule": prepared.split_rule,
        },
        versions=_versions(),
    )
    return run


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
    found = [RunFolder(path.parent) for path in Path(runs_dir).glob(f"{dataset or '*'}/*/*/{MANIFEST}")]
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
