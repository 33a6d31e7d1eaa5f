"""Warning filters for a moment: they belong to the whole process, so only one thread at a time changes them."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

_lock = threading.RLock()


@contextmanager
def warnings_as(action: Literal["error", "ignore"], message: str = "") -> Iterator[None]:
    """Raise or ignore warnings within the block.

    `warnings.catch_warnings` alone would restore the filters of another thread if two blocks overlapped, and so leave the
    process with them.

    Args:
        action: `error` or `ignore`.
        message: regular expression for the start of the warnings that are meant; empty = all.
    Yields: once; the filters of before hold again afterwards.
    """
    with _lock, warnings.catch_warnings():
        warnings.filterwarnings(action, message)
        yield
