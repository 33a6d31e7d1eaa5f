"""Stand-ins for the processes of a job: sizes as of real ones, and no process is waited for."""

import torch

from athwe_core.row_shard import RowShard
from athwe_core.training.simulated_processes import SimulatedGroup, SimulatedShards


def test_a_look_up_computes_as_many_vectors_as_are_requested() -> None:
    shard = RowShard(10, SimulatedGroup(0, 3))
    own = torch.zeros(len(shard), 2, requires_grad=True)
    computed = []

    def vectors_of(rows: torch.Tensor) -> torch.Tensor:
        computed.append(len(rows))
        return own[rows]

    found = shard.look_up(torch.arange(10), vectors_of)
    found.sum().backward()
    assert (found.shape, computed, own.grad is not None) == ((10, 2), [10], True)


def test_a_batch_has_the_targets_of_all_processes_and_zeros_of_the_others() -> None:
    shards = SimulatedShards((2, 3), target_ids=torch.tensor([4, 5, 6, 7, 8]))
    assert shards.gather(torch.tensor([4, 5])).tolist() == [4, 5, 6, 7, 8]
    assert shards.gather(torch.ones(2, 2)).tolist() == [[1, 1]] * 2 + [[0, 0]] * 3
    assert shards.total(torch.ones(1)).tolist() == [1]
    group = SimulatedGroup(0, 3)
    assert (group.any(False), group.any(True), group.total(torch.ones(1)).tolist()) == (False, True, [1])
