"""The command line through Typer's runner: what it prints where, what it leaves on disk, its exit codes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from cli_runner import SMALL, call, one_error_line

import athwe_core
from athwe_cli.app import app

FOLDERS = {"--data", "--prepared", "--runs"}
EXPERIMENT = {"--dataset", "--preset", "--seeds", "--epochs", "--metric", "--split", "--jobs", "--set", "--config"}
EXPERIMENT |= {"--batching", "--device", "--precision", "--version", "--name", "--dry-run", "--json", *FOLDERS}
COMMANDS = {
    "prepare": {
        "--dataset",
        "--tie-order",
        "--split",
        "--held-out-share",
        "--min-interactions",
        "--category-column",
        "--half-features",
        "--text-columns",
        "--seed",
        "--json",
    }
    | {"--max-categories", "--text-width", "--users", "--items", *FOLDERS}
    | {"--text-encoder", "--text-pooling", "--text-max-tokens", "--image-encoder", "--images", "--image-column"}
    | {"--download-images", "--allow-private-hosts", "--clusters", "--refresh", "--device"}
    | {"--source", "--raw", "--item-file", "--user-column", "--item-column", "--time-column", "--time-unit"}
    | {"--max-bad-lines", "--export", "--to", "--overwrite"},
    "audit": {"--dataset", "--version", "--seed", "--shuffles", "--to", "--prepared", "--runs", "--json"},
    "train": {
        "--dataset",
        "--preset",
        "--batching",
        "--modalities",
        "--epochs",
        "--batch-targets",
        "--lr",
        "--seed",
        "--compile",
    }
    | {
        "--device",
        "--precision",
        "--set",
        "--config",
        "--name",
        "--resume",
        "--checkpoint-minutes",
        "--version",
        "--dry-run",
        "--json",
        *FOLDERS,
    },
    "evaluate": {"--run", "--dataset", "--split", "--exclude-seen", "--no-exclude-seen", "--k", "--json"}
    | {"--prepared", "--runs"},
    "ablate": {"--remove", "--all", *EXPERIMENT},
    "sweep": {"--vary", *EXPERIMENT},
    "bench": {
        "--dataset",
        "--users",
        "--items",
        "--mean-length",
        "--feature-width",
        "--preset",
        "--batching",
        "--set",
        "--compile",
        "--suite",
    }
    | {"--precision", "--device", "--steps", "--growth", "--largest", "--to", "--prepared", "--json"},
    "case-study": {"--user", "--random", "--pick", "--history", "--run", "--against", "--dataset", "--split", "--k"}
    | {"--seed", "--images", "--html", "--no-html", "--json", *FOLDERS},
    "compare": {"run", "--dataset", "--split", "--metric", "--groups", "--no-groups", "--force", "--runs", "--json"},
    "report": {"--dataset", "--run", "--to", "--prepared", "--runs", "--json"},
    "tune": {"--dataset", "--preset", "--space", "--trials", "--epochs", "--seed", "--name", "--set", "--config"}
    | {"--dry-run", "--json", *FOLDERS},
}


@pytest.fixture(scope="module")
def evaluated(world: Path) -> dict[str, Any]:
    """What `evaluate --json` says of the run `first`."""
    result = call(world, "evaluate", "--run", "first", "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_surface_is_frozen() -> None:
    """A new option is a decision: it is added here too."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    found = {
        name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for name, command in commands.items()
    }
    assert {name: options - {"--help"} for name, options in found.items()} == COMMANDS


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(command: str, tmp_path: Path) -> None:
    result = call(tmp_path, command, "--help")
    assert result.exit_code == 0
    assert f"Example: athwe {command}" in result.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_loads_no_library_that_takes_long(arguments: list[str]) -> None:
    code = "from athwe_cli.app import app\ntry:\n    app(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
    heavy = "sorted(sys.modules.keys() & {'torch', 'numpy', 'scipy', 'polars', 'yaml', 'pydantic'})"
    command = [sys.executable, "-c", f"import sys\n{code}print('loaded:', {heavy})", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "Usage:" in result.stdout
    assert result.stdout.splitlines()[-1] == "loaded: []"


def test_an_unknown_subcommand_is_a_usage_error_with_a_near_miss(tmp_path: Path) -> None:
    result = call(tmp_path, "trian")
    assert result.exit_code == 2
    assert "train" in result.stderr


def test_version(tmp_path: Path) -> None:
    assert call(tmp_path, "--version").stdout == f"athwe {athwe_core.__version__}\n"


class TestPrepare:
    def test_json_is_one_object_on_stdout(self, world: Path) -> None:
        result = call(world, "prepare", "--dataset", "demo", "--users", "200", "--items", "150", "--json")
        found = json.loads(result.stdout)
        expected = {"users", "items", "interactions", "sparsity", "tied_test_share", "features", "tie_order", "version"}
        assert expected <= found.keys()
        assert found["features"]["text"].keys() >= {"width", "missing", "source"}
        assert found["features"]["categories"]["count"] > 0
        assert "already prepared" in result.stderr

    def test_unknown_data_set(self, tmp_path: Path) -> None:
        result = call(tmp_path, "prepare", "--dataset", "Toyz")
        assert result.exit_code == 3
        assert "'Toyz' is unknown" in one_error_line(result)

    def test_unknown_tie_order(self, tmp_path: Path) -> None:
        result = call(tmp_path, "prepare", "--dataset", "demo", "--tie-order", "alphabet")
        assert result.exit_code == 2
        assert "must be one of file, item, random, got 'alphabet'" in one_error_line(result)

    def test_malformed_row_names_file_and_row(self, tmp_path: Path) -> None:
        folder = tmp_path / "data" / "Bad"
        folder.mkdir(parents=True)
        header = "user_id:token\titem_id:token\ttimestamp:float\n"
        (folder / "Bad.inter").write_text(header + "u\ti\t5\nu\ti\tsoon\n")
        result = call(tmp_path, "prepare", "--dataset", "Bad")
        assert result.exit_code == 3
        line = one_error_line(result)
        assert "Bad.inter" in line
        assert "3" in line
        assert "soon" in line


class TestTrain:
    def test_json_is_one_object_with_the_results(self, world: Path) -> None:
        found = json.loads((world / "first.json").read_text())
        assert {"run", "preset", "best_epoch", "epochs", "seconds_per_epoch", "validation", "test"} == found.keys()
        assert found["run"] == "demo/athwe/first"
        assert found["epochs"] == 2
        assert 0 < found["test"]["ndcg@10"] < 1

    def test_run_folder_is_complete_and_its_configuration_re_runnable(self, world: Path) -> None:
        run = world / "runs" / "demo" / "athwe" / "first"
        names = {path.name for path in run.iterdir()}
        assert names == {"config.yaml", "manifest.json", "metrics.jsonl", "checkpoints", "per_user.parquet"}
        manifest = json.loads((run / "manifest.json").read_text())
        assert manifest["status"] == "finished"
        assert manifest["versions"]["torch"]
        assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
        again = call(
            world, "train", "--dataset", "demo", "--config", str(run / "config.yaml"), "--json", "--name", "again"
        )
        first = json.loads((world / "first.json").read_text())
        assert json.loads(again.stdout)["test"] == first["test"]

    def test_shows_both_baselines(self, world: Path) -> None:
        result = call(world, "train", "--dataset", "demo", "--epochs", "1", *SMALL)
        assert "popularity" in result.stdout
        assert "last-item transition" in result.stdout
        assert "NDCG@10" in result.stdout

    def test_dry_run_prints_the_whole_configuration_and_leaves_nothing(self, world: Path) -> None:
        before = sorted((world / "runs").rglob("*"))
        result = call(world, "train", "--dataset", "demo", "--preset", "hm4sr", "--lr", "0.01", "--dry-run")
        tree = yaml.safe_load(result.stdout)
        assert tree["training"]["lr"] == 0.01
        assert tree["model"]["wavelet"]["enabled"] is False
        assert sorted((world / "runs").rglob("*")) == before

    def test_later_layers_of_configuration_win(
        self, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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

    def test_modalities_flag(self, world: Path) -> None:
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
            (["--device", "tpu"], 2, "must be auto, cpu, cuda, cuda:N or mps, got 'tpu'"),
            (["--version", "0123456789ab"], 3, "0123456789ab"),
            (["--name", "../up"], 2, "must be a plain name"),
            (["--name", "first"], 2, "must be new"),
            (["--resume", "frist"], 2, "first"),
            (["--resume", "first", "--lr", "1"], 2, "takes no other setting"),
        ],
    )
    def test_mistakes_are_one_line(self, world: Path, arguments: list[str], code: int, text: str) -> None:
        result = call(world, "train", "--dataset", "demo", *arguments)
        assert result.exit_code == code, result.output
        assert text in one_error_line(result)

    def test_debug_shows_the_traceback(self, world: Path) -> None:
        result = call(world, "--debug", "train", "--dataset", "demo", "--preset", "hmsr")
        assert type(result.exception).__name__ == "ConfigError"

    def test_unprepared_data_is_prepared_first_saying_so(self, tmp_path: Path) -> None:
        result = call(tmp_path, "train", "--dataset", "demo", "--dry-run")
        assert "not prepared yet: preparing it with defaults" in result.stderr
        assert result.exit_code == 0

    def test_a_non_finite_loss_stops_with_exit_code_1(self, world: Path) -> None:
        result = call(world, "train", "--dataset", "demo", "--lr", "1e30", "--epochs", "2", *SMALL)
        assert result.exit_code == 1
        assert "must be finite" in one_error_line(result)


