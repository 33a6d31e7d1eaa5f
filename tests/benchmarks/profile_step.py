"""Where the time of a training step goes, by stage, forward and backward: python tests/benchmarks/profile_step.py --help."""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from statistics import median
from typing import Any
from unittest.mock import patch

from torch.profiler import ProfilerActivity, profile, record_function

from athwe_core.analysis.benchmark.generated import build_generated, generate_bench_data
from athwe_core.analysis.benchmark.step_time import training_batches
from athwe_core.config import parse_override
from athwe_core.models.athwe import objective
from athwe_core.models.athwe.network import Network
from athwe_core.models.registry import build_config
from athwe_core.training import step as step_module
from athwe_core.training.allocator import keep_freed_memory
from athwe_core.training.optim import make_optimizer

WARM_UP = 10
STAGE = "stage: "


def staged(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The same call under a name that the profile shows."""

    @wraps(call)
    def run(*args: Any, **kwargs: Any) -> Any:
        with record_function(f"{STAGE}{name}"):
            return call(*args, **kwargs)

    return run


def name_stages(network: Network, stack: ExitStack) -> None:
    """Names for the parts of a step; an inner name wins over the one around it."""
    modules = {
        "item tables": network.tables,
        "interactive experts": network.interactive_moe,
        "wavelet": network.wavelet,
        "time encoding": network.time_encoding,
        "temporal experts": network.temporal_moe,
        "encoders": network.transformer,
    }
    for name, module in modules.items():
        if module is not None:
            stack.enter_context(patch.object(module, "forward", staged(name, module.forward)))

    for name, function in {
        "catalogue loss": "_catalogue_loss",
        "category loss": "category_loss",
        "cluster loss": "cluster_loss",
        "contrastive losses": "contrastive_loss",
        "exclusion mask": "excluded_pairs",
        "diversity": "expert_diversity",
    }.items():
        stack.enter_context(patch.object(objective, function, staged(name, getattr(objective, function))))


def stage_seconds(events: Any) -> dict[str, float]:
    """Self time of every operation, added to the stage that it or its forward operation ran in."""
    stages = [e for e in events if e.name.startswith(STAGE)]

    def innermost(event: Any) -> str | None:
        around = [s for s in stages if s.thread == event.thread and _within(event, s)]
        return min(around, key=lambda s: s.time_range.elapsed_us()).name.removeprefix(STAGE) if around else None

    of_sequence: dict[int, str] = {}
    for event in events:
        if event.sequence_nr >= 0 and not event.name.startswith("autograd::") and "Backward" not in event.name:
            of_sequence.setdefault(event.sequence_nr, innermost(event) or "between stages")
    seconds: dict[str, float] = defaultdict(float)
    backward = [e for e in events if e.name.startswith("autograd::engine::evaluate_function")]
    for event in backward:
        name = (
            "gradients stored"
            if "AccumulateGrad" in event.name
            else of_sequence.get(event.sequence_nr, "between stages")
        )
        seconds[f"{name}, back"] += event.time_range.elapsed_us() / 1e6
    for event in stages:
        inside = [
            s for s in stages if _within(s, event) and not any(_within(s, t) and _within(t, event) for t in stages)
        ]
        own = event.time_range.elapsed_us() - sum(s.time_range.elapsed_us() for s in inside)
        seconds[event.name.removeprefix(STAGE)] += own / 1e6
    return dict(seconds)


def _within(event: Any, outer: Any) -> bool:
    a, b = event.time_range, outer.time_range
    return bool(event is not outer and b.start <= a.start and a.end <= b.end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="hm4sr")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--items", type=int, default=12_101)
    parser.add_argument("--set", action="append", default=[], help="configuration, key=value")
    args = parser.parse_args()
    config = build_config(args.preset, [parse_override(text) for text in args.set])
    keep_freed_memory()
    data = generate_bench_data(num_users=22_363, num_items=args.items, mean_length=8.9)
    setup = build_generated(data, config, num_items=args.items, feature_width=768)
    optimizer = make_optimizer(setup.model, lr=config.training.lr)
    batches = training_batches(data, config)
    totals: dict[str, list[float]] = defaultdict(list)

    def one(step: int) -> None:
        began = time.perf_counter()
        with record_function(f"{STAGE}batch"):
            batch, shards = next(batches)
        optimizer.zero_grad(set_to_none=True)
        step_module.compute_gradients(setup, batch, config, epoch=0, step=step, shards=shards)
        with record_function(f"{STAGE}adam"):
            optimizer.step()
        totals["whole step"].append(time.perf_counter() - began)

    for step in range(WARM_UP + args.steps):  # without the profiler
        one(step)
    plain = median(totals.pop("whole step")[WARM_UP:])
    found: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        name_stages(setup.model, stack)
        for step in range(args.steps):
            with profile(activities=[ProfilerActivity.CPU]) as recorded:
                one(step)
            for name, value in stage_seconds(recorded.events()).items():
                found[name].append(value)
    profiled = median(totals["whole step"])
    medians = {name: median(values) for name, values in found.items()}
    parts = {name.removesuffix(", back") for name in medians}
    ways = {name: (medians.get(name, 0.0), medians.get(f"{name}, back", 0.0)) for name in parts}
    for name, (forward, back) in sorted(ways.items(), key=lambda part: -sum(part[1])):
        print(f"{name:22} {1e3 * forward:8.2f} ms forward {1e3 * back:8.2f} ms back")
    whole = f"{1e3 * profiled:.2f} ms under the profiler, {1e3 * plain:.2f} ms without"
    print(f"{'sum':22} {1e3 * sum(medians.values()):8.2f} ms of {whole}")


if __name__ == "__main__":
    main()
