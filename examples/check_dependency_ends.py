"""Run the test suite with the oldest or the newest versions that `pyproject.toml` allows, in a new virtual environment.

    python examples/check_dependency_ends.py lowest
    python examples/check_dependency_ends.py newest -- -n 2

`lowest` installs the lower end of every version range, `newest` the versions that `constraints.txt` pins. Arguments after
`--` are passed to pytest. `--torch VERSION` installs that version of torch instead: on Linux the oldest version from the
package index downloads several gigabytes of CUDA libraries.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(.*)")
_LOWER_END = re.compile(r">=\s*([0-9][^,\s]*)")


def lower_ends(pyproject: str) -> dict[str, str]:
    """Find the lower end of every version range, extras included.

    Args:
        pyproject: Text of a `pyproject.toml`.

    Returns:
        Name of each distribution that has a lower end, and that version.
    """
    project = tomllib.loads(pyproject)["project"]
    lists = [project["dependencies"], *project.get("optional-dependencies", {}).values()]
    found: dict[str, str] = {}
    for requirement in (text for each in lists for text in each):
        name, ranges = _REQUIREMENT.match(requirement.split(";")[0]).groups()  # type: ignore[union-attr]
        if lower := _LOWER_END.search(ranges):
            found[name] = lower[1]
    return found


def constraints(end: str, torch: str | None) -> str:
    """Write the constraints file for one end of the version ranges.

    Args:
        end: `lowest` or `newest`.
        torch: Version of torch to install instead; None leaves it as it is.

    Returns:
        The text of the file: one `name==version` per line.
    """
    if end == "lowest":
        pinned = lower_ends((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    else:
        lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    if torch is not None:
        pinned["torch"] = torch
    return "".join(f"{name}=={version}\n" for name, version in sorted(pinned.items()))


def run_suite(end: str, torch: str | None, work: Path, pytest_arguments: list[str]) -> int:
    """Install a copy of the project with the versions of one end and run its tests.

    Args:
        end: `lowest` or `newest`.
        torch: Version of torch to install instead, or None.
        work: Empty folder for the copy and its virtual environment.
        pytest_arguments: Further arguments of pytest.

    Returns:
        The exit code of pytest.
    """
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dataset", "prepared", "runs")
    source = Path(shutil.copytree(ROOT, work / "source", ignore=ignored))
    pinned = work / "pinned.txt"
    pinned.write_text(constraints(end, torch), encoding="utf-8")
    venv.create(work / "venv", with_pip=True)
    python = work / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip"]
    subprocess.run([*pip, "install", "--quiet", "-c", str(pinned), "-e", f"{source}[test]"], cwd=work, check=True)
    print(subprocess.run([*pip, "freeze"], capture_output=True, text=True, check=True).stdout)
    if end == "lowest":  # newer indirect dependencies deprecate what these old versions use
        pytest_arguments = ["-W", "ignore::DeprecationWarning", *pytest_arguments]
    return subprocess.run([python, "-m", "pytest", *pytest_arguments], cwd=source, check=False).returncode


def main() -> int:
    """Parse the arguments and run the suite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("end", choices=("lowest", "newest"))
    parser.add_argument("--torch", help="install this version of torch instead", metavar="VERSION")
    parser.add_argument("--print", action="store_true", help="print the versions and stop")
    parser.add_argument("--work", type=Path, help="empty folder to work in, which is kept; default: a temporary folder")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given, for_pytest = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1 :]
    if given.print:
        print(constraints(given.end, given.torch), end="")
        return 0
    if given.work is not None:
        return run_suite(given.end, given.torch, given.work.resolve(), for_pytest)
    with tempfile.TemporaryDirectory() as folder:
        return run_suite(given.end, given.torch, Path(folder), for_pytest)


if __name__ == "__main__":
    sys.exit(main())
