"""The training loop: epochs of steps, validation after each, early stopping, a checkpoint to go on from."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Protocol

import torch

from athwe_core.config import Config
from athwe_core.config_sections import require
from athwe_core.data.packing import epoch_batches, pack, training_rows
from athwe_core.data.prepared import PreparedDataset
from athwe_core.durable import replacing
from athwe_core.errors import CheckpointError
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.evaluation.groups import per_user_frame
from athwe_core.evaluation.metrics import mean_metrics
from athwe_core.training.assemble import Assembly, assemble
from athwe_core.training.checkpoint import load_optimizer, load_state, load_weights, save_checkpoint
from athwe_core.training.memory import RELEASE_STEPS, release_free_memory
from athwe_core.training.randomness import keyed_rng
from athwe_core.training.run_folder import FINISHED, INTERRUPTED, RUNNING, RunFolder
from athwe_core.training.step import make_optimizer, train_step

CHECKPOINT_MINUTES = 10.0
SELECTION_METRIC = "ndcg@20"
"""Validation metric that chooses the best epoch."""


class Listener(Protocol):
    """Hears what training does; the command line shows it."""

    def epoch_begins(self, epoch: int, *, epochs: int, steps: int, done: int, best: float | None) -> None:
        """Epoch (from 1) of at most `epochs` begins with `done` of its `steps` behind it; best validation value so far."""

    def step_ends(self, step: int, means: dict[str, float]) -> None:
        """Step (from 1) of the epoch is done; means of the loss terms over the epoch so far."""

    def epoch_ends(self, record: dict[str, Any], *, is_best: bool) -> None:
        """The record of `metrics.jsonl`."""


@dataclass
class Progress:
    """Where training is: with the keyed random draws, all it takes to go on exactly."""

    epoch: int = 0
    """Epochs finished."""
    step: int = 0
    """Steps of the epoch under way that are done."""
    best_epoch: int = 0
    best_value: float = -1.0
    sums: dict[str, float] = field(default_factory=dict)
    """Sums of the loss terms over the epoch under way."""
    seconds: float = 0.0
    """Training time of the epoch under way."""


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    finished: bool
    """False when it was asked to stop; it can be resumed."""
    results: dict[str, Any]
    """best_epoch, epochs, seconds_per_epoch, validation, test; empty when not finished."""


def train(
    run: RunFolder,
    prepared: PreparedDataset,
    *,
    listener: Listener,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    notify: Callable[[str], None] = lambda _: None,
) -> Result:
    """Train the run's configuration to its end, from its last checkpoint where it has one.

    Args:
        run: folder with `config.yaml`; a configuration that fits the data set.
        should_stop: asked after every step; True saves the state and ends.
        checkpoint_minutes: longest time inside an epoch between two checkpoints, > 0; each epoch's end saves anyway.
        notify: called with one sentence when the last checkpoint is damaged and the one before is taken.
    Returns: the results, also in the run's manifest; ranks of both splits in `per_user.parquet`.
    Raises: NonFiniteLossError (state of the last epoch kept), CheckpointError, also when another process trains the run.
    """
    require(checkpoint_minutes > 0, "--checkpoint-minutes", "must be positive", checkpoint_minutes)
    with run.locked():
        return _train_locked(run, prepared, listener, should_stop, checkpoint_minutes, notify)


def _train_locked(
    run: RunFolder,
    prepared: PreparedDataset,
    listener: Listener,
    should_stop: Callable[[], bool],
    checkpoint_minutes: float,
    notify: Callable[[str], None],
) -> Result:
    config = run.config()
    assembly = assemble(config, prepared)
    optimizer = make_optimizer(assembly.network, lr=config.training.lr)
    progress, records = _restore(run, assembly, optimizer, notify)

    def save_last() -> None:
        state = {"progress": asdict(progress)}
        save_checkpoint(run.last, assembly.network, state, optimizer, keep=run.previous)

    here = {"device": str(assembly.device), "precision": _name(assembly.compute_dtype), "process": os.getpid()}
    run.update_manifest(status=RUNNING, **here)
    while not _is_over(progress, config):
        clock = _Clock(checkpoint_minutes, save_last)
        if not _train_epoch(assembly, optimizer, prepared, config, progress, listener, should_stop, clock):
            save_last()
            run.update_manifest(status=INTERRUPTED)
            return Result(False, {})
        is_best = _finish_epoch(assembly, prepared, config, progress, records)
        if is_best:
            save_checkpoint(run.best, assembly.network, {"progress": asdict(progress)})
        run.write_metrics(records)
        save_last()
        listener.epoch_ends(records[-1], is_best=is_best)
        if should_stop() and not _is_over(progress, config):
            run.update_manifest(status=INTERRUPTED)
            return Result(False, {})
    return Result(True, _finish(run, assembly, prepared, config, progress, records))


def _name(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]


class _Clock:
    """Saves when the time since the last save is up."""

    def __init__(self, minutes: float, save: Callable[[], None]) -> None:
        self._seconds, self._save = 60 * minutes, save
        self._saved = time.monotonic()

    def tick(self) -> None:
        """After a step."""
        if time.monotonic() - self._saved >= self._seconds:
            self._save()
            self._saved = time.monotonic()


def _restore(
    run: RunFolder, assembly: Assembly, optimizer: torch.optim.Optimizer, notify: Callable[[str], None]
) -> tuple[Progress, list[dict[str, Any]]]:
    """Progress and epoch records of the last checkpoint, of the one before where that is damaged, or of a fresh start."""
    kept = [folder for folder in (run.last, run.previous) if folder.exists()]
    for index, folder in enumerate(kept):
        try:
            state = load_state(folder)
            load_weights(folder, assembly.network)
            load_optimizer(folder, assembly.network, optimizer)
        except CheckpointError as error:
            if index == len(kept) - 1:
                raise
            notify(f"the last checkpoint cannot be used ({error}): going on from the one before")
            continue
        progress = Progress(**state["progress"])
        return progress, run.metrics()[: progress.epoch]
    return Progress(), []


def _is_over(progress: Progress, config: Config) -> bool:
    waited = progress.epoch - progress.best_epoch
    return progress.epoch >= config.training.epochs or waited >= config.training.patience


def _train_epoch(
    assembly: Assembly,
    optimizer: torch.optim.Optimizer,
    prepared: PreparedDataset,
    config: Config,
    progress: Progress,
    listener: Listener,
    should_stop: Callable[[], bool],
    clock: _Clock,
) -> bool:
    """The epoch's steps from `progress.step` on; False when asked to stop before its end."""
    L, budget, seed = config.model.max_length, config.training.batch_targets, config.training.seed
    rows = training_rows(prepared.split, batching=config.training.batching, max_length=L)
    batches = epoch_batches(rows, batch_targets=budget, rng=keyed_rng(seed, "shuffle", progress.epoch))
    steps = len(batches)
    best = progress.best_value if progress.best_epoch > 0 else None
    listener.epoch_begins(progress.epoch + 1, epochs=config.training.epochs, steps=steps, done=progress.step, best=best)
    began = time.perf_counter() - progress.seconds
    for chosen in batches[progress.step :]:
        batch = pack(prepared, rows, chosen, max_length=L).to(assembly.device)
        terms = train_step(assembly, optimizer, batch, config, epoch=progress.epoch, step=progress.step)
        progress.step += 1
        if progress.step % RELEASE_STEPS == 0:
            release_free_memory()
        for name, value in terms.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value.item()
        progress.seconds = time.perf_counter() - began
        listener.step_ends(progress.step, {name: total / progress.step for name, total in progress.sums.items()})
        if progress.step < steps:
            if should_stop():
                return False
            clock.tick()
    return True


