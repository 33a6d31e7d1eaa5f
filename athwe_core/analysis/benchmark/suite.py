"""The speed tables: training steps by preset, batching and precision on a Beauty-sized catalogue, and ranking its users."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import cast

import torch

from athwe_core.analysis.benchmark.records import (
    CaseResult,
    CaseRound,
    FloorSeconds,
    Machine,
    RankingResult,
    SuiteResult,
    SuiteSizes,
)
from athwe_core.analysis.benchmark.step_time import (
    build_generated,
    count_kernels,
    floors,
    generate_bench_data,
    peak_memory_bytes,
    time_steps,
)
from athwe_core.analysis.child_process import Document, Parent, run_together, serve
from athwe_core.config import Config
from athwe_core.data.packing import epoch_batches, training_rows
from athwe_core.device import has_fast_bf16, resolve_device
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.models.registry import build_config, replace_in
from athwe_core.training.allocator import keep_freed_memory
from athwe_core.training.randomness import keyed_rng

MEAN_LENGTH, FEATURE_WIDTH = 8.9, 768
ROUNDS = 2
"""Passes over the list of cases, so that other load on the machine, which changes with time, affects every case."""
PADDED_STEPS = 3


@dataclass(frozen=True)
class Size:
    """Users and items of the generated data. The defaults are Beauty's."""

    users: int = 22_363
    items: int = 12_101


BEAUTY = Size()


@dataclass(frozen=True)
class Case:
    """One line of the table of steps."""

    preset: str
    rows: str
    """packed, prefix, or padded: prefix rows padded to max_length positions each, as in the published code."""
    precision: str
    compiler: str = "off"

    def config(self, device: str) -> Config:
        batching = "packed" if self.rows == "packed" else "prefix"
        settings = {"batching": batching, "precision": self.precision, "compiler": self.compiler, "device": device}
        return replace_in(build_config(self.preset), [f"training.{key}={value}" for key, value in settings.items()])


def suite_cases(device: torch.device) -> list[Case]:
    """The cases that make sense on a device: bf16 where it is fast there, compiled steps on CUDA."""
    precisions = ["fp32", "bf16"] if has_fast_bf16(device) else ["fp32"]
    low = precisions[-1]
    cases = [Case("hm4sr", rows, "fp32") for rows in ("padded", "prefix")]
    cases += [Case("hm4sr", "packed", precision) for precision in precisions]
    cases += [Case("athwe", "packed", precision) for precision in precisions]
    cases += [Case("hm4sr", "prefix", low), Case("athwe-published", "prefix", low)]
    if device.type == "cuda":
        cases += [Case(preset, "packed", low, "on") for preset in ("hm4sr", "athwe")]
        cases += [Case("hm4sr", "padded", low), Case("hm4sr", "prefix", low, "on")]
    return list(dict.fromkeys(cases))


