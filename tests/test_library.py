"""The public face of the library: four steps, and nothing of the host process changed for good."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import library_harness as harness
import polars as pl
import pytest
import torch
from library_harness import TINY, host, numbers, train_tiny
from tracking_harness import use_fake_trackers

import athwe_core as athwe
from athwe_core.data.packing import pack_histories


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("library")


@pytest.fixture(scope="module")
def run(folder: Path) -> athwe.Run:
    return train_tiny(folder, name="first")


@pytest.fixture
def here(folder: Path, run: athwe.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of the run are those of the environment."""
    monkeypatch.setenv("ATHWE_PREPARED", str(folder / "prepared"))
    monkeypatch.setenv("ATHWE_RUNS", str(folder / "runs"))


def test_a_run_has_metrics_a_history_and_a_short_repr(run: athwe.Run) -> None:
    assert run.status == "finished"
    assert 0 <= run.metrics["test"]["ndcg@10"] <= 1
    assert [record["epoch"] for record in run.history] == [1]
    assert re.fullmatch(r"<Run demo/sasrec/first: finished, validation ndcg@20 0\.\d{4}>", repr(run))
    assert re.fullmatch(
        r"<PreparedDataset demo: 1\d\d users, \d+ items, [\d,]+ interactions, version \w{12}>", repr(run.data)
    )


def test_a_run_evaluates_itself_under_either_rule_for_seen_items(run: athwe.Run) -> None:
    assert run.evaluate(split="test")["metrics"] == run.metrics["test"]
    excluded = run.evaluate(exclude_seen=True, ks=(10,))
    assert excluded["exclude_seen"] is True
    assert excluded["metrics"].keys() == {"ndcg@10", "mrr@10", "hit@10"}
    assert excluded["metrics"]["mrr@10"] > run.metrics["test"]["mrr@10"]
    with pytest.raises(athwe.ConfigError, match=r"^ks must be at least 1 each, got \(0,\)$"):
        run.evaluate(ks=(0,))


@pytest.mark.usefixtures("here")
def test_data_and_runs_are_found_again_in_the_folders_of_the_environment(run: athwe.Run) -> None:
    assert athwe.load_dataset("demo").version == run.data.version
    assert athwe.load_run("last").name == run.name == athwe.load_run("first").name


