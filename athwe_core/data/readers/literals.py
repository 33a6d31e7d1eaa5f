"""Python literals: lines such as `{'asin': u'B1'}`, as old dumps have them. They are read, never run.

`ast.literal_eval` accepts constants and containers only. No heavy library is imported here: worker processes use it.
"""

from __future__ import annotations

import ast
import re
from typing import Any

MAX_LITERAL_BYTES = 2**20
"""Longest literal; a longer line is none."""
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_KNOWN_ESCAPES = frozenset("\n\\'\"abfnrtvx01234567NuU")
_RAW_TEXT = re.compile(r"(?i)(?<![\w'\"])(?:r|br|rb)['\"]")


def parse_literal(line: bytes) -> Any:
    """The value of a line of UTF-8 that holds a Python literal; None where it holds none."""
    if len(line) > MAX_LITERAL_BYTES:
        return None
    try:
        return ast.literal_eval(_with_known_escapes(line.decode().strip()))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _with_known_escapes(text: str) -> str:
    r"""Write `\d` as `\\d`, which Python reads the same: for escapes that it does not know it warns the whole process."""
    if "\\" not in text or _RAW_TEXT.search(text):
        return text
    return _ESCAPE.sub(lambda found: found[0] if found[1] in _KNOWN_ESCAPES else "\\" + found[0], text)
