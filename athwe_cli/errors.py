"""A user's mistake is one line and an exit code; a traceback only with --debug."""

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
"""Set by `athwe --debug`."""


def one_line_errors(command: _Command) -> _Command:
    """Turn an AthweError of the core into one line on stderr and its exit code."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except AthweError as error:
            if debug["on"]:
                raise
            typer.echo(f"{_speaker()}error: {printable(error)}", err=True)
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if debug["on"]:
                raise
            where = f" {error.filename}" if error.filename else ""
            typer.echo(
                f"{_speaker()}error: {printable(f'the system refused{where}: {error.strerror or error}')}", err=True
            )
            raise typer.Exit(1) from None

    return wrapped  # type: ignore[return-value]


def _speaker() -> str:
    """Which of several processes speaks; nothing where there is one."""
    is_several = os.environ.get("WORLD_SIZE", "1") != "1"
    return f"[process {os.environ.get('RANK', '?')}] " if is_several else ""
