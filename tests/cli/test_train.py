"""`athwe train`: its results on stdout and on disk, layers of configuration, mistakes as one line."""

import json
import re
from pathlib import Path

import pytest
import yaml
from cli_runner import SMALL, call, one_error_line
from tracking_harness import use_fake_trackers

from athwe_core.data.store import dataset
from athwe_core.runs.run import RunFolder


def test_json_is_one_object_with_the_results(world: Path) -> None:
    found = json.loads((world / "first.json").read_text())
    assert {"run", "preset", "best_epoch", "epochs", "seconds_per_epoch", "validation", "test"} == found.keys()
    assert found["run"] == "demo/athwe/first"
    assert found["epochs"] == 2
    assert 0 < found["test"]["ndcg@10"] < 1


def test_the_log_of_a_run_has_command_versions_notes_and_results(world: Path) -> None:
    lines = (world / "runs" / "demo" / "athwe" / "first" / "log.txt").read_text(encoding="utf-8").splitlines()
    assert re.match(r"\d{4}-\d\d-\d\dT\S+ athwe .*\(athwe 0\.\S+, Python 3\.\S+, torch 2\.\S+\)$", lines[0])
    assert lines[1].startswith("data set demo (")
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert any("last-item transition" in line for line in lines)
    assert lines[-2] == "Next: athwe case-study --run demo/athwe/first --random 1"
    assert lines[-1] == "Or: athwe recommend --run demo/athwe/first --to best.parquet"


def test_run_folder_is_complete_and_its_configuration_re_runnable(world: Path) -> None:
    run = world / "runs" / "demo" / "athwe" / "first"
    names = {path.name for path in run.iterdir()}
    assert names == {"config.yaml", "manifest.json", "metrics.jsonl", "checkpoints", "per_user.parquet", "log.txt"}
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["versions"]["torch"]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    again = call(world, "train", "--dataset", "demo", "--config", str(run / "config.yaml"), "--json", "--name", "again")
    first = json.loads((world / "first.json").read_text())
    assert json.loads(again.stdout)["test"] == first["test"]


def test_shows_both_baselines(world: Path) -> None:
    result = call(world, "train", "--dataset", "demo", "--epochs", "1", *SMALL)
    assert "popularity" in result.stdout
    assert "last-item transition" in result.stdout
    assert "NDCG@10" in result.stdout


def test_dry_run_prints_the_whole_configuration_and_leaves_nothing(world: Path) -> None:
    before = sorted((world / "runs").rglob("*"))
    result = call(world, "train", "--dataset", "demo", "--preset", "hm4sr", "--lr", "0.01", "--dry-run")
    tree = yaml.safe_load(result.stdout)
    assert tree["training"]["lr"] == 0.01
    assert tree["model"]["wavelet"]["enabled"] is False
    assert sorted((world / "runs").rglob("*")) == before


def test_later_layers_of_configuration_win(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "demo.yaml").write_text("training: {lr: 0.1, epochs: 1, patience: 1}\n")
    (tmp_path / "mine.yaml").write_text("training: {lr: 0.2, epochs: 2}\n")
    result = call(
        world,
        *("train", "--dataset", "demo", "--config", "mine.yaml", "--epochs", "3"),
        *("--set", "training.batch_targets=7", "--dry-run"),
    )
    training = yaml.safe_load(result.stdout)["training"]
    assert (training["lr"], training["epochs"], training["patience"], training["batch_targets"]) == (0.2, 3, 1, 7)
    assert "config/demo.yaml" in result.stderr


@pytest.mark.parametrize("preset", ["hm4sr", "HM4SR", "Hm4Sr"])
def test_a_preset_is_the_same_in_upper_and_lower_case(world: Path, preset: str) -> None:
    result = call(world, "train", "--dataset", "demo", "--preset", preset, "--dry-run")
    assert yaml.safe_load(result.stdout)["model"]["wavelet"]["enabled"] is False


def test_the_run_folder_has_the_preset_in_lower_case(world: Path) -> None:
    options = ("--preset", "ATHWE", "--epochs", "1", "--name", "upper", "--json", *SMALL)
    assert json.loads(call(world, "train", "--dataset", "demo", *options).stdout)["run"] == "demo/athwe/upper"


def test_modalities_flag(world: Path) -> None:
    result = call(world, "train", "--dataset", "demo", "--modalities", "id,image", "--dry-run")
    assert yaml.safe_load(result.stdout)["model"]["modalities"] == ["id", "image"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--preset", "hmsr"], 2, "Did you mean hm4sr"),
        (["--set", "model.dropot=0.1"], 2, "Did you mean model.dropout?"),
        (["--set", "model.dropout"], 2, "must have the form a.b=value"),
        (["--config", "absent.yaml"], 2, "must be a file"),
        (
            ["--preset", "athwe-published", "--batching", "packed"],
            2,
            "must be prefix with model.wavelet.form: centred",
        ),
        (["--checkpoint-minutes", "0", "--name", "unsaved"], 2, "must be positive"),
        (["--device", "tpu"], 2, "--device (training.device) must be auto, cpu, cuda, cuda:N or mps, got 'tpu'"),
        (["--batch-targets", "0"], 2, "--batch-targets (training.batch_targets) must be positive, got 0"),
        (["--compile", "maybe"], 2, "--compile (training.compiler) must be"),
        (["--epochs", "3", "--set", "training.epochs=0"], 2, "error: training.epochs must be positive, got 0"),
        (["--preset", "sasrec", "--modalities", "id"], 2, "--modalities (model.modalities) is no configuration key"),
        (["--track", "neptune"], 2, "--track must be tensorboard, mlflow or wandb, got 'neptune'"),
        (["--version", "0123456789ab"], 3, "0123456789ab"),
        (["--name", "../up"], 2, "must be a plain name"),
        (["--name", "first"], 2, "must be new"),
        (["--resume", "frist", "--verify"], 2, "first"),
        (["--resume", "first", "--lr", "1", "--set", "a.b=1"], 2, "cannot be combined with --set, --lr: a resumed"),
        (["--resume", "first", "--preset", "hm4sr"], 2, "cannot be combined with --preset: a resumed"),
    ],
)
def test_mistakes_are_one_line(world: Path, arguments: list[str], code: int, text: str) -> None:
    result = call(world, "train", "--dataset", "demo", *arguments)
    assert result.exit_code == code, result.output
    assert text in one_error_line(result)


