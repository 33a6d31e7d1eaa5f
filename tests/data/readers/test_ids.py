import polars as pl
import pytest

from athwe_core.data.readers.ids import clean_ids
from athwe_core.data.readers.reading import RowCounts
from athwe_core.data.readers.records import RecordsBuilder
from athwe_core.errors import DataError


def test_one_user_has_one_spelling() -> None:
    texts = ["7", "7.0", " 7", "b'7'", 'b"7"', "7\t", "07", "-7.00", "7.5", "7.0.0", "x 7"]
    clean = clean_ids(pl.Series(texts), "user", "a.csv")
    assert clean.texts.to_list() == [*["7"] * 6, "07", "-7", "7.5", "7.0.0", "x 7"]
    assert clean.is_rewritten.to_list() == [False, True, True, True, True, True, False, True, False, False, False]


def test_ids_that_look_alike_are_one() -> None:
    texts = ["\u00e9", "e\u0301", "a\u200b", "\ufeffa", "\u00a0a", "\u4eba"]
    clean = clean_ids(pl.Series(texts), "user", "a.csv")
    assert clean.texts.to_list() == ["\u00e9", "\u00e9", "a", "a", "a", "\u4eba"]
    assert clean.is_rewritten.to_list() == [False, True, True, True, True, False]


@pytest.mark.parametrize("text", ["nan", "NaN", "null", "None", "NA", "N/A", "<NA>", "", "  ", "-1", "-1.0", "\\N"])
def test_placeholders_are_no_ids(text: str) -> None:
    assert clean_ids(pl.Series([text, "nana", "-11"]), "item", "a.csv").is_placeholder.to_list() == [True, False, False]


def test_ids_cut_to_a_few_digits_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"a\.csv: user ids must not be numbers cut to a few digits \(1 are\), got '1\.23457E\+11'"
    ):
        clean_ids(pl.Series(["a", "1.23457E+11"]), "user", "a.csv")


def records_of(users: list[str | None], *, most: float = 1.0, parts: bool = False):  # type: ignore[no-untyped-def]
    builder = RecordsBuilder()
    for number, user in enumerate(users):
        builder.add(pl.Series([user], dtype=pl.String), pl.Series([f"i{number}"]), [number], part=number % 3)
    counts = RowCounts(len(users) + 1, len(users), {"could not be read": 1})
    return builder.build(counts, place="a.csv", max_missing_ids=most, has_parts=parts)


def test_rows_without_an_id_are_dropped_and_counted() -> None:
    found = records_of(["7", "nan", "7.0", None, "nan", "8"], parts=True)
    assert found.user_tokens.to_list() == ["7", "7", "8"]
    assert found.item_tokens.to_list() == ["i0", "i2", "i5"]
    assert found.timestamps.tolist() == [0, 2, 5]
    assert found.parts is not None
    assert found.parts.tolist() == [0, 2, 2]
    assert found.is_rewritten
    assert found.notes[0] == "rows: 7 in the files, 3 read, 4 dropped: 1 could not be read, 3 had no user or item id"
    assert "user ids that are written in several ways have one spelling: '7.0' is '7'" in found.notes
    assert "3 of 6 rows have no id and were dropped: user 'nan' in 2, user '' in 1" in found.notes


def test_more_rows_without_an_id_than_allowed_stop() -> None:
    assert len(records_of(["a", "b", "c", "nan"], most=0.25)) == 3
    with pytest.raises(
        DataError, match=r"a\.csv may have at most 1 % rows .*, got .1 of 4: user 'nan' in 1.*--max-missing-ids"
    ):
        records_of(["a", "b", "c", "nan"], most=0.01)
    with pytest.raises(DataError, match=r"a\.csv has no rows that can be used"):
        records_of(["nan"])


def test_plain_ids_are_left_alone() -> None:
    found = records_of(["b", "a", "b"])
    assert not found.is_rewritten
    assert found.notes == ("rows: 4 in the files, 3 read, 1 dropped: 1 could not be read",)
