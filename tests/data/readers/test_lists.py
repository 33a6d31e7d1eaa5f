import polars as pl
import pytest

from athwe_core.data.readers.lists import doubtful_lists, find_lists, names_in_brackets, quoted_names

NAMES = [["Toys", ("Dolls", "Cars", "Trains")[i % 3], ("Wood", "Steel")[i % 2]] for i in range(12)]


def split(cells: list[str], name: str = "categories") -> list[list[str]] | None:
    found = find_lists(pl.Series(cells), name)
    return None if found is None else [[part.strip() for part in found.split(cell)] for cell in cells]


@pytest.mark.parametrize("write", [str, ", ".join, "; ".join, "|".join, " > ".join, lambda names: str(tuple(names))])
def test_every_way_to_write_a_list_is_found(write) -> None:  # type: ignore[no-untyped-def]
    assert split([write(names) for names in NAMES]) == NAMES


def test_quoted_names_keep_their_commas_and_blanks() -> None:
    cells = ["'Toys & Games', 'Dolls, small'", "'Toys & Games'", "'Cars'"]
    assert split(cells, "anything") == [["Toys & Games", "Dolls, small"], ["Toys & Games"], ["Cars"]]
    assert quoted_names("it's one name") == ["it's one name"]


@pytest.mark.parametrize(
    ("cells", "name"),
    [
        ([f"thing {i}, red, with a bow" for i in range(30)], "title"),
        ([f"word{i}, other{i}" for i in range(30)], "categories"),
        ([f"a{i} / b" for i in range(30)], "description"),
        (["Toys"] * 30, "categories"),
        ([], "categories"),
    ],
)
def test_prose_and_single_names_are_no_lists(cells: list[str], name: str) -> None:
    assert find_lists(pl.Series(cells, dtype=pl.String), name) is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["a", null, 3]', ["a", "3"]),
        ("[['A', 'B'], ['A']]", ["A", "B", "A"]),
        ("['a' 'b c']", ["a", "b c"]),
        ("[Toys, Dolls]", ["Toys", " Dolls"]),
        ("[]", []),
        ("{'b', 'a'}", ["a", "b"]),
        ("['a", ["['a"]),
        ("{'a': 1}", ["{'a': 1}"]),
        ("{'id': 9, 'name': 'Toy Story Collection'}", ["Toy Story Collection"]),
        ('[{"id": 18, "name": "Drama"}, {"id": 35, "name": "Comedy"}]', ["Drama", "Comedy"]),
        ("[{'id': 1, 'term': 'War'}]", ["War"]),
        ("[{'a': 'x', 'b': 'y'}]", ["{'a': 'x', 'b': 'y'}"]),
        ("[__import__('os')]", ["[__import__('os')]"]),
    ],
)
def test_names_in_brackets(text: str, names: list[str]) -> None:
    assert names_in_brackets(text) == names


def test_a_column_of_ever_new_categories_is_questioned() -> None:
    cells = pl.Series([f"kind {i}" for i in range(12)] * 2)
    assert doubtful_lists(cells, "categories") == "12 categories for 24 items: do cells hold lists?"
    assert doubtful_lists(cells, "title") == doubtful_lists(pl.Series(["a", "b"] * 12), "categories") == ""
