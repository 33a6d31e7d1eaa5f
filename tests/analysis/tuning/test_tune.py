"""Tuning on a small demo data set: what a study leaves, that it goes on after anything, and that it sees no test score."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from tracking_harness import use_fake_trackers

from athwe_core.analysis.child_process import Message
from athwe_core.analysis.experiments.launch import Messages
from athwe_core.analysis.experiments.run_one import train_run
from athwe_core.analysis.tuning import trials as trials_module
from athwe_core.analysis.tuning.search_space import parse_space
from athwe_core.analysis.tuning.tune import Tuning, tune
from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset, PrepareOptions, prepare
from athwe_core.errors import CheckpointError, ConfigError, NonFiniteLossError
from athwe_core.locks import held
from athwe_core.models.registry import config_from_tree, replace_in
from athwe_core.runs.find import RunFolder, create_run

MakeTuning = Callable[..., Tuning]
SPACE = {
    "training.lr": {"low": 0.001, "high": 0.1, "log": True},
    "training.patience": {"low": 1, "high": 3},
    "model.dropout": {"choices": [0.0, 0.1]},
}
BASE = ("training.batch_targets=250", "training.epochs=1", "model.num_layers=1", "training.device=cpu")


class BreakDownError(Exception):
    """Stands for the end of the process."""


class Ears:
    """A listener that remembers, and breaks off or asks to stop where it is told to."""

    def __init__(self, *, stop_after: int = 10**9, die_at: tuple[str, int] | None = None) -> None:
        self.stop_after, self.die_at = stop_after, die_at
        self.on_progress: list[tuple[str, int]] = []
        self.states: list[str] = []
        self.notes: list[str] = []

    def epoch_begins(self, epoch: int, *, epochs: int, steps: int, done: int, best: float | None) -> None:
        self.hear("epoch_begins")

    def step_ends(self, step: int, means: dict[str, float]) -> None:
        self.hear("step_ends")

    def epoch_ends(self, record: dict[str, Any], *, is_best: bool) -> None:
        self.hear("epoch_ends")

    def trial_begins(self, number: int, *, trials: int, values: dict[str, Any], run: str) -> None:
        self.hear("trial_begins")

    def trial_ends(self, number: int, *, state: str, value: float | None) -> None:
        assert (value is not None) == (state == "complete")
        self.states.append(state)
        self.hear("trial_ends")

    def note(self, text: str) -> None:
        self.notes.append(text)

    def hear(self, what: str) -> None:
        self.on_progress.append((what, self.count(what) + 1))
        if self.on_progress[-1] == self.die_at:
            raise BreakDownError

    def count(self, what: str) -> int:
        return sum(on_progress == what for on_progress, _ in self.on_progress)

    def should_stop(self) -> bool:
        return self.count("step_ends") >= self.stop_after


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    folder = tmp_path_factory.mktemp("prepared")
    options = PrepareOptions(demo_users=100, demo_items=100)
    return prepare("demo", data_dir=folder, prepared_dir=folder, options=options)


@pytest.fixture
def make_tuning(tmp_path: Path, prepared: PreparedDataset, make_config: Callable[..., Config]) -> MakeTuning:
    def make(*overrides: str, space: dict[str, Any] = SPACE, name: str = "s", **settings: Any) -> Tuning:
        base = make_config("hm4sr", *BASE, *overrides)
        settings = {"seed": 0, **settings}
        return Tuning(
            space=parse_space(space, base),
            base=base,
            prepared=prepared,
            runs_dir=tmp_path / "runs",
            preset="hm4sr",
            name=name,
            **settings,
        )

    return make


def run(tuning: Tuning, trials: int, ears: Ears | None = None, track: Sequence[str] = ()) -> dict[str, Any] | None:
    ears = ears or Ears()
    return tune(tuning, trials=trials, command="athwe tune", listener=ears, should_stop=ears.should_stop, track=track)


def finished(tuning: Tuning, trials: int, ears: Ears | None = None, track: Sequence[str] = ()) -> dict[str, Any]:
    result = run(tuning, trials, ears, track)
    assert result is not None
    return result


def facts(result: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(trial["number"], trial["state"], trial["value"], trial["values"]) for trial in result["trials"]]


def scripted(*proposals: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """Proposals in order of the trials' numbers."""
    return lambda study, tuning, number, under_way: proposals[number]


