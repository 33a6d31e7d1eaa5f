"""The speed tables: training steps by preset, batching and precision on a Beauty-sized catalogue, and ranking its users."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import cast

import torch

from athwe_core.analysis.benchmark.floors import floors, memory_floor_seconds, peak_memory_bytes, state_bytes
from athwe_core.analysis.benchmark.generated import build_generated, generate_bench_data
from athwe_core.analysis.benchmark.records import (
    CaseResult,
    CaseRound,
    FloorSeconds,
    Machine,
    RankingResult,
    SuiteResult,
    SuiteSizes,
)
from athwe_core.analysis.benchmark.step_time import count_kernels, time_steps
from athwe_core.analysis.child_process import Document, Parent, run_together, serve
from athwe_core.config import Config
from athwe_core.data.rows import epoch_batches, training_rows
from athwe_core.device import has_fast_bf16, resolve_device
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.models.registry import build_config, replace_in
from athwe_core.training.allocator import keep_freed_memory
from athwe_core.training.randomness import keyed_rng

MEAN_LENGTH, FEATURE_WIDTH = 8.9, 768
ROUNDS = 2
"""Passes over the list of cases on a CPU, so that other load on the machine, which changes with time, affects every case. A
CUDA device serves one process at a time, and one pass is enough."""
PADDED_STEPS = 3
RANKED_PRESETS = ("hm4sr", "athwe")
LARGE_TARGETS = 16_384


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
    graphs: bool = True
    """Whether compiled steps on CUDA are recorded as graphs too, as in training."""
    targets: int = 1024
    """Targets of a step."""

    def __str__(self) -> str:
        how = {"off": "", "on": " compiled" if self.graphs else " compiled, no graphs"}[self.compiler]
        return f"{self.preset} {self.rows} {self.precision}{how}, {self.targets:,} targets"

    def config(self, device: str) -> Config:
        """The preset with the case's settings."""
        batching = "packed" if self.rows == "packed" else "prefix"
        settings = {"batching": batching, "precision": self.precision, "compiler": self.compiler, "device": device}
        settings["batch_targets"] = str(self.targets)
        return replace_in(build_config(self.preset), [f"training.{key}={value}" for key, value in settings.items()])


def suite_cases(device: torch.device) -> list[Case]:
    """The cases that make sense on a device: bf16 where it is fast there, compiled steps on CUDA, those first.

    Args:
        device: that runs the steps.
    Returns: different cases.
    """
    low = "bf16" if has_fast_bf16(device) else "fp32"
    cases = []
    if device.type == "cuda":
        compiled = Case("hm4sr", "packed", low, "on")
        cases += [compiled, Case("hm4sr", "packed", low), Case("athwe", "packed", low, "on")]
        cases += [replace(compiled, targets=LARGE_TARGETS), replace(compiled, graphs=False)]
        cases += [Case("hm4sr", "prefix", low, "on"), Case("hm4sr", "padded", low)]
    cases += [Case("hm4sr", rows, "fp32") for rows in ("padded", "prefix", "packed")]
    cases += [Case("hm4sr", "packed", low), Case("athwe", "packed", "fp32"), Case("athwe", "packed", low)]
    cases += [Case("hm4sr", "prefix", low)]
    if device.type != "cuda":  # its shapes change from step to step
        cases += [Case("athwe-published", "prefix", low)]
    return list(dict.fromkeys(cases))


def model_cases(presets: Sequence[str]) -> list[Case]:
    """Each model in the batches of its preset, and beside packed ones in the padded rows of published code, in fp32."""
    cases = []
    for preset in presets:
        batching = build_config(preset).training.batching
        cases += [Case(preset, rows, "fp32") for rows in (batching, *(["padded"] if batching == "packed" else []))]
    return cases


