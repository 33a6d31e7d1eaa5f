"""How long an experiment will take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from athwe_core.analysis.experiments.plan import Plan, PlannedRun
from athwe_core.config import Config
from athwe_core.data.packing import SOME_PADDING, pack
from athwe_core.data.rows import epoch_batches, training_rows
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.device import resolve_device
from athwe_core.errors import AthweError
from athwe_core.runs.find import FINISHED, RunFolder, list_runs
from athwe_core.training.build import build_setup
from athwe_core.training.optim import make_optimizer
from athwe_core.training.randomness import keyed_rng
from athwe_core.training.step import train_step

ASSUMED_EPOCHS = 20
"""Where no finished run shows when training stops early: about what Toys_and_Games and Beauty take."""
TIMED_STEPS = 3


@dataclass(frozen=True)
class Estimate:
    """The time that an experiment still takes."""

    seconds: float
    basis: str
    """What the estimate is based on, as the end of a sentence."""


@dataclass(frozen=True)
class _Pace:
    epoch_seconds: float
    epochs: int
    basis: str


def estimate(plan: Plan, *, jobs: int) -> Estimate:
    """Estimate the time for the runs that are not finished, `jobs` at once, each as long as an average one of its preset.

    It is based on finished runs of the same data set, preset, batching and kind of device. Where there are none, a few steps
    of the preset are timed and a number of epochs is assumed. Epochs that unfinished runs have completed are not counted.

    Args:
        plan: with its runs.
        jobs: runs at once, >= 1.
    """
    to_train = plan.to_train()
    if not to_train:
        return Estimate(0.0, "every run is finished")
    jobs = min(jobs, len(to_train))
    paces: dict[str, _Pace] = {}
    for run in to_train:
        if run.preset not in paces:
            found = _pace_of_finished(plan, run.preset, run.config)
            paces[run.preset] = found or _pace_of_steps(plan.prepared, run.config, jobs=jobs)
    loads = [0.0] * jobs
    for run in to_train:
        least = loads.index(min(loads))
        pace = paces[run.preset]
        loads[least] += _epochs_left(run, pace.epochs) * pace.epoch_seconds
    together = "" if jobs == 1 else f"; {jobs} runs at once, assumed not to slow each other down"
    several = "; ".join(f"{preset} {pace.basis}" for preset, pace in paces.items())
    return Estimate(max(loads), (several if len(paces) > 1 else pace.basis) + together)


def _epochs_left(run: PlannedRun, epochs: int) -> int:
    done = len(run.existing.metrics()) if run.existing is not None else 0
    return max(min(epochs, run.config.training.epochs) - done, 1)


def _pace_of_finished(plan: Plan, preset: str, config: Config) -> _Pace | None:
    """Median seconds of an epoch with its validation, and median epochs of the runs that were not limited to fewer."""
    seconds, epochs = [], []
    name = plan.prepared.name
    for run in _finished_alike(plan.runs_dir, name, preset, config):
        seconds += [record["seconds"] + record["validation_seconds"] for record in run.metrics()]
        if run.config().training.epochs >= config.training.epochs:
            epochs.append(int(run.manifest()["results"]["epochs"]))
    if not seconds:
        return None
    most = config.training.epochs
    count = min(round(median(epochs)), most) if epochs else min(most, ASSUMED_EPOCHS)
    how = f"{count} epochs" if epochs else _assumed(config)
    basis = f"from finished runs of {preset} on {name}: {median(seconds):.1f} s an epoch with its validation, {how}"
    return _Pace(median(seconds), count, basis)


def _finished_alike(runs_dir: Path, dataset: str, preset: str, config: Config) -> list[RunFolder]:
    kind, found = resolve_device(config.training.device).type, []
    for run in list_runs(runs_dir, dataset=dataset):
        manifest = run.manifest()
        if manifest.get("status") != FINISHED or manifest.get("preset") != preset:
            continue
        try:
            batching = run.config().training.batching
        except AthweError:  # of another version of athwe
            continue
        if batching == config.training.batching and str(manifest.get("device", "")).split(":")[0] == kind:
            found.append(run)
    return found


def _assumed(config: Config) -> str:
    most = config.training.epochs
    return f"at most {most} epochs" if most <= ASSUMED_EPOCHS else f"{ASSUMED_EPOCHS} epochs assumed"


def _pace_of_steps(prepared: PreparedDataset, config: Config, *, jobs: int) -> _Pace:
    """Time a few steps here, with the threads that each job will have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // jobs))
    try:
        steps, seconds = _time_steps(prepared, config)
    finally:
        torch.set_num_threads(threads)
    epochs = min(config.training.epochs, ASSUMED_EPOCHS)
    basis = (
        f"from {TIMED_STEPS} timed steps: {seconds:.3f} s a step, {steps} steps an epoch, {_assumed(config)}, "
        "validation not counted"
    )
    return _Pace(steps * seconds, epochs, basis)


def _time_steps(prepared: PreparedDataset, config: Config) -> tuple[int, float]:
    """Steps of an epoch, and mean seconds of a step after a first, untimed one."""
    setup = build_setup(config, prepared)
    optimizer = make_optimizer(setup.model, lr=config.training.lr)
    L, budget = config.model.max_length, config.training.batch_targets
    rows = training_rows(prepared.split, batching=config.training.batching, max_length=L)
    batches = epoch_batches(rows, batch_targets=budget, rng=keyed_rng(config.training.seed, "shuffle", 0))
    began = time.perf_counter()
    for step in range(1 + TIMED_STEPS):
        batch = pack(prepared, rows, batches[step % len(batches)], max_length=L, padding=SOME_PADDING)
        train_step(setup, optimizer, batch.to(setup.device), config, epoch=0, step=step)["total"].item()
        if step == 0:
            began = time.perf_counter()
    return len(batches), (time.perf_counter() - began) / TIMED_STEPS
