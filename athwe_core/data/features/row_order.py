"""Which item each row of a feature file belongs to: by an option, by a file of ids, or by the layout of the file.

* Published layout (`txt_emb.pt` and so on): row 0 is padding, row k is the k-th item by first appearance in the filtered
  interactions.
* `.npy` beside `emb_item_order.txt` (one raw id a line): row k belongs to line k; no padding row.
* Names of other tools (`image_feat.npy`) beside `emb_item_order.txt` or MMRec's `i_id_mapping.csv`: by that file.
* Names of other tools alone: row k is item k, where the item ids are whole numbers below the number of rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int64

from athwe_core.data.options import FeatureRows
from athwe_core.data.readers.ids import clean_ids
from athwe_core.errors import DataError
from athwe_core.messages import clipped

ORDER_FILE = "emb_item_order.txt"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
MAPPING_FILE = "i_id_mapping.csv"
"""Of MMRec: a header line, then raw item id and number, with a tab or a comma between."""
_OPTION = (
    "Name the order: --feature-rows number (row k is item k), number-from-1 (row k is item k + 1) or appearance (row k is "
    f"the k-th item in the interactions); or put {ORDER_FILE} beside it, one raw item id a line"
)


@dataclass(frozen=True)
class RowOrder:
    """The order of the rows of one file.

    Attributes:
        rows: (V,) row of each internal item id, -1 where the file has none.
        rule: How it is known, as a phrase.
    """

    rows: Int64[np.ndarray, "V"]
    rule: str


def find_row_order(
    path: Path, num_rows: int, item_tokens: list[str], *, option: FeatureRows, is_published_name: bool
) -> RowOrder:
    """Find which row belongs to which item.

    Args:
        path: The feature file; files of ids are looked for in its folder.
        num_rows: Rows of its array.
        item_tokens: (V,) raw ids by internal id, `item_tokens[0]` the padding.
        option: What the user said about the order; `auto` says nothing.
        is_published_name: The file has a name of the published layout, not one of another tool.
    Raises:
        DataError: The order is not known, or the file has other rows than it asks for.
    """
    if option == "appearance":
        return _by_appearance(path, num_rows, item_tokens)
    if option != "auto":
        return _by_number(path, num_rows, item_tokens, first=1 if option == "number-from-1" else 0)
    order_path, mapping_path = path.with_name(ORDER_FILE), path.with_name(MAPPING_FILE)
    if order_path.is_file() and (path.suffix == ".npy" or not is_published_name):
        return _by_order_file(path, num_rows, item_tokens, order_path)
    if is_published_name:
        return _as_published(path, num_rows, item_tokens)
    numbers = _numbers(item_tokens)
    if numbers is not None and int(numbers.max()) >= num_rows:
        why, numbers = f"reach {int(numbers.max())}", None
    else:
        why = "are no whole numbers"
    if mapping_path.is_file():
        by_id = _by_mapping(path, num_rows, item_tokens, mapping_path)
        if numbers is not None and by_id is not None and not np.array_equal(by_id.rows[1:], numbers):
            rule = f"are both numbers and ids of {MAPPING_FILE}, which name other rows of {path.name}"
            raise DataError("item ids", rule, clipped(item_tokens[1]), _OPTION)
        if by_id is not None:
            return by_id
    if numbers is None:
        rule = f"has {num_rows} rows of unknown order: the item ids {why}, e.g. {clipped(item_tokens[-1])!r}"
        raise DataError(str(path), rule, remedy=_OPTION)
    return _by_number(path, num_rows, item_tokens, first=0)


def rows_by_order(item_tokens: list[str], order: list[str]) -> Int64[np.ndarray, "V"]:
    """Row of `order` that belongs to each internal id, (V,) int64; -1 for padding and items that `order` lacks."""
    row_of = {token: row for row, token in enumerate(order)}
    return np.array([-1, *(row_of.get(token, -1) for token in item_tokens[1:])], dtype=np.int64)


def _as_published(path: Path, num_rows: int, item_tokens: list[str]) -> RowOrder:
    if num_rows != len(item_tokens):
        rule = f"must be {len(item_tokens)}: padding and {len(item_tokens) - 1} items in order of first appearance"
        remedy = f"Save the vectors as .npy beside {ORDER_FILE} (one raw item id a line) to match them by id"
        raise DataError(f"rows of {path}", rule, num_rows, remedy)
    return RowOrder(np.arange(len(item_tokens)), "rows by first appearance")


def _by_appearance(path: Path, num_rows: int, item_tokens: list[str]) -> RowOrder:
    has_padding = num_rows == len(item_tokens)
    if not has_padding and num_rows != len(item_tokens) - 1:
        rule = (
            f"must be {len(item_tokens) - 1}, one for each item, or {len(item_tokens)} with a padding row before them"
        )
        remedy = f"Items that were filtered out have no row in this order. {_OPTION}"
        raise DataError(f"rows of {path}", rule, num_rows, remedy)
    rows = np.arange(len(item_tokens)) - (0 if has_padding else 1)
    return RowOrder(rows, f"rows by first appearance, {'row 0 is padding' if has_padding else 'without a padding row'}")


def _by_number(path: Path, num_rows: int, item_tokens: list[str], *, first: int) -> RowOrder:
    numbers = _numbers(item_tokens)
    last = num_rows - 1 + first
    if numbers is None or int(numbers.max()) > last or int(numbers.min()) < first:
        bad = next(item for item in item_tokens[1:] if not _NUMBER.fullmatch(item) or not first <= int(item) <= last)
        rule = f"must be whole numbers from {first} to {last} to be rows of {path}"
        raise DataError("item ids", rule, clipped(bad), _OPTION)
    return RowOrder(np.concatenate([[-1], numbers - first]), f"rows by item number from {first}")


def _numbers(item_tokens: list[str]) -> Int64[np.ndarray, "items"] | None:
    """The item ids as whole numbers; None where some are none."""
    if not all(map(_NUMBER.fullmatch, item_tokens[1:])):
        return None
    return np.array(item_tokens[1:]).astype(np.int64)


def _by_order_file(path: Path, num_rows: int, item_tokens: list[str], order_path: Path) -> RowOrder:
    order = _read_order(order_path)
    if num_rows != len(order):
        rule, remedy = f"must be {len(order)}, one for each line of {ORDER_FILE}", "Do both come from one run?"
        raise DataError(f"rows of {path}", rule, num_rows, remedy)
    rows = rows_by_order(item_tokens, order)
    if (rows < 0).all():
        rule = f"must name items of the interactions, and none of its {len(order)} lines does"
        raise DataError(str(order_path), rule, clipped(order[0]), "Is it of another data set?")
    return RowOrder(rows, f"rows by {ORDER_FILE}")


def _by_mapping(path: Path, num_rows: int, item_tokens: list[str], mapping_path: Path) -> RowOrder | None:
    """The rows by raw ids; None where the mapping names none of the items."""
    lines = _lines(mapping_path)[1:]
    pairs = [line.replace(",", "\t").split("\t") for line in lines]
    for number, pair in enumerate(pairs, start=2):
        if len(pair) != 2 or not _NUMBER.fullmatch(pair[1].strip()) or int(pair[1]) >= num_rows:
            rule = f"must hold a raw item id and its row in {path.name}, below {num_rows}"
            raise DataError(f"{mapping_path} line {number}", rule, clipped(lines[number - 2]), _OPTION)
    raw = clean_ids(pl.Series([pair[0] for pair in pairs], dtype=pl.String), "item", str(mapping_path)).texts
    row_of = dict(zip(raw, (int(pair[1]) for pair in pairs), strict=True))
    rows = np.array([-1, *(row_of.get(token, -1) for token in item_tokens[1:])], dtype=np.int64)
    return None if (rows < 0).all() else RowOrder(rows, f"rows by {MAPPING_FILE}")


def _read_order(path: Path) -> list[str]:
    """The ids of an order file, in the one spelling that all ids have."""
    lines = _lines(path)
    order = clean_ids(pl.Series(lines, dtype=pl.String), "item", str(path)).texts.to_list()
    seen: set[str] = set()
    for number, token in enumerate(order, start=1):
        if not token or token in seen:
            remedy = "Write one raw item id a line, in the order of the rows"
            rule = "must be an item id that no other line has"
            raise DataError(f"{path} line {number}", rule, clipped(lines[number - 1]), remedy)
        seen.add(token)
    return order


def _lines(path: Path) -> list[str]:
    content = path.read_bytes()
    try:
        lines = content.decode("utf-8-sig").rstrip("\r\n").split("\n")
    except UnicodeDecodeError as error:
        where = f"{path} line {content.count(10, 0, error.start) + 1}"
        encoding = "UTF-16" if b"\0" in content else "LATIN1"
        remedy = f"Convert it: iconv -f {encoding} -t UTF-8 {path.name}"
        raise DataError(where, "must be UTF-8 text", content[error.start : error.start + 1], remedy) from None
    return [line.removesuffix("\r") for line in lines]
