"""Python literals: lines such as `{'asin': u'B1'}`, as old dumps have them. They are read, never run.

`ast.literal_eval` accepts constants and containers only. No heavy library is imported here: worker processes use it.
"""

from __future__ import annotations

import ast
import warnings
from typing import Any

MAX_LITERAL_BYTES = 2**20
"""Longest literal; a longer line is none."""


def parse_literal(line: bytes) -> Any:
    """The value of a line of UTF-8 that holds a Python literal; None where it holds none."""
    if len(line) > MAX_LITERAL_BYTES:
        return None
    try:
        with warnings.catch_warnings():  # of escapes such as \\d in a title
            warnings.simplefilter("ignore")
            return ast.literal_eval(line.decode().strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
