"""How users are divided into blocks, and blocks into batches."""

import numpy as np
import pytest
import torch

from athwe_core.data.rows import Rows
from athwe_core.evaluation import blocks
from athwe_core.evaluation.blocks import most_users, token_batches, user_blocks, workers_on


def rows_of(lengths: list[int]) -> Rows:
    stop = np.cumsum(lengths)
    return Rows(stop - np.array(lengths), stop, np.ones(len(lengths), np.int64), np.arange(len(lengths)))


@pytest.mark.parametrize(
    ("users", "workers", "processes", "sizes"),
    [
        (0, 2, 3, []),
        (100, 4, 1, [100]),  # not worth a second worker
        (300, 2, 1, [150, 150]),
        (1200, 2, 1, [300] * 4),  # not three: a worker would wait
        (1200, 1, 1, [400] * 3),
        (1030, 1, 2, [258, 258, 257, 257]),
        (2, 1, 3, [1, 1, 0]),  # each process has as many blocks as the others
    ],
)
def test_blocks_keep_all_workers_of_all_processes_busy(
    users: int, workers: int, processes: int, sizes: list[int]
) -> None:
    rng = np.random.default_rng(0)
    rows = rows_of(rng.integers(1, 50, users).tolist())
    found = user_blocks(rows, most=512, workers=workers, processes=processes)
    assert [len(block) for block in found] == sizes
    if users:
        order = np.concatenate(found)
        assert sorted(order) == list(range(users))
        assert (np.diff((rows.stop - rows.start)[order]) >= 0).all()


def test_a_block_is_read_in_batches_of_bounded_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BATCH_TOKENS", 10)
    rows = rows_of([4, 4, 2, 1, 5, 20, 1])
    assert [part.tolist() for part in token_batches(rows, np.arange(7))] == [[0, 1, 2], [3, 4], [5], [6]]
    assert [part.tolist() for part in token_batches(rows, np.array([6]))] == [[6]]


@pytest.mark.parametrize(("items", "users"), [(12_102, 512), (1_000_000, 512), (10_000_000, 214), (2**40, 1)])
def test_blocks_of_a_huge_catalogue_have_fewer_users(items: int, users: int) -> None:
    assert most_users(items) == users


def test_a_worker_for_each_thread_of_a_cpu() -> None:
    assert workers_on(torch.device("cpu")) == torch.get_num_threads()
    assert workers_on(torch.device("cuda")) == 1
