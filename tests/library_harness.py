"""Tiny trainings through `athwe_core`, in this process or another one."""

from __future__ import annotations

import importlib
import json
import logging
import multiprocessing
import random
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

import athwe_core as athwe
from athwe_core.training.allocator import keep_freed_memory, resident_bytes

TINY: dict[str, object] = {
    "model.hidden_size": 8,
    "model.inner_size": 12,
    "model.max_length": 6,
    "model.dropout": 0.2,
    "training.batch_targets": 256,
    "training.epochs": 1,
    "training.precision": "fp32",
    "training.device": "cpu",
}
OPTIONS = athwe.PrepareOptions(demo_users=150, demo_items=100)


def train_tiny(folder: Path, *, preset: str = "sasrec", seed: int = 0, name: str | None = None) -> athwe.Run:
    """Train on the demo data, everything in `folder`."""
    data = athwe.prepare("demo", options=OPTIONS, prepared_dir=folder / "prepared")
    return athwe.train(data, preset=preset, seed=seed, set=TINY, name=name, runs_dir=folder / "runs")


def numbers(run: athwe.Run) -> tuple[Any, ...]:
    """What a training comes to, without its times."""
    return run.metrics["validation"], run.metrics["test"], [record["losses"] for record in run.history]


def numbers_in_a_worker(folder: Path, seed: int) -> tuple[Any, ...]:
    """For a process pool: a daemonic process may have no children of multiprocessing.

    This process is new, and what is not compiled does not load torch's compiler, which takes 2 s.
    """
    assert multiprocessing.current_process().daemon
    torch.set_num_threads(1)
    found = numbers(train_tiny(folder, seed=seed))
    assert "torch._dynamo" not in sys.modules
    return found


def host() -> dict[str, Any]:
    """What belongs to the host process."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": [str(part) for part in np.random.get_state()],  # noqa: NPY002 - the generator that is shared
        "python": random.getstate(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "recompile_limit": importlib.import_module("torch._dynamo.config").recompile_limit,
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "warnings": list(warnings.filters),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "logging": [
            (logger.level, logger.propagate, list(logger.handlers))
            for logger in map(logging.getLogger, (None, "athwe"))
        ],
    }


def freed_share() -> float:
    """Share of 256 MiB, written to and freed, that this process gives back to the system."""
    block = np.ones(2**25)
    full = resident_bytes() or 0
    del block
    return (full - (resident_bytes() or 0)) / 2**28


def main(folder: Path) -> None:
    """Print what a training, an evaluation and recommendations change of this process, and what it frees before and after.

    The last number is after the setting of the command line.
    """
    torch.set_num_threads(2)
    torch.manual_seed(12)
    freed, before = [freed_share()], host()
    run = train_tiny(folder, preset="athwe")
    run.evaluate(exclude_seen=True)
    run.recommend(k=2)
    after = host()
    freed.append(freed_share())
    keep_freed_memory()
    freed.append(freed_share())
    print(json.dumps({"changed": [name for name in before if after[name] != before[name]], "freed": freed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