def test_debug_shows_the_traceback(world: Path) -> None:
    result = call(world, "--debug", "train", "--dataset", "demo", "--preset", "hmsr")
    assert type(result.exception).__name__ == "ConfigError"


def test_unprepared_data_is_prepared_first_saying_so(tmp_path: Path) -> None:
    result = call(tmp_path, "train", "--dataset", "demo", "--dry-run")
    assert "not prepared yet: preparing it with the default options" in result.stderr
    assert result.exit_code == 0


def test_a_non_finite_loss_stops_with_exit_code_1(world: Path) -> None:
    result = call(world, "train", "--dataset", "demo", "--lr", "1e30", "--epochs", "2", *SMALL)
    assert result.exit_code == 1
    assert "must be finite" in one_error_line(result)


def test_few_steps_are_told_where_the_last_epoch_is_the_best(world: Path) -> None:
    done = call(world, "train", "--dataset", "demo", "--epochs", "2", "--name", "short", *SMALL)
    assert done.exit_code == 0, done.output
    run = RunFolder(world / "runs" / "demo" / "athwe" / "short")
    steps = sum(record["steps"] for record in run.metrics())
    assert run.manifest()["results"]["best_epoch"] == 2
    assert f"{steps} steps are few, and the last epoch was the best: try --epochs 4" in " ".join(done.stderr.split())
    once = call(world, "train", "--dataset", "demo", "--epochs", "1", "--name", "once", *SMALL)
    assert "steps are few" not in once.stderr


def test_a_finished_run_says_so_and_continues_with_more_epochs(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trackers, track = use_fake_trackers(monkeypatch), ["--track", "wandb"]
    constant = ("--set", "training.schedule.kind=constant")
    first = call(world, "train", "--dataset", "demo", "--epochs", "1", "--name", "longer", *track, *SMALL, *constant)
    assert first.exit_code == 0, first.output
    again = call(world, "train", "--resume", "longer")
    assert (
        "run demo/athwe/longer is finished To continue it: athwe train --resume demo/athwe/longer --epochs 2"
        in " ".join(again.stderr.split())
    )
    assert "NDCG@10" in again.stdout
    more = call(world, "train", "--resume", "demo/athwe/longer", "--epochs", "2", "--json", *track)
    assert json.loads(more.stdout)["epochs"] == 2
    assert [[call[0] for call in tracker.calls] for tracker in trackers] == [[1, "finished"], [2, "finished"]]
    assert trackers[1].calls[1][2]["best_test/ndcg_at_10"] == json.loads(more.stdout)["test"]["ndcg@10"]
    saved = yaml.safe_load((world / "runs" / "demo" / "athwe" / "longer" / "config.yaml").read_text())
    assert saved["training"]["epochs"] == 2


def test_a_finished_run_names_newer_prepared_data(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "current_version", lambda name, *, prepared_dir: "0123456789ab")
    shown = " ".join(call(world, "train", "--resume", "first").stderr.split())
    assert "demo has a newer prepared version, 0123456789ab. To train on it: athwe train --dataset demo" in shown
    monkeypatch.undo()
    assert "newer prepared version" not in call(world, "train", "--resume", "first").stderr


def test_a_device_that_is_not_there_does_not_take_the_name(world: Path) -> None:
    options = ("--dataset", "demo", "--name", "unstarted", "--device", "cuda:99")
    assert "training.device must exist" in one_error_line(call(world, "train", *options))
    assert not (world / "runs" / "demo" / "athwe" / "unstarted").exists()


def test_a_run_starts_from_the_weights_of_another(world: Path) -> None:
    options = ("--epochs", "1", "--lr", "1e-30", "--name", "onward", "--init-from", "first", *SMALL)
    result = call(world, "train", "--dataset", "demo", *options, "--json")
    assert result.exit_code == 0, result.output
    assert "initial weights from run demo/athwe/first" in result.stderr
    first = json.loads((world / "first.json").read_text())
    assert json.loads(result.stdout)["test"] == first["test"]
    refused = call(world, "train", "--resume", "onward", "--init-from", "first")
    assert "--resume cannot be combined with --init-from" in one_error_line(refused)


def test_weights_that_do_not_fit_leave_no_run(world: Path) -> None:
    narrow = ("--preset", "gru4rec", "--set", "model.hidden_size=12", "--name", "misfit", "--init-from", "first")
    assert "must have a weight that fits model gru4rec" in one_error_line(call(world, "train", *narrow))
    assert not (world / "runs" / "demo" / "gru4rec").exists()
