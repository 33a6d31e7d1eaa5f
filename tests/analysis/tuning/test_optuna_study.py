"""Studies in a journal file: opened again, with other settings, after a kill, and what is unreadable."""

from pathlib import Path

import optuna
import pytest

from athwe_core.analysis.tuning.optuna_study import (
    JOURNAL,
    SPACE_OF,
    Settings,
    importances,
    open_study,
    requeue_interrupted,
    settled,
)
from athwe_core.errors import CheckpointError, ConfigError

SETTINGS: Settings = {"--seed": 0, f"{SPACE_OF}training.lr": "0.001 to 0.1"}
SPACE = {"training.lr": optuna.distributions.FloatDistribution(0.001, 0.1)}


def opened(folder: Path, settings: Settings = SETTINGS) -> optuna.Study:
    return open_study(folder, name="s", settings=settings, startup_trials=1, warmup_epochs=1)


def begin_trial(study: optuna.Study, lr: float) -> optuna.Trial:
    study.enqueue_trial({"training.lr": lr}, user_attrs={"params": {"training.lr": lr}})
    return study.ask(SPACE)


def test_a_study_is_begun_once_and_opened_again(tmp_path: Path) -> None:
    study = opened(tmp_path)
    study.tell(begin_trial(study, 0.01), 0.5)
    assert [trial.value for trial in settled(opened(tmp_path))] == [0.5]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (SETTINGS | {"--seed": 1}, r"^--seed must be 0 as when study 's' began, got 1\. Choose another --name"),
        (SETTINGS | {f"{SPACE_OF}training.lr": "1, 2"}, "search space of training.lr must be '0.001 to 0.1' as when"),
        (SETTINGS | {f"{SPACE_OF}model.dropout": "1, 2"}, "search space of model.dropout must be None as when"),
        (SETTINGS | {"model.name": "athwe"}, "model.name is new: study 's' was begun by an older version of athwe"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, settings: Settings, text: str) -> None:
    opened(tmp_path)
    with pytest.raises(ConfigError, match=text):
        opened(tmp_path, settings)


def test_a_trial_that_is_under_way_was_not_interrupted(tmp_path: Path) -> None:
    study = opened(tmp_path)
    trials = [begin_trial(study, lr) for lr in (0.02, 0.03)]
    assert not requeue_interrupted(study, [trial.number for trial in trials])
    assert requeue_interrupted(study, [trials[0].number])
    assert study.ask(SPACE).params == {"training.lr": 0.03}


def test_an_interrupted_trial_continues_with_its_values(tmp_path: Path) -> None:
    study = opened(tmp_path)
    assert not requeue_interrupted(study)
    begin_trial(study, 0.02)
    again = opened(tmp_path)
    assert settled(again) == []
    assert requeue_interrupted(again)
    assert again.ask(SPACE).params == {"training.lr": 0.02}


def test_a_trial_that_failed_for_a_reason_of_its_own_counts_and_does_not_continue(tmp_path: Path) -> None:
    study = opened(tmp_path)
    trial = begin_trial(study, 0.02)
    trial.set_user_attr("reason", "the loss was not finite")
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert len(settled(study)) == 1
    assert not requeue_interrupted(study)


def test_a_last_line_that_was_cut_off_is_removed(tmp_path: Path) -> None:
    study = opened(tmp_path)
    study.tell(begin_trial(study, 0.01), 0.5)
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"op_code": 4, "trial')
    assert len(settled(opened(tmp_path))) == 1
    assert (tmp_path / JOURNAL).read_text().endswith("}\n")


def test_an_unreadable_journal_is_one_line(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text("[1]\n")
    with pytest.raises(CheckpointError, match=r"journal\.log must be the journal of a study .*Choose another --name"):
        opened(tmp_path)


def test_importances_take_four_complete_trials_and_add_up_to_one(tmp_path: Path) -> None:
    study = opened(tmp_path)
    for number in range(4):
        assert importances(study) is None
        study.tell(begin_trial(study, 0.01 * (number + 1)), 0.1 * number)
    found = importances(study)
    assert found is not None
    assert sum(found.values()) == pytest.approx(1)
