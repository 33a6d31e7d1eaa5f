"""Answers on their way from the thread that computes to the event loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Any


class Arrivals:
    """Waits for answers of another thread, with one wake-up of the loop for all that come at the same time.

    `asyncio.wrap_future` wakes the loop for each of them, and each time is a system call in the thread that computes.
    """

    def __init__(self) -> None:
        self._done: list[tuple[asyncio.Future[Any], Future[Any]]] = []
        self._lock = threading.Lock()

    async def of(self, future: Future[Any]) -> Any:
        """The result of a future, or its exception; a caller who is cancelled cancels it."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[Any] = loop.create_future()

        def arrived(done: Future[Any]) -> None:
            with self._lock:
                self._done.append((mine, done))
                is_first = len(self._done) == 1
            if is_first:  # otherwise the loop is woken already, and takes all that is there
                loop.call_soon_threadsafe(self._deliver)

        future.add_done_callback(arrived)
        try:
            return await mine
        except asyncio.CancelledError:
            future.cancel()
            raise

    def _deliver(self) -> None:
        with self._lock:
            arrived, self._done = self._done, []
        for mine, done in arrived:
            if mine.done():
                continue
            if done.cancelled():
                mine.cancel()
            elif (error := done.exception()) is not None:
                mine.set_exception(error)
            else:
                mine.set_result(done.result())
