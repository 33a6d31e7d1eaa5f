"""The most expensive operations of a step on one batch, by shape: python tests/benchmarks/profile_operations.py --help.

It does not use torch's profiler, which takes time and memory itself. ~ marks a tensor that is not
contiguous; the letter is its dtype.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from statistics import median
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from athwe_core.analysis.benchmark.generated import build_generated, generate_bench_data
from athwe_core.analysis.benchmark.step_time import training_batches
from athwe_core.config import parse_override
from athwe_core.models.registry import build_config
from athwe_core.training.allocator import keep_freed_memory
from athwe_core.training.optim import make_optimizer
from athwe_core.training.step import train_step

WARM_UP = 10


class Times(TorchDispatchMode):
    """Seconds of each operation, by name and shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        began = time.perf_counter()
        result = function(*args, **(kwargs or {}))
        took = time.perf_counter() - began
        shapes = " ".join(described(value) for value in args if isinstance(value, Tensor))
        self.seconds[f"{str(function).removeprefix('aten.')} {shapes}"].append(took)
        return result


def described(value: Tensor) -> str:
    kind = str(value.dtype).removeprefix("torch.")
    return f"{tuple(value.shape)}{'' if value.is_contiguous() else '~'}{kind[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="hm4sr")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--show", type=int, default=25, help="operations to show")
    parser.add_argument("--set", action="append", default=[], help="configuration, key=value")
    args = parser.parse_args()
    config = build_config(args.preset, [parse_override(text) for text in args.set])
    keep_freed_memory()
    data = generate_bench_data(num_users=22_363, num_items=12_101, mean_length=8.9)
    setup = build_generated(data, config, num_items=12_101, feature_width=768)
    optimizer = make_optimizer(setup.model, lr=config.training.lr)
    batch, shards = next(training_batches(data, config))

    def one(step: int) -> float:
        began = time.perf_counter()
        train_step(setup, optimizer, batch, config, epoch=0, step=step, shards=shards)
        return time.perf_counter() - began

    plain = [one(step) for step in range(WARM_UP + args.steps)][WARM_UP:]
    with Times() as times:
        for step in range(args.steps):
            one(step)
    rows = sorted(
        (
            (1e3 * median(each) * len(each) / args.steps, len(each) / args.steps, name)
            for name, each in times.seconds.items()
        ),
        reverse=True,
    )
    total, count = sum(row[0] for row in rows), sum(row[1] for row in rows)
    print(f"{total:.1f} ms in {count:,.0f} operations of a step that takes {1e3 * median(plain):.1f} ms")
    for milliseconds, number, name in rows[: args.show]:
        print(f"{milliseconds:7.2f} ms {number:4.0f} x {name}")


if __name__ == "__main__":
    main()
