"""What trackers get, what happens when one fails, and which names are refused."""

import importlib.util
from typing import Any

import pytest
from tracking_harness import RESULTS, FakeTracker, Silent, record, use_fake_trackers

from athwe_core.errors import ConfigError, DataError
from athwe_core.runs.find import FINISHED, RunFolder
from athwe_core.training.tracking import listener as module
from athwe_core.training.tracking.listener import require_trackers, tracked

VALUES = {"loss/ce": 5.0, "loss/total": 5.0, "validation/ndcg_at_10": 0.125, "gradient_norm": 2.0, "seconds": 3.0}


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeTracker]:
    return use_fake_trackers(monkeypatch)


class Noted(Silent):
    """A listener that notes its epochs."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def epoch_ends(self, ended: Any, *, is_best: bool) -> None:
        self.epochs.append(ended["epoch"] * (2 * is_best - 1))


def test_the_listener_and_every_tracker_get_every_epoch_and_the_results(
    run: RunFolder, made: list[FakeTracker]
) -> None:
    own, notes = Noted(), []  # type: ignore[var-annotated]
    with tracked(own, ["tensorboard", "mlflow"], run, notify=notes.append) as listener:
        listener.epoch_ends(record(1), is_best=True)
        listener.epoch_ends(record(2), is_best=False)
        run.update_manifest(status=FINISHED, results=RESULTS)
    assert own.epochs == [1, -2]
    results = {"best_validation/ndcg_at_10": 0.5, "best_test/ndcg_at_10": 0.25, "best_epoch": 1}
    for fake in made:
        assert fake.calls[0] == (1, VALUES)
        assert fake.calls[1][0] == 2
        assert fake.calls[2] == ("finished", 2, results)
    assert notes == ["in memory", "in memory"]


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "interrupted"), (DataError("x", "y"), "failed"), (None, "interrupted")]
)
def test_a_run_that_does_not_finish_ends_without_results(
    run: RunFolder, made: list[FakeTracker], error: Any, status: str
) -> None:
    try:
        with tracked(Silent(), ["mlflow"], run) as listener:
            listener.epoch_ends(record(1), is_best=True)
            if error is not None:
                raise error
    except (KeyboardInterrupt, DataError):
        assert error is not None
    assert made[0].calls[1:] == [(status, 1, {})]


def test_a_tracker_that_fails_is_left_out_and_training_goes_on(
    run: RunFolder, made: list[FakeTracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, notes = Noted(), []  # type: ignore[var-annotated]
    with tracked(own, ["tensorboard", "mlflow"], run, notify=notes.append) as listener:
        monkeypatch.setattr(made[1], "fails_at", 2)
        for epoch in (1, 2, 3):
            listener.epoch_ends(record(epoch), is_best=True)
    assert own.epochs == [1, 2, 3]
    assert [call[0] for call in made[0].calls] == [1, 2, 3, "interrupted"]
    assert [call[0] for call in made[1].calls] == [1]
    assert notes[2:] == ["--track mlflow failed and is left out from here on: the server is gone"]


def test_without_trackers_the_listener_stays_what_it_is(run: RunFolder) -> None:
    own = Noted()
    with tracked(own, [], run) as listener:
        assert listener is own


def test_a_tracker_that_cannot_start_is_one_error(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_run: object) -> FakeTracker:
        raise RuntimeError("no server at http://x\nand more")

    monkeypatch.setattr(module, "_CLASSES", {"mlflow": refuse})
    with (
        pytest.raises(ConfigError, match=r"mlflow cannot start \(no server at http://x\)\. Check MLFLOW_TRACKING_URI"),
        tracked(Silent(), ["mlflow"], run),
    ):
        pass


def test_names_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    require_trackers(["tensorboard", "mlflow", "wandb"])
    with pytest.raises(ConfigError, match="--track must be tensorboard, mlflow or wandb, got 'neptune'"):
        require_trackers(["neptune"])
    with pytest.raises(ConfigError, match="must name each tracker once, got 'wandb, wandb'"):
        require_trackers(["wandb", "wandb"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"which is not installed\. Run: pip install 'athwe\[wandb\]'"):
        require_trackers(["wandb"])
