"""Progress of a ranking that takes minutes, and a way to stop it."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS_BETWEEN = 60.0


class StopRanking(Exception):  # noqa: N818 - a request of the user, not an error
    """The ranking stops on request."""


class RankingProgress:
    """The progress callback of `rank_users`: one sentence per minute, so none for a ranking of less than a minute.

    Args:
        split: Name of the split, for the sentence.
        notify: Receives the sentence.
        should_stop: Called after every block of users; True stops the ranking.
    """

    def __init__(
        self, split: str, notify: Callable[[str], None], should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        self._split, self._notify, self._should_stop = split, notify, should_stop
        self._began = self._last_sentence = time.monotonic()

    def __call__(self, done: int, users: int) -> None:
        """Report that `done` of `users` users are ranked.

        Raises:
            StopRanking: `should_stop` returns True before all users are ranked.
        """
        if done < users and self._should_stop():
            raise StopRanking
        now = time.monotonic()
        if done < users and now - self._last_sentence >= SECONDS_BETWEEN:
            self._last_sentence = now
            left = (now - self._began) / done * (users - done)
            self._notify(f"{self._split}: {done:,} of {users:,} users ranked, {left:,.0f} s left")
