import polars as pl
import pytest

from athwe_core.data.features.categories import category_table
from athwe_core.data.readers.records import ItemTable
from athwe_core.errors import DataError

TOKENS = ["", "x", "y", "z"]


def table(**columns: tuple[str, list[str]]) -> ItemTable:
    """Items z, x, q, y (another order than TOKENS, and one that no interaction names)."""
    frame = pl.DataFrame({"item_id": ["z", "x", "q", "y"], **{name: values for name, (_, values) in columns.items()}})
    return ItemTable(frame, {"item_id": "token", **{name: kind for name, (kind, _) in columns.items()}}, "toy.item")


SEQUENCE = ("token_seq", ["b c", "b  a b", "d d", ""])


def test_multi_hot_by_hand() -> None:
    found = category_table(table(categories=SEQUENCE), TOKENS, column=None, max_categories=300)
    assert found is not None
    assert found.names == ["b", "a", "c"]  # by count, then name; d belongs to an item that does not occur
    assert found.table.tolist() == [[0, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 1]]
    assert found.table.dtype == "uint8"
    assert found.source == "column categories of toy.item"


def test_only_the_most_frequent_are_kept() -> None:
    found = category_table(table(categories=SEQUENCE), TOKENS, column=None, max_categories=2)
    assert found is not None
    assert found.names == ["b", "a"]


def test_category_is_the_second_choice_and_a_token_is_one_value() -> None:
    found = category_table(table(category=("token", ["Home Decor", "", "", ""])), TOKENS, column=None, max_categories=9)
    assert found is not None
    assert found.names == ["Home Decor"]


def test_without_a_column_or_values_there_are_no_categories() -> None:
    assert category_table(None, TOKENS, column=None, max_categories=9) is None
    assert category_table(table(), TOKENS, column=None, max_categories=9) is None
    assert category_table(table(category=("token", [""] * 4)), TOKENS, column=None, max_categories=9) is None


def test_a_named_column_must_exist() -> None:
    with pytest.raises(DataError, match=r"toy\.item has no column genre; its columns are item_id, category"):
        category_table(table(category=("token", [""] * 4)), TOKENS, column="genre", max_categories=9)
    with pytest.raises(DataError, match=r"column 'genre' cannot be read: this data set has no \.item file"):
        category_table(None, TOKENS, column="genre", max_categories=9)
