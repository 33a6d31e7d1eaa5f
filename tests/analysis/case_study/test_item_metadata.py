"""Titles and categories from whatever columns there are."""

from typing import Any

import polars as pl
import pytest

from athwe_core.analysis.case_study.item_metadata import item_facts, readable_category


class Table:
    """A prepared data set with nothing but an item table."""

    def __init__(self, columns: dict[str, list[str]], category_column: str | None = None) -> None:
        self.manifest: dict[str, Any] = {"options": {"category_column": category_column}}
        self.columns = columns

    def item_table(self) -> pl.DataFrame:
        return pl.DataFrame({"item_id": ["", "i1"], **self.columns})


@pytest.mark.parametrize(
    ("columns", "chosen", "expected"),
    [
        ({}, None, ("", "")),
        ({"title": ["", "A  b\n c"], "categories": ["", "x y"]}, None, ("A b c", "x y")),
        ({"name": ["", "N"], "category": ["", "c"]}, None, ("N", "c")),
        (
            {"title": ["", "T"], "name": ["", "N"], "categories": ["", "many"], "category": ["", "one"]},
            None,
            ("T", "many"),
        ),
        ({"genre": ["", "g"], "categories": ["", "many"]}, "genre", ("", "g")),
    ],
)
def test_columns(columns: dict[str, list[str]], chosen: str | None, expected: tuple[str, str]) -> None:
    facts = item_facts(Table(columns, chosen))  # type: ignore[arg-type]
    title, category = expected
    assert facts.of(1) == {"item_id": "i1", "title": title, "category": category}
    assert facts.of(0) == {"item_id": "", "title": "", "category": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("class19", "class19"),
        ("", ""),
        ("['Toys & Games', \"Men's\"]", "Toys & Games > Men's"),
        ('["a"]', "a"),
        ("[['A', 'B'], ['C']]", "A > B"),
        ("'A' 'B C'", "A > B C"),
        ("'A', 'B'", "A > B"),
        ('"Best" toys', '"Best" toys'),
        ("[x]", "[x]"),
        ("['open", "['open"),
    ],
)
def test_lists_of_names_become_a_path(text: str, expected: str) -> None:
    assert readable_category(text) == expected
