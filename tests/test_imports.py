"""Who may import whom: errors, batch <- config <- {nn | losses | data | metrics, ranking} <- models <- runs
<- training, evaluation <- analysis, serving <- library <- athwe_cli."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"warning_filters"},
    {"errors", "batch", "messages", "safe_write", "locks"},
    {"config", "config_schema", "device", "distributed", "host_process", "row_shard"},
    {"nn", "losses", "data", "evaluation.metrics", "evaluation.ranking"},
    {"models"},
    {"runs"},
    {"training", "evaluation"},
    {"analysis", "serving"},
    {"library", "library_run"},
]
APART = FLOORS[3] | FLOORS[1]
"""Rooms that import no other room of their own floor."""
WITHOUT_CONFIG = {"nn", "losses"}
NETWORK_LIBRARIES = {"urllib", "requests", "http", "socket", "ftplib", "httpx", "httpcore", "huggingface_hub"}
WEB_FRAMEWORK = {"fastapi", "starlette", "uvicorn", "prometheus_client"}
"""Only `athwe_cli/serve/` knows it."""
MAY_DOWNLOAD = {
    *("athwe_core.data.features.download", "athwe_core.data.features.public_hosts", "athwe_core.data.sources.fetch")
}
MAY_CONNECT = {"athwe_core.analysis.experiments.ray_cluster"}
"""Asks whether the Ray cluster that a user names is there."""
LOADERS = {"from_pretrained"}
"""Of transformers, which would fetch files and run a repository's code if it were not told not to."""


def modules(package: str) -> dict[str, Path]:
    paths = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return dict(zip(names, paths, strict=True))


CORE, CLI = modules("athwe_core"), modules("athwe_cli")
del CORE["athwe_core.__main__"]
"""`python -m athwe_core` starts the command line; nothing imports it, so the core as a library stays free of it."""


def imported(path: Path) -> Iterator[tuple[str, str | None]]:
    """(module, name or None) of every import in a file, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            yield from ((node.module or "", alias.name) for alias in node.names)


def core_imports(path: Path) -> set[str]:
    """Core modules that a file imports, `from package import module` resolved; none of the package's own file.

    That one names what it exports for type checkers, and loads it when it is used.
    """
    found: set[str] = set()
    if path == CORE["athwe_core"]:
        return found
    for module, name in imported(path):
        if module.split(".")[0] == "athwe_core":
            inner = f"{module}.{name}"
            found.add(inner if inner in CORE else module)
    return found


def room(module: str) -> str | None:
    """The room of a core module; None for the package itself, which holds its version only."""
    parts = module.split(".")[1:]
    if not parts:
        return None
    rooms = set().union(*FLOORS)
    pair = ".".join(parts[:2])
    found = pair if pair in rooms else parts[0]
    assert found in rooms, f"{module}: which floor is this room on?"
    return found


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


@pytest.mark.parametrize("module", CORE)
def test_a_module_imports_rooms_below_its_own(module: str) -> None:
    here = room(module)
    for other in core_imports(CORE[module]):
        there = room(other)
        if here is None or there is None or there == here:
            continue
        assert floor(there) <= floor(here), f"{module} imports {other} from above"
        assert not (floor(there) == floor(here) and here in APART), f"{module} imports its sibling {other}"
        assert not (here in WITHOUT_CONFIG and there.startswith("config")), f"{module} sees the configuration"


def test_no_module_imports_itself_in_a_circle() -> None:
    edges = {module: core_imports(path) & set(CORE) - {module} for module, path in CORE.items()}
    while leaves := {module for module, targets in edges.items() if not targets}:
        edges = {module: targets - leaves for module, targets in edges.items() if module not in leaves}
    assert not edges


@pytest.mark.parametrize("module", CORE)
def test_the_core_neither_prints_nor_parses_nor_evaluates(module: str) -> None:
    tops = {name.split(".")[0] for name, _ in imported(CORE[module])}
    assert not tops & {"typer", "rich", "click", "argparse", "athwe_cli", "pickle", "cloudpickle", "dill", "marshal"}
    assert module in MAY_DOWNLOAD | MAY_CONNECT or not tops & NETWORK_LIBRARIES
    for node in ast.walk(ast.parse(CORE[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "eval", "exec", "input"), f"{module} line {node.lineno}"
        if isinstance(node, ast.Attribute):
            assert node.attr != "argv", f"{module} line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOADERS:
            spread = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg is None]
            assert spread == ["SAFE"], f"{module} line {node.lineno}"
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            safe = node.arg == "weights_only"
            assert isinstance(node.value, ast.Constant), f"{module} line {node.value.lineno}"
            assert node.value.value is safe, f"{module} line {node.value.lineno}"


@pytest.mark.parametrize("module", CLI)
def test_the_command_line_takes_public_names_of_the_core(module: str) -> None:
    for source, name in imported(CLI[module]):
        if source.split(".")[0] == "athwe_core":
            parts = [*source.split("."), name or ""]
            assert not any(part.startswith("_") and part != "__version__" for part in parts), f"{source}.{name}"


@pytest.mark.parametrize("module", [*CORE, *CLI])
def test_only_serve_knows_the_web_framework(module: str) -> None:
    tops = {name.split(".")[0] for name, _ in imported((CORE | CLI)[module])}
    assert module.startswith("athwe_cli.serve.") or not tops & WEB_FRAMEWORK


def test_the_entry_of_the_core_only_starts_the_command_line() -> None:
    entry = ROOT / "athwe_core" / "__main__.py"
    assert list(imported(entry)) == [("athwe_cli.__main__", "main")]


def test_importing_the_package_loads_no_other_module_of_it_and_no_library() -> None:
    code = "import sys; before = set(sys.modules); import athwe_core; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "athwe_core" in loaded
    assert {name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names} == {"athwe_core"}


def test_every_public_name_loads_and_is_listed() -> None:
    code = """
