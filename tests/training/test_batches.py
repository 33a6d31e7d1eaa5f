import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from athwe_core.data.packing import SOME_PADDING, pack
from athwe_core.data.rows import training_rows
from athwe_core.distributed import ALONE
from athwe_core.training import batches as module
from athwe_core.training.batches import BatchPacker, in_advance


@pytest.mark.parametrize("count", [0, 1, 3])
def test_results_come_in_order(count: int) -> None:
    assert list(in_advance(lambda x: x * x, range(7), count=count)) == [0, 1, 4, 9, 16, 25, 36]


def test_a_thread_computes_as_many_ahead_as_may_wait() -> None:
    done: list[int] = []

    def note(item: int) -> int:
        done.append(item)
        return threading.get_ident()

    results = in_advance(note, iter(range(9)), count=2)
    assert next(results) != threading.get_ident()
    until = time.monotonic() + 5
    while len(done) < 3 and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0.01)
    assert done == [0, 1, 2]
    results.close()


def test_without_any_ahead_no_thread_works() -> None:
    assert set(in_advance(lambda _: threading.get_ident(), range(3), count=0)) == {threading.get_ident()}


@pytest.mark.parametrize("count", [0, 2])
def test_an_error_is_raised_where_its_result_would_be(count: int) -> None:
    results = in_advance(lambda x: 1 // (2 - x), range(4), count=count)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_an_iterator_left_early_ends_its_thread() -> None:
    before = threading.active_count()
    results = in_advance(lambda x: x, iter(range(1000)), count=2)
    next(results)
    assert threading.active_count() == before + 1
    results.close()
    assert threading.active_count() == before


@pytest.fixture
def packer(make_data: Any) -> Iterator[BatchPacker]:
    data = make_data([9, 8, 5, 4])
    rows = training_rows(data.split, batching="packed", max_length=6)
    return BatchPacker(data, rows, 6, SOME_PADDING, torch.device("cpu"), ALONE)


@pytest.mark.parametrize("ahead", [0, 2])
def test_batches_are_those_that_pack_makes(packer: BatchPacker, ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "steps_ahead", lambda _: ahead)
    chosen = [np.arange(2), np.arange(1, 4)]
    for which, ready in zip(chosen, packer.each(chosen), strict=True):
        expected = pack(packer.data, packer.rows, which, max_length=6, padding=SOME_PADDING)
        assert torch.equal(ready.whole().item_ids, expected.item_ids)
        assert torch.equal(ready().target_ids, expected.target_ids)
        assert ready.shards.num_processes == 1


def test_the_first_rows_of_a_batch(packer: BatchPacker) -> None:
    (ready,) = packer.each([np.arange(4)])
    first, second = packer.rows.num_supervised[:2]
    some = ready(int(first + second))
    assert some is not None
    assert some.num_targets == first + second
    assert ready(int(first) - 1) is None


def test_batches_for_cuda_are_pinned_by_the_thread(packer: BatchPacker, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(threading.get_ident())
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    on_cuda = BatchPacker(packer.data, packer.rows, 6, SOME_PADDING, torch.device("cuda"), ALONE)
    assert len(list(on_cuda.each([np.arange(4)]))) == 1
    assert len(pinned) == 12
    assert threading.get_ident() not in pinned
