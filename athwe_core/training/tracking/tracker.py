"""What a tracker gets: numbers by name for each epoch, the configuration and the results of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from athwe_core.config import config_tree, flattened
from athwe_core.runs.run import RunFolder
from athwe_core.runs.schema import EpochRecord

Status = Literal["finished", "interrupted", "failed"]


class Tracker(Protocol):
    """A tool that records the course of a run."""

    where: str
    """Where the numbers are, as one clause: a folder, an address, what to type to see them."""

    def log(self, values: Mapping[str, float], *, epoch: int) -> None:
        """Record the numbers of an epoch, counted from 1."""

    def close(self, results: Mapping[str, float], *, epoch: int, status: Status) -> None:
        """Record the results after the last epoch, none for a run that is not finished, and end."""


def epoch_values(record: EpochRecord) -> dict[str, float]:
    """Losses, validation metrics, gradient norm and seconds of an epoch, by names that every tracker takes."""
    values = {f"loss/{_plain(name)}": value for name, value in record["losses"].items()}
    values |= {f"validation/{_plain(name)}": value for name, value in record["validation"].items()}
    if "gradient_norm" in record:
        values["gradient_norm"] = record["gradient_norm"]
    return {**values, "seconds": record["seconds"]}


def result_values(results: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of the best weights on both splits, and the best epoch."""
    values = {
        f"best_{split}/{_plain(name)}": value
        for split in ("validation", "test")
        for name, value in results.get(split, {}).items()
    }
    return {**values, "best_epoch": results["best_epoch"]} if "best_epoch" in results else values


def configuration(run: RunFolder) -> dict[str, object]:
    """The configuration of a run by dotted keys, with its preset and data."""
    manifest = run.manifest()
    data = {f"data.{key}": manifest["data"][key] for key in ("name", "version")}
    return {"preset": manifest["preset"], **data, **flattened(config_tree(run.config()))}


def run_id(run: RunFolder) -> str:
    """The same for a run that is resumed, and another for each run: 16 hex digits."""
    return hashlib.sha256(f"{run.name} {run.manifest()['started']}".encode()).hexdigest()[:16]


def _plain(name: str) -> str:
    """`ndcg@10` as `ndcg_at_10`: MLflow allows no @, and TensorBoard replaces it."""
    return name.replace("@", "_at_")
