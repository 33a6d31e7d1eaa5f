"""What a request may ask for, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Upper bounds; a request beyond one is refused.

    Attributes:
        k: items wanted for a history.
        histories: histories, or items of `/similar`, in one request.
        history: items of one history.
        body_bytes: of a request.
        body_seconds: from the head of a request to the end of its body.
        wait_seconds: in the queue.
    """

    k: int = 1000
    histories: int = 256
    history: int = 1000
    body_bytes: int = 2**20
    body_seconds: float = 10.0
    wait_seconds: float = 10.0
