"""The default listener of the library: training reports through Python's logging."""

from __future__ import annotations

import logging

from athwe_core.runs.schema import EpochRecord

logger = logging.getLogger("athwe")
"""Progress has level INFO. Parts of a model that a data set has no features for have level WARNING."""


class LogListener:
    """Logs a line for each epoch at level INFO to the logger `athwe`."""

    def __init__(self) -> None:
        self._epochs = 0

    def epoch_begins(self, epoch: int, *, epochs: int, steps: int, done: int, best: float | None) -> None:
        """Log nothing; the number of epochs is kept for the line of the epoch."""
        self._epochs = epochs

    def step_ends(self, step: int, means: dict[str, float]) -> None:
        """Log nothing."""

    def epoch_ends(self, record: EpochRecord, *, is_best: bool) -> None:
        """Log losses, the validation metric that selects the best epoch, and the seconds of training."""
        losses = ", ".join(f"{name} {value:.4f}" for name, value in record["losses"].items())
        metric = record["selection_metric"]
        reached = "nothing held out"
        if record["validation"]:
            reached = f"validation {metric} {record['validation'][metric]:.4f}{' (best)' if is_best else ''}"
        seconds = f"{record['seconds']:.1f} s"
        logger.info("epoch %d of at most %d: %s; %s; %s", record["epoch"], self._epochs, losses, reached, seconds)