def test_a_study_leaves_runs_result_and_best_configuration(
    make_tuning: MakeTuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    trackers = use_fake_trackers(monkeypatch)
    tuning = make_tuning()
    result = finished(tuning, 4, track=["mlflow"])
    assert [tracker.calls[-1][0] for tracker in trackers] == ["finished"] * 4
    assert json.loads((tuning.folder / "result.json").read_text()) == result
    assert [trial["run"] for trial in result["trials"]] == [f"demo/hm4sr/tune-s-{number}" for number in range(4)]
    for trial in result["trials"]:
        found = RunFolder(tuning.runs_dir / trial["run"])
        assert found.manifest()["status"] == "finished"
        assert found.config() == replace_in(tuning.base, [f"{k}={v!r}" for k, v in trial["values"].items()])
        assert trial["value"] == max(record["validation"]["ndcg@20"] for record in found.metrics())
    best = result["best"]
    assert best["number"] == max(result["trials"], key=lambda trial: trial["value"])["number"]
    results = RunFolder(tuning.runs_dir / best["run"]).manifest()["results"]
    assert (best["test"], best["validation"]) == (results["test"], results["validation"])
    chosen = config_from_tree(yaml.safe_load((tuning.folder / "best.yaml").read_text()))
    assert chosen == RunFolder(tuning.runs_dir / best["run"]).config()
    assert set(result["importance"]) == set(SPACE)
    assert sum(result["importance"].values()) == pytest.approx(1)
    assert result["combinations"] is None


def test_more_trials_go_on_with_the_study(make_tuning: MakeTuning, uninterrupted: list[tuple[Any, ...]]) -> None:
    tuning, ears = make_tuning(), Ears()
    assert finished(tuning, 1)["importance"] is None
    assert facts(finished(tuning, 2, ears)) == uninterrupted
    assert len(ears.states) == 1
    assert facts(finished(tuning, 1, nobody := Ears())) == uninterrupted
    assert nobody.on_progress == []


@pytest.mark.parametrize(
    "ears",
    [
        Ears(stop_after=1),
        Ears(stop_after=3),
        Ears(die_at=("trial_begins", 2)),
        Ears(die_at=("step_ends", 3)),
        Ears(die_at=("epoch_ends", 1)),
        Ears(die_at=("trial_ends", 1)),
    ],
    ids=lambda ears: f"stop-{ears.stop_after}" if ears.die_at is None else "-".join(map(str, ears.die_at)),
)
def test_a_study_broken_off_anywhere_ends_as_if_it_had_not_been(
    ears: Ears, make_tuning: MakeTuning, uninterrupted: list[tuple[Any, ...]]
) -> None:
    tuning = make_tuning()
    if ears.die_at is None:
        assert run(tuning, 2, ears) is None
    else:
        with pytest.raises(BreakDownError):
            run(tuning, 2, ears)
    result = finished(tuning, 2)
    assert facts(result) == uninterrupted
    assert len(list((tuning.runs_dir / "demo" / "hm4sr").iterdir())) == 2


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, prepared: PreparedDataset, make_config: Callable[..., Config]
) -> list[tuple[Any, ...]]:
    base = make_config("hm4sr", *BASE)
    tuning = Tuning(
        space=parse_space(SPACE, base),
        base=base,
        prepared=prepared,
        runs_dir=tmp_path_factory.mktemp("runs"),
        preset="hm4sr",
        name="s",
        seed=0,
    )
    return facts(finished(tuning, 2))


