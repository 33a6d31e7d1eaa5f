"""The command line: one Typer app, one file per command."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Annotated

import typer

import athwe_core
from athwe_cli import errors
from athwe_cli.ablate import ablate
from athwe_cli.audit import audit
from athwe_cli.bench import bench
from athwe_cli.case_study import case_study
from athwe_cli.compare import compare
from athwe_cli.datasets import datasets
from athwe_cli.download import download
from athwe_cli.evaluate import evaluate
from athwe_cli.export import export
from athwe_cli.panels import COMMAND_PANELS, PanelledCommand
from athwe_cli.prepare import prepare
from athwe_cli.recommend import recommend
from athwe_cli.report import report
from athwe_cli.runs import runs
from athwe_cli.serve.command import serve
from athwe_cli.sweep import sweep
from athwe_cli.table1 import table1
from athwe_cli.train import train
from athwe_cli.tune import tune

app = typer.Typer(
    name="athwe",
    help="Time-aware, multi-modal sequential recommendation.\n\n"
    "Start here, without any data of your own: athwe train --dataset demo",
    epilog="Terms (glossary: packed, prefix row, tie order, split, seen items, ...) are explained in docs/glossary.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # without these defaults typer imports pydantic, which takes 0.1 s, to convert options that are missing
    context_settings={
        "default_map": dict.fromkeys(("help", "install_completion", "show_completion"), False),
        "help_option_names": ["--help", "-h"],
    },
)


def _show_version(value: bool) -> None:
    if value:
        from platform import python_version

        typer.echo(f"athwe {athwe_core.__version__} (Python {python_version()}, ", nl=False)  # the rest takes seconds
        import torch

        from athwe_core.device import resolve_device

        typer.echo(f"torch {torch.__version__}, device {resolve_device('auto')})")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error instead of one line.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version, and those of Python and torch, and exit.",
            callback=_show_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Handle the options before the command, and refuse commands that cannot run under torchrun.

    Args:
        context: Typer's context, which knows the command.
        debug: Show tracebacks.
        version: Handled by its callback.
    """
    errors.debug["on"] = debug
    if os.environ.get("WORLD_SIZE", "1") != "1" and context.invoked_subcommand != "train":
        message = f"error: athwe {context.invoked_subcommand} runs in one process: start it without torchrun"
        typer.echo(message, err=True)
        raise typer.Exit(2)


COMMANDS = (
    *(download, prepare, audit, datasets, train, ablate, sweep, tune, table1, bench),
    *(evaluate, compare, case_study, report, runs, recommend, export, serve),
)


def _help_of(command: Callable[..., None]) -> str:
    """The docstring as help: one line per paragraph, which the terminal wraps, and no bracket read as markup."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).replace("[", r"\[")


for command in COMMANDS:
    name = command.__name__.replace("_", "-")
    panel = next(title for title, names in COMMAND_PANELS.items() if name in names)
    app.command(name, help=_help_of(command), cls=PanelledCommand, rich_help_panel=panel)(command)