import athwe_core
assert set(athwe_core.__all__) <= set(dir(athwe_core))
for name in athwe_core.__all__:
    assert getattr(athwe_core, name) is getattr(athwe_core, name), name
try:
    athwe_core.tran
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "module 'athwe_core' has no attribute 'tran'"


def test_every_module_imports_without_the_modules_that_windows_lacks_and_the_core_without_the_command_line() -> None:
    """The libraries load first: they know what they do without."""
    has_spark = find_spec("pyspark") is not None  # an extra, which only --engine spark loads
    code = f"""
import importlib, sys
import filelock, jaxtyping, numpy, polars, pydantic, safetensors.torch, scipy.stats
import sklearn.cluster, sklearn.decomposition, sklearn.feature_extraction.text, torch, yaml
for name in ("fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
def load(names):
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
load({sorted(name for name in CORE if has_spark or not name.startswith("athwe_core.data.spark"))!r})
print(sorted({{"typer", "athwe_cli"}} & set(sys.modules)))
import rich.live, rich.progress, typer
load({sorted(CLI)!r})
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


HEAVY = ("matplotlib", "numpy", "polars", "pydantic", "scipy", "sklearn", "torch", "transformers")
"""Libraries that take long to load: none is needed to parse a command line, to show help or to find a run."""


def test_help_of_every_command_loads_no_heavy_library() -> None:
    code = f"""
import contextlib, io, sys
from athwe_cli.app import app
with contextlib.redirect_stdout(io.StringIO()) as shown:
    for arguments in ([], ["--help"], *([command.name, "--help"] for command in app.registered_commands)):
        with contextlib.suppress(SystemExit):
            app(arguments)
assert shown.getvalue().count("Usage:") == 2 + len(app.registered_commands)
print(sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


FIRST_LINES = {
    "train": "data set toy (the newest finished run)",
    "train --resume last": "run toy/sasrec/first is finished",
    "train --from last": "data set toy (that of --from)",
    "ablate --remove Position": "data set toy",
    "sweep --vary training.lr=1,2": "data set toy",
    "tune": "data set toy",
    "table1": "data set toy",
    "bench": "measuring training steps of hm4sr on generated data",
    "prepare": "data set toy",
    "audit": "data set toy",
    "evaluate": "data set toy",
    "compare": "data set toy",
    "compare first": "comparing 1 run",
    "case-study --user 1": "data set toy",
    "case-study --user 1 --run first": "run toy/sasrec/first, prepared version 0123456789ab",
    "report": "data set toy",
    "recommend": "loading last",
    "export --to x --format vectors": "data set toy",
    "serve": "loading last",
    "runs": "1 run in runs",
    "datasets": "0 prepared versions in prepared",
}
"""What each command tells before torch and polars load, which here ends it; the last two need neither."""


def test_every_command_tells_what_it_does_before_torch_and_polars_load(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "toy" / "sasrec" / "first"
    run.mkdir(parents=True)
    data = {"name": "toy", "version": "0123456789ab", "content_hash": "c" * 64, "tie_order": "file"}
    metrics = {f"{name}@{k}": 0.5 for name in ("ndcg", "mrr", "hit") for k in (5, 10, 20)}
    results = {"validation": metrics, "test": metrics, "epochs": 3, "best_epoch": 2, "seconds_per_epoch": 1.0}
    facts = {"status": "finished", "preset": "sasrec", "data": data, "device": "cpu", "results": results}
    facts |= {"command": "athwe train", "started": "2026-01-01", "versions": {}, "seed": 0}
    (run / "manifest.json").write_text(json.dumps(facts))
    code = f"""
import contextlib, io, json, shlex, sys

class Blocked:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in ("torch", "polars"):
            raise SystemExit(f"{{name}} is needed")

sys.meta_path.insert(0, Blocked)
from athwe_cli.app import app
told = {{}}
for command in {list(FIRST_LINES)!r}:
    with contextlib.redirect_stderr(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        app(shlex.split(command))
    told[command] = shown.getvalue()
print(json.dumps(told), file=sys.__stdout__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    for command, line in FIRST_LINES.items():
        assert told[command].startswith(line), f"{command}: {told[command]}"