def run_suite(
    device: str, *, steps: int, notify: Callable[[str], None], cases: list[Case] | None = None, size: Size = BEAUTY
) -> SuiteResult:
    """Time every case in a process of its own, `ROUNDS` times; then time the ranking.

    Args:
        device: as `training.device`.
        steps: timed steps of a case in each round, after those that warm up, >= 1; padded rows take `PADDED_STEPS` at most.
        notify: called with one sentence for each measurement.
        cases: None = `suite_cases` of the device.
        size: of the generated data.
    Raises: AthweError when a process fails.
    """
    where = resolve_device(device)
    found: dict[Case, list[CaseRound]] = {case: [] for case in cases or suite_cases(where)}
    for _ in range(ROUNDS):
        for case, rounds in found.items():
            one = _in_its_own_process(case, device, min(steps, PADDED_STEPS) if case.rows == "padded" else steps, size)
            rounds.append(one)
            notify(f"{case.preset} {case.rows} {case.precision}: {median(one['seconds']):.3f} s a step")
    machine: Machine = {
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    sizes: SuiteSizes = {
        "users": size.users,
        "items": size.items,
        "mean_length": MEAN_LENGTH,
        "feature_width": FEATURE_WIDTH,
    }
    return {
        "machine": machine,
        "sizes": sizes,
        "steps": [_summary(case, rounds) for case, rounds in found.items()],
        "ranking": [_ranking(preset, device, size) for preset in ("hm4sr", "athwe")],
    }


def _summary(case: Case, rounds: list[CaseRound]) -> CaseResult:
    seconds = [value for one in rounds for value in one["seconds"]]
    floors: FloorSeconds = {
        "fp32": min(one["floor_seconds"]["fp32"] for one in rounds),
        "bf16": min(one["floor_seconds"]["bf16"] for one in rounds),
    }
    typical = median(seconds)
    return {
        "preset": case.preset,
        "rows": case.rows,
        "precision": case.precision,
        "compiler": case.compiler,
        "step_seconds": {"median": typical, "min": min(seconds), "max": max(seconds)},
        "epoch_seconds": typical * rounds[0]["steps_per_epoch"],
        "floor_seconds": floors,
        "ratio": typical / floors["fp32"],
        "peak_memory_bytes": max(one["peak_memory_bytes"] for one in rounds),
        "kernels": rounds[0]["kernels"],
        "notes": rounds[0]["notes"],
    }


def _in_its_own_process(case: Case, device: str, steps: int, size: Size) -> CaseRound:
    (found,) = run_together(
        "athwe_core.analysis.benchmark.suite",
        {"case": asdict(case), "device": device, "steps": steps, "size": asdict(size)},
        [{}],
        threads=torch.get_num_threads(),
        subject=f"bench of {case}",
        remedy="Close other programs if memory was short",
    )
    return cast(CaseRound, found)


def _measure_here(document: Document, _: Parent) -> CaseRound:
    """The work of one process."""
    case, size = Case(**document["case"]), Size(**document["size"])
    return _measured(case, document["device"], document["steps"], size)


def _measured(case: Case, device: str, steps: int, size: Size) -> CaseRound:
    config, notes = case.config(device), list[str]()
    data = generate_bench_data(num_users=size.users, num_items=size.items, mean_length=MEAN_LENGTH)
    setup = build_generated(data, config, num_items=size.items, feature_width=FEATURE_WIDTH)
    is_padded = case.rows == "padded"
    timed = time_steps(data, setup, config, steps=steps, is_padded=is_padded, notify=notes.append)
    peak = peak_memory_bytes(setup.device)
    N = config.training.batch_targets
    rows = training_rows(data.split, batching=config.training.batching, max_length=config.model.max_length)
    return {
        "seconds": timed["seconds"],
        "steps_per_epoch": len(epoch_batches(rows, batch_targets=N, rng=keyed_rng(0, "shuffle", 0))),
        "floor_seconds": floors(setup, config),
        "peak_memory_bytes": peak,
        "kernels": count_kernels(data, setup, config) if setup.device.type == "cuda" else None,
        "notes": notes,
    }


def _ranking(preset: str, device: str, size: Size) -> RankingResult:
    config = replace_in(build_config(preset), [f"training.device={device}"])
    data = generate_bench_data(num_users=size.users, num_items=size.items, mean_length=MEAN_LENGTH)
    setup = build_generated(data, config, num_items=size.items, feature_width=FEATURE_WIDTH)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        rank_users(setup.model, data, split="test")
        seconds.append(time.perf_counter() - began)
    return {"preset": preset, "users": size.users, "seconds": median(seconds)}


def _processor() -> str:
    """The processor's name as Linux reports it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def suite_markdown(result: SuiteResult) -> str:
    """The tables for a README."""
    machine, sizes = result["machine"], result["sizes"]
    lines = [
        f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}, {machine['date']}; "
        f"{sizes['items']:,} items, {sizes['users']:,} users, features of {sizes['feature_width']}, 1,024 targets a step.",
        "",
        "| preset | rows | precision | compiled | s a step (min) | / fp32 floor | s an epoch | peak GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in result["steps"]:
        times = f"{one['step_seconds']['median']:.3f} ({one['step_seconds']['min']:.3f})"
        lines.append(
            f"| {one['preset']} | {one['rows']} | {one['precision']} | {one['compiler']} | {times} | {one['ratio']:.2f} "
            f"| {one['epoch_seconds']:.1f} | {one['peak_memory_bytes'] / 1e9:.2f} |"
        )
    lines += ["", "| ranking of | users | s |", "|---|---|---|"]
    lines += [f"| {one['preset']} | {one['users']:,} | {one['seconds']:.2f} |" for one in result["ranking"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    keep_freed_memory()
    serve(_measure_here)
