"""How step time, memory and ranking time grow with the catalogue, the users, the batch and the processes.

Everything is generated; each point is measured in fresh processes, so that its memory is its own.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from athwe_core.analysis.benchmark.step_time import (
    BenchData,
    build_generated,
    generate_bench_data,
    peak_memory_bytes,
    time_steps,
)
from athwe_core.config import Config, replace_in
from athwe_core.distributed import ALONE, ProcessGroup, init_distributed
from athwe_core.errors import AthweError
from athwe_core.evaluation.evaluate import rank_users

MEAN_LENGTH = 8.9
RANKED_USERS = 256
MAPPED_ITEMS = 500_000
"""Catalogues from here on have their features in a mapped file, in half precision."""


@dataclass(frozen=True)
class Point:
    """What is measured once."""

    axis: str
    """What grows: catalogue, users, targets or processes."""
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
        largest: items and users go in powers of ten up to here; the full catalogue loss at most to 100,000 items, beyond
            which it is the sampled one only.
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
    config: Config, points: list[Point], *, feature_width: int, steps: int, notify: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """The points with what was measured, one by one.

    Yields: the point's fields; `step_seconds` (median, min, max), `peak_memory_bytes` of the largest process, mapped files
        included, and `ranking_seconds` for a thousand users.
    Raises: AthweError when a process fails.
    """
    for point in points:
        found = measure(config, point, feature_width=feature_width, steps=steps)
        notify(
            f"{point.axis}: {point.items:,} items, {point.users:,} users, {point.targets} targets, {point.loss}, "
            f"{point.processes} processes: {found['step_seconds']['median']:.3f} s a step, "
            f"{found['peak_memory_bytes'] / 1e9:.2f} GB"
        )
        yield asdict(point) | found


def measure(config: Config, point: Point, *, feature_width: int, steps: int) -> dict[str, Any]:
    """One point in processes of its own."""
    kind, targets = f"losses.catalogue.kind={point.loss}", f"training.batch_targets={point.targets}"
    config = replace_in(config, [kind, targets])
    context = multiprocessing.get_context("spawn")
    # As torchrun does: the processes meet at a store of the parent's, on a port that the system chooses.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    threads = max(torch.get_num_threads() // point.processes, 1)
    ours = []
    for rank in range(point.processes):
        environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(point.processes)}
        environment |= {"MASTER_ADDR": store.host, "MASTER_PORT": str(store.port)}
        environment["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        mine, theirs = context.Pipe(duplex=False)
        arguments = (theirs, environment, threads, config, point, feature_width, steps)
        process = context.Process(target=_measure, args=arguments, daemon=True)
        process.start()
        theirs.close()
        ours.append((process, mine))
    try:
        found = [_received(mine, point) for _, mine in ours]
    finally:
        for process, _ in ours:
            process.kill() if process.exitcode is None and len(ours) > 1 else process.join()
    return found[0] | {"peak_memory_bytes": max(one["peak_memory_bytes"] for one in found)}


def _received(connection: Connection, point: Point) -> dict[str, Any]:
    try:
        found = connection.recv()
    except EOFError:
        found = "its process was killed"
    if isinstance(found, str):
        raise AthweError(f"bench of {point}", f"must come to its end ({found})", remedy="Lower --largest")
    return dict(found)


def _measure(
    connection: Connection,
    environment: dict[str, str],
    threads: int,
    config: Config,
    point: Point,
    feature_width: int,
    steps: int,
) -> None:
    """The work of one process."""
    os.environ.update(environment)
    torch.set_num_threads(threads)
    try:
        with init_distributed() as world, tempfile.TemporaryDirectory() as folder:
            is_mapped = point.items >= MAPPED_ITEMS
            found = _measured(config, point, world, feature_width, steps, Path(folder) if is_mapped else None)
        connection.send(found)
    except Exception as error:
        connection.send(f"{type(error).__name__}: {str(error).splitlines()[0]}")


def _measured(
    config: Config, point: Point, world: ProcessGroup, feature_width: int, steps: int, folder: Path | None
) -> dict[str, Any]:
    data = generate_bench_data(num_users=point.users, num_items=point.items, mean_length=MEAN_LENGTH)
    setup = build_generated(data, config, num_items=point.items, feature_width=feature_width, folder=folder)
    timed = time_steps(data, setup, config, steps=steps, world=world)
    peak = peak_memory_bytes(setup.device)
    few = BenchData(data.offsets[: RANKED_USERS + 1], data.item_ids, data.timestamps)
    began = time.perf_counter()
    rank_users(setup.network, few, split="test", world=ALONE)
    ranking = (time.perf_counter() - began) * 1000 / RANKED_USERS
    return timed | {"peak_memory_bytes": peak, "ranking_seconds": ranking}


def growth_laws(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`quantity = constant * size^exponent` along each axis of three sizes or more, by least squares on logarithms.

    Returns: records of axis, loss, quantity, exponent and constant (in seconds or bytes).
    """
    laws = []
    for axis, loss in dict.fromkeys((point["axis"], point["loss"]) for point in points):
        own = [point for point in points if (point["axis"], point["loss"]) == (axis, loss)]
        if len(own) < 3:
            continue
        sizes = np.log([point[SIZE[axis]] for point in own])
        for quantity, value in QUANTITIES.items():
            exponent, constant = np.polyfit(sizes, np.log([value(point) for point in own]), 1)
            law = {"axis": axis, "loss": loss, "quantity": quantity}
            laws.append(law | {"exponent": float(exponent), "constant": float(np.exp(constant))})
    return laws


SIZE = {"catalogue": "items", "users": "users", "targets": "targets", "processes": "processes"}
QUANTITIES: dict[str, Callable[[dict[str, Any]], float]] = {
    "step": lambda point: point["step_seconds"]["median"],
    "memory": lambda point: point["peak_memory_bytes"],
    "ranking": lambda point: point["ranking_seconds"],
}
