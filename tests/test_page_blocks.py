"""Every command and every code block of README and the documentation is run by a test, or says why not."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from cli_runner import call
from page_blocks import ROOT, Block, blocks_of
from typer.testing import CliRunner

import athwe_core as athwe
from athwe_cli.app import app

RUN_HERE = [
    *("quickstart", "download", "train", "judge", "models", "paper", "scale", "reliability", "speed"),
    *("coming_from", "questions"),
]
RUN_ELSEWHERE = {
    "README.md": ".ci/run, tests/test_library.py",
    "CONTRIBUTING.md": ".ci/run",
    "docs/data.md": "tests/test_data_page.py",
    "docs/use.md": "tests/test_use.py",
    "docs/add_a_model.md": "tests/test_add_a_model.py",
    "docs/add_a_loss.md": "tests/test_add_a_loss.py",
    "docs/add_a_reader.md": "tests/test_add_a_reader.py",
    "docs/files.md": "tests/test_documents.py",
    "docs/reference/commands.md": "tests/test_documents.py",
}
TRAINS_MANY = ("ablate", "sweep", "table1", "tune")
SMALL = ["--set", "model.hidden_size=8", "--batch-targets", "512", "--precision", "fp32", "--device", "cpu"]
DATASETS = ("Toys_and_Games", "Beauty", "Office", "Scientific")


def pages() -> list[str]:
    """README, CONTRIBUTING and the documentation."""
    return [
        "README.md",
        "CONTRIBUTING.md",
        *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))),
    ]


@pytest.mark.parametrize("page", pages())
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    if page in RUN_ELSEWHERE:
        assert [place for place in RUN_ELSEWHERE[page].split(", ") if not (ROOT / place).exists()] == []
        return
    run = blocks_of(page) if Path(page).stem in RUN_HERE else []
    formulas = [block for block in blocks_of(page) if block.language == "text"]
    assert [block for block in formulas if re.search(r"^(athwe|pip|curl|python) ", block.text, re.MULTILINE)] == []
    left = [block for block in blocks_of(page) if block.not_run is None and block not in [*run, *formulas]]
    assert left == []
    for block in run:
        assert block.not_run is not None or block.language in ("bash", "python"), block
        if block.language == "bash" and block.not_run is None:
            assert [line for line in block.commands if not line.startswith("athwe ")] == []


def test_every_command_of_readme_is_run_by_ci_or_says_why_not() -> None:
    bash = [block for block in blocks_of("README.md") if block.language == "bash"]
    assert [block.comment for block in bash if block.not_run is None] == ["demo", "test"]
    for comment in ("demo", "test"):
        assert f"readme_command {comment}" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", pages())
def test_no_command_hides_in_an_indented_line(page: str) -> None:
    outside = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^    (?:athwe|pip|python|torchrun) .*", outside, re.MULTILINE) == []


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


@pytest.mark.parametrize("page", RUN_HERE)
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
