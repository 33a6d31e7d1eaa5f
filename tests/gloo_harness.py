"""What three gloo processes compute together, against the same on whole tensors.

    python gloo_harness.py FOLDER

Every process asserts for itself. The exit code is 0 if all of them agree with the whole.
"""

import os
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from athwe_core import row_shard
from athwe_core.batch import PackedBatch
from athwe_core.data.split import leave_one_out
from athwe_core.distributed import BatchShards, ProcessGroup
from athwe_core.errors import NonFiniteLossError
from athwe_core.evaluation import blocks
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.losses.contrastive import excluded_pairs, symmetric_contrastive_loss
from athwe_core.losses.pairwise import bpr_loss
from athwe_core.models.protocol import Model
from athwe_core.nn import item_embeddings
from athwe_core.nn.item_embeddings import ItemEmbeddings
from athwe_core.row_shard import RowShard
from athwe_core.runs.checkpoint import load_optimizer, load_weights, save_checkpoint
from athwe_core.training.optim import LazyAdam, make_optimizer
from athwe_core.training.ranking_progress import RankingProgress, StopRanking

COUNTS, MULTIPLE = (3, 0, 5), 4
"""Supervised tokens of each process, and the multiple to which each pads its own."""

NUM_ITEMS = 50
WANTED = [[7, 0, 49, 7, 6], [], [7, 21, 1]]
"""Items that each process looks up: one twice, one in two processes, a new one."""


def check_group(group: ProcessGroup) -> None:
    value = torch.tensor([group.rank + 1.0])
    assert group.total(value).item() == group.size * (group.size + 1) / 2
    assert value.item() == group.rank + 1, "the argument is left as it was"
    assert group.any(group.rank == group.size - 1)
    assert not group.any(False)
    assert group.is_first == (group.rank == 0)
    assert group.text_of_first(f"run é {group.rank}") == "run é 0"
    assert group.text_of_first("é" * 5000) == "é" * 2048
    assert group.text_of_first("x" + "é" * 5000) == "x" + "é" * 2047, "a character that the limit cuts is left out"
    group.wait()


def own_part(whole: Tensor, shards: BatchShards) -> tuple[Tensor, slice]:
    """This process's rows of the whole, with padding to the multiple, and where they are."""
    first = sum(shards.counts[: shards.rank])
    own = slice(first, first + shards.counts[shards.rank])
    padding = whole.new_full((-len(whole[own]) % MULTIPLE, *whole.shape[1:]), -1)
    return torch.cat([whole[own], padding]), own


def check_shards(shards: BatchShards) -> None:
    generator = torch.Generator().manual_seed(0)
    N = shards.num_targets
    views = [torch.randn(N, 4, generator=generator, requires_grad=True) for _ in range(2)]
    targets, users = torch.tensor([3, 1, 3, 2, 5, 5, 4, 7]), torch.tensor([0, 0, 1, 2, 2, 3, 4, 5])
    mine = [own_part(view.detach(), shards)[0].requires_grad_() for view in views]
    my_targets, own = own_part(targets, shards)
    my_users, count = own_part(users, shards)[0], shards.counts[shards.rank]

    gathered = shards.gather(mine[0])
    assert len(gathered) == sum(n + -n % MULTIPLE for n in shards.counts)
    assert torch.equal(gathered[shards.start : shards.start + count], views[0][own])

    for has_excluded in (False, True):
        options = {"temperature": 0.5, "similarity": "cosine"}
        pairs = (
            [excluded_pairs(targets, users), excluded_pairs(my_targets, my_users, shards)]
            if has_excluded
            else [None] * 2
        )
        expected = symmetric_contrastive_loss(*views, excluded=pairs[0], **options)  # type: ignore[arg-type]
        part = symmetric_contrastive_loss(
            *mine,
            excluded=pairs[1],
            target_mask=my_targets >= 0,
            shards=shards,
            num_targets=N,
            **options,  # type: ignore[arg-type]
        )
        compare(part, expected, mine, views, own, shards)

    whole = bpr_loss(views[0][:, 0], views[1], targets)
    compare(bpr_loss(mine[0][:, 0], mine[1], my_targets, num_targets=N), whole, mine, views, own, shards)


class Tables(nn.Module):
    """A model of nothing but item tables, its ids drawn in a piece for each 16 rows of a process."""

    def __init__(self, world: ProcessGroup) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(6)
        features = {"text": torch.randn(NUM_ITEMS, 4, generator=generator)}
        self.tables = ItemEmbeddings(
            features,
            hidden_size=3,
            num_item_rows=NUM_ITEMS,
            sparse=True,
            is_new=torch.arange(NUM_ITEMS) % 5 == 1,
            world=world,
        )
        self.tables.rows.draw_normal(self.tables.id.weight, 1.0, generator)
        with torch.no_grad():
            for parameter in (self.tables.unknown, *self.tables.projections.parameters()):
                assert parameter is not None
                parameter.normal_(generator=generator)

    def step(self, wanted: list[list[int]]) -> tuple[Tensor, LazyAdam]:
        """Vectors of items, and an Adam that has moved the weights by the sum of their squares."""
        optimizer = make_optimizer(self, lr=0.1)
        assert isinstance(optimizer, LazyAdam)
        vectors = [self.tables(torch.tensor(items, dtype=torch.int64)) for items in wanted]
        torch.cat(vectors).square().sum().backward()
        optimizer.step()
        return vectors[0].detach(), optimizer


