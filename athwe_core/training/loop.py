"""The training loop: epochs of steps, validation after each epoch, early stopping, checkpoints."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float64

from athwe_core.data.packing import FIXED_PADDING, SOME_PADDING
from athwe_core.data.prepare import PreparedDataset
from athwe_core.data.rows import epoch_batches, training_rows
from athwe_core.distributed import ALONE, ProcessGroup
from athwe_core.errors import CheckpointError, DataError, require
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.evaluation.groups import per_user_frame
from athwe_core.evaluation.metrics import mean_metrics
from athwe_core.nn.item_embeddings import divided_rows
from athwe_core.runs.checkpoint import load_weights, save_checkpoint
from athwe_core.runs.find import FINISHED, INTERRUPTED, RUNNING, TRAINED, RunFolder
from athwe_core.runs.schema import EpochRecord
from athwe_core.safe_write import reason
from athwe_core.training.allocator import CHECK_STEPS, HeapTrimmer
from athwe_core.training.batches import BatchPacker, ReadyBatch
from athwe_core.training.build import build_setup
from athwe_core.training.compiled import compile_or_not, wants_compiler
from athwe_core.training.optim import make_optimizer, scheduled_rate
from athwe_core.training.out_of_memory import NoMemoryError, is_out_of_memory, step_within_memory
from athwe_core.training.randomness import keyed_rng
from athwe_core.training.ranking_progress import RankingProgress, StopRanking
from athwe_core.training.recorded import RecordedSteps, recorded_or_not
from athwe_core.training.state import changed_environment, environment, restore
from athwe_core.training.step import (
    GRADIENT_NORM,
    PendingLosses,
    check_finite,
    has_lost_gradient,
    steps_ahead,
    train_step,
)

MOST_LOST_GRADIENTS = 10
"""Steps in a row without a finite gradient after which training stops. Single ones occur in very narrow networks."""
CHECKPOINT_MINUTES = 10.0


class Listener(Protocol):
    """Methods that training calls, to show or record its progress."""

    def epoch_begins(self, epoch: int, *, epochs: int, steps: int, done: int, best: float | None) -> None:
        """Epoch (from 1) of at most `epochs` begins, `done` of its `steps` finished; `best` validation value so far."""

    def step_ends(self, step: int, means: dict[str, float]) -> None:
        """Step (from 1) of the epoch has ended; `means` of the loss terms over the epoch so far."""

    def epoch_ends(self, record: EpochRecord, *, is_best: bool) -> None:
        """An epoch has ended; `record` is its line of `metrics.jsonl`."""


@dataclass(frozen=True)
class Result:
    """Outcome of `train`."""

    finished: bool
    """False when it was stopped; it can be resumed."""
    results: dict[str, Any]
    """best_epoch, epochs, seconds_per_epoch, and validation and test where they are held out; empty when not finished."""


def train(
    run: RunFolder,
    prepared: PreparedDataset,
    *,
    listener: Listener,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    notify: Callable[[str], None] = lambda _: None,
    world: ProcessGroup = ALONE,
) -> Result:
    """Train the run's configuration to its end, from its last checkpoint where it has one.

    A finished run is not trained or ranked again: its recorded results are returned. `extend_run` lets it continue.

    Args:
        run: folder with `config.yaml`; a configuration that fits the data set.
        should_stop: asked after every step and block of ranked users; True saves the state and ends.
        checkpoint_minutes: longest time inside an epoch between two checkpoints, > 0; each epoch's end saves anyway.
        notify: called with one sentence for each thing the user should know: the last checkpoint is damaged and the one
            before is taken, memory is short, the run was begun elsewhere, how far a long ranking is.
        world: processes that train the run together, each with its share of every batch; all see the run's folder, and the
            first writes to it. A batch is the one of a single process, its masks are drawn process by process.
    Returns: the results, also in the run's manifest; ranks of both splits in `per_user.parquet`.
    Raises:
        NonFiniteLossError: A loss, a gradient or a weight is NaN or infinite; the last checkpoint is kept.
        NoMemoryError: A step does not fit; the state is saved.
        CheckpointError: Another process trains the run, its folder is gone, or the disk refuses; the last state is kept.
        DataError: The prepared data set vanished meanwhile.
    """
    require(checkpoint_minutes > 0, "--checkpoint-minutes", "must be positive", checkpoint_minutes)
    manifest = run.manifest() if run.path.is_dir() else {}
    if manifest.get("status") in (FINISHED, TRAINED):
        return Result(True, manifest["results"])
    try:
        with run.locked() if world.is_first else nullcontext():
            training = _Training(run, prepared, listener, should_stop, checkpoint_minutes, notify, world)
            return training.to_the_end()
    except CheckpointError:
        if run.path.is_dir():
            raise
        remedy = "Put it back and go on with --resume, or train again"
        raise CheckpointError(f"run {run.name}", f"is gone: there is no folder {run.path}", remedy=remedy) from None
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        memory = reason(error)
        remedy = "Free some, or use a larger device; athwe train --dry-run shows what is needed"
        raise NoMemoryError(f"run {run.name}", f"must fit into memory ({memory})", remedy=remedy) from None


class _Training:
    """A run in progress."""

    def __init__(
        self,
        run: RunFolder,
        prepared: PreparedDataset,
        listener: Listener,
        should_stop: Callable[[], bool],
        checkpoint_minutes: float,
        notify: Callable[[str], None],
        world: ProcessGroup,
    ) -> None:
        self.run, self.prepared, self.listener = run, prepared, listener
        self.stop_requested, self.notify, self.world = should_stop, notify, world
        self.config = run.config()
        self.setup = build_setup(self.config, prepared, world)
        self.is_divided = bool(divided_rows(self.setup.model))
        """Whether the processes hold different rows of the item tables: all of them take part where a checkpoint is saved."""
        self.optimizer = make_optimizer(
            self.setup.model, lr=self.config.training.lr, weight_decay=self.config.training.weight_decay
        )
        here = environment(self.setup)
        self.progress, self.records = restore(run, self.setup, self.optimizer, notify, may_write=world.is_first)
        self.setup = self.setup.distribute(world)
        self.is_to_compile = wants_compiler(
            self.config, self.setup.device, world, has_fixed_shapes=self.setup.model.has_fixed_shapes
        )
        self.padding = FIXED_PADDING if self.is_to_compile else SOME_PADDING
        if run.last.exists() and (change := changed_environment(run.manifest(), here)):
            notify(change)
        if world.is_first:
            run.update_manifest(status=RUNNING, process=os.getpid(), **here)
        self.recorded: RecordedSteps | None = None
        self.lost_gradients = 0
        self.best_ranks: Float64[np.ndarray, " U"] | None = None
        """Validation ranks of all users by the best weights, where this process has ranked with them."""
        self.unread: deque[tuple[int, PendingLosses]] = deque()
        self.clock = _Clock(checkpoint_minutes, self.save_last, world if self.is_divided else ALONE)
        self.trimmer = HeapTrimmer()

    def to_the_end(self) -> Result:
        """Train the remaining epochs, then rank and write the results."""
        while not self.is_over():
            if not self.train_epoch() or (is_best := self.finish_epoch()) is None:
                self.save_last()
                return self.stopped()
            if is_best and self.saves:
                save_checkpoint(self.run.best, self.setup.model, self.progress.state())
            if self.world.is_first:
                self.run.write_metrics(self.records)
            self.save_last()
            self.listener.epoch_ends(self.records[-1], is_best=is_best)
            if self.should_stop():
                return self.stopped()
        results = self.finish()
        return self.stopped() if results is None else Result(True, results)

    @property
    def saves(self) -> bool:
        """Whether this process takes part in saving a checkpoint."""
        return self.world.is_first or self.is_divided

    def should_stop(self) -> bool:
        """Whether any of the processes is to stop."""
        return self.world.any(self.stop_requested())

    def is_over(self) -> bool:
        """Whether no epoch is left to train."""
        waited = self.progress.epoch - self.progress.best_epoch
        return self.progress.epoch >= self.config.training.epochs or waited >= self.config.training.patience

    def save_last(self) -> None:
        """Save the checkpoint that `--resume` starts from."""
        self.read()  # a step that was not finite ends the run before it is saved
        if not self.saves:
            return
        save_checkpoint(self.run.last, self.setup.model, self.progress.state(), self.optimizer, keep=self.run.previous)

    def stopped(self) -> Result:
        """Record the stop; the state is saved."""
        if self.world.is_first:
            self.run.update_manifest(status=INTERRUPTED)
        return Result(False, {})

    def train_epoch(self) -> bool:
        """Take the epoch's steps from `progress.step` on; False when stopped before its end."""
        settings, progress, L = self.config.training, self.progress, self.config.model.max_length
        rows = training_rows(self.prepared.split, batching=settings.batching, max_length=L)
        rng = keyed_rng(settings.seed, "shuffle", progress.epoch)
        batches = epoch_batches(rows, batch_targets=settings.batch_targets, rng=rng)
        steps, best = len(batches), progress.best_value if progress.best_epoch > 0 else None
        self.listener.epoch_begins(
            progress.epoch + 1, epochs=settings.epochs, steps=steps, done=progress.step, best=best
        )
        self.setup.model.begin_epoch(progress.epoch, is_resumed=progress.step > 0)
        self.clock.begin()
        began = time.perf_counter() - progress.seconds
        device = self.setup.device
        packer = BatchPacker(self.prepared, rows, L, self.padding, device, self.world)
        with closing(packer.each(batches[progress.step :])) as ready:
            for batch in ready:
                done = (progress.epoch + (progress.step + 1) / steps) / settings.epochs
                self.optimizer.set_rate(scheduled_rate(settings, done=done))
                self.unread.append((progress.step, PendingLosses(self.step(batch))))
                progress.step += 1
                if progress.step % CHECK_STEPS == 0:
                    self.trimmer.look()
                self.read(leave=steps_ahead(device))
                progress.seconds = time.perf_counter() - began
                if progress.step < steps:
                    if self.should_stop():
                        return False
                    self.clock.tick()
        self.read()
        progress.seconds = time.perf_counter() - began
        return True

    def read(self, *, leave: int = 0) -> None:
        """Read the values of all steps but the latest `leave`, which may still be running on the device."""
        sums = self.progress.sums
        while len(self.unread) > leave:
            step, readout = self.unread.popleft()
            terms = readout.read()
            self.lost_gradients = self.lost_gradients + 1 if has_lost_gradient(terms) else 0
            if self.lost_gradients in (0, MOST_LOST_GRADIENTS):
                check_finite(terms, self.config, epoch=self.progress.epoch, step=step)
            else:
                if self.lost_gradients == 1:
                    where = f"step {step + 1} of epoch {self.progress.epoch + 1}"
                    self.notify(f"{where} has a gradient that is not finite: its update is left out")
                terms[GRADIENT_NORM] = 0.0
            for name, value in terms.items():
                if step == 0 or name in sums:  # a checkpoint of version 0.1.0 has no gradient norms
                    sums[name] = sums.get(name, 0.0) + value
            self.listener.step_ends(step + 1, loss_means(sums, step + 1))

    def step(self, packed: ReadyBatch) -> dict[str, torch.Tensor]:
        """One update, with as much memory saving as it needs. Where it does not fit at all, the state is saved.

        Several processes take the step as it is: one alone cannot take it again.
        """
        progress = self.progress
        epoch, step = progress.epoch, progress.step
        if self.world.size > 1:
            shards = packed.shards
            batch = packed.whole()
            return train_step(self.setup, self.optimizer, batch, self.config, epoch=epoch, step=step, shards=shards)
        if self.is_to_compile:
            self.setup = compile_or_not(self.setup, packed.whole(), self.config, notify=self.notify)
            self.is_to_compile = False
            if progress.memory_saving == 0:
                self.recorded = recorded_or_not(self.setup, self.optimizer, self.config, notify=self.notify)
        if self.recorded is not None:
            taken = self.recorded.take(packed.whole(), epoch=epoch, step=step)
            if taken is not None:
                return taken
        try:
            terms, progress.memory_saving = step_within_memory(
                self.setup,
                self.optimizer,
                packed,
                self.config,
                epoch=progress.epoch,
                step=progress.step,
                level=progress.memory_saving,
                notify=self.notify,
            )
            if progress.memory_saving > 0:
                self.recorded = None
        except NoMemoryError:
            if progress.epoch + progress.step > 0:
                self.save_last()
            raise
        return terms

    def finish_epoch(self) -> bool | None:
        """Validate, add the record and advance; whether the epoch is the best so far, None when stopped."""
        began, progress, settings = time.perf_counter(), self.progress, self.config.evaluation
        ranks = self.ranks("validation", sample=settings.validation_users)
        if ranks is None:
            return None
        metric = self.config.training.selection_metric
        selection, validation = float(progress.epoch + 1), {}  # with nothing held out the last epoch is the best
        if len(ranks):
            selection = mean_metrics(ranks, (int(metric.partition("@")[2]),))[metric]
            validation = mean_metrics(ranks, settings.ks) | {metric: selection}
        is_best = selection > progress.best_value
        record: EpochRecord = {
            "epoch": progress.epoch + 1,
            "steps": progress.step,
            "losses": loss_means(progress.sums, progress.step),
            "validation": validation,
            "selection_metric": metric,
            "seconds": progress.seconds,
            "validation_seconds": time.perf_counter() - began,
        }
        if GRADIENT_NORM in progress.sums:
            record["gradient_norm"] = progress.sums[GRADIENT_NORM] / progress.step
        self.records.append(record)
        progress.epoch, progress.step, progress.sums, progress.seconds = progress.epoch + 1, 0, {}, 0.0
        if settings.validation_users is not None:
            record["validation_users"] = len(ranks)
        if is_best:
            progress.best_epoch, progress.best_value = progress.epoch, selection
            self.best_ranks = ranks if settings.validation_users is None else None
        return is_best

    def ranks(self, split: str, *, sample: int | None = None) -> Float64[np.ndarray, " U"] | None:
        """Ranks of the held-out items by the current weights; None when any of the processes is to stop."""
        exclude_seen = self.config.evaluation.exclude_seen
        model = self.setup.model
        on_progress = RankingProgress(split, self.notify, self.should_stop)
        try:
            return rank_users(
                model,
                self.prepared,
                split=split,
                exclude_seen=exclude_seen,
                sample=sample,
                world=self.world,
                on_progress=on_progress,
            )
        except StopRanking:
            return None

    def finish(self) -> dict[str, Any] | None:
        """Rank both splits with the best weights and write the results; None when stopped before."""
        import polars as pl  # noqa: PLC0415 - only here

        self.world.wait()  # until the first has written the best
        load_weights(self.run.best, self.setup.model)
        settings = self.config.evaluation
        results: dict[str, Any] = {
            "best_epoch": self.progress.best_epoch,
            "epochs": self.progress.epoch,
            "seconds_per_epoch": median(record["seconds"] for record in self.records),
        }
        frames = []
        held_out = [split for split in ("validation", "test") if len(self.prepared.split.users(split))]
        for split in held_out:
            known = self.best_ranks if split == "validation" else None
            ranks = None if self.should_stop() else self.ranks(split) if known is None else known
            if ranks is None:
                return None
            results[split] = mean_metrics(ranks, settings.ks)
            if not self.world.is_first:
                continue
            try:
                frames.append(per_user_frame(self.prepared, ranks, split=split))
            except DataError:  # the tokens are read only now
                if self.prepared.path.is_dir():
                    raise
                remedy = f"Put it back, then: athwe train --resume {self.run.name}"
                name = f"prepared data set {self.prepared.path}"
                raise DataError(name, "must be there to the end, and is gone", remedy=remedy) from None
        if self.world.is_first:
            if frames:
                self.run.write_ranks(pl.concat(frames))
            self.run.update_manifest(status=FINISHED if "validation" in held_out else TRAINED, results=results)
        return results


def loss_means(sums: dict[str, float], steps: int) -> dict[str, float]:
    """Means of the loss terms over `steps` steps, without the gradient norm."""
    return {name: total / steps for name, total in sums.items() if name != GRADIENT_NORM}


class _Clock:
    """Saves a checkpoint when the last one is old enough, in all processes of a group together."""

    def __init__(self, minutes: float, save: Callable[[], None], group: ProcessGroup) -> None:
        self._seconds, self._save, self._group = 60 * minutes, save, group
        self._saved = time.monotonic()

    def begin(self) -> None:
        """Start the interval: the state was saved just now, or there is nothing to save."""
        self._saved = time.monotonic()

    def tick(self) -> None:
        """Save after a step where the interval has passed."""
        if self._group.any(time.monotonic() - self._saved >= self._seconds):
            self._save()
            self._saved = time.monotonic()
