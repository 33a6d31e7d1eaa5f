"""athwe as a library inside another program: event loops, workers that may have no children, and forked processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from athwe_core.errors import AthweError

POLARS_SECONDS = 5.0
"""A two-row sum takes milliseconds; so long a wait means that it never ends."""
_IMPORTED_BY = os.getpid()
_working: set[int] = set()
"""Process numbers in which polars has answered."""
T = TypeVar("T")


def run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where an event loop runs already, as in a notebook.

    In that case it runs in a loop of its own in another thread. An interrupt cancels it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_serve, args=(loop,), name="athwe-download", daemon=True)
    thread.start()
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    finally:
        future.cancel()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped; then let what was cancelled clean up."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def can_have_children() -> bool:
    """Whether this process can start workers of its own.

    A daemonic worker (of `multiprocessing.Pool`, Celery, Airflow or Dask) may have none. A script that is read from standard
    input has no file that a child could import.
    """
    if multiprocessing.current_process().daemon:
        return False
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    return getattr(main, "__spec__", None) is not None or path is None or Path(path).is_file()


def require_polars() -> None:
    """Check that polars works in this process.

    A process that was forked after its parent used polars has none of polars' threads, and would wait for them for ever.
    Raises:
        AthweError: It is such a process.
    """
    if os.getpid() in _working:
        return
    if _is_forked() and not _polars_answers():
        raise AthweError(
            "this process",
            "was forked after polars was used, so that polars would never answer in it",
            remedy="Start workers with multiprocessing.get_context('spawn')",
        )
    _working.add(os.getpid())


def _is_forked() -> bool:
    """Whether this process has been forked since this module was imported, or was started by `fork`."""
    is_child = multiprocessing.parent_process() is not None
    return os.getpid() != _IMPORTED_BY or (is_child and multiprocessing.get_start_method(allow_none=True) == "fork")


def _polars_answers() -> bool:
    answered = threading.Event()

    def ask() -> None:
        import polars as pl  # noqa: PLC0415 - training does without

        pl.DataFrame({"a": [1, 2], "b": [1, 2]}).select(pl.col("a").sum(), pl.col("b").sum())
        answered.set()

    threading.Thread(target=ask, name="athwe-asks-polars", daemon=True).start()
    return answered.wait(POLARS_SECONDS)
