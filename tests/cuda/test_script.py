"""The script for a device: stages that are done are not run again, its tables, and the archive of wheels."""

import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
STAGES = ("machine", "tests", "suite", "prepare", "train_hm4sr", "train_athwe", "million")


def script(name: str) -> ModuleType:
    """A script of tests/benchmarks as a module."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    command = [str(BENCHMARKS / "on_cuda.sh"), *arguments]
    settings = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=settings)


def test_what_is_done_is_not_done_again_and_what_fails_says_so(tmp_path: Path) -> None:
    for name in STAGES[1:]:
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"stage": name, "status": "done", "seconds": 1, "date": "now"})
        )
    broken = tmp_path / "python"  # fails in the stage, serves for the tables
    broken.write_text(
        f'#!/bin/sh\ncase $1 in *cuda_machine.py) echo no driver >&2; exit 3;; esac\nexec {sys.executable} "$@"\n'
    )
    broken.chmod(0o755)
    done = run(str(tmp_path), "--device", "cpu", PYTHON=str(broken))
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if line.endswith("done before")] == [
        f"== {name}: done before"
        for name in STAGES[1:]
        if name != "train_athwe"  # left out of a dry run
    ]
    assert "no driver" in done.stdout
    stage = json.loads((tmp_path / "machine.json").read_text())
    assert (stage["status"], stage["exit_code"]) == ("failed", 3)
    tables = (tmp_path / "tables.md").read_text()
    assert "| machine | failed |" in tables
    assert "| suite | done | 1 | now |" in tables


BESIDE_TORCH = {
    "torch",
    "numpy",
    "triton",
    "sympy",
    "mpmath",
    "networkx",
    "jinja2",
    "markupsafe",
    "fsspec",
    "setuptools",
}
ONLY = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in MISSING:
            raise ModuleNotFoundError(f"{name} is not on a machine for CUDA", name=name)

sys.meta_path.insert(0, Refuse())
"""


@pytest.mark.long
def test_the_tests_need_only_what_the_archive_and_torch_bring(tmp_path: Path) -> None:
    text = (BENCHMARKS / "collect_wheels.sh").read_text()
    found = re.search(r"packages=\((.*?)\)", text, re.DOTALL)
    assert found is not None
    brought = {name.lower() for name in found[1].split()} | BESIDE_TORCH
    missing = {
        module
        for module, owners in packages_distributions().items()
        if module.isidentifier() and not {owner.lower().replace("_", "-") for owner in owners} & brought
    }
    assert {"scipy", "sklearn", "selenium"} <= missing
    (tmp_path / "sitecustomize.py").write_text(f"MISSING = {missing - {'athwe_core', 'athwe_cli'}!r}\n{ONLY}")
    for name in set(STAGES) - {"tests"}:
        (tmp_path / f"{name}.json").write_text(json.dumps({"status": "done", "seconds": 1, "date": "now"}))
    plain = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "HYPOTHESIS_NO_PLUGINS": "1", "PYTEST_ADDOPTS": "--collect-only"}
    done = run(str(tmp_path), PYTHONPATH=str(tmp_path), **plain)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[1-9]\d+/\d+ tests collected", (tmp_path / "tests.out").read_text())


@pytest.mark.parametrize("arguments", [(), ("out", "--unknown")])
def test_wrong_arguments_print_the_usage(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "on_cuda.sh OUT [--device cpu] [--toys FOLDER]" in done.stderr


def test_tables_of_nothing_are_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("cuda_tables").main(tmp_path)
    text = capsys.readouterr().out
    assert text.count("not run") > len(STAGES)
    assert "## A million items" in text


def test_tables_of_a_training_and_of_tests(tmp_path: Path) -> None:
    tables = script("cuda_tables")
    folder = tmp_path / "runs" / "Toys_and_Games" / "hm4sr" / "on-cuda"
    folder.mkdir(parents=True)
    values = [0.03, 0.05]
    lines = [{"seconds": 0.5, "validation_seconds": 0.25, "validation": {"ndcg@10": value}} for value in values]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    test = {"ndcg@10": 0.0456, "mrr@10": 0.03, "hit@10": 0.09}
    (tmp_path / "train_hm4sr.out").write_text(json.dumps({"epochs": 2, "seconds_per_epoch": 0.5, "test": test}))
    assert "| hm4sr | 2 | 0.50 | 1.5 | 0.25 | 0.0456 | 0.0300 | 0.0900 |" in tables.training(tmp_path)
    lines = ["t.py::a PASSED [1%]", "t.py::b[1, x] FAILED [2%]", "t.py::c SKIPPED (why) [3%]", "t.py::d"]
    (tmp_path / "tests.out").write_text("\n".join(lines))
    assert tables.tests(tmp_path) == "1 passed, 1 failed, 1 skipped.\n- t.py::b[1, x]"


def test_wheels_come_out_of_the_archive_as_they_went_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = script("wheel_archive")
    monkeypatch.setattr(archive, "FILTERS", [{"id": archive.lzma.FILTER_LZMA2, "preset": 0}])
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "one-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("one/__init__.py", "value = 1\n" * 1000)
    assert 0 < archive.pack(tmp_path / "wheels", tmp_path) < 1000
    (found,) = archive.unpack(tmp_path, tmp_path / "back")
    with zipfile.ZipFile(found) as wheel:
        assert wheel.read("one/__init__.py") == b"value = 1\n" * 1000
    assert found.name == "one-1.0-py3-none-any.whl"
