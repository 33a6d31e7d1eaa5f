"""The command line as a whole: its commands and options, help, version, exit code of an unknown command."""

import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from cli_runner import call
from rich.text import Text

import athwe_core
from athwe_cli.app import app

ROOT = Path(__file__).parents[2]
FOLDERS = {"--data", "--prepared", "--runs"}
EXPERIMENT = {"--dataset", "--preset", "--seeds", "--epochs", "--metric", "--split", "--jobs", "--set", "--config"}
EXPERIMENT |= {
    "--launcher",
    "--ray-address",
    "--track",
    "--batching",
    "--device",
    "--precision",
    "--version",
    "--name",
    "--dry-run",
    "--json",
    *FOLDERS,
}
TABLE = {"--user-column", "--item-column", "--time-column", "--columns", "--quotes", "--time-unit", "--time-format"}
TABLE |= {"--max-bad-lines", "--max-missing-ids"}
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
    | {"--max-categories", "--text-width", "--users", "--items", "--engine", "--spark-master", *FOLDERS}
    | {"--text-layers", "--image-layers", "--keep-items"}
    | {"--text-encoder", "--text-pooling", "--text-max-tokens", "--image-encoder", "--images", "--image-column"}
    | {"--download-images", "--allow-private-hosts", "--clusters", "--refresh", "--device"}
    | {"--source", "--raw", "--item-file", "--keep-feature-scale", "--feature-rows", *TABLE}
    | {"--export", "--to", "--overwrite"},
    "audit": {"--dataset", "--version", "--seed", "--shuffles", "--to", "--prepared", "--runs", "--json"},
    "train": {
        "--dataset",
        "--preset",
        "--batching",
        "--modalities",
        "--epochs",
        "--patience",
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
        "--from",
        "--all-data",
        "--refit",
        "--init-from",
        "--verify",
        "--checkpoint-minutes",
        "--track",
        "--version",
        "--dry-run",
        "--json",
        *FOLDERS,
    },
    "evaluate": {"--run", "--dataset", "--split", "--exclude-seen", "--keep-seen", "--k", "--json"}
    | {"--verify", "--prepared", "--runs"},
    "recommend": {
        "--run",
        "--dataset",
        "--users",
        "--histories",
        "--like",
        "--items",
        "--k",
        "--exclude-seen",
        "--keep-seen",
    }
    | {"--with", "--to", "--verify", "--prepared", "--runs", "--json", *TABLE},
    "ablate": {"--remove", "--all", *EXPERIMENT},
    "sweep": {"--vary", *EXPERIMENT},
    "table1": {"--against", *EXPERIMENT} - {"--config", "--batching"},
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
    | {
        "--precision",
        "--device",
        "--steps",
        "--growth",
        "--largest",
        "--only",
        "--models",
        "--to",
        "--prepared",
        "--json",
    },
    "case-study": {"--user", "--random", "--pick", "--history", "--run", "--against", "--dataset", "--split", "--k"}
    | {"--seed", "--images", "--html", "--no-html", "--json", *FOLDERS},
    "compare": {"run", "--dataset", "--split", "--metric", "--groups", "--no-groups", "--force", "--runs", "--json"}
    | {"--ranks", "--prepared", "--latex", "--markdown", "--csv", "--html"},
    "export": {"--run", "--dataset", "--to", "--format", "--k", "--with", "--data-licence", "--overwrite"}
    | {"--prepared", "--runs", "--json"},
    "serve": {"--run", "--dataset", "--host", "--port", "--api-key-file", "--page", "--no-page", "--images"}
    | {
        "--check-seconds",
        "--max-batch",
        "--max-queue",
        "--max-k",
        "--max-history",
        "--max-body-kb",
        "--timeout-seconds",
    }
    | {"--json", *FOLDERS},
    "runs": {"action", "name", "--dataset", "--yes", "--runs", "--json"},
    "download": {"name", "--yes", "--overwrite", "--sources", "--data", "--json"},
    "datasets": {"action", "name", "--version", "--yes", "--prepared", "--runs", "--json"},
    "report": {"--dataset", "--run", "--to", "--prepared", "--runs", "--json"},
    "tune": {
        "--jobs",
        "--launcher",
        "--ray-address",
        "--dataset",
        "--preset",
        "--space",
        "--trials",
        "--epochs",
        "--seed",
        "--name",
        "--set",
        "--config",
    }
    | {"--track", "--dry-run", "--json", *FOLDERS},
}


def test_surface_is_frozen() -> None:
    """A new option is a decision: it is added here too."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    found = {
        name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for name, command in commands.items()
    }
    assert {name: options - {"--help", "-h"} for name, options in found.items()} == COMMANDS


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(command: str, tmp_path: Path) -> None:
    result = call(tmp_path, command, "--help")
    assert result.exit_code == 0
    assert f"Example: athwe {command}" in result.stdout


def test_every_term_that_the_help_points_to_is_in_the_glossary() -> None:
    """Help points to a term as in `(glossary: packed, prefix row)`."""
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    headings = {heading.lower() for heading in re.findall("^### (.*)$", glossary, re.MULTILINE)}
    group: Any = typer.main.get_command(app)
    commands = [group, *group.commands.values()]
    texts = [command.help for command in commands] + [group.epilog]
    texts += [parameter.help for command in commands for parameter in command.params if hasattr(parameter, "help")]
    pointers = [term for text in texts for term in re.findall(r"\(glossary: ([^)]*)\)", text or "")]
    terms = {term for pointer in pointers for term in pointer.split(", ")} - {"..."}
    assert {"packed", "prefix row", "preset", "seen items", "split"} <= terms
    assert terms <= headings


def test_no_help_of_an_option_has_words_that_rich_takes_for_a_style() -> None:
    """`athwe[serve]` would be shown as `athwe`."""
    group: Any = typer.main.get_command(app)
    texts = {parameter.help for command in group.commands.values() for parameter in command.params}
    assert {text for text in texts if text and Text.from_markup(text).plain != text} == set()


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_loads_no_library_that_takes_long(arguments: list[str]) -> None:
    code = "from athwe_cli.app import app\ntry:\n    app(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
    heavy = "sorted(sys.modules.keys() & {'torch', 'numpy', 'scipy', 'polars', 'yaml', 'pydantic', 'fastapi'})"
    command = [sys.executable, "-c", f"import sys\n{code}print('loaded:', {heavy})", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "Usage:" in result.stdout
    assert result.stdout.splitlines()[-1] == "loaded: []"


def test_an_unknown_subcommand_is_a_usage_error_with_a_near_miss(tmp_path: Path) -> None:
    result = call(tmp_path, "trian")
    assert result.exit_code == 2
    assert "train" in result.stderr


def test_version(tmp_path: Path) -> None:
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, device "
    assert call(tmp_path, "--version").stdout.startswith(f"athwe {athwe_core.__version__} ({versions}")