class TestChoiceOfDataSet:
    def test_newest_finished_run(self, world: Path) -> None:
        assert "data set demo (the newest finished run)" in call(world, "train", "--dry-run").stderr

    def test_environment(self, world: Path) -> None:
        result = call(world, "train", "--dry-run", ATHWE_DATASET="Beauty")
        assert "data set Beauty (ATHWE_DATASET)" in result.stderr
        assert result.exit_code == 3

    def test_demo_when_there_is_nothing(self, tmp_path: Path) -> None:
        assert "data set demo (no run yet)" in call(tmp_path, "train", "--dry-run").stderr


class TestEvaluate:
    def test_agrees_with_the_end_of_training(self, world: Path, evaluated: dict[str, Any]) -> None:
        assert evaluated["metrics"] == pytest.approx(json.loads((world / "first.json").read_text())["test"])

    def test_json_has_groups_and_baselines(self, evaluated: dict[str, Any]) -> None:
        assert evaluated.keys() >= {"run", "split", "users", "metrics", "groups", "baselines"}
        assert set(evaluated["groups"]) == {"history_length", "target_popularity", "same_day"}
        for labels in evaluated["groups"].values():
            assert sum(group["users"] for group in labels.values()) == evaluated["users"]
        assert set(evaluated["baselines"]) == {"popularity", "last-item transition"}

    @pytest.mark.parametrize("name", ["first", "demo/athwe/first", "path"])
    def test_a_run_by_name_or_path(self, world: Path, name: str) -> None:
        run = str(world / "runs" / "demo" / "athwe" / "first") if name == "path" else name
        result = call(world, "evaluate", "--run", run, "--split", "validation", "--k", "3", "--json")
        assert json.loads(result.stdout)["metrics"].keys() == {"ndcg@3", "mrr@3", "hit@3"}

    def test_exclude_seen_does_not_lower_the_ranks_and_has_its_own_file(
        self, world: Path, evaluated: dict[str, Any]
    ) -> None:
        result = json.loads(call(world, "evaluate", "--run", "first", "--exclude-seen", "--json").stdout)
        assert result["exclude_seen"] is True
        assert result["metrics"]["ndcg@10"] >= evaluated["metrics"]["ndcg@10"]
        assert (world / "runs" / "demo" / "athwe" / "first" / "per_user.exclude_seen.parquet").exists()

    def test_no_run_prints_the_line_to_type(self, tmp_path: Path) -> None:
        result = call(tmp_path, "evaluate", "--dataset", "demo")
        assert result.exit_code == 2
        assert "athwe train --dataset demo" in one_error_line(result)

    @pytest.mark.parametrize(("option", "value"), [("--split", "dev"), ("--k", "0"), ("--run", "second")])
    def test_mistakes_are_one_line(self, world: Path, option: str, value: str) -> None:
        result = call(world, "evaluate", "--run", "first", option, value)
        assert result.exit_code == 2
        assert value in one_error_line(result)


