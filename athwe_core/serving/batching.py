"""Requests gathered into batches: many callers wait, one thread computes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from athwe_core.errors import AthweError

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class QueueFullError(AthweError):
    """More requests wait than the queue holds: try again later."""


class WaitedTooLongError(AthweError):
    """A request was not computed in time."""


class ClosedError(AthweError):
    """The batcher takes no more requests."""


@dataclass
class Counts:
    """What a batcher has done so far, in requests."""

    answered: int = 0
    refused: int = 0
    """The queue was full."""
    expired: int = 0
    """They waited too long."""
    failed: int = 0
    batches: int = 0
    busy_seconds: float = 0.0
    """Time in which the thread computed."""


@dataclass
class _Waiting(Generic[Request, Answer]):
    requests: Sequence[Request]
    expires: float
    future: Future[list[Answer]] = field(default_factory=Future)


class Batcher(Generic[Request, Answer]):
    """Answers requests in batches, in the order in which they came.

    While one batch is computed, the next one gathers. Where several callers came together last time, the next batch begins
    `gather_seconds` after the thread is free, so that more of them share one pass of the model: a pass for one history takes
    nearly as long as a pass for sixteen. A caller who is alone never waits, and no batch waits until it is full.

    Args:
        compute: answers a batch of requests, in their order. It runs in one thread only. Where it raises for a batch, each
            submission is computed alone, so that an exception reaches only the caller who caused it.
        max_batch: requests of one batch, >= 1; a submission is never divided.
        max_queue: requests that may wait, >= 1.
        timeout_seconds: a request that has waited longer is not computed any more.
        gather_seconds: how long a batch gathers while there are several callers, >= 0.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Request]], Sequence[Answer]],
        *,
        max_batch: int = 64,
        max_queue: int = 1024,
        timeout_seconds: float = 10.0,
        gather_seconds: float = 0.005,
    ) -> None:
        self.counts = Counts()
        self._compute = compute
        self._max_batch, self._max_queue, self._timeout = max_batch, max_queue, timeout_seconds
        self._waiting: deque[_Waiting[Request, Answer]] = deque()
        self._num_waiting = 0
        self._changed = threading.Condition()
        self._gather, self._is_crowded = gather_seconds, False
        self._is_closed, self._closes = False, threading.Event()
        self._thread = threading.Thread(target=self._work, name="athwe-batches", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Requests in the queue."""
        return self._num_waiting

    @property
    def is_open(self) -> bool:
        """Whether requests are taken and the thread runs."""
        return not self._is_closed and self._thread.is_alive()

    def submit(self, requests: Sequence[Request]) -> Future[list[Answer]]:
        """Queue requests that are answered together.

        Args:
            requests: at least one; all are taken or none.
        Returns: the future of their answers. It fails with WaitedTooLongError where they have waited too long, and with the
            exception of `compute` where that fails.
        Raises:
            QueueFullError: The queue has no room for them.
            ClosedError: `close` was called.
        """
        waiting: _Waiting[Request, Answer] = _Waiting(requests, time.monotonic() + self._timeout)
        with self._changed:
            if self._is_closed:
                raise ClosedError("requests", "are not taken any more: the service stops")
            if self._num_waiting + len(requests) > self._max_queue:
                self.counts.refused += len(requests)
                rule = f"must fit into the queue: {self._num_waiting} of at most {self._max_queue} wait already"
                raise QueueFullError("requests", rule, len(requests))
            self._num_waiting += len(requests)
            self._waiting.append(waiting)
            self._changed.notify()
        return waiting.future

    def close(self, *, wait_seconds: float | None = None) -> None:
        """Take no more requests, and wait until those in the queue are answered.

        Args:
            wait_seconds: at most; None = as long as it takes.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._closes.set()
        self._thread.join(wait_seconds)

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            kept = []
            for waiting in batch:
                if not waiting.future.set_running_or_notify_cancel():
                    continue
                if waiting.expires < time.monotonic():
                    self.counts.expired += len(waiting.requests)
                    error = WaitedTooLongError("request", f"has waited longer than {self._timeout:g} s")
                    waiting.future.set_exception(error)
                else:
                    kept.append(waiting)
            if kept:
                self._answer(kept)
            del batch, kept  # the futures hold answers; they must not live until the next batch

    def _next_batch(self) -> list[_Waiting[Request, Answer]] | None:
        """Submissions of up to `max_batch` requests, one at least; None when the queue is closed and empty."""
        if self._is_crowded and self._num_waiting < self._max_batch:
            self._closes.wait(self._gather)
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._is_closed)
            if not self._waiting:
                return None
            batch = [self._waiting.popleft()]
            size = len(batch[0].requests)
            while self._waiting and size + len(self._waiting[0].requests) <= self._max_batch:
                batch.append(self._waiting.popleft())
                size += len(batch[-1].requests)
            self._num_waiting -= size
            self._is_crowded = len(batch) > 1
            return batch

    def _answer(self, batch: Sequence[_Waiting[Request, Answer]]) -> None:
        requests = [request for waiting in batch for request in waiting.requests]
        began = time.perf_counter()
        try:
            answers = self._compute(requests)
            assert len(answers) == len(requests), f"expected {len(requests)} answers, got {len(answers)}"
        except BaseException as error:  # whatever it is, the callers must not wait for ever
            if len(batch) > 1:
                for waiting in batch:
                    self._answer([waiting])
            else:
                self.counts.failed += len(requests)
                batch[0].future.set_exception(error)
            return
        self.counts.answered += len(requests)
        self.counts.batches += 1
        self.counts.busy_seconds += time.perf_counter() - began
        at = 0
        for waiting in batch:
            waiting.future.set_result(list(answers[at : at + len(waiting.requests)]))
            at += len(waiting.requests)
