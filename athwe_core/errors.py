"""Errors that a user can cause. Each names what is wrong, the rule, the value found, and a remedy."""

from __future__ import annotations

_NOTHING = object()
MAX_VALUE = 300
"""Characters of a value that an error shows."""


class AthweError(Exception):
    """An error that a user can cause and correct. Its text is one line:

        {name} {rule}, got {value}. {remedy}

    Args:
        name: what is wrong and where: a configuration key, or a file and its line, such as `Toys.inter line 7: timestamp`.
        rule: what is expected, as a phrase that continues `name`, such as `must be in 1..8`.
        value: what was found; the text shows its first `MAX_VALUE` characters. Left out of the text if not given.
        remedy: what to do, as a sentence without its full stop. Left out if empty.
    """

    exit_code = 1
    """Exit code of a command that ends with this error."""

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
    """A configuration key, option or name is unknown or out of range (exit code 2)."""

    exit_code = 2


class DataError(AthweError):
    """A source file, feature file or prepared data set is missing, malformed or inconsistent (exit code 3)."""

    exit_code = 3


class CheckpointError(AthweError):
    """A run or checkpoint is missing, unreadable, or belongs to another model or data set (exit code 3)."""

    exit_code = 3


class NonFiniteLossError(AthweError):
    """A loss, a gradient or a weight is NaN or infinite (exit code 1).

    A step with such a loss or gradient does not change the weights. Weights that are not finite are never saved: the
    checkpoint before them is kept.
    """


def require(condition: bool, name: str, rule: str, value: object, remedy: str = "") -> None:
    """Check a condition on the configuration.

    Args:
        condition: what must hold.
        name, rule, value, remedy: of the error, as in `AthweError`.
    Raises:
        ConfigError: `condition` is False.
    """
    if not condition:
        raise ConfigError(name, rule, value, remedy)
