"""Times of evaluation, of opening a prepared data set and of `athwe --help`.

python tests/benchmarks/time_evaluation.py --preset athwe --preset hm4sr --prepared prepared --dataset Toys_and_Games
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from athwe_core.analysis.benchmark.generated import build_generated, generate_bench_data
from athwe_core.data.store.dataset import open_prepared
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.models.registry import build_config
from athwe_core.training.allocator import keep_freed_memory


def seconds(call: Callable[[], object], *, repeats: int) -> str:
    """Time of the first call, and least and median time of the others."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return f"first {times[0]:.3f} s, least {min(times[1:]):.3f} s, median {median(times[1:]):.3f} s of {repeats}"


def main() -> None:
    """Print one line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", action="append", help="athwe, hm4sr or athwe-published; repeatable, default athwe")
    parser.add_argument("--users", type=int, default=22_363, help="of generated data; the defaults are Beauty's")
    parser.add_argument("--items", type=int, default=12_101)
    parser.add_argument("--mean-length", type=float, default=8.9)
    parser.add_argument("--feature-width", type=int, default=768)
    parser.add_argument("--prepared", type=Path, default=Path("prepared"))
    parser.add_argument("--dataset", help="prepared data set to open; left out where not given")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    keep_freed_memory()
    data = generate_bench_data(num_users=given.users, num_items=given.items, mean_length=given.mean_length)
    for preset in given.preset or ["athwe"]:
        config = build_config(preset)
        network = build_generated(data, config, num_items=given.items, feature_width=given.feature_width).network.eval()
        took = seconds(lambda network=network: rank_users(network, data, split="test"), repeats=given.repeats)
        print(f"rank {given.users:,} users over {given.items:,} items, {preset}: {took}")
    if given.dataset is not None:
        took = seconds(lambda: open_prepared(given.dataset, prepared_dir=given.prepared), repeats=given.repeats)
        print(f"open {given.dataset}: {took}")
    for arguments in (["--help"], ["train", "--help"]):
        command = [sys.executable, "-m", "athwe_cli", *arguments]
        took = seconds(lambda command=command: subprocess.run(command, capture_output=True, check=True), repeats=5)
        print(f"athwe {' '.join(arguments)}: {took}")


if __name__ == "__main__":
    main()