@pytest.mark.parametrize(
    ("method", "when"), [("enqueue_trial", "after"), ("ask", "after"), ("tell", "before"), ("tell", "after")]
)
def test_a_process_killed_beside_a_step_of_the_study_loses_and_doubles_nothing(
    method: str,
    when: str,
    make_tuning: MakeTuning,
    monkeypatch: pytest.MonkeyPatch,
    uninterrupted: list[tuple[Any, ...]],
) -> None:
    import optuna

    real, calls = getattr(optuna.Study, method), []

    def killed(study: Any, *arguments: Any, **named: Any) -> Any:
        if study.study_name == "s":
            calls.append(1)
        if len(calls) == 2 and when == "before":
            raise BreakDownError
        found = real(study, *arguments, **named)
        if len(calls) == 2:
            raise BreakDownError
        return found

    tuning = make_tuning()
    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, method, killed)
        with pytest.raises(BreakDownError):
            run(tuning, 2)
    assert facts(finished(tuning, 2)) == uninterrupted


def test_a_damaged_checkpoint_of_a_trial_is_told(make_tuning: MakeTuning) -> None:
    tuning, ears = make_tuning("training.epochs=2"), Ears()
    with pytest.raises(BreakDownError):
        run(tuning, 1, Ears(die_at=("epoch_ends", 2)))
    (tuning.run(0).last / "weights.safetensors").write_bytes(b"")
    finished(tuning, 1, ears)
    assert len(ears.notes) == 1
    assert "going on from the one before" in ears.notes[0]


class TestNoTestScoreButTheChosenOnes:
    SENTINEL = 0.98765

    @pytest.fixture
    def poisoned(self, make_tuning: MakeTuning) -> tuple[Tuning, dict[str, Any]]:
        """A study whose other trials look far better on test."""
        tuning = make_tuning()
        before = finished(tuning, 2)
        for trial in before["trials"]:
            if trial["number"] != before["best"]["number"]:
                found = RunFolder(tuning.runs_dir / trial["run"])
                results = found.manifest()["results"]
                results["test"] = dict.fromkeys(results["test"], self.SENTINEL)
                found.update_manifest(results=results)
                found.per_user.unlink()
        return tuning, before

    def test_they_change_nothing_and_appear_nowhere(self, poisoned: tuple[Tuning, dict[str, Any]]) -> None:
        tuning, before = poisoned
        result = finished(tuning, 3)
        assert facts(result)[:2] == facts(before)
        assert str(self.SENTINEL) not in json.dumps(result)
        assert all("test" not in trial for trial in result["trials"])
        chosen = max(result["trials"], key=lambda trial: trial["value"])
        assert result["best"]["number"] == chosen["number"]

    def test_the_journal_holds_none(self, poisoned: tuple[Tuning, dict[str, Any]]) -> None:
        tuning, before = poisoned
        journal = (tuning.folder / "journal.log").read_text()
        assert str(before["trials"][0]["value"]) in journal
        long = [str(value) for metric, value in before["best"]["test"].items() if not metric.startswith("hit")]
        assert not any(value in journal for value in long)


