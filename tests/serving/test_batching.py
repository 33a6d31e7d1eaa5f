"""One thread answers many callers: order, batches, limits, failures, an end without loss."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from athwe_core.serving.batching import Batcher, ClosedError, QueueFullError, WaitedTooLongError


class Gate:
    """Doubles numbers, one batch for each time that it is opened."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.began = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.began.release()
        assert self.may_end.acquire(timeout=10)
        if -1 in numbers:
            raise ValueError("minus one")
        return [2 * number for number in numbers]

    def open(self, times: int = 1) -> None:
        for _ in range(times):
            self.may_end.release()


def test_what_comes_while_a_batch_is_computed_is_the_next_batch() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch=3)
    futures = [batcher.submit([0])]
    assert gate.began.acquire(timeout=10)
    futures += [batcher.submit(numbers) for numbers in ([1], [2, 3], [4], [5, 6, 7, 8], [9])]
    assert batcher.num_waiting == 9
    gate.open(5)
    assert [future.result(10) for future in futures] == [[0], [2], [4, 6], [8], [10, 12, 14, 16], [18]]
    assert gate.batches == [[0], [1, 2, 3], [4], [5, 6, 7, 8], [9]]
    assert (batcher.counts.answered, batcher.counts.batches, batcher.num_waiting) == (10, 5, 0)
    batcher.close(wait_seconds=10)


def test_a_batch_gathers_only_where_several_callers_came_together() -> None:
    gate = Gate()
    gate.open(99)
    batcher = Batcher(gate, max_batch=4, gather_seconds=60)
    assert [batcher.submit([number]).result(10) for number in (0, 1)] == [[0], [2]]  # alone: at once
    gate.may_end = threading.Semaphore(0)
    futures = [batcher.submit([2])]
    while len(gate.batches) < 3:
        time.sleep(0.001)
    futures += [batcher.submit([number]) for number in (3, 4, 5, 6)]
    gate.open(2)  # the second batch is full, so it begins at once; after it the thread gathers
    futures.append(batcher.submit([7]))
    assert [future.result(10) for future in futures[:-1]] == [[4], [6], [8], [10], [12]]
    assert not futures[-1].done()
    gate.open()
    batcher.close(wait_seconds=10)  # ends the gathering
    assert futures[-1].result(10) == [14]
    assert gate.batches == [[0], [1], [2], [3, 4, 5, 6], [7]]


def test_a_full_queue_refuses_all_or_nothing() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_queue=3)
    first = batcher.submit([0])
    assert gate.began.acquire(timeout=10)
    kept = batcher.submit([1, 2])
    with pytest.raises(QueueFullError, match=r"^requests must fit into the queue: 2 of at most 3 wait already, got 2$"):
        batcher.submit([3, 4])
    last = batcher.submit([5])
    gate.open(2)
    assert (first.result(10), kept.result(10), last.result(10)) == ([0], [2, 4], [10])
    assert batcher.counts.refused == 2
    batcher.close(wait_seconds=10)


def test_a_failure_reaches_only_the_caller_who_caused_it() -> None:
    gate = Gate()
    batcher = Batcher(gate)
    first = batcher.submit([0])
    assert gate.began.acquire(timeout=10)
    good, bad, other = batcher.submit([1]), batcher.submit([2, -1]), batcher.submit([3])
    gate.open(5)
    assert (first.result(10), good.result(10), other.result(10)) == ([0], [2], [6])
    with pytest.raises(ValueError, match="minus one"):
        bad.result(10)
    assert gate.batches == [[0], [1, 2, -1, 3], [1], [2, -1], [3]]
    assert (batcher.counts.failed, batcher.counts.answered, batcher.is_open) == (2, 3, True)
    batcher.close(wait_seconds=10)


def test_who_waits_too_long_or_gives_up_is_not_computed() -> None:
    gate = Gate()
    batcher = Batcher(gate, timeout_seconds=0.05)
    first = batcher.submit([0])
    assert gate.began.acquire(timeout=10)
    late, given_up = batcher.submit([1, 2]), batcher.submit([3])
    assert given_up.cancel()
    time.sleep(0.06)
    gate.open()
    assert first.result(10) == [0]
    with pytest.raises(WaitedTooLongError, match=r"^request has waited longer than 0\.05 s$"):
        late.result(10)
    assert gate.batches == [[0]]
    assert batcher.counts.expired == 2
    batcher.close(wait_seconds=10)


def test_closing_answers_who_waits_and_takes_nobody_else() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch=1)
    futures = [batcher.submit([number]) for number in range(4)]
    gate.open(4)
    batcher.close(wait_seconds=10)
    assert [future.result(0) for future in futures] == [[0], [2], [4], [6]]
    assert not batcher.is_open
    with pytest.raises(ClosedError, match=r"^requests are not taken any more: the service stops$"):
        batcher.submit([1])


def test_many_callers_at_once_each_get_their_own_answer() -> None:
    sizes: list[int] = []

    def doubled(numbers: Sequence[int]) -> list[int]:
        sizes.append(len(numbers))
        return [2 * number for number in numbers]

    batcher = Batcher(doubled, max_batch=16)
    ask: Callable[[int], Future[list[int]]] = lambda number: batcher.submit([number, -number])  # noqa: E731
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: ask(number).result(10), range(500)))
    assert found == [[2 * number, -2 * number] for number in range(500)]
    assert sum(sizes) == 1000
    assert max(sizes) <= 16
    batcher.close(wait_seconds=10)
