"""What can go wrong through a user's input, in one shape: what, which rule, what was found, how to mend it."""

from __future__ import annotations

_NOTHING = object()
MAX_VALUE = 300
"""Characters of a value that are shown."""


class AthweError(Exception):
    """An error a user can cause and mend; its text is one line.

        {name} {rule}, got {value}. {remedy}

    Args:
        name: What is wrong and where: a configuration key, or a file with its row, e.g. `"Toys.inter line 7: timestamp"`.
        rule: What was expected, as a phrase that continues `name`, e.g. `"must be in 1..8"`.
        value: What was found, its beginning where it is long; left out of the text when not given.
        remedy: What to do about it, as a sentence without its full stop; left out when empty.
    """

    exit_code = 1

    def __init__(self, name: str, rule: str, value: object = _NOTHING, remedy: str = "") -> None:
        self.name = name
        self.rule = rule
        self.value = None if value is _NOTHING else value
        self.remedy = remedy
        text = f"{name} {rule}"
        if value is not _NOTHING:
            shown = repr(value)
            text += f", got {shown if len(shown) <= MAX_VALUE else shown[:MAX_VALUE] + '...'}"
        if remedy:
            text += f". {remedy}"
        super().__init__(" ".join(text.split()))


class ConfigError(AthweError):
    """A configuration key, option or name that is unknown or out of its range (exit code 2)."""

    exit_code = 2


class DataError(AthweError):
    """A source file, feature file or prepared data set that is missing, malformed or inconsistent (exit code 3)."""

    exit_code = 3


class CheckpointError(AthweError):
    """A run or checkpoint that is missing, unreadable, or of another network or data set (exit code 3)."""

    exit_code = 3


class NonFiniteLossError(AthweError):
    """Training met a loss that is NaN or infinite and stopped before the update (exit code 1)."""


def require(condition: bool, name: str, rule: str, value: object, remedy: str = "") -> None:
    """Raise `ConfigError(name, rule, value, remedy)` unless `condition`."""
    if not condition:
        raise ConfigError(name, rule, value, remedy)
