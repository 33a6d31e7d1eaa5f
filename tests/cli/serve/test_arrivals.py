"""Answers of another thread: each arrives once, with one wake-up for those that come together."""

import asyncio
import threading
from concurrent.futures import Future

import pytest

from athwe_cli.serve.arrivals import Arrivals


def test_every_answer_of_a_busy_thread_arrives() -> None:
    async def main() -> list[int]:
        arrivals = Arrivals()
        futures: list[Future[int]] = [Future() for _ in range(3000)]
        threads = [
            threading.Thread(target=lambda part=part: [f.set_result(n) for n, f in part])  # type: ignore[misc]
            for part in ([*enumerate(futures)][0::2], [*enumerate(futures)][1::2])
        ]
        waiting = [asyncio.create_task(arrivals.of(future)) for future in futures]
        await asyncio.sleep(0)
        for thread in threads:
            thread.start()
        found = await asyncio.wait_for(asyncio.gather(*waiting), 20)
        for thread in threads:
            thread.join()
        return found

    assert asyncio.run(main()) == list(range(3000))


def test_those_that_come_together_wake_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> tuple[list[int], int]:
        arrivals, wakes = Arrivals(), 0
        loop = asyncio.get_running_loop()
        real = loop.call_soon_threadsafe

        def counted(*arguments: object) -> object:
            nonlocal wakes
            wakes += 1
            return real(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        futures: list[Future[int]] = [Future() for _ in range(5)]
        waiting = [asyncio.create_task(arrivals.of(future)) for future in futures]
        await asyncio.sleep(0)
        for number, future in enumerate(futures):
            future.set_result(number)
        return await asyncio.gather(*waiting), wakes

    assert asyncio.run(main()) == ([0, 1, 2, 3, 4], 1)


def test_an_exception_arrives_and_who_is_cancelled_cancels() -> None:
    async def main() -> None:
        arrivals = Arrivals()
        failed: Future[int] = Future()
        failed.set_exception(ValueError("no"))
        with pytest.raises(ValueError, match="no"):
            await arrivals.of(failed)
        never: Future[int] = Future()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(arrivals.of(never), 0.01)
        assert never.cancelled()
        given_up: Future[int] = Future()
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await arrivals.of(given_up)

    asyncio.run(main())
