"""One training step of a batch by several gloo processes, against one process that has the batch to itself.

    python spread_harness.py FOLDER SIZE KIND...

For each KIND (overrides with `,` between, or `none`; `sasrec:` before them names the model), for all rows and for one, prints
one JSON line: the largest difference of a loss term and of a gradient, relative to the largest of its kind, over all
processes; where item tables are divided, also of a weight and a rank after a third step. Adam's eps is 1e-3: with the usual
one its first step is the sign of a gradient, and where that is rounding, so is the step.
"""

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # which DDP loads: here once, and not in each process that is forked
import torch.distributed as dist
from setups import setup_of
from torch import Tensor

from athwe_core.batch import Catalogue, PackedBatch, TimeRange
from athwe_core.config import Config
from athwe_core.data.packing import Padding, pack_shard
from athwe_core.data.rows import training_rows
from athwe_core.data.split import Split, leave_one_out
from athwe_core.distributed import ALONE, BatchShards, ProcessGroup
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.models.athwe import model as model_module
from athwe_core.models.registry import build_config, replace_in
from athwe_core.nn.item_embeddings import divided_rows
from athwe_core.row_shard import RowShard
from athwe_core.training import step
from athwe_core.training.build import TrainingSetup
from athwe_core.training.optim import GuardedAdam, make_optimizer

V = 31
SMALL = (
    "model.hidden_size=8",
    "model.inner_size=12",
    "model.max_length=6",
    "model.dropout=0",
    "training.precision=fp32",
)


class Data:
    """Users of 4 to 14 items."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        lengths = np.array([4, 14, 5, 9, 4, 6, 4])
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])
        self.item_ids = rng.integers(1, V, self.offsets[-1]).astype(np.int32)
        gaps = rng.integers(0, 40, self.offsets[-1]) ** 4
        self.timestamps = 1_400_000_001 + np.cumsum(gaps)

    @property
    def split(self) -> Split:
        return leave_one_out(self.offsets)


def mapped(values: Tensor) -> Tensor:
    """The same in a file mapped read-only, as those of a prepared data set."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, values.numpy())
        file.flush()
        return torch.from_numpy(np.load(file.name, mmap_mode="r"))


def network_of(config: Config, data: Data, world: ProcessGroup = ALONE) -> TrainingSetup:
    generator = torch.Generator().manual_seed(1)
    catalogue = Catalogue(
        num_item_rows=V,
        features={m: torch.randn(V, 7, generator=generator) for m in ("text", "image")},
        categories=mapped(torch.randint(0, 2, (V, 3), generator=generator)),
        clusters={m: torch.arange(V) % 4 for m in ("text", "image")},
        target_counts=torch.from_numpy(np.bincount(data.item_ids, minlength=V)),
    )
    sharing = world if config.training.shard_tables else ALONE
    setup = setup_of(config, catalogue, TimeRange(1_400_000_001, 1_500_000_000, 40**4), torch.float32, sharing)
    shards = divided_rows(setup.model)
    assert bool(shards) == (sharing.size > 1)
    with torch.no_grad():
        for name, parameter in setup.model.named_parameters():
            shards.get(name, RowShard(len(parameter))).draw_normal(parameter, 0.3, generator)
    return setup


def marks(batch: PackedBatch, **_: Any) -> Tensor:
    """Placeholders that depend on user and position alone, so that they are the same however the batch is divided."""
    return (batch.user_index[batch.rows] + batch.positions) % 2 == 0


def take_step(
    world: ProcessGroup, config: Config, data: Data, chosen: np.ndarray[Any, Any]
) -> dict[str, dict[str, Tensor]]:
    rows = training_rows(data.split, batching=config.training.batching, max_length=6)
    setup = network_of(config, data, world).distribute(world)
    is_own, shards = world.divide(rows.num_supervised[chosen], multiple=4)
    batch = pack_shard(data, rows, chosen, max_length=6, is_own=is_own, padding=Padding(targets=4, rows=4, bins=2))
    optimizer = make_optimizer(setup.model, lr=0.01)
    optimizer.param_groups[0]["eps"] = 1e-3
    model_module.placeholder_mask = marks
    terms = step.train_step(setup, optimizer, batch, config, epoch=0, step=0, shards=shards)
    parameters = {name: p for name, p in setup.model.named_parameters() if p.requires_grad and p.numel() > 0}
    gradients = {name: p.grad.to_dense().clone() for name, p in parameters.items() if p.grad is not None}
    found = {"terms": terms, "gradients": gradients}
    if config.training.shard_tables:
        found |= further_steps(world, setup, optimizer, batch, config, data, shards)
    return found


def further_steps(
    world: ProcessGroup,
    setup: TrainingSetup,
    optimizer: GuardedAdam,
    batch: PackedBatch,
    config: Config,
    data: Data,
    shards: BatchShards,
) -> dict[str, dict[str, Tensor]]:
    for number in (1, 2):
        step.train_step(setup, optimizer, batch, config, epoch=0, step=number, shards=shards)
    table = setup.model.get_parameter("tables.id.weight")
    assert len(table) == len(optimizer.state[table]["exp_avg"]) == len(range(world.rank, V, world.size))
    ranks = rank_users(setup.model, data, split="test", exclude_seen=True, world=world)
    weights = {name: p.detach().clone() for name, p in setup.model.named_parameters() if p.numel() > 0}
    return {"weights": weights, "ranks": {"test": torch.from_numpy(ranks)}}


def difference(found: dict[str, Tensor], expected: dict[str, Tensor], rows: slice = slice(None)) -> float:
    """Of this process's values from the whole, or from its rows of it."""
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    own = {name: value if found[name].shape == value.shape else value[rows] for name, value in expected.items()}
    scale = {name: max(value.abs().max().item(), 1e-6) for name, value in expected.items()}
    return max((found[name] - value).abs().max().item() / scale[name] for name, value in own.items())


def compare(folder: Path, size: int, kind: str, count: int) -> dict[str, float]:
    model, _, kind = kind.rpartition(":")
    overrides = [*SMALL, *([] if kind == "none" else kind.split(","))]
    config, data = replace_in(build_config(model or "athwe"), overrides), Data()
    chosen = np.random.default_rng(2).permutation(7)[:count]
    expected = take_step(ProcessGroup(), config, data, chosen)
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            try:
                meeting = f"file://{folder}/meeting-{abs(hash((model, kind, count)))}"
                dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
                found = take_step(ProcessGroup(rank, size), config, data, chosen)
                rows = slice(rank, None, size)
                largest = {part: difference(found[part], expected[part], rows) for part in expected}
                (folder / f"{rank}.json").write_text(json.dumps(largest))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        children.append(child)
    codes = [os.waitpid(child, 0)[1] for child in children]
    assert codes == [0] * size, f"exit statuses {codes}"
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]
    return {part: max(one[part] for one in found) for part in expected}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for kind in sys.argv[3:]:
        for count in (7, 1):
            print(json.dumps(compare(Path(sys.argv[1]), int(sys.argv[2]), kind, count)), flush=True)
