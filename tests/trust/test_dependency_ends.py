"""Both ends of the dependency ranges are known: the lower one from `pyproject.toml`, the upper one pinned."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "check_dependency_ends.py"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LISTS = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
DIRECT = [found for each in LISTS for text in each if (found := Requirement(text)).name != "athwe"]
LINES = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
PINNED = dict(line.split("==") for line in LINES)
NO_LOWER_END = {"setuptools", "types-PyYAML"}  # held below a version; types alone


def load() -> Any:
    spec = importlib.util.spec_from_file_location("check_dependency_ends", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ends = load()


@pytest.mark.parametrize("needed", DIRECT, ids=lambda needed: needed.name)
def test_every_dependency_has_both_ends(needed: Requirement) -> None:
    pinned = {canonicalize_name(name): version for name, version in PINNED.items()}
    assert needed.specifier.contains(pinned[canonicalize_name(needed.name)])
    lower = ends.lower_ends((ROOT / "pyproject.toml").read_text(encoding="utf-8")).get(needed.name)
    assert (lower is None) == (needed.name in NO_LOWER_END)
    assert lower is None or needed.specifier.contains(lower)


def test_every_line_pins_one_distribution_exactly() -> None:
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", line) for line in LINES)
    assert max(Counter(canonicalize_name(name) for name in PINNED).values()) == 1


def test_lower_ends_are_read_from_ranges_with_extras_markers_and_uppers() -> None:
    text = (
        '[project]\ndependencies = ["a>=1.2", "b[x,y] >= 2.0,<3", "c<4", "d"]\n'
        '[project.optional-dependencies]\nmore = ["athwe[e]", "f-g>=0.1; python_version>=\'3.8\'"]\n'
    )
    assert ends.lower_ends(text) == {"a": "1.2", "b": "2.0", "f-g": "0.1"}


@pytest.mark.parametrize("end", ["lowest", "newest"])
def test_the_script_prints_what_it_would_install(end: str) -> None:
    command = [sys.executable, SCRIPT, end, "--print", "--torch", "9.8.7"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = dict(line.split("==") for line in done.stdout.splitlines())
    assert found.pop("torch") == "9.8.7"
    lower = ends.lower_ends((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    expected = dict(lower) if end == "lowest" else dict(PINNED)
    expected.pop("torch")
    assert found == expected
