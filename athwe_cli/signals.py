"""Ctrl-C and termination: recorded, so that a command can save its work and stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noted_signals(*, keep_after_error: bool = False) -> Iterator[list[int]]:
    """Record the first SIGINT or SIGTERM instead of stopping; a second one ends the process at once.

    Args:
        keep_after_error: Keep recording after an error, so that a launcher that stops the job cannot end this process
            before it has printed its error.

    Yields:
        The numbers of the signals received so far.
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
