"""Look-up, backward pass and Adam on a table divided by rows: our exchange against DTensor's `Shard(0)`, in turns.

    python tests/benchmarks/shard_look_up.py

Three gloo processes, a table of 300,000 x 64, 4,000 drawn items for each process.
"""

import os
import tempfile
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from athwe_core.distributed import ProcessGroup
from athwe_core.row_shard import RowShard
from athwe_core.training.optim import LazyAdam

PROCESSES, NUM_ROWS, WIDTH, DRAWN, WARM, TIMED = 3, 300_000, 64, 4000, 3, 10


def own_exchange(rank: int) -> Callable[[], None]:
    shard = RowShard(NUM_ROWS, ProcessGroup(rank, PROCESSES))
    rows = torch.nn.Parameter(torch.randn(len(shard), WIDTH))
    optimizer = LazyAdam([rows], lr=1e-3, fused=True)

    def step() -> None:
        found = shard.look_up(torch.randint(NUM_ROWS, (DRAWN,)), lambda index: F.embedding(index, rows, sparse=True))
        found.square().sum().backward()
        optimizer.step()
        rows.grad = None

    return step


def dtensor() -> Callable[[], None]:
    mesh = init_device_mesh("cpu", (PROCESSES,))
    table = torch.nn.Parameter(distribute_tensor(torch.randn(NUM_ROWS, WIDTH), mesh, [Shard(0)]))
    optimizer = torch.optim.Adam([table], lr=1e-3)

    def step() -> None:
        of_all = [torch.empty(DRAWN, dtype=torch.int64) for _ in range(PROCESSES)]
        dist.all_gather(of_all, torch.randint(NUM_ROWS, (DRAWN,)))
        items = DTensor.from_local(torch.cat(of_all), mesh, [Replicate()], run_check=False)
        found = F.embedding(items, table).redistribute(mesh, [Shard(0)]).to_local()
        found.square().sum().backward()
        optimizer.step()
        table.grad = None

    return step


def measure(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    steps = {"own exchange": own_exchange(rank), "DTensor": dtensor()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(WARM + TIMED):
        for name, step in steps.items():
            dist.barrier()
            began = time.perf_counter()
            step()
            dist.barrier()
            seconds[name].append(time.perf_counter() - began)
    if rank == 0:
        print({name: round(median(found[WARM:]), 4) for name, found in seconds.items()}, flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(PROCESSES):
            child = os.fork()
            if child == 0:
                measure(rank, folder)
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
