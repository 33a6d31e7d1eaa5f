"""Most bytes of tensors in each of several gloo processes, over two steps of training and over a ranking.

    python memory_harness.py PREPARED_VERSION FOLDER SIZE

reads `FOLDER/config.json` and writes `FOLDER/RANK.json`.
"""

import json
import os
import sys
import traceback
from pathlib import Path

import torch
import torch._dynamo  # which DDP loads: here once, and not in each process that is forked
import torch.distributed as dist

from athwe_core.data.packing import pack_shard
from athwe_core.data.prepare import PreparedDataset
from athwe_core.data.rows import epoch_batches, training_rows
from athwe_core.data.store.dataset import open_prepared
from athwe_core.distributed import ProcessGroup
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.models.registry import config_from_tree
from athwe_core.training.build import build_setup
from athwe_core.training.memory_meter import MemoryMeter
from athwe_core.training.optim import make_optimizer
from athwe_core.training.randomness import keyed_rng
from athwe_core.training.step import train_step


def measured(data: PreparedDataset, config_file: Path, world: ProcessGroup) -> dict[str, int]:
    """Bytes at the peak, without the features."""
    config = config_from_tree(json.loads(config_file.read_text()))
    length = config.model.max_length
    rows = training_rows(data.split, batching=config.training.batching, max_length=length)
    shuffled = keyed_rng(config.training.seed, "shuffle", 0)
    batches = epoch_batches(rows, batch_targets=config.training.batch_targets, rng=shuffled)
    with MemoryMeter() as meter:
        setup = build_setup(config, data, world)
        features = meter.alive - sum(parameter.nbytes for parameter in setup.model.parameters())
    setup = setup.distribute(world)  # DistributedDataParallel cannot be made within the meter
    with meter:
        optimizer = make_optimizer(setup.model, lr=config.training.lr)
        for step, chosen in enumerate(batches[:2]):
            is_own, shards = world.divide(rows.num_supervised[chosen])
            batch = pack_shard(data, rows, chosen, max_length=length, is_own=is_own)
            train_step(setup, optimizer, batch, config, epoch=0, step=step, shards=shards)
    with MemoryMeter() as ranking:
        rank_users(setup.model, data, split="test", exclude_seen=config.evaluation.exclude_seen, world=world)
    return {"training": meter.peak - features, "ranking": ranking.peak}


if __name__ == "__main__":
    torch.set_num_threads(1)
    place, folder, size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    prepared = open_prepared(place.parent.name, prepared_dir=place.parent.parent, version=place.name)
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            try:
                dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
                found = measured(prepared, folder / "config.json", ProcessGroup(rank, size))
                (folder / f"{rank}.json").write_text(json.dumps(found))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        children.append(child)
    codes = [os.waitpid(child, 0)[1] for child in children]
    assert codes == [0] * size, f"exit statuses {codes}"
