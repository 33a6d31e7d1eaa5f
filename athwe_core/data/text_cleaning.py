"""Texts of shops as plain text: entities unescaped, markup stripped, white space collapsed. Light: workers import it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

NAME_SEPARATOR = " | "
"""Between the names in one cell of an item table; names hold blanks and commas themselves."""
MAX_CHARACTERS = 20_000
"""Longer texts are cut: no encoder reads so far, and cleaning stays quick on hostile ones."""
_HIDDEN = re.compile(r"<(script|style)\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|<![^<>]*>")
_CONTROL = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0xAD, 0x200B, 0xFEFF], " ")
_CONTROL[0xAD] = _CONTROL[0x200B] = _CONTROL[0xFEFF] = ""  # invisible: soft hyphen, zero-width space, byte-order mark


def clean_text(text: str) -> str:
    """Return one line of plain text.

    Entities are unescaped first, so that escaped markup goes too; scripts and styles go with their content; a tag counts
    as a blank; every run of white space and control characters is one blank. `5 < 6` stays.
    """
    text = text[:MAX_CHARACTERS]
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _MARKUP.sub(" ", _HIDDEN.sub(" ", text))
    return " ".join(text.translate(_CONTROL).split())


def join_names(names: Iterable[str]) -> str:
    """Clean names in one cell, each once, in the order in which they come."""
    cleaned = (clean_text(name).replace("|", "/") for name in names)
    return NAME_SEPARATOR.join(dict.fromkeys(name for name in cleaned if name))