def check_tables(group: ProcessGroup, folder: Path) -> None:
    """A table that processes divide, against a whole one: look-ups, a step of Adam, a checkpoint and its reading."""
    whole, own = Tables(ProcessGroup()), Tables(group)
    rows = RowShard(NUM_ITEMS, group).rows
    assert torch.equal(own.tables.id.weight, whole.tables.id.weight[rows])
    torch.testing.assert_close(own.tables(), whole.tables()[rows])
    _, whole_adam = whole.step(WANTED)
    expected = Tables(ProcessGroup()).tables(torch.tensor(WANTED[group.rank], dtype=torch.int64)).detach()
    found, adam = own.step([WANTED[group.rank]])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(own.tables.id.weight, whole.tables.id.weight[rows])
    for part, value in adam.state[own.tables.id.weight].items():
        other = whole_adam.state[whole.tables.id.weight][part]
        torch.testing.assert_close(value, other if part == "step" else other[rows])

    save_checkpoint(folder / "last", own, {"n": 1}, adam)
    group.wait()
    again, again_adam = Tables(ProcessGroup()), make_optimizer(whole, lr=0.1)
    load_weights(folder / "last", again)
    torch.testing.assert_close(again.tables.id.weight, whole.tables.id.weight)
    load_optimizer(folder / "last", whole, again_adam)
    moment = again_adam.state[whole.tables.id.weight]["exp_avg"]
    torch.testing.assert_close(moment, whole_adam.state[whole.tables.id.weight]["exp_avg"])
    for size in (2, 4):  # what another number of processes reads
        other = Tables(ProcessGroup(min(group.rank, size - 1), size))
        other_adam = make_optimizer(other, lr=0.1)
        load_weights(folder / "last", other)
        load_optimizer(folder / "last", other, other_adam)
        assert torch.equal(other.tables.id.weight, again.tables.id.weight[other.tables.rows.rows])
        assert torch.equal(other_adam.state[other.tables.id.weight]["exp_avg"], moment[other.tables.rows.rows])

    with torch.no_grad():
        own.tables.id.weight[0, 0] = torch.nan if group.rank == 1 else 0.0
    where = "weight tables.id.weight" if group.rank == 1 else "a weight of another process"
    with pytest.raises(NonFiniteLossError, match=where):
        save_checkpoint(folder / "last", own, {"n": 2}, adam)


def compare(
    part: Tensor, whole: Tensor, mine: list[Tensor], views: list[Tensor], own: slice, shards: BatchShards
) -> None:
    """The parts sum to the whole, and the gradients of a process's rows are those of the whole."""
    torch.testing.assert_close(shards.total(part.detach()), whole.detach())
    found, expected = torch.autograd.grad(part, mine), torch.autograd.grad(whole, views)
    for ours, theirs in zip(found, expected, strict=True):
        count = own.stop - own.start
        torch.testing.assert_close(ours[:count], theirs[own], atol=1e-6, rtol=1e-5)
        assert not ours[count:].any(), "padding has no gradient"


class Users:
    """Twelve users of 4 to 9 items."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.offsets = np.concatenate([[0], np.cumsum(rng.integers(4, 10, 12))])
        self.item_ids = rng.integers(1, 40, self.offsets[-1]).astype(np.int32)
        self.timestamps = np.arange(self.offsets[-1])
        self.split = leave_one_out(self.offsets)


class LastItem(Model):
    """The vector of the latest item is that of the user."""

    max_length, loss_weights, device = 5, {}, torch.device("cpu")

    def losses(self, *_: Any) -> dict[str, Tensor]:
        raise NotImplementedError

    def item_table(self) -> Tensor:
        return torch.randn(40, 8, generator=torch.Generator().manual_seed(0))

    def user_vectors(self, batch: PackedBatch, table: Tensor | None = None) -> Tensor:
        assert table is not None
        return table[batch.item_ids[batch.target_index]]


def check_ranking(group: ProcessGroup) -> None:
    """Three processes have the ranks of one; a stop that one of them receives ends the ranking of all at the same block."""
    blocks.BLOCK_USERS = 1
    expected = rank_users(LastItem(), Users(), split="test")
    assert rank_users(LastItem(), Users(), split="test", world=group).tolist() == expected.tolist()
    calls: list[int] = []

    def is_stopped() -> bool:
        calls.append(1)
        return group.any(group.rank == 1 and len(calls) == 2)

    try:
        progress = RankingProgress("test", print, is_stopped)
        rank_users(LastItem(), Users(), split="test", world=group, on_progress=progress)
    except StopRanking:
        assert len(calls) == 2
    else:
        raise AssertionError("the ranking went on")
    group.wait()


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, size = Path(sys.argv[1]), len(COUNTS)
    (folder / "mapped").mkdir()
    row_shard._ROWS_AT_ONCE = 16
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            try:
                dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
                check_group(ProcessGroup(rank, size))
                check_ranking(ProcessGroup(rank, size))
                check_shards(BatchShards(COUNTS, rank, MULTIPLE))
                check_tables(ProcessGroup(rank, size), folder)
                item_embeddings.RESIDENT_BYTES = 0  # features stay where they are
                check_tables(ProcessGroup(rank, size), folder / "mapped")
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(int(any(statuses)))
