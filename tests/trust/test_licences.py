"""Every distribution that athwe needs has a licence that goes with MIT, and one that has not is noticed."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "licences.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("licences", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


licences = load()


class Made(Distribution):
    """A distribution with given metadata."""

    def __init__(self, *lines: str, name: str = "made") -> None:
        self._text = "\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *lines])

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: object) -> Any:
        raise NotImplementedError


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_script_lists_all_that_is_needed_and_refuses_nothing() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--json"], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert found["refused"] == []
    assert done.returncode == 0
    listed = {plain(each["name"]): each for each in found["distributions"]}
    assert len(listed) == len(found["distributions"]) > 60
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    direct = {"runtime": project["dependencies"], **{extra: extras[extra] for extra in ("encoders", "tune")}}
    for needed_by, requirements in direct.items():
        for requirement in requirements:
            assert listed[plain(re.match(r"[\w.-]+", requirement)[0])]["needed_by"] == needed_by  # type: ignore[index]
    assert listed["mpmath"]["needed_by"] == "runtime"  # of sympy, of torch
    assert listed["pytest"]["needed_by"] == "test"
    assert all(each["licence"] and each["version"] for each in listed.values())


def test_the_table_has_a_line_each() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True)
    *lines, last = done.stdout.splitlines()
    assert last == f"{len(lines)} distributions, 0 not compatible with MIT"
    assert any(re.match(r"runtime +torch +\d", line) for line in lines)


def test_one_refused_licence_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made = [(Made("License-Expression: MIT", name="good"), "runtime"), (Made("License: GPLv3", name="bad"), "tune")]
    monkeypatch.setattr(licences, "needed", lambda: iter(made))
    monkeypatch.setattr(sys, "argv", ["licences.py"])
    assert licences.main() == 1
    assert "GPLv3  NOT COMPATIBLE" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["licences.py", "--json"])
    assert licences.main() == 1
    assert json.loads(capsys.readouterr().out)["refused"] == ["bad"]


@pytest.mark.parametrize(
    ("expression", "is_compatible"),
    [
        ("MIT", True),
        ("BSD-3-Clause AND Zlib AND CC0-1.0", True),
        ("MPL-2.0", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-or-later", False),
        ("AGPL-3.0-only", False),
        ("MIT AND GPL-2.0-only", False),
        ("MIT OR GPL-2.0-only", True),
        ("GPL-2.0-only OR MIT", True),
        ("(MIT OR GPL-2.0-only) AND BSD-3-Clause", True),
        ("(MIT OR GPL-2.0-only) AND AGPL-3.0-only", False),
        ("MIT OR (GPL-2.0-only AND BSD-3-Clause)", True),
        ("BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1", True),
        ("GPL-2.0-only WITH Other-exception", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("LicenseRef-Proprietary", False),
        ("CC-BY-NC-4.0", False),
        ("MIT AND", False),
        ("(MIT", False),
        ("MIT)", False),
        ("MIT MIT", False),
        ("", False),
        ("Copyright (c) somebody, all rights reserved", False),
    ],
)
def test_expressions(expression: str, is_compatible: bool) -> None:
    assert licences.is_compatible(expression) is is_compatible


@pytest.mark.parametrize(
    ("lines", "licence", "known_by", "is_compatible"),
    [
        (["License-Expression: MIT", "License: GPLv3"], "MIT", "expression", True),
        (["License-Expression: AGPL-3.0-only", "License: MIT"], "AGPL-3.0-only", "expression", False),
        (["License: MPL-2.0 AND MIT"], "MPL-2.0 AND MIT", "field", True),
        (["License: Apache 2.0 License"], "Apache-2.0", "field", True),
        (["License: MIT License"], "MIT", "field", True),
        (["License: MIT and a condition of ours"], "MIT and a condition of ours", "field", False),
        (["License: GNU GPL, version 2"], "GNU GPL, version 2", "field", False),
        (["Classifier: License :: OSI Approved :: MIT License", "License: see LICENSE"], "MIT", "classifier", True),
        (
            ["Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)"],
            "GNU General Public License v3 (GPLv3)",
            "classifier",
            False,
        ),
        (
            [
                "Classifier: License :: OSI Approved :: MIT License",
                "Classifier: License :: Free for non-commercial use",
            ],
            "MIT AND Free for non-commercial use",
            "classifier",
            False,
        ),
        (["Classifier: Programming Language :: Python"], "unknown", "nothing", False),
        ([], "unknown", "nothing", False),
    ],
)
def test_where_a_licence_is_read_from(lines: list[str], licence: str, known_by: str, is_compatible: bool) -> None:
    found = licences.licence_of(Made(*lines), "runtime")
    assert (found.licence, found.known_by, found.is_compatible) == (licence, known_by, is_compatible)


def test_libraries_of_the_driver_are_named_as_what_they_are() -> None:
    found = licences.licence_of(Made("License: NVIDIA Proprietary Software", name="nvidia-cublas-cu12"), "runtime")
    assert found.is_compatible
    assert found.note.startswith("proprietary, not part of athwe")
    assert not licences.licence_of(Made("License: NVIDIA Proprietary Software"), "runtime").is_compatible


def test_of_pytorch_wavelets_only_the_part_under_mit_is_used() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "athwe_core").rglob("*.py")]
    lines = [
        line for text in sources for line in re.findall(r"from pytorch_wavelets import (.*?)(?:\s*#.*)?$", text, re.M)
    ]
    used = {name.strip() for line in lines for name in line.split(",")}
    assert used == {"DWT1DForward", "DWT1DInverse"}
    assert not any("import pytorch_wavelets" in text or "pytorch_wavelets.dtcwt" in text for text in sources)
