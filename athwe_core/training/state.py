"""The state of a training run, and how it is restored from a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from athwe_core.errors import CheckpointError
from athwe_core.runs.checkpoint import STATE, load_optimizer, load_state, load_weights
from athwe_core.runs.run import INIT_FROM, METRICS, RunFolder
from athwe_core.runs.schema import EpochRecord
from athwe_core.training.build import TrainingSetup
from athwe_core.training.memory_saving import LEVELS


@dataclass
class TrainingState:
    """Position of a run: with the keyed random generators, all that an exact resume needs besides weights and optimiser."""

    epoch: int = 0
    """Epochs finished."""
    step: int = 0
    """Finished steps of the current epoch."""
    best_epoch: int = 0
    best_value: float = -1.0
    sums: dict[str, float] = field(default_factory=dict)
    """Sums of loss terms and gradient norms over the finished steps of the current epoch."""
    seconds: float = 0.0
    """Training time of the current epoch, seconds."""
    memory_saving: int = 0
    """Level of memory saving: index into LEVELS."""

    def state(self) -> dict[str, Any]:
        """Plain values for `state.json` of a checkpoint."""
        return {"progress": asdict(self)}


def restore(
    run: RunFolder,
    setup: TrainingSetup,
    optimizer: torch.optim.Optimizer,
    notify: Callable[[str], None],
    *,
    may_write: bool = True,
) -> tuple[TrainingState, list[EpochRecord]]:
    """Restore weights and optimiser from the last checkpoint, or from the one before where that is damaged or not finite.

    Args:
        run: the run.
        setup: its model, which receives the weights.
        optimizer: receives the moments.
        notify: called with one sentence when the last checkpoint cannot be used.
        may_write: cut `metrics.jsonl` back to the finished epochs; one process of a job does it.
    Returns: the state and the records of the finished epochs; of a fresh start where there is no checkpoint.
    Raises: CheckpointError when no checkpoint can be used, or records are missing.
    """
    kept = [folder for folder in (run.last, run.previous) if folder.exists()]
    if not kept and (source := run.manifest().get(INIT_FROM)) is not None:  # killed before its first checkpoint
        rule = f"must have the weights of {source} to start from"
        raise CheckpointError(f"run {run.name}", rule, remedy="Delete its folder and train again with --init-from")
    progress = TrainingState()
    for index, folder in enumerate(kept):
        try:
            found = _progress(folder)
            load_weights(folder, setup.model)
            load_optimizer(folder, setup.model, optimizer)
        except CheckpointError as error:
            if index == len(kept) - 1:
                raise
            notify(f"the last checkpoint cannot be used ({error}): going on from the one before")
            continue
        progress = found
        break
    records = run.metrics()
    if len(records) < progress.epoch:
        rule = f"must have a record for each of the {progress.epoch} finished epochs"
        raise CheckpointError(str(run.path / METRICS), rule, len(records), "Restore it from a copy, or train again")
    if len(records) > progress.epoch and may_write:
        run.write_metrics(records[: progress.epoch])
    return progress, records[: progress.epoch]


def _progress(folder: Path) -> TrainingState:
    """CheckpointError where the state is not one that training saved."""
    saved = load_state(folder).get("progress")
    if isinstance(saved, dict) and "thrift" in saved:  # the key of version 0.1.0
        saved = {"memory_saving" if key == "thrift" else key: value for key, value in saved.items()}
    defaults = {f.name: getattr(TrainingState(), f.name) for f in fields(TrainingState)}
    values = defaults | saved if isinstance(saved, dict) else {}
    if (
        values.keys() != defaults.keys()
        or any(type(values[name]) is not type(default) for name, default in defaults.items())
        or not all(isinstance(value, float) for value in values["sums"].values())
        or not (0 <= values["best_epoch"] <= values["epoch"] < 2**31 and 0 <= values["step"] < 2**31)
        or not 0 <= values["memory_saving"] < len(LEVELS)
        or not all(map(math.isfinite, (*values["sums"].values(), values["best_value"], values["seconds"])))
        or not (values["best_value"] <= 1 and values["seconds"] >= 0)
    ):
        raise CheckpointError(f"{folder / STATE}: progress", "must be what training saved", remedy="Train again")
    return TrainingState(**values)


def environment(setup: TrainingSetup) -> dict[str, Any]:
    """Device, precision and threads, which the results of a run depend on besides configuration, data and torch version."""
    precision = {torch.float32: "fp32", torch.bfloat16: "bf16"}[setup.compute_dtype]
    return {"device": str(setup.device), "precision": precision, "threads": torch.get_num_threads()}


def changed_environment(manifest: dict[str, Any], here: dict[str, Any]) -> str | None:
    """One sentence on what differs from the environment that trained the run before; None where nothing differs."""
    before = {**manifest, "torch": manifest.get("versions", {}).get("torch")}
    now = {**here, "torch": torch.__version__}
    names = [name for name in ("device", "precision", "threads", "torch") if before.get(name) not in (None, now[name])]
    if not names:
        return None
    differences = ", ".join(f"{name} {before[name]} before and {now[name]} now" for name in names)
    return f"{differences}: the run goes on, but not to the last bit as it would have there"
