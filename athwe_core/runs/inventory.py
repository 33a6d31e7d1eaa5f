"""Runs on disk: which there are, how large they are, and their removal."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from athwe_core.data.store.inventory import folder_bytes
from athwe_core.errors import CheckpointError
from athwe_core.runs.find import broken_runs, list_runs
from athwe_core.runs.run import FINISHED, RunFolder, refusals
from athwe_core.safe_write import unfinished_folder

BROKEN = "broken"
"""Status of a run whose manifest cannot be read."""


@dataclass(frozen=True)
class RunFacts:
    """A run on disk.

    Attributes:
        name: `DATASET/PRESET/NAME`.
        status: `running`, `interrupted`, `finished` or `broken`.
        bytes: Of its files.
        manifest: Provenance and, once finished, results; empty for a broken run.
        damage: Why it cannot be used; None where it can.
    """

    name: str
    status: str
    bytes: int
    manifest: dict[str, Any]
    damage: CheckpointError | None = None

    def result(self, split: str, metric: str) -> float | None:
        """A metric of a finished run; None where there is none."""
        results = self.manifest.get("results", {}) if self.status == FINISHED else {}
        value = results.get(split, {}).get(metric)
        return None if value is None else float(value)


def run_facts(run: RunFolder) -> RunFacts:
    """What is known about a run."""
    size = folder_bytes(run.path)
    try:
        manifest = run.manifest()
    except CheckpointError as error:
        return RunFacts(run.name, BROKEN, size, {}, error)
    return RunFacts(run.name, str(manifest["status"]), size, manifest)


def all_run_facts(runs_dir: Path, *, dataset: str | None = None) -> list[RunFacts]:
    """Every run, oldest start first; broken ones at the end."""
    broken = [RunFolder(Path(runs_dir, *name.split("/"))) for name in broken_runs(runs_dir, dataset=dataset)]
    return [run_facts(run) for run in (*list_runs(runs_dir, dataset=dataset), *broken)]


def remove_run(run: RunFolder) -> None:
    """Remove a run, and the folders above it that become empty. A kill at any moment leaves it whole or removed.

    Raises: CheckpointError where a process trains it, or the disk refuses.
    """
    parent = run.path.parent
    with run.locked(), refusals(run.path), unfinished_folder(parent) as bin_:
        run.path.rename(bin_ / run.path.name)
    for folder in (parent, parent.parent):
        with suppress(OSError):  # other runs are in it
            folder.rmdir()
