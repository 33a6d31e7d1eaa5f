"""What a file holds, as part of a message: short, in one line, and nothing that a terminal would obey."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from itertools import islice

MAX_SHOWN = 60
"""Characters of one value; a cell or a name can be megabytes long."""
MAX_LISTED = 20


def clipped(text: str | bytes, *, most: int = MAX_SHOWN) -> str:
    """The start of a text; `...` says that there is more."""
    start = text[: most + 1]
    readable = start.decode("utf-8", "replace") if isinstance(start, bytes) else start
    return readable[:most] + "..." if len(start) > most else readable


def brief(text: str | bytes, *, most: int = MAX_SHOWN) -> str:
    """The start of a text; what cannot be printed is escaped."""
    return "".join(map(_printable, clipped(text, most=most)))


def listed(names: Sequence[str]) -> str:
    """Names with commas between them: the first ones, and how many there are."""
    more = f", ... ({len(names):,} in all)" if len(names) > MAX_LISTED else ""
    return ", ".join(map(brief, islice(names, MAX_LISTED))) + more


def reason(error: BaseException) -> str:
    """The first line of an exception's text, or its kind where it has none."""
    return brief(next(iter(str(error).splitlines()), ""), most=4 * MAX_SHOWN) or type(error).__name__


def near_miss(name: str, names: list[str]) -> str:
    """A clause that lists the names there are and the one that was probably meant; empty without any."""
    if not names:
        return ""
    close = difflib.get_close_matches(name, names, n=1)
    hint = f", did you mean {close[0]!r}?" if close else ""
    return f" (there: {', '.join(names)}{hint})"


def _printable(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
