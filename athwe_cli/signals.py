"""Ctrl-C and termination: noted once, so that what is under way can be saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noted_signals(*, keep_after_error: bool = False) -> Iterator[list[int]]:
    """Signals received: the first SIGINT or SIGTERM is noted, a second one ends the process at once.

    Args:
        keep_after_error: after an error they stay noted, so that a launcher that ends the job does not end this process
            before it has said why.
    """
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    is_failing = True
    try:
        yield received
        is_failing = False
    finally:
        if not (is_failing and keep_after_error):
            for number, handler in before.items():
                signal.signal(number, handler)
