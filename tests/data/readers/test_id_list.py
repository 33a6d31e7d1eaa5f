"""Files of raw ids."""

from pathlib import Path

import polars as pl
import pytest

from athwe_core.data.readers.id_list import ids_of, read_id_list
from athwe_core.errors import DataError


@pytest.mark.parametrize(
    "content",
    [
        "B1\nB2\n\nB1\n B3 \nnan\n",  # one a line, with blanks, repeats and a placeholder
        "item_id,price\nB1,3\nB2,4\nB1,5\nB3,1\n",
        "price;sku\n3;B1\n4;B2\n1;B3\n",
        "asin\nB1\nB2\nB3\n",
        '{"item": "B1"}\n{"item": "B2"}\n{"item": "B3"}\n',
        "item_id:token\nB1\nB2\nB3\n",
    ],
)
def test_ids_one_a_line_or_in_a_column_known_by_its_name(content: str, tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text(content)
    assert read_id_list(path, "item").ids.to_list() == ["B1", "B2", "B3"]


def test_numbers_have_one_spelling_in_text_and_parquet(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [7.0, 8.0], "x": [1, 2]}).write_parquet(tmp_path / "users.parquet")
    (tmp_path / "users.txt").write_text("7\n8.0\n")
    for name in ("users.parquet", "users.txt"):
        assert read_id_list(tmp_path / name, "user").ids.to_list() == ["7", "8"]


def test_what_a_user_typed_is_ids_and_files(tmp_path: Path) -> None:
    path = tmp_path / "stock.csv"
    path.write_text("sku\nB2\nB1\n")
    ids, notes = ids_of(["B9", str(path), "B2"], "item")
    assert ids.to_list() == ["B9", "B2", "B1"]
    assert notes == ["stock.csv: 2 item ids, column sku"]


def test_files_without_ids_are_one_line_errors(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    for content, message in [
        (b"", "is empty"),
        (b"nan\n\nnull\n", "must hold item ids, one a line"),
        (b"a\n\xff\n", "must be UTF-8 text"),
        (b'{"name": "B1"}\n', r"has no column that is surely the item; its columns are name\. Call it item_id"),
        (b'item,x\n"B1,3\n', "quote"),
    ]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_id_list(path, "item")
    with pytest.raises(DataError, match="must be a file that exists"):
        read_id_list(tmp_path / "none", "item")
