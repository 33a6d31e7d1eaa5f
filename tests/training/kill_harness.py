"""Kill a small training run at random moments and go on, until so many kills are done; count the ends that differ.

    python kill_harness.py FOLDER KILLS packed|prefix fp32|bf16 SEED

Each start is a fork of a process that has everything imported, so that a trial costs only the training. Prints one JSON
object: `runs` compared, `killed` and what was going on (`training`, `evaluating`, `saving` a checkpoint, `writing` another
file), `lost` steps done again in the runs with a kill, `different` ends, `left` files that should be gone, and ends that
`failed`.
"""

import json
import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl  # noqa: F401 - the end of training needs it; imported, not used: its threads would not survive a fork
import torch

from athwe_core.data.store.dataset import PreparedDataset, open_prepared
from athwe_core.models.inputs import adapt_to_data
from athwe_core.models.registry import build_config, replace_in
from athwe_core.runs import run as run_module
from athwe_core.runs.find import RunFolder, create_run
from athwe_core.training import loop
from athwe_core.training.build import build_setup
from athwe_core.training.optim import make_optimizer

PREPARE = """
import sys
from pathlib import Path
from athwe_core.data.prepare import PrepareOptions, prepare
options = PrepareOptions(demo_users=100, demo_items=100)
prepare("demo", data_dir=Path(), prepared_dir=Path(sys.argv[1]), options=options)
"""
SMALL = ("model.hidden_size=8", "model.inner_size=12", "model.max_length=6", "training.batch_targets=200")
PHASES = ("training", "evaluating", "saving", "writing")
PARTS = {(loop, "rank_users"): 1, (loop, "save_checkpoint"): 2, (run_module, "replace_text"): 3}
"""Functions that are a phase of their own."""


class Silence:
    """A listener that counts the steps."""

    def __init__(self) -> None:
        self.steps = 0

    def epoch_begins(self, *_: Any, **__: Any) -> None: ...
    def step_ends(self, *_: Any) -> None:
        self.steps += 1

    def epoch_ends(self, *_: Any, **__: Any) -> None: ...


class Board:
    """Two numbers that parent and child share: the phase under way, and steps done in all."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)

    phase = property(lambda self: self._shared[0], lambda self, value: self._shared.__setitem__(0, value))

    @property
    def steps(self) -> int:
        return int.from_bytes(self._shared[4:8], "little")

    def count_step(self) -> None:
        self._shared[4:8] = (self.steps + 1).to_bytes(4, "little")

    def mark(self, place: Any, name: str, phase: int) -> None:
        """Make a function show its phase."""
        real: Callable[..., Any] = getattr(place, name)

        def marked(*arguments: Any, **named: Any) -> Any:
            before, self.phase = self.phase, phase
            try:
                return real(*arguments, **named)
            finally:
                self.phase = before

        setattr(place, name, marked)


def start(run: RunFolder, data: PreparedDataset, board: Board) -> int:
    """Train in a child process, which exits 0 at the end; its number."""
    board.phase = 0
    child = os.fork()
    if child == 0:
        code = 1
        try:
            listener = Silence()
            listener.step_ends = lambda *_: board.count_step()  # type: ignore[method-assign]
            # a checkpoint every step: most kills hit one
            loop.train(run, data, listener=listener, checkpoint_minutes=1e-9)
            code = 0
        finally:
            os._exit(code)
    return child


def outcome(run: RunFolder) -> tuple[Any, ...]:
    """Everything that must not differ: weights, ranks, epoch records and results without their times."""
    records = [{k: v for k, v in record.items() if "seconds" not in k} for record in run.metrics()]
    results = {k: v for k, v in run.manifest()["results"].items() if "seconds" not in k}
    weights = [(folder / "weights.safetensors").read_bytes() for folder in (run.best, run.last)]
    return weights, (run.last / "optimizer.safetensors").read_bytes(), run.per_user.read_bytes(), records, results


def names(run: RunFolder) -> set[str]:
    return {str(path.relative_to(run.path)) for path in run.path.rglob("*")}


def main(folder: Path, kills: int, batching: str, precision: str, seed: int) -> dict[str, int]:
    torch.set_num_threads(1)
    rng, board = random.Random(seed), Board()
    # In a process of its own: polars has threads once it was used, and threads do not survive a fork.
    subprocess.run([sys.executable, "-c", PREPARE, str(folder / "prepared")], check=True)
    data = open_prepared("demo", prepared_dir=folder / "prepared")
    overrides = [*SMALL, "training.epochs=2", f"training.batching={batching}", f"training.precision={precision}"]
    config, _ = adapt_to_data(replace_in(build_config("athwe"), overrides), data)
    make_optimizer(build_setup(config, data).model, lr=1.0)  # the first one imports torch's compiler
    for (place, name), phase in PARTS.items():
        board.mark(place, name, phase)

    def new_run(name: str) -> RunFolder:
        return create_run(folder / "runs", config, data, preset="athwe", name=name, command="test")

    straight = new_run("straight")
    began = time.monotonic()
    _, status = os.waitpid(start(straight, data, board), 0)
    assert status == 0
    duration, expected, steps = time.monotonic() - began, outcome(straight), board.steps
    counts = {"runs": 0, "killed": 0, **dict.fromkeys(PHASES, 0), "lost": 0, "different": 0, "left": 0, "failed": 0}
    while counts["killed"] < kills:
        run, before = new_run(f"killed-{counts['runs']}"), board.steps
        counts["runs"] += 1
        while True:
            child = start(run, data, board)
            time.sleep(rng.uniform(0, duration))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if not os.WIFSIGNALED(status):
                counts["failed"] += status != 0
                break
            counts["killed"] += 1
            counts[PHASES[board.phase]] += 1
        counts["lost"] += board.steps - before - steps
        counts["different"] += outcome(run) != expected
        counts["left"] += len(names(run) - names(straight))
        print(json.dumps(counts), file=sys.stderr, flush=True)  # so far: 200 kills take minutes
    return counts


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))))
