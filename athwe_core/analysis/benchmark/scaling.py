"""How step time, memory and ranking time grow with the catalogue, the users, the batch and the processes.

All data are generated. Each point is measured in new processes, so that no memory of another point is counted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
import torch.distributed as dist

from athwe_core.analysis.benchmark.floors import peak_memory_bytes
from athwe_core.analysis.benchmark.generated import BenchData, build_generated, generate_bench_data
from athwe_core.analysis.benchmark.records import GrowthLaw, GrowthPoint, PointResult
from athwe_core.analysis.benchmark.step_time import time_steps
from athwe_core.analysis.child_process import Document, Parent, run_together, serve
from athwe_core.config import Config, config_tree
from athwe_core.distributed import ALONE, ProcessGroup, init_distributed
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.models.registry import config_from_tree, replace_in
from athwe_core.training.allocator import keep_freed_memory

MEAN_LENGTH = 8.9
RANKED_USERS = 1000
MAPPED_ITEMS = 500_000
"""From this size on, the features of a catalogue are in a mapped file, in half precision."""


@dataclass(frozen=True)
class Point:
    """The sizes of one measurement."""

    axis: str
    """Which size grows: catalogue, users, targets or processes."""
    items: int
    users: int
    targets: int
    processes: int
    loss: str
    """full or sampled."""


START = Point("catalogue", items=10_000, users=20_000, targets=1024, processes=1, loss="full")


def growth_points(*, largest: int) -> list[Point]:
    """The points of the table, smallest first.

    Args:
        largest: most items and users, which grow in powers of ten. With the full catalogue loss they grow to 100,000 items
            at most, with the sampled one further.
    """
    sizes = [size for size in (10_000, 100_000, 1_000_000) if size <= largest] or [largest]
    points = [
        replace(START, items=size, users=max(size, START.users), loss="full") for size in sizes if size <= 100_000
    ]
    points += [replace(START, items=size, users=max(size, START.users), loss="sampled") for size in sizes]
    points += [replace(START, axis="users", users=size) for size in sizes]
    points += [replace(START, axis="targets", targets=targets) for targets in (512, 1024, 2048, 4096)]
    points += [replace(START, axis="processes", processes=processes) for processes in (1, 2, 3)]
    return points


def measure_growth(
    config: Config, points: Sequence[Point], *, feature_width: int, steps: int, notify: Callable[[str], None]
) -> Iterator[GrowthPoint]:
    """Measure the points one by one.

    Args:
        config: what each point starts from.
        feature_width: width of the generated features of each modality.
        steps: timed steps of each point, >= 1.
        notify: called with one sentence for each point.
    Yields: each point with what was measured.
    Raises: AthweError when a process fails.
    """
    for point in points:
        found = measure(config, point, feature_width=feature_width, steps=steps)
        notify(
            f"{point.axis}: {point.items:,} items, {point.users:,} users, {point.targets} targets, {point.loss}, "
            f"{point.processes} processes: {found['step_seconds']['median']:.3f} s a step, "
            f"{found['peak_memory_bytes'] / 1e9:.2f} GB"
        )
        yield cast(GrowthPoint, asdict(point) | found)


def measure(config: Config, point: Point, *, feature_width: int, steps: int) -> PointResult:
    """One point, each of its processes started afresh.

    Args: as of `measure_growth`.
    Returns: what the first process measured, with the largest memory of all.
    Raises: AthweError when a process fails.
    """
    kind, targets = f"losses.catalogue.kind={point.loss}", f"training.batch_targets={point.targets}"
    tree = config_tree(replace_in(config, [kind, targets]))
    # As torchrun does: the processes meet at a store of the parent's, on a port that the system chooses.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    meeting = {"MASTER_ADDR": store.host, "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    environments = [
        meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(point.processes)}
        for rank in range(point.processes)
    ]
    found = run_together(
        "athwe_core.analysis.benchmark.scaling",
        {"config": tree, "point": asdict(point), "feature_width": feature_width, "steps": steps},
        environments,
        threads=max(torch.get_num_threads() // point.processes, 1),
        subject=f"bench of {point}",
        remedy="Lower --largest",
    )
    largest = max(one["peak_memory_bytes"] for one in found)
    return cast(PointResult, found[0] | {"peak_memory_bytes": largest})


def _measure_here(document: Document, _: Parent) -> PointResult:
    """The work of one process."""
    config, point = config_from_tree(document["config"]), Point(**document["point"])
    width, steps = document["feature_width"], document["steps"]
    with init_distributed() as world, tempfile.TemporaryDirectory() as folder:
        is_mapped = point.items >= MAPPED_ITEMS
        return _measured(config, point, world, width, steps, Path(folder) if is_mapped else None)


def _measured(
    config: Config, point: Point, world: ProcessGroup, feature_width: int, steps: int, folder: Path | None
) -> PointResult:
    data = generate_bench_data(num_users=point.users, num_items=point.items, mean_length=MEAN_LENGTH)
    setup = build_generated(data, config, num_items=point.items, feature_width=feature_width, folder=folder)
    timed = time_steps(data, setup, config, steps=steps, world=world)
    peak = peak_memory_bytes(setup.device)
    few = BenchData(data.offsets[: RANKED_USERS + 1], data.item_ids, data.timestamps)
    began = time.perf_counter()
    rank_users(setup.model, few, split="test", world=ALONE)
    ranking = (time.perf_counter() - began) * 1000 / (len(few.offsets) - 1)
    return {**timed, "peak_memory_bytes": peak, "ranking_seconds": ranking}


def growth_laws(points: Sequence[GrowthPoint]) -> list[GrowthLaw]:
    """`quantity = constant * size^exponent` along each axis of three sizes or more, by least squares on logarithms."""
    laws = list[GrowthLaw]()
    for axis, loss in dict.fromkeys((point["axis"], point["loss"]) for point in points):
        own = [point for point in points if (point["axis"], point["loss"]) == (axis, loss)]
        if len(own) < 3:
            continue
        sizes = np.log([point[SIZE[axis]] for point in own])
        for quantity, value in QUANTITIES.items():
            exponent, constant = np.polyfit(sizes, np.log([value(point) for point in own]), 1)
            law: GrowthLaw = {
                "axis": axis,
                "loss": loss,
                "quantity": quantity,
                "exponent": float(exponent),
                "constant": float(np.exp(constant)),
            }
            laws.append(law)
    return laws


SIZE: dict[str, Literal["items", "users", "targets", "processes"]] = {
    "catalogue": "items",
    "users": "users",
    "targets": "targets",
    "processes": "processes",
}
"""Axis to the field of a point that grows along it."""
QUANTITIES: dict[str, Callable[[GrowthPoint], float]] = {
    "step": lambda point: point["step_seconds"]["median"],
    "memory": lambda point: point["peak_memory_bytes"],
    "ranking": lambda point: point["ranking_seconds"],
}


if __name__ == "__main__":
    keep_freed_memory()
    serve(_measure_here)
