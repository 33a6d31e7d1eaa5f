"""The page `docs/use.md` works: every command and the Python lines run, on a small demo data set."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from cli_runner import SMALL, call
from page_blocks import blocks_of
from typer.testing import CliRunner

import athwe_core as athwe
from athwe_cli.app import app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "use.md").read_text(encoding="utf-8")
BLOCKS = [block for block in blocks_of("docs/use.md") if block.language == "bash" and block.not_run is None]
COMMANDS = [line for block in BLOCKS for line in block.commands]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the page, smaller, and the files that its commands read."""
    folder = tmp_path_factory.mktemp("use")
    call(folder, "prepare", "--dataset", "demo", "--users", "200", "--items", "150")
    result = call(folder, "train", "--dataset", "demo", "--epochs", "1", "--name", "first", *SMALL)
    assert result.exit_code == 0, result.output
    data = athwe.load_dataset("demo", prepared_dir=folder / "prepared")
    items = data.item_tokens
    (folder / "vip.txt").write_text("\n".join(data.user_tokens[:3]))
    (folder / "in_stock.txt").write_text("\n".join(items[1:40]))
    (folder / "carts.csv").write_text(f"user,item,time\nnew,{items[3]},2021-05-01\nnew,{items[9]},2021-05-02\n")
    return folder


def names_of(folder: Path) -> dict[str, str]:
    """The page's ids, and ids that the small data set has."""
    data = athwe.load_dataset("demo", prepared_dir=folder / "prepared")
    return {"1": data.user_tokens[0], "2": data.user_tokens[1], "item-0001": data.item_tokens[1]}


def test_the_commands_of_the_page_run_in_their_order(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    assert len(COMMANDS) > 10
    places = {f"ATHWE_{name}": str(world / name.lower()) for name in ("DATA", "PREPARED", "RUNS")}
    runner = CliRunner(env={"COLUMNS": "100", **places})
    for line in COMMANDS[1:]:
        before, _, command = line.rpartition("| ")
        words = [names_of(world).get(word, word) for word in shlex.split(command)]
        assert words[0] == "athwe"
        given = Path(shlex.split(before)[1]).read_text() if before else None
        result = runner.invoke(app, words[1:], input=given)
        assert result.exit_code == 0, f"{line}\n{result.output}"
    assert pl.read_parquet("recommendations.parquet")["rank"].max() == 20
    assert set(pl.read_ndjson("mail.jsonl")["item_id"]) <= set(Path("in_stock.txt").read_text().split())
    assert pl.read_csv("again.csv").height == 10
    command = [sys.executable, str(ROOT / "examples" / "faiss_index.py"), "vectors"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the top 10 of 100 users equal a search of all items" in done.stdout


def test_the_python_lines_of_the_page_run(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for there, here in names_of(world).items():
        assert f'"{there}"' in code
        code = code.replace(f'"{there}"', f'"{here}"')
    exec(code, {})
    assert "title" in capsys.readouterr().out
    assert Path("recommendations.parquet").exists()
