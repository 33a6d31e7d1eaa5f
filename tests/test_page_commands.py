"""The commands and the Python lines of the documentation run in their order, on small data under the names of the pages."""

import shlex
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from cli_runner import call
from page_blocks import RUN_COMMANDS, Block, blocks_of
from typer.testing import CliRunner

import athwe_core as athwe
from athwe_cli.app import app

TRAINS_MANY = ("ablate", "sweep", "table1", "tune")
SMALL = ["--set", "model.hidden_size=8", "--batch-targets", "512", "--precision", "fp32", "--device", "cpu"]
DATASETS = ("Toys_and_Games", "Beauty", "Office", "Scientific")


def put_dataset(folder: Path, name: str) -> None:
    """The demo data as CSV files of another data set."""
    made = folder / "data" / name
    shutil.copytree(folder / "exported" / "demo", made)
    for path in made.glob("demo.*"):
        path.rename(path.with_name(path.name.replace("demo.", f"{name}.", 1)))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small data under the names of the pages, and runs to compare."""
    folder = tmp_path_factory.mktemp("pages")
    export = ("--export", "csv", "--to", str(folder / "exported"))
    for arguments in (("--users", "150", "--items", "100"), export):
        done = call(folder, "prepare", "--dataset", "demo", *arguments)
        assert done.exit_code == 0, done.output
    for name in DATASETS:
        put_dataset(folder, name)
    log = pl.read_csv(folder / "exported" / "demo" / "demo.csv", infer_schema=False).drop("split")
    log.write_csv(folder / "interactions.csv")
    log.head(30).write_csv(folder / "visits.csv")
    log.rename({"timestamp": "when"}).write_csv(folder / "clicks.csv")
    log.with_columns(rating=pl.lit(4.5)).write_csv(folder / "ratings.csv")
    types = {"user_id": "user_id:token", "item_id": "item_id:token", "timestamp": "timestamp:float"}
    (folder / "data" / "films").mkdir()
    log.rename(types).write_csv(folder / "data" / "films" / "films.inter", separator="\t")
    scientific = folder / "data" / "Scientific"
    items = log["item_id"].unique(maintain_order=True).to_list()
    for path in scientific.glob("*.npy"):
        path.unlink()
    np.random.default_rng(0).normal(size=(len(items), 768)).astype(np.float32).tofile(
        scientific / "Scientific.feat1CLS"
    )
    numbered = "".join(f"{item}\t{number}\n" for number, item in enumerate(items))
    (scientific / "Scientific.item2index").write_text(numbered)
    (folder / "dataset").symlink_to("data")
    for preset, name, seed in (("hm4sr", "a", 0), ("hm4sr", "b", 1), ("athwe", "a", 0), ("athwe", "b", 1)):
        options = ("--preset", preset, "--name", name, "--seed", str(seed), "--epochs", "1", *SMALL)
        done = call(folder, "train", "--dataset", "Toys_and_Games", *options)
        assert done.exit_code == 0, done.output
    ranks = pl.read_parquet(folder / "runs" / "Toys_and_Games" / "athwe" / "b" / "per_user.parquet")
    ranks.filter(pl.col("split") == "test").select(user="user_id", rank="rank").write_csv(folder / "recbole.csv")
    return folder


def adapted(command: str, user: str) -> list[str]:
    """The arguments of a command, smaller: one or two epochs of a narrow model; experiments are planned and not trained.

    `table1` would time a step of each model: `tests/cli/test_table1.py` looks at all of them.
    """
    words = shlex.split(command)[1:]
    for number, word in enumerate(words[:-1]):
        if word == "--epochs":
            words[number + 1] = "2"
        if word == "--user":
            words[number + 1] = user
    if words[0] in TRAINS_MANY:
        few = ["--preset", "sasrec"] if words[0] == "table1" else []
        narrow = ["--set", "model.hidden_size=8", "--set", "training.batch_targets=512"]
        return [*words, *few, *narrow, *([] if "--dry-run" in words else ["--dry-run"])]
    if words[0] == "train" and not {"--dry-run", "--resume", "--from"} & set(words):
        return [*words, *([] if "--epochs" in words else ["--epochs", "1"]), *SMALL]
    return words


@pytest.mark.parametrize("page", RUN_COMMANDS)
def test_the_blocks_of_a_page_run_in_their_order(
    page: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = shutil.copytree(world, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(here)
    for name in ("DATA", "PREPARED", "RUNS"):
        monkeypatch.setenv(f"ATHWE_{name}", str(here / name.lower()))
    blocks = [block for block in blocks_of(f"docs/{page}.md") if block.not_run is None]
    assert blocks
    for block in blocks:
        run_block(block)


def run_block(block: Block) -> None:
    """Run a block in the working folder; fails where a command or a line fails."""
    users = athwe.load_dataset("demo").user_tokens
    if block.language == "python":
        code = block.text.replace('athwe.prepare("demo")', 'athwe.load_dataset("demo")')  # of the size of the fixture
        exec(code.replace('["1", "2"]', repr(users[:2])), {})
        return
    runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1", "ATHWE_DATASET": ""})
    for command in block.commands:
        done = runner.invoke(app, adapted(command, users[0]))
        assert done.exit_code == 0, f"{command}\n{done.output}"
