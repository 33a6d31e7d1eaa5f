"""What one file holds by its first lines; which files make a data set is in test_detect.py."""

from pathlib import Path

import polars as pl
import pytest

from athwe_core.data.readers.sniff import sniff


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("user_id:token\titem_id:token\n", ("atomic", "interactions")),
        ("item_id:token\ttitle:token_seq\n", ("atomic", "items")),
        ('{"reviewerID": "U", "asin": "B"}\n', ("amazon-2018", "interactions")),
        ("{'reviewerID': 'U', 'asin': 'B', 'helpful': [0, 0]}\n", ("amazon-2014", "interactions")),
        ('{"user_id": "U", "parent_asin": "B"}\n', ("amazon-2023", "interactions")),
        ('{"parent_asin": "B", "title": "x"}\n', ("amazon", "items")),
        ("A2SUAM1J3GNN3B,0000013714,5.0,1393545600\n", ("amazon-2014", "interactions")),
        ("0000013714,A2SUAM1J3GNN3B,5.0,1393545600\n", ("amazon-2018", "interactions")),
        ("196\t242\t3\t881250949\n", ("table", "interactions")),
        ("anything at all\n", ("table", "interactions")),
        ("", (None, "interactions")),
        ("\n\n", (None, "interactions")),
    ],
)
def test_kinds(tmp_path: Path, content: str, expected: tuple[str | None, str]) -> None:
    (tmp_path / "a").write_text(content)
    assert sniff(tmp_path / "a") == expected


def test_binary_tables_whatever_their_name(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [1]})
    frame.write_parquet(tmp_path / "a")
    frame.write_ipc(tmp_path / "b.txt")
    assert sniff(tmp_path / "a") == sniff(tmp_path / "b.txt") == ("table", "interactions")