def run_suite(
    device: str,
    *,
    steps: int,
    notify: Callable[[str], None],
    cases: list[Case] | None = None,
    ranked: Sequence[str] = RANKED_PRESETS,
    size: Size = BEAUTY,
    known: SuiteResult | None = None,
    keep: Callable[[SuiteResult], None] = lambda _: None,
) -> SuiteResult:
    """Time rankings, then every case in a process of its own, on a CPU `ROUNDS` times.

    Args:
        device: as `training.device`.
        steps: timed steps of a case in each round, after those that warm up, >= 1; padded rows take `PADDED_STEPS` at most.
        notify: called with one sentence for each measurement.
        cases: None = `suite_cases` of the device.
        ranked: presets whose ranking of all users is timed.
        size: of the generated data.
        known: results of an earlier call: what is complete in it is not measured again, if it is of the same device, versions
            and sizes.
        keep: called with the results so far after each measurement.
    Raises: AthweError when a process fails.
    """
    where = resolve_device(device)
    result = _empty(where, size)
    if known is not None and _same_machine(known, result):
        result |= {"steps": known["steps"], "ranking": known["ranking"]}
    for preset in ranked:
        if preset not in (one["preset"] for one in result["ranking"]):
            result["ranking"].append(_ranking(preset, device, size))
            keep(result)
    wanted = cases or suite_cases(where)
    rounds_wanted = 1 if where.type == "cuda" else ROUNDS
    complete = {_case(one) for one in result["steps"] if one["rounds"] >= rounds_wanted}
    found: dict[Case, list[CaseRound]] = {case: [] for case in wanted if case not in complete}
    for _ in range(rounds_wanted):
        for case, rounds in found.items():
            one = _in_its_own_process(case, device, min(steps, PADDED_STEPS) if case.rows == "padded" else steps, size)
            rounds.append(one)
            others = [other for other in result["steps"] if _case(other) != case]
            result["steps"] = [*others, _summary(case, rounds)]
            keep(result)
            notify(f"{case}: {median(one['seconds']):.4f} s a step")
    result["steps"].sort(key=lambda one: wanted.index(_case(one)) if _case(one) in wanted else len(wanted))
    return result


def known_suite(path: Path) -> SuiteResult | None:
    """The results of an earlier `run_suite`.

    Args:
        path: its JSON file.
    Returns: None where the file is missing, damaged or of an older version.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_known = isinstance(found, dict) and found.keys() == SuiteResult.__annotations__.keys()
    if not is_known or any(one.keys() != CaseResult.__annotations__.keys() for one in found["steps"]):
        return None
    return cast(SuiteResult, found)


def _empty(device: torch.device, size: Size) -> SuiteResult:
    machine: Machine = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
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
    return {"machine": machine, "sizes": sizes, "steps": [], "ranking": []}


def _same_machine(known: SuiteResult, now: SuiteResult) -> bool:
    without_date = [{k: v for k, v in one["machine"].items() if k != "date"} for one in (known, now)]
    return without_date[0] == without_date[1] and known["sizes"] == now["sizes"]


def _case(result: CaseResult) -> Case:
    """The case of a result."""
    return Case(**{f.name: result[f.name] for f in fields(Case)})  # type: ignore[literal-required]


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
        "graphs": case.graphs,
        "targets": case.targets,
        "rounds": len(rounds),
        "step_seconds": {"median": typical, "min": min(seconds), "max": max(seconds)},
        "epoch_seconds": typical * rounds[0]["steps_per_epoch"],
        "floor_seconds": floors,
        "memory_floor_seconds": min(one["memory_floor_seconds"] for one in rounds),
        "ratio": typical / floors["fp32"],
        "peak_memory_bytes": max(one["peak_memory_bytes"] for one in rounds),
        "state_bytes": rounds[0]["state_bytes"],
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
    timed = time_steps(data, setup, config, steps=steps, is_padded=is_padded, records=case.graphs, notify=notes.append)
    peak = peak_memory_bytes(setup.device)
    N = config.training.batch_targets
    rows = training_rows(data.split, batching=config.training.batching, max_length=config.model.max_length)
    return {
        "seconds": timed["seconds"],
        "steps_per_epoch": len(epoch_batches(rows, batch_targets=N, rng=keyed_rng(0, "shuffle", 0))),
        "floor_seconds": floors(setup, config),
        "memory_floor_seconds": memory_floor_seconds(setup),
        "peak_memory_bytes": peak,
        "state_bytes": state_bytes(setup),
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


if __name__ == "__main__":
    keep_freed_memory()
    serve(_measure_here)