class TestPruning:
    LR = {"training.lr": {"choices": [0.03, 1e-9, 2e-9, 3e-9]}}  # noqa: RUF012

    @pytest.fixture
    def tuning(self, make_tuning: MakeTuning, monkeypatch: pytest.MonkeyPatch) -> Tuning:
        monkeypatch.setattr(
            trials_module, "_propose", scripted(*({"training.lr": lr} for lr in self.LR["training.lr"]["choices"]))
        )
        return make_tuning("training.epochs=3", space=self.LR, startup_trials=1, warmup_epochs=0)

    def test_a_trial_below_the_median_ends_early_and_keeps_its_run(self, tuning: Tuning) -> None:
        ears = Ears()
        result = finished(tuning, 3, ears)
        assert ears.states == ["complete", "pruned", "pruned"]
        assert [trial["epochs"] for trial in result["trials"]] == [3, 1, 1]
        assert result["best"]["number"] == 0
        pruned = RunFolder(tuning.runs_dir / "demo" / "hm4sr" / "tune-s-1")
        assert pruned.manifest()["status"] == "pruned"
        assert len(pruned.metrics()) == 1
        assert pruned.best.exists()

    def test_killed_while_being_pruned_it_is_pruned_without_another_step(
        self, tuning: Tuning, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = RunFolder.update_manifest

        def killed(run: RunFolder, **facts: Any) -> None:
            if facts.get("status") == "pruned":
                raise BreakDownError
            real(run, **facts)

        with monkeypatch.context() as patched:
            patched.setattr(RunFolder, "update_manifest", killed)
            with pytest.raises(BreakDownError):
                run(tuning, 2)
        ears = Ears()
        assert [trial["state"] for trial in finished(tuning, 2, ears)["trials"]] == ["complete", "pruned"]
        assert ears.count("step_ends") == 0

    def test_not_in_the_warm_up_nor_after_the_last_epoch(self, tuning: Tuning, make_tuning: MakeTuning) -> None:
        later = make_tuning("training.epochs=3", space=self.LR, name="w", startup_trials=1, warmup_epochs=1)
        assert [trial["epochs"] for trial in finished(later, 2)["trials"]] == [3, 2]
        single = make_tuning("training.epochs=1", space=self.LR, name="e", startup_trials=1, warmup_epochs=0)
        assert [trial["state"] for trial in finished(single, 2)["trials"]] == ["complete", "complete"]


def test_a_loss_that_is_not_finite_is_a_failed_trial_that_counts(
    make_tuning: MakeTuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"training.lr": {"choices": [1e30, 0.01]}}
    monkeypatch.setattr(trials_module, "_propose", scripted({"training.lr": 1e30}, {"training.lr": 0.01}))
    tuning = make_tuning("training.epochs=2", space=space)
    with pytest.raises(
        NonFiniteLossError, match=r"a trial of study s must be complete, got \['loss term .*training.lr"
    ):
        run(tuning, 1)
    result = finished(tuning, 2)
    assert [trial["state"] for trial in result["trials"]] == ["failed", "complete"]
    assert "must be finite" in result["trials"][0]["reason"]
    assert result["best"]["number"] == 1


def test_no_combination_is_tried_twice_and_the_study_ends_when_none_is_left(make_tuning: MakeTuning) -> None:
    space = {"model.dropout": {"choices": [0.0, 0.1]}, "model.num_heads": {"choices": [2, 8]}}
    result = finished(make_tuning(space=space), 9)
    tried = [tuple(trial["values"].values()) for trial in result["trials"]]
    assert sorted(tried) == [(0.0, 2), (0.0, 8), (0.1, 2), (0.1, 8)]
    assert result["notes"] == ["the study ends after 4 trials: no untried combination is left"]


def test_values_that_do_not_go_together_are_not_tried(make_tuning: MakeTuning) -> None:
    space = {"model.hidden_size": {"choices": [4, 6]}, "model.num_heads": {"choices": [2, 4]}}
    result = finished(make_tuning(space=space), 9)
    tried = [tuple(trial["values"].values()) for trial in result["trials"]]
    assert sorted(tried) == [(4, 2), (4, 4), (6, 2)]


def test_lists_are_values_too(make_tuning: MakeTuning) -> None:
    result = finished(make_tuning(space={"model.modalities": {"choices": [["id"], ["id", "text"]]}}), 2)
    assert sorted(trial["values"]["model.modalities"] for trial in result["trials"]) == [["id"], ["id", "text"]]


def test_another_seed_proposes_otherwise(make_tuning: MakeTuning) -> None:
    one, other = (finished(make_tuning(name=f"s{seed}", seed=seed), 1) for seed in (0, 1))
    assert one["trials"][0]["values"] != other["trials"][0]["values"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("overrides", "settings", "text"),
        [
            (("training.epochs=2",), {}, r"training\.epochs must be 1 as when study 's' began, got 2"),
            ((), {"seed": 5}, "--seed must be 0 as when study 's' began, got 5"),
            (
                (),
                {"space": SPACE | {"model.dropout": {"choices": [0.5]}}},
                r"search space of model.dropout must be '0.0, 0.1' as .*, got '0.5'",
            ),
        ],
    )
    def test_a_study_begun_otherwise(
        self, overrides: tuple[str, ...], settings: dict[str, Any], text: str, make_tuning: MakeTuning
    ) -> None:
        assert run(make_tuning(), 1, Ears(stop_after=1)) is None
        with pytest.raises(ConfigError, match=text):
            run(make_tuning(*overrides, **settings), 1)

    def test_a_study_held_by_another_process(self, make_tuning: MakeTuning) -> None:
        tuning = make_tuning()
        tuning.folder.mkdir(parents=True)
        with held(tuning.folder / ".lock"):
            rule = rf"tune-s is being worked on by process {os.getpid()}, for \d+ s .*, or choose another --name"
            with pytest.raises(CheckpointError, match=rule):
                run(tuning, 1)
        assert run(tuning, 1, Ears(stop_after=1)) is None

    def test_a_file_system_without_locks(self, make_tuning: MakeTuning, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any) -> None:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

        monkeypatch.setattr(fcntl, "flock", refuse)
        tuning = make_tuning()
        assert run(tuning, 1, Ears(stop_after=1)) is None
        assert run(tuning, 1) is not None

    def test_a_run_that_has_the_name_of_a_trial(self, make_tuning: MakeTuning) -> None:
        tuning = make_tuning()
        create_run(
            tuning.runs_dir, tuning.base, tuning.prepared, preset="hm4sr", name="tune-s-0", command="athwe train"
        )
        with pytest.raises(ConfigError, match="run demo/hm4sr/tune-s-0 exists with another configuration, got 's'"):
            run(tuning, 1)

    def test_names_seeds_and_trials(self, make_tuning: MakeTuning) -> None:
        for name in ("", "..", "a/b"):
            with pytest.raises(ConfigError, match="must be a plain name"):
                make_tuning(name=name)
        with pytest.raises(ConfigError, match="must not be negative, got -1"):
            make_tuning(seed=-1)
        with pytest.raises(ConfigError, match="must be at least 1, got 0"):
            run(make_tuning(), 0)

    def test_without_optuna(self, make_tuning: MakeTuning, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "optuna", None)
        with pytest.raises(ConfigError, match=r"athwe tune needs optuna. Run: pip install 'athwe\[tune\]'"):
            run(make_tuning(), 1)


class TestJournal:
    def test_a_torn_last_line_and_a_left_lock_do_no_harm(
        self, make_tuning: MakeTuning, uninterrupted: list[tuple[Any, ...]]
    ) -> None:
        tuning = make_tuning()
        assert run(tuning, 2, Ears(stop_after=1)) is None
        with (tuning.folder / "journal.log").open("a") as file:
            file.write('{"op_code":')
        (tuning.folder / "journal.log.lock").symlink_to("journal.log")
        assert facts(finished(tuning, 2)) == uninterrupted

    def test_what_is_no_journal_is_named(self, make_tuning: MakeTuning) -> None:
        tuning = make_tuning()
        tuning.folder.mkdir(parents=True)
        (tuning.folder / "journal.log").write_text("no\njournal\n")
        with pytest.raises(CheckpointError, match=r"journal\.log must be the journal of a study"):
            run(tuning, 1)


class Elsewhere:
    """A launcher whose runs are trained at once, here. Each is stopped after `most` messages or fails with an error."""

    def __init__(self, jobs: int, *, most: int = 10**9, error: Exception | None = None) -> None:
        self.jobs, self.most, self.error = jobs, most, error
        self.runs: list[LaunchedRun] = []

    def start(self, document: dict[str, Any], *, slot: int, messages: Messages) -> LaunchedRun:
        assert slot in range(self.jobs)
        self.runs.append(LaunchedRun(document, messages, self))
        return self.runs[-1]


class LaunchedRun:
    """One of them, which is its own parent."""

    def __init__(self, document: dict[str, Any], messages: Messages, launcher: Elsewhere) -> None:
        self.messages, self.most, self.sent, self.stops, self.is_joined = messages, launcher.most, 0, 0, False
        self.outcome: dict[str, bool] | Exception
        try:
            if launcher.error is not None:
                raise launcher.error
            self.outcome = train_run(document, self)  # type: ignore[arg-type]
        except Exception as error:
            self.outcome = error
        messages.put((self, None))

    def send(self, event: str, **fields: Any) -> None:
        self.sent += 1
        self.messages.put((self, Message(event, fields)))

    def wants_stop(self) -> bool:
        return self.sent >= self.most

    def stop(self) -> None:
        self.stops += 1

    def join(self) -> None:
        self.is_joined = True

    def result(self, subject: str, *, remedy: str) -> dict[str, bool]:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class TestLaunched:
    """Trials whose runs a launcher starts."""

    def run(self, tuning: Tuning, trials: int, launcher: Elsewhere, ears: Ears | None = None, **rest: Any) -> Any:
        return tune(tuning, trials=trials, command="", listener=ears or Ears(), launcher=launcher, **rest)

    def test_two_at_once_are_the_trials_of_one_after_the_other(
        self, make_tuning: MakeTuning, uninterrupted: list[tuple[Any, ...]]
    ) -> None:
        tuning, ears, launcher = make_tuning(), Ears(), Elsewhere(2)
        result = self.run(tuning, 2, launcher, ears)
        assert facts(result) == uninterrupted
        assert ears.states == ["complete"] * 2
        assert ears.on_progress[:2] == [("trial_begins", 1), ("trial_begins", 2)], "the second did not wait"
        for number, trial in enumerate(result["trials"]):
            assert f"trial {number}: epoch 1: validation NDCG@20 {trial['value']:.4f} (best so far)" in ears.notes
        assert facts(self.run(tuning, 1, nobody := Elsewhere(2))) == uninterrupted
        assert nobody.runs == []

    def test_stopped_trials_go_on(self, make_tuning: MakeTuning, uninterrupted: list[tuple[Any, ...]]) -> None:
        tuning, ears, launcher = make_tuning(), Ears(), Elsewhere(2, most=1)
        assert self.run(tuning, 2, launcher, ears, should_stop=lambda: len(launcher.runs) == 2) is None
        assert ears.states == []
        assert all(run.stops for run in launcher.runs)
        assert facts(self.run(tuning, 2, Elsewhere(2))) == uninterrupted
        assert len(list((tuning.runs_dir / "demo" / "hm4sr").iterdir())) == 2

    def test_a_trial_below_the_median_is_stopped(
        self, make_tuning: MakeTuning, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rates = {"training.lr": {"choices": [0.03, 1e-9]}}
        monkeypatch.setattr(trials_module, "_propose", scripted({"training.lr": 0.03}, {"training.lr": 1e-9}))
        tuning = make_tuning("training.epochs=3", space=rates, startup_trials=1, warmup_epochs=0)
        ears, launcher = Ears(), Elsewhere(1)
        result = self.run(tuning, 2, launcher, ears)
        assert ears.states == ["complete", "pruned"]
        assert [trial["epochs"] for trial in result["trials"]] == [3, 1]
        assert [run.stops > 0 for run in launcher.runs] == [False, True]
        assert tuning.run(1).manifest()["status"] == "pruned"

    def test_a_loss_that_is_not_finite_counts_and_any_other_error_ends_the_others(
        self, make_tuning: MakeTuning, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rates = {"training.lr": {"choices": [1e30, 0.01]}}
        monkeypatch.setattr(trials_module, "_propose", scripted({"training.lr": 1e30}, {"training.lr": 0.01}))
        tuning = make_tuning("training.epochs=2", space=rates)
        broken = Elsewhere(2, error=CheckpointError("run x", "must be whole"))
        with pytest.raises(CheckpointError, match="run x must be whole"):
            self.run(tuning, 2, broken)
        assert [run.is_joined for run in broken.runs] == [False, True]
        result = self.run(tuning, 2, Elsewhere(2))
        assert [trial["state"] for trial in result["trials"]] == ["failed", "complete"]
        assert "must be finite" in result["trials"][0]["reason"]

    def test_no_untried_combination_is_left(self, make_tuning: MakeTuning) -> None:
        tuning = make_tuning(space={"model.dropout": {"choices": [0.0, 0.1]}})
        result = self.run(tuning, 5, Elsewhere(3))
        assert len(result["trials"]) == 2
        assert result["notes"] == ["the study ends after 2 trials: no untried combination is left"]
