"""What a file holds, by its first lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from athwe_core.data.readers.lines import first_lines
from athwe_core.data.readers.table_file import binary_format

ATOMIC, TABLE, AMAZON = "atomic", "table", "amazon"
INTERACTIONS, ITEMS = "interactions", "items"
_USER_ID = re.compile(r"A[0-9A-Z]{9,27}")
_ITEM_ID = re.compile(r"[0-9A-Z]{10}")
_JSON_KEY = re.compile(r"""["'](\w+)["']\s*:""")


def sniff(path: Path) -> tuple[str | None, str]:
    """Kind and role of a file by its first lines; the kind is None where it is no table at all.

    Raises:
        DataError: A damaged or foreign archive.
    """
    if binary_format(path) is not None:
        return TABLE, INTERACTIONS
    lines = [line.decode("utf-8", "replace") for line in first_lines(path)]
    if not lines:
        return None, INTERACTIONS
    if lines[0].lstrip().startswith("{"):
        return _sniff_json(path, lines[0])
    if re.match(r"[^\t:]+:(token|float)", lines[0]):
        return ATOMIC, ITEMS if "user_id:" not in lines[0] else INTERACTIONS
    fields = lines[0].split(",")
    if "parent_asin" in fields and "user_id" in fields:
        return "amazon-2023", INTERACTIONS
    if len(fields) == 4 and _is_number(fields[2]) and _is_number(fields[3]):
        if _ITEM_ID.fullmatch(fields[1]) and _USER_ID.fullmatch(fields[0]):
            return "amazon-2014", INTERACTIONS
        if _ITEM_ID.fullmatch(fields[0]) and _USER_ID.fullmatch(fields[1]):
            return "amazon-2018", INTERACTIONS
    return TABLE, INTERACTIONS


def _sniff_json(path: Path, line: str) -> tuple[str, str]:
    keys: Iterable[str]
    try:
        keys = json.loads(line).keys()
    except (ValueError, RecursionError):
        keys = _JSON_KEY.findall(line)
    found = set(keys)
    if {"user_id", "parent_asin"} <= found:
        return "amazon-2023", INTERACTIONS
    if {"reviewerID", "asin"} <= found:
        return "amazon-2014" if "helpful" in found or path.name.startswith("reviews_") else "amazon-2018", INTERACTIONS
    if "parent_asin" in found or "asin" in found:
        return AMAZON, ITEMS
    return TABLE, INTERACTIONS


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*-?\d+(\.\d*)?\s*", text) is not None
