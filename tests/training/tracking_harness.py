"""What training would report: records of epochs and the results of a run of two."""

from collections.abc import Callable
from typing import Any

import pytest

from athwe_core.training.tracking import listener

RESULTS = {
    "best_epoch": 1,
    "epochs": 2,
    "validation": {"ndcg@10": 0.5},
    "test": {"ndcg@10": 0.25},
    "seconds_per_epoch": 3.0,
}


class Silent:
    """A listener that does nothing."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_arguments, **_named: None


def record(epoch: int) -> Any:
    """The record of an epoch: loss 5 / epoch, metric epoch / 8."""
    validation, losses = {"ndcg@10": epoch / 8}, {"ce": 5 / epoch, "total": 5 / epoch}
    seconds = {"seconds": 3.0, "validation_seconds": 1.0}
    return {"epoch": epoch, "steps": 4, "losses": losses, "validation": validation, "gradient_norm": 2.0, **seconds}


class FakeTracker:
    """A tracker that notes what it is told, and fails at an epoch where it is to."""

    where = "in memory"
    fails_at = 0

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def log(self, values: dict[str, float], *, epoch: int) -> None:
        if epoch == self.fails_at:
            raise OSError("the server is gone")
        self.calls.append((epoch, values))

    def close(self, results: dict[str, float], *, epoch: int, status: str) -> None:
        self.calls.append((status, epoch, results))


def use_fake_trackers(monkeypatch: pytest.MonkeyPatch) -> list[FakeTracker]:
    """Put fake trackers in the place of all; those that are made appear in the list."""
    made: list[FakeTracker] = []

    def make(_run: object) -> FakeTracker:
        made.append(FakeTracker())
        return made[-1]

    monkeypatch.setattr(listener, "_CLASSES", dict.fromkeys(listener.TRACKERS, make))
    return made
