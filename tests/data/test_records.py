import polars as pl

from athwe_core.data.records import number_by_first_appearance


def test_numbers_follow_first_appearance() -> None:
    numbers, tokens = number_by_first_appearance(pl.Series(["b", "a", "b", "c", "a"]))
    assert numbers.tolist() == [0, 1, 0, 2, 1]
    assert tokens == ["b", "a", "c"]
