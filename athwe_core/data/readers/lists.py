"""Lists in the cells of a text column: found by a look at the whole column, and split into names."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from athwe_core.data.readers.literals import parse_literal

BAR = "|"
"""Between the values of a cell that was a list in the file's own type."""
_MANY = 0.2  # share of the cells that are not empty
_BRACKETS = r"""(?s)^\s*(?:\[.*\]|\(\s*['"].*\)|\{\s*['"].*\})\s*$"""
_QUOTED = r"""^\s*(?:'[^']*'|"[^"]*")(?:\s*,\s*(?:'[^']*'|"[^"]*"))*\s*$"""
_LIKE_LISTS = re.compile(r"(?i)categor|genre|tags?$|^tag|topic|keyword|labels?$|style|theme|types?$")
_SEPARATORS = (";", ",", ">", "/")
_NAME_KEYS = ("name", "title", "label", "description", "value")


@dataclass(frozen=True)
class ListCells:
    """How the cells of a column hold lists: `form` for messages, and what splits one cell into names."""

    form: str
    split: Callable[[str], list[str]]


def find_lists(cells: pl.Series, name: str) -> ListCells | None:
    """How the cells of a column hold lists of names; None where they do not.

    Brackets, quoted names and bars are looked for in every column. Semicolons, commas, `>` and `/` stand in prose too: they
    count in columns named like lists, and only where the names repeat from cell to cell more than the cells do.

    Args:
        cells: Strings.
        name: Of the column.
    """
    cells = cells.filter(cells.str.strip_chars() != "")
    forms = (
        (_BRACKETS, "lists in brackets", names_in_brackets),
        (_QUOTED, "quoted names with commas", quoted_names),
        (r"\|", "names with bars", lambda text: text.split(BAR)),
    )
    for pattern, form, split in forms:
        if int(cells.str.contains(pattern).sum()) > _MANY * len(cells):
            return ListCells(form, split)
    if not _LIKE_LISTS.search(name):
        return None
    for separator in _SEPARATORS:
        has_it = cells.str.contains(separator, literal=True)
        if int(has_it.sum()) > _MANY * len(cells) and _repeats(cells, separator):
            return ListCells(f"names with {separator!r}", lambda text, by=separator: text.split(by))  # type: ignore[misc]
    return None


def doubtful_lists(cells: pl.Series, name: str) -> str:
    """A question about a column named like lists whose cells are hardly ever equal; empty where there is none."""
    cells = cells.filter(cells.str.strip_chars() != "")
    count = cells.n_unique() if len(cells) else 0
    if not _LIKE_LISTS.search(name) or count < 10 or 3 * count < len(cells):
        return ""
    return f"{count:,} {name} for {len(cells):,} items: do cells hold lists?"


def names_in_brackets(text: str) -> list[str]:
    """Names in a JSON array, a Python list, tuple or set, or numpy's form without commas; nested lists are joined.

    Objects in them give their name.
    """
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        found = parse_literal(text.encode("utf-8", "replace"))
    if found is None and re.fullmatch(r"\s*\[\s*\]\s*|\s*(null|None)\s*", text):
        return []
    if re.fullmatch(
        r"""\s*\[\s*(?:(?:'[^']*'|"[^"]*")\s+)+(?:'[^']*'|"[^"]*")\s*\]\s*""", text
    ):  # Python would join them
        return [first or second for first, second in re.findall(r"""'([^']*)'|"([^"]*)\"""", text)]
    if isinstance(found, dict):
        return [_name_of(found)]
    if isinstance(found, list | tuple | set):
        return list(_flat(sorted(found, key=str) if isinstance(found, set) else found))
    inner = re.fullmatch(r"\s*\[([^\[\]'\"]+)\]\s*", text)  # [Toys, Dolls]
    return inner[1].split(",") if inner else [text]


def quoted_names(text: str) -> list[str]:
    """Names in `'Toys & Games', 'Dolls'`, as RecBole's converters write them; other text is one name."""
    if not re.match(_QUOTED, text):
        return [text]
    return [first or second for first, second in re.findall(r"""'([^']*)'|"([^"]*)\"""", text)]


def _flat(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        if isinstance(value, list | tuple | set):
            yield from _flat(sorted(value, key=str) if isinstance(value, set) else value)
        elif isinstance(value, dict):
            yield _name_of(value)
        elif value is not None:
            yield str(value)


def _name_of(value: dict[Any, Any]) -> str:
    """The name in an object such as `{'id': 18, 'name': 'Drama'}`: by its key, else its only text, else the whole object."""
    texts = {key: text for key, text in value.items() if isinstance(text, str)}
    by_key = next((texts[key] for key in _NAME_KEYS if key in texts), None)
    return by_key or (next(iter(texts.values())) if len(texts) == 1 else str(value))


def _repeats(cells: pl.Series, separator: str) -> bool:
    """Whether the parts of distinct cells come from a vocabulary that is smaller than what whole cells would give."""
    parts: Counter[str] = Counter()
    distinct: Sequence[str] = cells.unique().to_list()
    for cell in distinct:
        parts.update({part.strip() for part in cell.split(separator)})
    in_several = sum(count for count in parts.values() if count > 1)
    return len(parts) < len(distinct) or in_several > 0.5 * parts.total()