class TestForeignFiles:
    @pytest.fixture
    def copied(self, world: Path, tmp_path: Path) -> Callable[[], Path]:
        """A copy of the finished run under another name."""
        import shutil

        def copy() -> Path:
            target = world / "runs" / "demo" / "athwe" / tmp_path.name
            shutil.copytree(world / "runs" / "demo" / "athwe" / "first", target)
            return target

        return copy

    def evaluate(self, world: Path, run: Path) -> str:
        result = call(world, "evaluate", "--run", run.name)
        assert result.exit_code == 3, result.output
        return one_error_line(result)

    def test_unreadable_weights(self, world: Path, copied: Callable[[], Path]) -> None:
        run = copied()
        (run / "checkpoints" / "best" / "weights.safetensors").write_bytes(b"no safetensors")
        assert "weights.safetensors is damaged" in self.evaluate(world, run)

    def test_weights_of_another_network(self, world: Path, copied: Callable[[], Path]) -> None:
        run = copied()
        text = (run / "config.yaml").read_text().replace("hidden_size: 8", "hidden_size: 16")
        (run / "config.yaml").write_text(text)
        assert "of shape" in self.evaluate(world, run)

    def test_data_changed_since_the_run(self, world: Path, copied: Callable[[], Path]) -> None:
        run = copied()
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["data"]["content_hash"] = "0" * 64
        (run / "manifest.json").write_text(json.dumps(manifest))
        line = self.evaluate(world, run)
        assert "must be the one run" in line
        assert "000000000000" in line


class TestBench:
    def test_json_names_floor_ratio_and_settings(self, tmp_path: Path) -> None:
        size = ("--users", "60", "--items", "40", "--feature-width", "8", "--steps", "2")
        result = call(tmp_path, "bench", *size, "--set", "training.batch_targets=64", "--precision", "fp32", "--json")
        found = json.loads(result.stdout)
        assert found.keys() >= {"step_seconds", "targets_per_second", "tokens_per_second", "peak_memory_bytes"}
        assert found["ratio"] == pytest.approx(found["step_seconds"]["median"] / found["floor_seconds"]["fp32"])
        assert found["settings"]["rows"] == 41
        assert found["settings"]["preset"] == "hm4sr"

    def test_on_a_prepared_data_set(self, world: Path) -> None:
        result = call(world, "bench", "--dataset", "demo", "--preset", "athwe-published", "--steps", "1", "--json")
        found = json.loads(result.stdout)
        assert found["dataset"] == "demo"
        assert found["settings"]["batching"] == "prefix"
