"""Histories of users and of tables, in time order."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from athwe_core.data.histories import histories_of_records, histories_of_rows, histories_of_users, read_histories
from athwe_core.data.options import PrepareOptions
from athwe_core.data.prepare import PreparedDataset
from athwe_core.data.readers.records import RawIds, Records
from athwe_core.errors import DataError


def test_users_have_their_whole_history_in_the_given_order(prepared: PreparedDataset) -> None:
    tokens = prepared.user_tokens
    found = histories_of_users(prepared, [tokens[7], tokens[0], tokens[7]])
    assert found.user_ids == [tokens[7], tokens[0], tokens[7]]
    for at, user in enumerate((7, 0, 7)):
        mine = slice(found.offsets[at], found.offsets[at + 1])
        theirs = slice(prepared.offsets[user], prepared.offsets[user + 1])
        assert found.item_ids[mine].tolist() == prepared.item_ids[theirs].tolist()
        assert found.timestamps[mine].tolist() == prepared.timestamps[theirs].tolist()
    everybody = histories_of_users(prepared)
    assert everybody.user_ids == tokens
    assert everybody.item_ids is prepared.item_ids


def test_unknown_users_are_named_with_their_number(prepared: PreparedDataset) -> None:
    with pytest.raises(DataError, match=r"^users must be in data set demo, 1 of 2 are not, got 'x'\."):
        histories_of_users(prepared, [prepared.user_tokens[0], "x"])
    with pytest.raises(
        DataError, match=r"^users must be a list of user ids, not one text, got 'x'\. Write users=\['x'\]"
    ):
        histories_of_users(prepared, "x")


def test_rows_are_sorted_by_time_and_equal_times_keep_their_order(prepared: PreparedDataset) -> None:
    items = prepared.item_tokens
    rows = pl.DataFrame(
        {
            "user_id": [20, 3, 20, 20, 3],
            "item_id": [items[4], items[1], items[2], items[9], items[2]],
            "timestamp": [5, 7, 3, 5, 6],
            "price": [1.0] * 5,
        }
    )
    for given in (
        rows,
        rows.to_dicts(),
        rows.to_dict(as_series=False),
        rows.with_columns(timestamp=pl.col("timestamp") + 0.5),
    ):
        found = histories_of_rows(prepared, given)
        assert found.user_ids == ["20", "3"]
        assert found.offsets.tolist() == [0, 3, 5]
        assert found.item_ids.tolist() == [2, 4, 9, 2, 1]
        assert found.timestamps.tolist() == [3, 5, 5, 6, 7]


def test_a_table_without_rows_has_no_histories(prepared: PreparedDataset) -> None:
    assert histories_of_rows(prepared, {"user_id": [], "item_id": [], "timestamp": []}).user_ids == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_id": ["none", "nil", None]}, r"^histories: item_id must have no missing values, row 2 of 3 has none"),
        (
            {"item_id": ["none", "nil", "I"]},
            r"^histories: item_id must hold items of data set demo, 2 of 3 rows do not, got 'none'",
        ),
        ({"item_id": [""] * 3}, r"3 of 3 rows do not, got ''"),
        ({"item_id": [1.5] * 3}, r"^histories: item_id must be text or whole numbers, got 'Float64'"),
        (
            {"timestamp": [1, -1, 2]},
            r"^histories: timestamp must be unix seconds in 0\.\.\d+, 1 of 3 rows are not, got -1",
        ),
        ({"timestamp": [1.0, float("nan"), 2.0]}, r"1 of 3 rows are not, got nan"),
        ({"timestamp": [1_600_000_000_000] * 3}, r"3 of 3 rows are not, got 1600000000000\. Divide milliseconds"),
        ({"timestamp": [datetime(2020, 1, 1)] * 3}, r"^histories: timestamp must be unix seconds, got .*\.dt\.epoch"),
        ({"timestamp": ["2020"] * 3}, r"^histories: timestamp must be unix seconds, got 'String'"),
    ],
)
def test_malformed_rows_are_one_line_errors(change: dict[str, Any], message: str, prepared: PreparedDataset) -> None:
    item = prepared.item_tokens[1]
    change = {name: [item if value == "I" else value for value in values] for name, values in change.items()}
    with pytest.raises(DataError, match=message) as error:
        histories_of_rows(prepared, {"user_id": ["u"] * 3, "item_id": [item] * 3, "timestamp": [1, 2, 3], **change})
    assert "\n" not in str(error.value)


def test_what_is_no_table_is_a_one_line_error(prepared: PreparedDataset) -> None:
    with pytest.raises(
        DataError, match=r"^histories must have the columns .*, got 'user_id, item'\. Add item_id and timestamp$"
    ):
        histories_of_rows(prepared, {"user_id": ["u"], "item": ["i"]})
    with pytest.raises(DataError, match=r"^histories must be a polars frame, or what polars\.DataFrame can read"):
        histories_of_rows(prepared, 7)


def test_a_part_has_the_histories_of_its_users(prepared: PreparedDataset) -> None:
    whole = histories_of_users(prepared)
    part = whole.part(5, 8)
    assert part.user_ids == whole.user_ids[5:8]
    for at, user in enumerate(range(5, 8)):
        mine, theirs = slice(*part.offsets[at : at + 2]), slice(*whole.offsets[user : user + 2])
        assert part.item_ids[mine].tolist() == whole.item_ids[theirs].tolist()
        assert part.timestamps[mine].tolist() == whole.timestamps[theirs].tolist()
    assert whole.part(3, 3).user_ids == []


def test_rows_with_unknown_items_are_left_out_and_counted(prepared: PreparedDataset) -> None:
    items = prepared.item_tokens
    rows = [("z", "?", 1), ("b", items[2], 9), ("a", items[1], 3), ("b", "??", 2), ("b", items[3], 2)]
    users, ids, times = (list(part) for part in zip(*rows, strict=True))
    found, left_out = histories_of_records(prepared, Records(RawIds.of(users), RawIds.of(ids), np.array(times)))
    assert found.user_ids == ["b", "a"]
    assert found.offsets.tolist() == [0, 2, 3]
    assert found.item_ids.tolist() == [3, 2, 1]
    assert found.timestamps.tolist() == [2, 9, 3]
    assert left_out.sentence("demo") == (
        "2 of 5 rows (40.0%) have items that are not in data set demo and were left out, such as ?; "
        "1 of 3 users (33.3%) have no other rows"
    )


def test_a_file_is_read_as_prepare_reads_it(prepared: PreparedDataset, tmp_path: Path) -> None:
    first, second = prepared.item_tokens[1:3]
    path = tmp_path / "carts.csv"
    path.write_text(f"visitor,sku,time\n7,{first},2020-01-02\n7,{second},2020-01-01\n7,gone,2020-01-03\n")
    found, notes = read_histories(prepared, path, PrepareOptions())
    assert found.user_ids == ["7"]
    assert found.item_ids.tolist() == [2, 1]
    assert found.timestamps.tolist() == [1577836800, 1577923200]
    assert any("users visitor, items sku, times time in iso" in note for note in notes)
    assert notes[-1].startswith("1 of 3 rows (33.3%) have items that are not in data set demo")
    path.write_text("user,item,time\n7,gone,2020-01-02\n")
    with pytest.raises(DataError, match=r"must have items of data set demo, and none of its 1 rows has, got 'gone'$"):
        read_histories(prepared, path, PrepareOptions())
    with pytest.raises(DataError, match=r"none\.csv must be a file that exists"):
        read_histories(prepared, tmp_path / "none.csv", PrepareOptions())
