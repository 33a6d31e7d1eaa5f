"""MLflow in a folder of the test's own, read back with its client. A database would take ten seconds to be made."""

from collections.abc import Callable
from pathlib import Path

import pytest

from athwe_core.runs.run import RunFolder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    uri = (tmp_path / "mlflow").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.chdir(tmp_path)
    return uri


def test_a_resumed_run_is_one_mlflow_run_with_metrics_parameters_and_status(
    run: RunFolder, train: Callable[..., list[str]], store: str
) -> None:
    from mlflow import MlflowClient

    notes = train("mlflow", range(1, 2), finished=False)
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("athwe")
    (found,) = client.search_runs([experiment.experiment_id])
    assert notes == [f"MLflow: run {found.info.run_id} of experiment athwe in {store}"]
    assert (found.info.status, found.info.run_name) == ("KILLED", run.name)
    train("mlflow", range(2, 3), finished=True)
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    history = client.get_metric_history(found.info.run_id, "validation/ndcg_at_10")
    assert [(each.step, each.value) for each in history] == [(1, 0.125), (2, 0.25)]
    assert found.data.metrics["best_test/ndcg_at_10"] == 0.25
    assert found.data.params["model.hidden_size"] == "8"
    assert found.data.params["data.version"] == run.manifest()["data"]["version"]
