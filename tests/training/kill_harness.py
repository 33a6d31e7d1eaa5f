"""Kill a small training run at random moments and go on, until so many kills are done; count the ends that differ.

    python kill_harness.py FOLDER KILLS packed|prefix fp32|bf16 SEED

Each start is a fork, so that a trial costs the training and not the imports. Prints one JSON object: `runs` compared,
`killed` (`while_saving` of them with a checkpoint half in its place), `different`, `failed`.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from athwe_core.config import build_config, replace_in
from athwe_core.data.store import PreparedDataset, open_prepared
from athwe_core.training.assemble import fit_config
from athwe_core.training.loop import train
from athwe_core.training.run_folder import RunFolder, create_run

PREPARE = """
import sys
from pathlib import Path
from athwe_core.data.prepared import PrepareOptions, prepare
options = PrepareOptions(demo_users=100, demo_items=100)
prepare("demo", data_dir=Path(), prepared_dir=Path(sys.argv[1]), options=options)
"""
SMALL = ("model.hidden_size=8", "model.inner_size=12", "model.max_length=6", "training.batch_targets=200")


class Silence:
    def epoch_begins(self, *_: Any, **__: Any) -> None: ...
    def step_ends(self, *_: Any) -> None: ...
    def epoch_ends(self, *_: Any, **__: Any) -> None: ...


def start(run: RunFolder, data: PreparedDataset) -> int:
    """Train in a child process, which exits 0 at the end; its number."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(run, data, listener=Silence(), checkpoint_minutes=1e-9)  # a checkpoint every step: most kills hit one
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


def main(folder: Path, kills: int, batching: str, precision: str, seed: int) -> dict[str, int]:
    torch.set_num_threads(1)
    rng = random.Random(seed)
    # In a process of its own: polars has threads once it was used, and threads do not survive a fork.
    subprocess.run([sys.executable, "-c", PREPARE, str(folder / "prepared")], check=True)
    data = open_prepared("demo", prepared_dir=folder / "prepared")
    overrides = [*SMALL, "training.epochs=2", f"training.batching={batching}", f"training.precision={precision}"]
    config, _ = fit_config(replace_in(build_config("athwe"), overrides), data)

    def new_run(name: str) -> RunFolder:
        return create_run(folder / "runs", config, data, preset="athwe", name=name, command="test")

    straight = new_run("straight")
    began = time.monotonic()
    _, status = os.waitpid(start(straight, data), 0)
    assert status == 0
    duration, expected = time.monotonic() - began, outcome(straight)
    counts = {"runs": 0, "killed": 0, "while_saving": 0, "different": 0, "failed": 0}
    while counts["killed"] < kills:
        run = new_run(f"killed-{counts['runs']}")
        counts["runs"] += 1
        while True:
            child = start(run, data)
            time.sleep(rng.uniform(0, duration))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if not os.WIFSIGNALED(status):
                counts["failed"] += status != 0
                break
            counts["killed"] += 1
            names = {path.name for path in (run.path / "checkpoints").glob("*")}
            counts["while_saving"] += any(name.endswith((".new", ".old")) for name in names)
        if outcome(run) != expected:
            counts["different"] += 1
    return counts


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))))
