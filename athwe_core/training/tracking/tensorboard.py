"""TensorBoard: event files in the folder of the run."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from athwe_core.runs.run import RunFolder
from athwe_core.training.tracking.tracker import Status, configuration

FOLDER = "tensorboard"


class TensorBoardTracker:
    """Writes event files to `RUN/tensorboard`; a run that is resumed adds a file.

    Args:
        run: The run.
    """

    def __init__(self, run: RunFolder) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra

        folder = run.path / FOLDER
        self._writer = SummaryWriter(str(folder))
        self._writer.add_text("configuration", f"```\n{yaml.safe_dump(configuration(run), sort_keys=False)}```")
        self.where = f"TensorBoard: tensorboard --logdir {folder}"

    def log(self, values: Mapping[str, float], *, epoch: int) -> None:
        """Write the numbers of an epoch to the disk."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self, results: Mapping[str, float], *, epoch: int, status: Status) -> None:
        """Write the results; the status is not recorded."""
        self.log(results, epoch=epoch)
        self._writer.close()
