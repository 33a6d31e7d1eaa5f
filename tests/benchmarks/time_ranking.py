"""Users ranked in a second, and the memory for it, of one or two versions of the sources in turns.

python tests/benchmarks/time_ranking.py --preset hm4sr --items 100000 --users 2048 --against ../other-checkout

The bound is the time of the products alone: 2 x items x width operations a user, at the rate of a product that stays in the
cache, on as many threads.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch

from athwe_core.analysis.benchmark.generated import BenchData, build_generated, generate_bench_data
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.models.registry import build_config, replace_in
from athwe_core.training.allocator import keep_freed_memory

ROOT = Path(__file__).parents[2]


def product_rate(width: int) -> float:
    """Operations a second of a product in the cache, on one thread."""
    left, right = torch.randn(512, width), torch.randn(1024, width)
    out, times = torch.empty(512, 1024), []
    for _ in range(50):
        began = time.perf_counter()
        torch.mm(left, right.T, out=out)
        times.append(time.perf_counter() - began)
    return 2 * 512 * 1024 * width / min(times)


def status(name: str) -> int:
    """A size of this process in bytes, from /proc (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (found,) = (line.split()[1] for line in lines if line.startswith(name))
    return 1024 * int(found)


def serve(given: argparse.Namespace) -> None:
    """Build the model, then rank once for each line of the input."""
    keep_freed_memory()
    torch.set_num_threads(1)
    config = replace_in(build_config(given.preset), given.set or [])
    data = generate_bench_data(num_users=given.items, num_items=given.items, mean_length=given.mean_length)
    model = build_generated(data, config, num_items=given.items, feature_width=given.feature_width).model.eval()
    few = BenchData(data.offsets[: given.users + 1], data.item_ids, data.timestamps)
    with torch.inference_mode():
        width = model.item_table().shape[1]
    rate = product_rate(width)
    torch.set_num_threads(given.threads)
    print(json.dumps({"width": width, "rate": rate}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        with torch.inference_mode():
            table = model.item_table()
        table_seconds = time.perf_counter() - began
        del table
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak
        before, busy, began = status("VmRSS"), time.process_time(), time.perf_counter()
        rank_users(model, few, split="test")
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        found = {"seconds": seconds, "table": table_seconds, "busy": busy, "memory": status("VmHWM") - before}
        print(json.dumps(found), flush=True)


def start(sources: Path, arguments: list[str]) -> subprocess.Popen[str]:
    """A process that ranks with the sources of a folder."""
    command = [sys.executable, str(Path(__file__)), *arguments, "--serve"]
    pipe = subprocess.PIPE
    environment = os.environ | {"PYTHONPATH": str(sources)}
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    return cast(dict[str, Any], json.loads(process.stdout.readline()))


def main() -> None:
    """Print one line for each version and round, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="hm4sr")
    parser.add_argument("--set", action="append", help="KEY=VALUE of the configuration; repeatable")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=2048)
    parser.add_argument("--mean-length", type=float, default=8.9)
    parser.add_argument("--feature-width", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="checkout of another version")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given)
        return
    versions = {"here": ROOT} | ({} if given.against is None else {"against": given.against.resolve()})
    processes = {name: start(sources, sys.argv[1:]) for name, sources in versions.items()}
    facts = {name: answer(process) for name, process in processes.items()}
    width, rate = facts["here"]["width"], max(fact["rate"] for fact in facts.values())
    bound = given.threads * rate / (2 * given.items * width)
    print(
        f"{given.items:,} items, width {width}, {given.threads} threads, {given.users:,} users; the products alone: ",
        end="",
    )
    print(f"{bound:,.0f} users a second at {rate / 1e9:.0f} GFLOP/s a thread")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in processes}
    for _ in range(given.rounds):
        for name, process in processes.items():
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            found[name].append(answer(process))
    for name, rounds in found.items():
        rates = [given.users / (one["seconds"] - one["table"]) for one in rounds]
        busy = median(one["busy"] / given.users for one in rounds) * 1e3
        memory = max(one["memory"] for one in rounds) / 1e6
        print(
            f"{name:8} {median(rates):9,.0f} users a second without the table ({', '.join(f'{r:,.0f}' for r in rates)}), "
            f"{median(one['seconds'] for one in rounds):.2f} s with it ({median(one['table'] for one in rounds):.2f} s), "
            f"{busy:.2f} ms of processor a user, {memory:,.0f} MB"
        )
    for process in processes.values():
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main()
