import pytest

from athwe_core.data.readers.columns import best_time, example_names, find_columns, like_times, looks_like_data
from athwe_core.data.readers.times import TimeGuess

Y2020 = 1_600_000_000


@pytest.mark.parametrize(
    ("role", "columns", "expected"),
    [
        ("user", ["Visitor ID", "session"], "Visitor ID"),
        ("user", ["id", "session", "price"], "session"),
        ("user", ["fullVisitorId"], "fullVisitorId"),
        ("item", ["id", "SKU"], "SKU"),
        ("item id", ["id", "name"], "id"),
        ("title", ["id", "product_name", "name"], "name"),
        ("title", ["product_name"], "product_name"),
        ("time", ["price", "review_date"], "review_date"),
        ("categories", ["genres"], "genres"),
        ("brand", ["price", "manufacturer"], "manufacturer"),
    ],
)
def test_names_that_people_give(role: str, columns: list[str], expected: str) -> None:
    assert find_columns(columns, role)[0] == expected


def test_a_rows_id_is_no_item() -> None:
    assert find_columns(["id", "user"], "item") == []


def test_names_that_end_like_times() -> None:
    names = ["visit_time", "soldDate", "seen_at", "lastSeenAt", "price", "format", "stats", "date"]
    assert like_times(names) == ["visit_time", "soldDate", "seen_at", "lastSeenAt"]


def test_the_best_time_is_plausible_then_fine_then_named_first() -> None:
    coarse, fine = TimeGuess("yyyymmdd", Y2020, 9), TimeGuess("ms", Y2020, 200)
    early, none = TimeGuess("s", 20_200_913, 300), TimeGuess(None)
    assert best_time({"date": coarse, "time_ms": fine}) == "time_ms"
    assert best_time({"early": early, "date": coarse}) == "date"
    assert best_time({"none": none, "early": early}) == "early"
    assert best_time({"a": fine, "b": TimeGuess("s", Y2020, 201)}) == "a"
    assert best_time({"none": none}) is None


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["196", "242", "3", "881250949"], True),
        (["u1", "i1", "2014-05-13"], True),
        (["u1", "i1", "2014-05-13 10:11:12"], True),
        (["user", "item", "time"], False),
        (["user_id", "2014", "2015"], False),
        (["0", "1", "2"], False),
        (["who", "what", "when"], False),
        (["<!DOCTYPE html>"], False),
    ],
)
def test_a_line_of_values_is_no_header(names: list[str], expected: bool) -> None:
    assert looks_like_data(names) is expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(2, "user,item"), (3, "user,item,time"), (4, "user,item,rating,time"), (5, "user,item,rating,time,column5")],
)
def test_names_to_type(count: int, expected: str) -> None:
    assert example_names(["x"] * count) == expected
