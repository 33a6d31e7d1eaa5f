"""Errors that a user can cause: one line and an exit code, or a traceback with --debug."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import typer

from athwe_cli.render import printable
from athwe_core.errors import AthweError

_Command = TypeVar("_Command", bound=Callable[..., Any])

debug = {"on": False}
"""Whether `athwe --debug` was given."""


def one_line_errors(command: _Command) -> _Command:
    """Decorate a command so that an `AthweError` or `OSError` ends it with one line on stderr.

    Args:
        command: The function of the command.

    Returns:
        The same command. It raises `typer.Exit` with the error's exit code, 1 for an `OSError`; with `--debug` the error
        itself.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except AthweError as error:
            if debug["on"]:
                raise
            typer.echo(f"{_prefix()}error: {printable(error)}", err=True)
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if debug["on"]:
                raise
            what = f"{error.filename} cannot be used" if error.filename else "the operating system reports an error"
            typer.echo(f"{_prefix()}error: {printable(f'{what}: {error.strerror or error}')}", err=True)
            raise typer.Exit(1) from None

    return wrapped  # type: ignore[return-value]


def _prefix() -> str:
    """Names the process under torchrun; empty for a single process."""
    is_distributed = os.environ.get("WORLD_SIZE", "1") != "1"
    return f"[process {os.environ.get('RANK', '?')}] " if is_distributed else ""
