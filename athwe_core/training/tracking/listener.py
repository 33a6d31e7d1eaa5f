"""A listener that passes on what training reports, and records each epoch with trackers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from athwe_core.errors import ConfigError, require
from athwe_core.messages import reason
from athwe_core.runs.run import FINISHED, TRAINED, RunFolder
from athwe_core.runs.schema import EpochRecord
from athwe_core.training.loop import Listener
from athwe_core.training.tracking.mlflow import MlflowTracker
from athwe_core.training.tracking.tensorboard import TensorBoardTracker
from athwe_core.training.tracking.tracker import Status, Tracker, epoch_values, result_values
from athwe_core.training.tracking.wandb import WandbTracker

_CLASSES: dict[str, Callable[[RunFolder], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "mlflow": MlflowTracker,
    "wandb": WandbTracker,
}
TRACKERS = tuple(_CLASSES)
"""Names of the trackers, of their libraries and of the extras that install them."""
_REMEDIES = {
    "tensorboard": "Check that the folder of the run can be written to",
    "mlflow": "Check MLFLOW_TRACKING_URI",
    "wandb": "Log in with: wandb login, or work offline: WANDB_MODE=offline",
}


class TrackingListener:
    """Calls a listener as training does, and gives each epoch to the trackers.

    A tracker that fails is left out from then on, with a message: training goes on.

    Args:
        listener: Called with everything.
        trackers: By name.
        notify: Called with one sentence for a tracker that fails.
    """

    def __init__(self, listener: Listener, trackers: dict[str, Tracker], notify: Callable[[str], None]) -> None:
        self._listener, self._trackers, self._notify = listener, dict(trackers), notify
        self._epoch = 0

    def epoch_begins(self, epoch: int, *, epochs: int, steps: int, done: int, best: float | None) -> None:
        """Pass it on."""
        self._listener.epoch_begins(epoch, epochs=epochs, steps=steps, done=done, best=best)

    def step_ends(self, step: int, means: dict[str, float]) -> None:
        """Pass it on."""
        self._listener.step_ends(step, means)

    def epoch_ends(self, record: EpochRecord, *, is_best: bool) -> None:
        """Record the epoch, and pass it on."""
        self._epoch = record["epoch"]
        values = epoch_values(record)
        self._each(lambda tracker: tracker.log(values, epoch=record["epoch"]))
        self._listener.epoch_ends(record, is_best=is_best)

    def close(self, results: Mapping[str, Any], status: Status) -> None:
        """Record the results of a finished run, empty for any other, and end the trackers."""
        values, epoch = result_values(results), results.get("epochs", self._epoch)
        self._each(lambda tracker: tracker.close(values, epoch=epoch, status=status))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # of a library, a disk or a server: none of them is worth a training
                del self._trackers[name]
                self._notify(f"--track {name} failed and is left out from here on: {reason(error)}")


def require_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError where a tracker is unknown, named twice, or its library is not installed."""
    for name in names:
        require(name in TRACKERS, "--track", f"must be {', '.join(TRACKERS[:-1])} or {TRACKERS[-1]}", name)
        if importlib.util.find_spec(name) is None:
            rule = f"needs the library {name}, which is not installed"
            raise ConfigError(f"--track {name}", rule, remedy=f"Run: pip install 'athwe[{name}]'")
    require(len(set(names)) == len(names), "--track", "must name each tracker once", ", ".join(names))


@contextmanager
def tracked(
    listener: Listener, names: Sequence[str], run: RunFolder, *, notify: Callable[[str], None] = lambda _: None
) -> Iterator[Listener]:
    """Give a listener that also records a run's epochs with trackers; at the end they get its results and are closed.

    Args:
        listener: Called as without trackers.
        names: Of `TRACKERS`; none gives the listener itself.
        run: The run that is being trained.
        notify: Called with one sentence for each tracker that starts or fails.
    Raises:
        ConfigError: See `require_trackers`, or a tracker cannot start.
    """
    if not names:
        yield listener
        return
    require_trackers(names)
    trackers = {name: _opened(name, run) for name in names}
    for tracker in trackers.values():
        notify(tracker.where)
    tracking = TrackingListener(listener, trackers, notify)
    try:
        yield tracking
    except BaseException as error:
        tracking.close({}, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    manifest = run.manifest()
    is_finished = manifest["status"] in (FINISHED, TRAINED)
    tracking.close(manifest["results"] if is_finished else {}, "finished" if is_finished else "interrupted")


def _opened(name: str, run: RunFolder) -> Tracker:
    try:
        return _CLASSES[name](run)
    except Exception as error:  # the libraries raise dozens of kinds
        raise ConfigError(f"--track {name}", f"cannot start ({reason(error)})", remedy=_REMEDIES[name]) from None
