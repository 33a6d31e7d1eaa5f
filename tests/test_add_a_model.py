"""The page `docs/add_a_model.md` works: its files, installed as a package, are a model that trains and is evaluated."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import call

ROOT = Path(__file__).parents[1]
FILES = re.compile(r"^`([\w./-]+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A file of the page: its path on a line, then its text in a block."""
SMALL = ("--epochs", "3", "--batch-targets", "256", "--set", "model.hidden_size=16", "--set", "model.max_length=20")


def page_files() -> dict[str, str]:
    """The files of the page by path."""
    return dict(FILES.findall((ROOT / "docs" / "add_a_model.md").read_text(encoding="utf-8")))


def test_the_model_of_the_page_is_short() -> None:
    files = page_files()
    assert files.keys() == {"pyproject.toml", "my_gru/presets/my-gru.yaml", "my_gru/__init__.py"}
    assert len(files["my_gru/__init__.py"].splitlines()) < 80


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables under which the package is installed."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for path, text in page_files().items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text, encoding="utf-8")
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(site), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    paths = [str(site), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


@pytest.mark.long
def test_the_model_of_the_page_trains_and_is_evaluated(environment: dict[str, str], tmp_path: Path) -> None:
    def athwe(*arguments: str) -> dict[str, object]:
        command = [sys.executable, "-m", "athwe_cli", *arguments, "--json"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    prepared = call(tmp_path, "prepare", "--dataset", "demo", "--users", "200", "--items", "100")
    assert prepared.exit_code == 0, prepared.output
    trained = athwe("train", "--dataset", "demo", "--preset", "my-gru", "--name", "first", *SMALL)
    assert trained["run"] == "demo/my-gru/first"
    assert trained["epochs"] == 3
    assert athwe("evaluate", "--run", "first")["metrics"] == trained["test"]
