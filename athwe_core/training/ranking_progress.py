"""How far a ranking is, and its end where that is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS_BETWEEN = 60.0


class StopRanking(Exception):  # noqa: N818 - no error: what was asked for
    """The ranking was asked to stop."""


class RankingProgress:
    """Hears `rank_users`: a sentence a minute, so that a ranking of less than that says nothing.

    Args:
        split: what is ranked, as in the sentence.
        notify: called with the sentence.
        should_stop: asked after every block; True ends the ranking with StopRanking.
    """

    def __init__(
        self, split: str, notify: Callable[[str], None], should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        self._split, self._notify, self._should_stop = split, notify, should_stop
        self._began = self._said = time.monotonic()

    def __call__(self, done: int, users: int) -> None:
        """`done` of the `users` are ranked."""
        if done < users and self._should_stop():
            raise StopRanking
        now = time.monotonic()
        if done < users and now - self._said >= SECONDS_BETWEEN:
            self._said = now
            left = (now - self._began) / done * (users - done)
            self._notify(f"{self._split}: {done:,} of {users:,} users ranked, {left:,.0f} s left")
