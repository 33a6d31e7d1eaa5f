"""Weights & Biases: a run of the project `athwe`, online or offline as WANDB_MODE says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from athwe_core.runs.run import RunFolder
from athwe_core.training.tracking.tracker import Status, configuration, run_id

PROJECT = "athwe"
"""Name of the project, unless WANDB_PROJECT is set."""
EXIT_CODES = {"finished": 0, "interrupted": 130, "failed": 1}


class WandbTracker:
    """Logs to Weights & Biases; its files are in `RUN/wandb`. A run that is resumed continues under its id.

    Args:
        run: The run.
    """

    def __init__(self, run: RunFolder) -> None:
        import wandb  # noqa: PLC0415 - an extra

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run_id(run),
            name=run.name,
            resume="allow",
            config=configuration(run),
            dir=str(run.path),
            settings=wandb.Settings(console="off", silent=True),
        )
        folder = Path(self._run.dir).parent
        self.where = (
            f"Weights & Biases: {f'offline, to send it: wandb sync {folder}' if self._run.offline else self._run.url}"
        )

    def log(self, values: Mapping[str, float], *, epoch: int) -> None:
        """Log the numbers of an epoch, with the epoch as their step."""
        self._run.log(dict(values), step=epoch)

    def close(self, results: Mapping[str, float], *, epoch: int, status: Status) -> None:
        """Put the results into the summary and end the run."""
        self._run.summary.update(dict(results))
        self._run.finish(exit_code=EXIT_CODES[status])
