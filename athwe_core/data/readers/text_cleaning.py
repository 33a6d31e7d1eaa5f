"""Texts of shops as plain text: entities unescaped, markup stripped, white space collapsed. Light: workers import it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

NAME_SEPARATOR = " | "
"""Between the names in one cell of an item table; names hold blanks and commas themselves."""
MAX_CHARACTERS = 20_000
"""Longer texts are cut: no encoder reads so far, and cleaning stays quick on hostile ones."""
_HIDDEN = [
    (
        re.compile(rf"<{tag}\b[^<>]*>.*?</{tag}\s*>", re.IGNORECASE | re.DOTALL),
        re.compile(rf"</{tag}\s*>", re.IGNORECASE),
    )
    for tag in ("script", "style")
]
_MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|<![^<>]*>")
_HALF = re.compile("[\ud800-\udfff]")
_CONTROL = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0xAD, 0x200B, 0xFEFF], " ")
_CONTROL[0xAD] = _CONTROL[0x200B] = _CONTROL[0xFEFF] = ""  # invisible: soft hyphen, zero-width space, byte-order mark
_CONTROL |= dict.fromkeys(
    range(0xD800, 0xE000), "\ufffd"
)  # halves of characters, which JSON can write and UTF-8 cannot


def clean_text(text: str) -> str:
    """Return one line of plain text.

    Entities are unescaped first, so that escaped markup goes too; scripts and styles go with their content; a tag counts
    as a blank; every run of white space and control characters is one blank. `5 < 6` stays. Half a surrogate pair is U+FFFD.
    """
    text = text[:MAX_CHARACTERS]
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _MARKUP.sub(" ", _without_hidden(text))
    return " ".join(text.translate(_CONTROL).split())


def is_text(text: str) -> bool:
    """Whether UTF-8 can hold it and it has no NUL; JSON can write halves of surrogate pairs, and NUL."""
    return "\0" not in text and not _HALF.search(text)


def without_halves(text: str) -> str:
    """NUL for each half of a surrogate pair."""
    return _HALF.sub("\0", text)


def _without_hidden(text: str) -> str:
    """Without scripts and styles. Beyond the last closing tag nothing is sought: many open tags would cost a square."""
    for whole, closing in _HIDDEN:
        end = max((match.end() for match in closing.finditer(text)), default=0)
        text = whole.sub(" ", text[:end]) + text[end:]
    return text


def join_names(names: Iterable[str]) -> str:
    """Clean names in one cell, each once, in the order in which they come."""
    cleaned = (clean_text(name).replace("|", "/") for name in names)
    return NAME_SEPARATOR.join(dict.fromkeys(name for name in cleaned if name))
