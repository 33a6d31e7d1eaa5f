"""What the manifest and the epoch records of a run must hold, so that nothing trips over them later."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NotRequired, TypedDict

from athwe_core.errors import CheckpointError

RESTORE = "Restore it from a copy, or train again"


class EpochRecord(TypedDict):
    """A line of `metrics.jsonl`: what an epoch came to."""

    epoch: int
    """From 1."""
    steps: int
    losses: dict[str, float]
    """Mean of each loss term, unweighted, and of `total`."""
    gradient_norm: NotRequired[float]
    """Mean norm of the gradient of all weights; version 0.1.0 did not record it."""
    validation: dict[str, float]
    """Metrics of the validation split by name; empty in a run on all data."""
    validation_users: NotRequired[int]
    """Users that they are of, where `evaluation.validation_users` is set."""
    selection_metric: NotRequired[str]
    """The metric that chooses the best epoch; version 0.1.0 used ndcg@20."""
    seconds: float
    """Time of training."""
    validation_seconds: float


def require_manifest(name: str, manifest: dict[str, Any], *, has_results: bool) -> None:
    """Raise CheckpointError where a fact is missing or of another type than the one that is written."""
    _require(name, manifest, text=("status", "preset", "command", "started"), section=("data", "versions"))
    _require(f"{name}: data", manifest["data"], text=("name", "version", "content_hash"))
    if has_results:
        _require(name, manifest, section=("results",))
        results = manifest["results"]
        _require(f"{name}: results", results, count=("best_epoch", "epochs"), number=("seconds_per_epoch",))
        for split in {"validation", "test"} & results.keys():
            _require_numbers(f"{name}: results: {split}", results[split])


def require_record(name: str, record: dict[str, Any], *, epoch: int) -> None:
    """Raise CheckpointError where the record is not one of that epoch, or not as it is written."""
    _require(name, record, count=("epoch",), number=("seconds", "validation_seconds"))
    if record["epoch"] != epoch:
        raise CheckpointError(name, f"must be of epoch {epoch}", record["epoch"], RESTORE)
    for key in {"losses", "validation"} & record.keys():
        _require_numbers(f"{name}: {key}", record[key])


def selected(record: Mapping[str, Any]) -> tuple[str, float]:
    """Name and value of the validation metric that chose the best epoch; version 0.1.0 knew ndcg@20 only."""
    name = record.get("selection_metric", "ndcg@20")
    return name, record["validation"][name]


def _require(
    name: str,
    found: dict[str, Any],
    *,
    text: Iterable[str] = (),
    count: Iterable[str] = (),
    number: Iterable[str] = (),
    section: Iterable[str] = (),
) -> None:
    rules = [
        *((key, "text", isinstance(found.get(key), str)) for key in text),
        *((key, "a whole number from 0", _is_number(found.get(key), int)) for key in count),
        *((key, "a number from 0", _is_number(found.get(key), int | float)) for key in number),
        *((key, "an object", isinstance(found.get(key), dict)) for key in section),
    ]
    for key, kind, is_right in rules:
        if not is_right:
            raise CheckpointError(f"{name}: {key}", f"must be {kind}", remedy=RESTORE)


def _is_number(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and 0 <= value < 2**53


def _require_numbers(name: str, found: object) -> None:
    values: list[Any] = list(found.values()) if isinstance(found, dict) else [None]
    if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        raise CheckpointError(name, "must be names with finite numbers", remedy=RESTORE)