def _finish_epoch(
    assembly: Assembly,
    prepared: PreparedDataset,
    config: Config,
    progress: Progress,
    records: list[dict[str, Any]],
) -> bool:
    """Validate, add the epoch's record, move progress on; True when it is the best so far."""
    began = time.perf_counter()
    ranks = rank_users(assembly.network, prepared, split="validation", exclude_seen=config.evaluation.exclude_seen)
    selection = mean_metrics(ranks, (20,))[SELECTION_METRIC]
    is_best = selection > progress.best_value
    steps = progress.step
    records.append(
        {
            "epoch": progress.epoch + 1,
            "steps": steps,
            "losses": {name: total / steps for name, total in progress.sums.items()},
            "validation": mean_metrics(ranks, config.evaluation.ks) | {SELECTION_METRIC: selection},
            "seconds": progress.seconds,
            "validation_seconds": time.perf_counter() - began,
        }
    )
    progress.epoch, progress.step, progress.sums, progress.seconds = progress.epoch + 1, 0, {}, 0.0
    if is_best:
        progress.best_epoch, progress.best_value = progress.epoch, selection
    return is_best


def _finish(
    run: RunFolder,
    assembly: Assembly,
    prepared: PreparedDataset,
    config: Config,
    progress: Progress,
    records: list[dict[str, Any]],
) -> dict[str, Any]:
    """Rank both splits with the best weights and write the results."""
    import polars as pl  # noqa: PLC0415 - only here

    load_weights(run.best, assembly.network)
    results: dict[str, Any] = {
        "best_epoch": progress.best_epoch,
        "epochs": progress.epoch,
        "seconds_per_epoch": median(record["seconds"] for record in records),
    }
    frames = []
    for split in ("validation", "test"):
        ranks = rank_users(assembly.network, prepared, split=split, exclude_seen=config.evaluation.exclude_seen)
        results[split] = mean_metrics(ranks, config.evaluation.ks)
        frames.append(per_user_frame(prepared, ranks, split=split))
    with replacing(run.per_user) as temporary:
        pl.concat(frames).write_parquet(temporary)
    run.update_manifest(status=FINISHED, results=results)
    return results