@pytest.mark.parametrize("source", ["run", "name", "file"])
def test_a_run_starts_from_other_weights(
    run: athwe.Run, folder: Path, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    weights = str(run.folder.best / "weights.safetensors")
    init_from: Any = {"run": run, "name": run.name, "file": weights}[source]
    still = {**TINY, "training.lr": 1e-30}
    with caplog.at_level(logging.INFO, logger="athwe"):
        later = athwe.train(
            run.data, preset="sasrec", set=still, name=f"from-{source}", runs_dir=folder / "runs", init_from=init_from
        )
    assert f"initial weights from {'file' if source == 'file' else 'run'} " in caplog.text
    before, after = run.model.state_dict(), later.model.state_dict()
    differing = {name for name in before if not torch.allclose(before[name], after[name])}
    assert differing == ({"tables.id.weight"} if source == "file" else set())  # a file does not name its items


def slow_twin(run: athwe.Run, items: list[int], times: list[int], k: int, *, exclude_seen: bool) -> list[int]:
    """Score everything, sort everything."""
    length = run.config.model.max_length
    with torch.no_grad():
        batch = pack_histories([(items[-length:], times[-length:])])
        scores = (run.model.user_vectors(batch) @ run.model.item_table().T)[0].tolist()
    candidates = [item for item in range(1, len(scores)) if not (exclude_seen and item in items)]
    return sorted(candidates, key=lambda item: (-scores[item], item))[:k]


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_recommendations_are_those_of_scoring_and_sorting_everything(run: athwe.Run, exclude_seen: bool) -> None:
    data = run.data
    found = run.recommend(k=7, exclude_seen=exclude_seen)
    assert found.schema == {"user_id": pl.String, "rank": pl.Int64, "item_id": pl.String, "score": pl.Float32}
    assert found["user_id"].unique(maintain_order=True).to_list() == data.user_tokens
    for user, (first, last) in enumerate(zip(data.offsets, data.offsets[1:], strict=False)):
        items, times = data.item_ids[first:last].tolist(), data.timestamps[first:last].tolist()
        expected = slow_twin(run, items, times, 7, exclude_seen=exclude_seen)
        mine = found.filter(pl.col("user_id") == data.user_tokens[user])
        assert mine["item_id"].to_list() == [data.item_tokens[item] for item in expected]
        assert mine["rank"].to_list() == list(range(1, 8))


def test_users_come_in_the_given_order_and_their_rows_are_those_of_a_history(run: athwe.Run) -> None:
    data = run.data
    users = [data.user_tokens[9], data.user_tokens[2]]
    found = run.recommend(users=users, k=3)
    assert found["user_id"].to_list() == [users[0]] * 3 + [users[1]] * 3
    rows = []
    for user in (9, 2):
        span = range(data.offsets[user], data.offsets[user + 1])
        rows += [
            {"user_id": data.user_tokens[user], "item_id": data.item_tokens[data.item_ids[i]], "timestamp": t}
            for i, t in zip(span, data.timestamps[span.start : span.stop].tolist(), strict=True)
        ]
    again = run.recommend(histories=rows, k=3)
    assert again.drop("score").equals(found.drop("score"))
    assert again["score"].to_list() == pytest.approx(found["score"].to_list(), abs=1e-5)


def test_no_user_gives_no_row_and_a_short_catalogue_gives_fewer(run: athwe.Run) -> None:
    assert run.recommend(users=[]).height == 0
    item = run.data.item_tokens[5]
    found = run.recommend(histories={"user_id": ["new"], "item_id": [item], "timestamp": [1.6e9]}, k=10_000)
    assert sorted(found["item_id"]) == sorted(token for token in run.data.item_tokens[1:] if token != item)


def test_wrong_arguments_of_recommend_are_one_line_errors(run: athwe.Run) -> None:
    user = run.data.user_tokens[0]
    with pytest.raises(athwe.DataError, match=r"^users must be in data set demo, 2 of 3 are not, got 'no'\. Pass the"):
        run.recommend(users=[user, "no", "nobody"])
    with pytest.raises(athwe.ConfigError, match=r"^users, histories cannot be given together"):
        run.recommend(users=[user], histories=[])
    for k in (0, True, 2.5):
        with pytest.raises(athwe.ConfigError, match=r"^k must be a whole number >= 1, got"):
            run.recommend(users=[user], k=k)


def test_a_file_or_a_folder_is_prepared_under_its_name_or_another(tmp_path: Path) -> None:
    rows = [f"u{user},i{item},{1_600_000_000 + item}" for user in range(5) for item in range(5)]
    text = "\n".join(["user_id,item_id,timestamp", *rows]) + "\n"
    source = tmp_path / "dataset" / "clicks"
    source.mkdir(parents=True)
    (source / "clicks.csv").write_text(text)
    for given, name, expected in [
        (source, None, "clicks"),
        (str(source / "clicks.csv"), None, "clicks"),
        (source, "others", "others"),
        (source / "clicks.csv", "others", "others"),
    ]:
        data = athwe.prepare(given, name=name, prepared_dir=tmp_path / "prepared")
        assert (data.name, data.num_users, data.num_items) == (expected, 5, 5)
    with pytest.raises(
        athwe.DataError, match=r"^source must be a folder, a file or demo \(there: clicks, did you mean"
    ):
        athwe.prepare(tmp_path / "dataset" / "click")


def test_keys_and_presets_are_checked_before_anything_is_made(run: athwe.Run, tmp_path: Path) -> None:
    with pytest.raises(athwe.ConfigError, match="epochs"):
        athwe.train(run.data, preset="sasrec", set={"training.epoch": 3}, runs_dir=tmp_path)
    with pytest.raises(athwe.ConfigError, match=r"^--preset is unknown, got 'sasrek'\. Did you mean sasrec\?"):
        athwe.train(run.data, preset="sasrek", runs_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert "sasrec" in athwe.preset_names()
    assert {"athwe", "sasrec"} <= set(athwe.model_names())


class Steps:
    """Counts the steps."""

    def __init__(self) -> None:
        self.steps, self.epochs = 0, 0

    def epoch_begins(self, epoch: int, *, epochs: int, steps: int, done: int, best: float | None) -> None:
        """Count nothing."""

    def step_ends(self, step: int, means: dict[str, float]) -> None:
        self.steps += 1

    def epoch_ends(self, record: dict[str, Any], *, is_best: bool) -> None:
        self.epochs += 1


@pytest.mark.usefixtures("here")
def test_the_lines_of_readme_run(run: athwe.Run, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n", 1)[1].split("```", 1)[0]
    for there, here in [
        ('athwe.prepare("dataset/Beauty")', "data"),
        ("seed=0", "seed=0, set=settings"),
        ('["A1", "A2"]', "data.user_tokens[:2]"),
        ('"B1"', "data.item_tokens[1]"),
    ]:
        assert code.count(there) == 1
        code = code.replace(there, here)
    exec(code, {"data": run.data, "settings": TINY})
    printed = capsys.readouterr().out
    assert printed.startswith("<Run demo/athwe/")
    assert printed.count("shape: (20, 4)") == printed.count("shape: (10, 4)") == 1


def test_a_run_that_was_stopped_resumes_to_the_same_numbers(
    run: athwe.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trackers = use_fake_trackers(monkeypatch)
    counts: athwe.Listener = Steps()
    arguments: dict[str, Any] = {"preset": "sasrec", "set": TINY, "name": "stopped", "runs_dir": tmp_path}
    arguments["track"] = ["mlflow"]
    stopped = athwe.train(run.data, listener=counts, should_stop=lambda: counts.steps == 1, **arguments)
    assert repr(stopped) == "<Run demo/sasrec/stopped: interrupted>"
    with pytest.raises(athwe.CheckpointError, match=r"must have finished, got 'interrupted'\. Call its method resume"):
        _ = stopped.metrics
    assert numbers(stopped.resume(listener=counts, track=["mlflow"])) == numbers(run)
    assert [[call[0] for call in tracker.calls] for tracker in trackers] == [["interrupted"], [1, "finished"]]
    assert counts.steps == run.history[0]["steps"]
    assert counts.epochs == 1


def test_the_default_listener_logs(run: athwe.Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="athwe"):
        athwe.train(run.data, preset="sasrec", set=TINY, runs_dir=tmp_path)
    assert re.search(r"^epoch 1 of at most 1: .*; validation ndcg@20 0\.\d{4} \(best\); [\d.]+ s$", caplog.messages[-1])
    assert {record.name for record in caplog.records} == {"athwe"}


@pytest.mark.long
def test_the_host_process_is_as_before(tmp_path: Path) -> None:
    """In a process of its own: the checks of shapes in this one draw random numbers, and its malloc is in use."""
    command = [sys.executable, harness.__file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["changed"] == []
    if sys.platform.startswith("linux"):  # not blind: the setting of the command line keeps what is freed
        before, after, kept = found["freed"]
        assert min(before, after) > 0.9
        assert kept < 0.1


def test_works_under_a_running_event_loop(run: athwe.Run, tmp_path: Path) -> None:
    async def cell() -> athwe.Run:
        return train_tiny(tmp_path)

    assert numbers(asyncio.run(cell())) == numbers(run)


def test_works_in_a_daemonic_worker_of_a_process_pool(run: athwe.Run, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(harness.numbers_in_a_worker, (tmp_path, 0)) == numbers(run)


def test_two_trainings_in_one_process_give_the_numbers_that_each_gives_alone(tmp_path: Path) -> None:
    alone = [numbers(train_tiny(tmp_path, preset="athwe", seed=seed, name=f"alone-{seed}")) for seed in (1, 2)]
    assert alone[0] != alone[1]
    before = host() | {"python": None}  # the checks of shapes draw from it
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(train_tiny, tmp_path, preset="athwe", seed=seed, name=f"beside-{seed}") for seed in (1, 2)]
    assert [numbers(each.result()) for each in found] == alone
    assert host() | {"python": None} == before
