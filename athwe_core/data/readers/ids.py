"""Raw ids: one spelling for each, whatever the file and its types, and the words that stand for no id."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from athwe_core.errors import DataError
from athwe_core.messages import brief

PLACEHOLDERS = frozenset(
    {"", "nan", "nat", "null", "none", "nil", "na", "n/a", "#n/a", "<na>", "undefined", "\\n", "-1", "-1.0"}
)
"""Texts that mean that there is no id, in small letters."""
_ROUNDED = r"^-?\d\.\d+[eE]\+?\d+$"
_REWRITTEN = r"^\s|\s$|^-?\d+\.0+$|^b'.*'$|^b\".*\"$|[\x{200B}\x{2060}\x{FEFF}]"
_INVISIBLE = r"[\x{200B}\x{2060}\x{FEFF}]"  # zero-width space, word joiner, byte-order mark


@dataclass(frozen=True)
class CleanIds:
    """N raw ids in one spelling.

    Attributes:
        texts: (N,) without blanks around them and without characters that nobody sees; `7.0` and `b'7'` are `7`; letters with
            accents as one character each (NFC).
        is_placeholder: (N,) whether the text means that there is no id.
        is_rewritten: (N,) whether the file writes the id in another way.
    """

    texts: pl.Series
    is_placeholder: pl.Series
    is_rewritten: pl.Series


def clean_ids(texts: pl.Series, what: str, place: str) -> CleanIds:
    """Bring raw ids to one spelling.

    Args:
        texts: (N,) strings without null, best each once.
        what: `user` or `item`, for messages.
        place: File they come from, for messages.
    Raises:
        DataError: An id is a number that was cut to a few digits (`1.23457E+11`): several ids would become one.
    """
    rounded = texts.filter(texts.str.contains(_ROUNDED))
    if len(rounded):
        rule = f"must not be numbers cut to a few digits ({len(rounded)} are)"
        remedy = "Write the ids as whole numbers or texts; spreadsheets shorten long ones"
        raise DataError(f"{place}: {what} ids", rule, brief(rounded[0]), remedy)
    composed = texts.str.normalize("NFC") if (texts.str.len_bytes() > texts.str.len_chars()).any() else texts
    is_rewritten = texts.str.contains(_REWRITTEN) | (composed != texts)
    if is_rewritten.any():
        clean = composed.str.replace_all(_INVISIBLE, "").str.strip_chars()
        clean = clean.str.replace(r"^b'(.*)'$", "$1").str.replace(r'^b"(.*)"$', "$1")
        clean = clean.str.strip_chars().str.replace(r"^(-?\d+)\.0+$", "$1")
        texts = clean.zip_with(is_rewritten, texts)
    is_short = texts.str.len_bytes() <= max(map(len, PLACEHOLDERS))
    is_placeholder = is_short & texts.str.to_lowercase().is_in(list(PLACEHOLDERS))
    return CleanIds(texts, is_placeholder, is_rewritten & ~is_placeholder)
