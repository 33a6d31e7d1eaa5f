"""Questions before something is removed or fetched."""

from __future__ import annotations

import typer


def confirmed(question: str, *, yes: bool) -> bool:
    """Ask on standard error, unless --yes was given.

    Args:
        question: what to answer with y or n.
        yes: value of --yes.

    Returns:
        Whether the answer is yes. Raises ConfigError where standard input has no answer.
    """
    if yes:
        return True
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        typer.echo(err=True)  # the error begins a line of its own
        from athwe_core.errors import ConfigError

        raise ConfigError("--yes", "must be given where standard input has no answer") from None
