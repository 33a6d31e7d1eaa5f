"""`athwe train --from`, `--all-data` and `--refit`: retraining."""

import json
from pathlib import Path

import pytest
from cli_runner import SMALL, call, one_error_line

import athwe_core as athwe
from athwe_core.data.split import ALL_DATA, REFIT


@pytest.fixture(scope="module")
def served(world: Path) -> dict[str, object]:
    """A run on all data that follows `first`."""
    result = call(world, "train", "--from", "first", "--all-data", "--name", "served", "--json")
    assert result.exit_code == 0, result.output
    assert "nothing held out" in result.stderr
    assert "initial weights from run demo/athwe/first" in result.stderr
    return dict(json.loads(result.stdout))


def test_a_run_on_all_data_has_the_epochs_of_the_run_it_follows_and_no_results(
    world: Path, served: dict[str, object]
) -> None:
    first = json.loads((world / "first.json").read_text())
    assert served["epochs"] == served["best_epoch"] == first["best_epoch"]
    assert not {"test", "validation"} & served.keys()
    run = athwe.load_run("served", runs_dir=world / "runs", prepared_dir=world / "prepared")
    assert (run.status, run.data.split_rule) == ("trained", ALL_DATA)
    assert (
        run.config.model
        == athwe.load_run("first", runs_dir=world / "runs", prepared_dir=world / "prepared").config.model
    )
    with pytest.raises(athwe.CheckpointError, match="was trained on all data, so it has no metrics"):
        _ = run.metrics
    again = call(world, "train", "--resume", "served", "--json")
    assert json.loads(again.stdout)["epochs"] == served["epochs"]


def test_every_interaction_but_the_first_of_a_user_is_a_target(world: Path) -> None:
    data = athwe.load_dataset("demo", prepared_dir=world / "prepared")
    whole = data.without_held_out()
    assert whole.split.is_training(len(data.item_ids)).all()
    assert len(whole.split.users("test")) == len(whole.split.users("validation")) == 0
    assert not data.split.is_training(len(data.item_ids)).all()
    assert (whole.split_rule, data.split_rule) == (ALL_DATA, "leave-one-out")


def test_a_run_on_all_data_recommends_and_is_never_judged_or_found_as_the_last(
    world: Path, served: dict[str, object]
) -> None:
    user = athwe.load_dataset("demo", prepared_dir=world / "prepared").user_tokens[0]
    result = call(world, "recommend", "--run", "served", "--users", user, "--k", "3", "--json")
    assert len(json.loads(result.stdout)["recommendations"]) == 3
    assert "was trained on all data" in one_error_line(call(world, "evaluate", "--run", "served"))
    assert call(world, "compare", "first", "served").exit_code != 0
    assert json.loads(call(world, "evaluate", "--run", "last", "--json").stdout)["run"] == "demo/athwe/first"
    listed = {run["run"]: run["status"] for run in json.loads(call(world, "runs", "--json").stdout)["runs"]}
    assert listed == {"demo/athwe/first": "finished", "demo/athwe/served": "trained"}


def test_a_refit_trains_on_validation_and_ranks_the_same_test_items(world: Path) -> None:
    first = json.loads((world / "first.json").read_text())
    fresh = ("--dataset", "demo", *SMALL, "--epochs", str(first["best_epoch"]))
    result = call(world, "train", *fresh, "--refit", "validation", "--name", "refitted", "--json")
    assert result.exit_code == 0, result.output
    assert "trained on validation items too" in result.stderr
    found = json.loads(result.stdout)
    assert found["epochs"] == found["best_epoch"] == first["best_epoch"]
    assert "validation" not in found
    run = athwe.load_run("refitted", runs_dir=world / "runs", prepared_dir=world / "prepared")
    assert (run.status, run.data.split_rule) == ("trained", REFIT)
    assert run.metrics["test"] == found["test"] != first["test"]
    assert run.evaluate(split="test")["metrics"] == pytest.approx(found["test"])
    assert "was trained on the validation items too" in one_error_line(
        call(world, "evaluate", "--run", "refitted", "--split", "validation")
    )
    refused = one_error_line(call(world, "compare", "first", "refitted"))
    assert "refitted was trained on items that other runs hold out, and is never compared. Leave it out" in refused
    assert json.loads(call(world, "evaluate", "--run", "last", "--json").stdout)["run"] == "demo/athwe/first"


def test_a_refit_has_one_more_target_of_each_user_with_a_validation_item(world: Path) -> None:
    data = athwe.load_dataset("demo", prepared_dir=world / "prepared")
    longer = data.with_validation_for_training()
    grown = longer.split.training_end - data.split.training_end
    assert (grown == (data.split.validation >= 0)).all()
    assert (longer.split.test == data.split.test).all()
    assert len(longer.split.users("validation")) == 0
    assert not longer.split.is_training(len(data.item_ids))[data.split.test].any()


def test_mistakes_are_one_line(world: Path) -> None:
    for arguments, message in [
        (("--all-data", "--dataset", "demo"), "--all-data needs the number of epochs"),
        (("--refit", "validation", "--dataset", "demo"), "--refit needs the number of epochs"),
        (("--refit", "validation", "--from", "first"), "--refit cannot be combined with --from"),
        (("--refit", "validation", "--all-data", "--epochs", "1"), "--refit cannot be combined with --all-data"),
        (("--from", "first", "--preset", "sasrec"), "--from cannot be combined with --preset"),
        (("--from", "first", "--init-from", "first"), "--from cannot be combined with --init-from"),
        (("--from", "frist"), "Did you mean"),
    ]:
        result = call(world, "train", *arguments)
        assert result.exit_code == 2, result.output
        assert message in one_error_line(result)
