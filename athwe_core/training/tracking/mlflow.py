"""MLflow: a run of the experiment `athwe`, on the server or in the store that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from athwe_core.runs.run import RunFolder
from athwe_core.training.tracking.tracker import Status, configuration, run_id

EXPERIMENT = "athwe"
"""Name of the experiment, unless MLFLOW_EXPERIMENT_NAME is set."""
RUN_TAG = "athwe.run_id"
PARAMS_AT_ONCE, MAX_PARAM_LENGTH = 100, 500
"""Limits of MLflow's stores."""
STATUSES = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MlflowTracker:
    """Logs to MLflow through a client of its own, so that no active run of the process is touched.

    A run that is resumed continues its MLflow run, which it finds by a tag.

    Args:
        run: The run.
    """

    def __init__(self, run: RunFolder) -> None:
        from mlflow import MlflowClient  # noqa: PLC0415 - an extra

        self._client, name = MlflowClient(), os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment is not None else self._client.create_experiment(name)
        own = run_id(run)
        found = self._client.search_runs([number], f"tags.`{RUN_TAG}` = '{own}'")
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            self._run = self._client.create_run(number, tags={RUN_TAG: own}, run_name=run.name).info.run_id
            self._log_params(configuration(run))
        self.where = f"MLflow: run {self._run} of experiment {name} in {self._client.tracking_uri}"

    def log(self, values: Mapping[str, float], *, epoch: int) -> None:
        """Log the numbers of an epoch as metrics, with the epoch as their step."""
        from mlflow.entities import Metric  # noqa: PLC0415

        now = int(time.time() * 1000)
        self._client.log_batch(self._run, metrics=[Metric(name, value, now, epoch) for name, value in values.items()])

    def close(self, results: Mapping[str, float], *, epoch: int, status: Status) -> None:
        """Log the results and end the MLflow run."""
        if results:
            self.log(results, epoch=epoch)
        self._client.set_terminated(self._run, STATUSES[status])

    def _log_params(self, params: Mapping[str, object]) -> None:
        from mlflow.entities import Param  # noqa: PLC0415

        pairs = [Param(name, str(value)[:MAX_PARAM_LENGTH]) for name, value in params.items()]
        for start in range(0, len(pairs), PARAMS_AT_ONCE):
            self._client.log_batch(self._run, params=pairs[start : start + PARAMS_AT_ONCE])
