import json
from pathlib import Path

import pytest

from athwe_core.data.readers.item_table import read_item_table
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.table_file import Table
from athwe_core.errors import DataError


def table(folder: Path, content: str, name: str = "items.csv") -> Table:
    (folder / name).write_text(content)
    return Table(folder / name, Reading([folder / name]))


def test_known_columns_get_their_role_and_the_rest_is_reported(tmp_path: Path) -> None:
    rows = [
        "sku,product_name,price,genre",
        "1.0,A &amp; B,3,Toys|Dolls",
        " 2,C,4,Toys",
        "2,again,5,Cars",
        "nan,D,6,x|y",
    ]
    found, notes = read_item_table(table(tmp_path, "\n".join(rows)), "sku")
    assert found.frame.rows() == [("1", "A & B", "3", "Toys | Dolls"), ("2", "C", "4", "Toys")]
    assert found.types == {"item_id": "token", "title": "token", "price": "token", "categories": "name_seq"}
    assert notes == [
        "items.csv: items sku, title product_name, categories genre; ignored: price",
        "items.csv: 1 rows have no item id and were dropped",
        "items.csv: 1 rows repeat an item; the first row of each item counts",
        "items.csv: column genre holds names with bars: 2 names",
    ]


def test_named_columns_keep_their_names(tmp_path: Path) -> None:
    found, notes = read_item_table(table(tmp_path, "sku,product_name,genre\n1,A,x\n"), "sku", {"product_name"})
    assert found.frame.columns == ["item_id", "product_name", "categories"]
    assert notes == ["items.csv: items sku, product_name, categories genre"]


def test_a_role_that_a_column_has_by_name_is_not_taken(tmp_path: Path) -> None:
    found, _ = read_item_table(table(tmp_path, "sku,title,name\n1,A,B\n"), "sku")
    assert found.frame.rows(named=True) == [{"item_id": "1", "title": "A", "name": "B"}]


def test_keys_that_occur_late_are_read(tmp_path: Path) -> None:
    lines = [{"id": str(n), "title": "x"} | ({"tags": ["a", f"b{n % 2}"]} if n >= 50 else {}) for n in range(60)]
    late = table(tmp_path, "\n".join(map(json.dumps, lines)), "items.jsonl")
    assert late.columns == ["id", "title"]
    late.read_all_keys()
    found, _ = read_item_table(late, "id")
    assert found.frame["categories"].to_list() == [""] * 50 + ["a | b0", "a | b1"] * 5


def test_doubts_about_lists_are_a_question(tmp_path: Path) -> None:
    rows = "".join(f"{n},kind {n}\n" for n in range(20))
    _, notes = read_item_table(table(tmp_path, f"id,category\n{rows}"), "id")
    assert notes[1] == "items.csv: 20 categories for 20 items: do cells hold lists?"


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"items\.csv has no rows\. Is the file complete\? Without items, leave it out"):
        read_item_table(table(tmp_path, "id,title\n"), "id")
