"""Questions about times that decide what comes first and last; and the whole way against loops over rows."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from athwe_core.data import long_arrays
from athwe_core.data.interactions import filter_records, number_and_order
from athwe_core.data.options import PrepareOptions, SplitRule, TieOrder
from athwe_core.data.prepare import PreparedDataset
from athwe_core.data.readers.reading import RowCounts
from athwe_core.data.readers.records import RawIds, Records

Rows = list[tuple[str, str, int]]


@pytest.fixture
def doubts(
    write_inter: Callable[..., object], prepare_toy: Callable[..., PreparedDataset], toy_rows: Rows
) -> Callable[..., list[str]]:
    """Notes about times, of the toy data with other times."""

    def prepare(time_of: Callable[[int, int], int]) -> list[str]:
        notes: list[str] = []
        write_inter([(user, item, time_of(number, time)) for number, (user, item, time) in enumerate(toy_rows)])
        prepare_toy(notify=notes.append)
        return [note for note in notes if "time" in note]

    return prepare


def test_one_time_for_all_rows_is_questioned(doubts: Callable[..., list[str]]) -> None:
    (note,) = doubts(lambda *_: 1_400_000_001)
    assert note == "all rows have one time, 2014-05-13T16:53:21: the order of a user's items is the order of ties"


def test_times_far_from_the_others_are_questioned(doubts: Callable[..., list[str]]) -> None:
    odd = {0: 5, 41: 4_102_444_800}
    notes = doubts(odd.get)
    question = "2 of 42 rows have times before 1995 or after next year, e.g. 1970-01-01T00:00:05: is that right?"
    assert question in notes


@pytest.mark.parametrize("shift", [0, -1_399_999_999])
def test_times_of_today_and_times_since_any_day_are_not(doubts: Callable[..., list[str]], shift: int) -> None:
    assert doubts(lambda _, time: time + shift) == []


def draw_records(seed: int, num_rows: int, *, has_parts: bool) -> Records:
    """Records with ties, repeated rows, rows out of order, and users and items with few rows."""
    rng = np.random.default_rng(seed)
    users = (12 * rng.random(num_rows) ** 1.5).astype(int)
    items = (9 * rng.random(num_rows) ** 1.5).astype(int)
    parts = np.sort(rng.integers(0, 3, num_rows)) if has_parts else np.zeros(num_rows, int)
    times = rng.integers(0, 12, num_rows) + 12 * parts + 1_500_000_000
    return Records(
        RawIds.of([f"u{user}" for user in users]),
        RawIds.of([f"i{item * 7 % 11}" for item in items]),
        times,
        notes=("a note of the reader",),
        counts=RowCounts(num_rows + 2, num_rows, {"could not be read": 2}),
        parts=parts.astype(np.int8) if has_parts else None,
    )


def slowly(records: Records, options: PrepareOptions) -> dict[str, Any]:
    """The arrays, ids and numbers of dropped rows, by loops over rows."""
    users, items, times = records.user_tokens.to_list(), records.item_tokens.to_list(), records.timestamps.tolist()
    parts = [0] * len(users) if records.parts is None else records.parts.tolist()
    rows: list[tuple[str, str, int, int]] = []
    seen = set()
    for row in zip(users, items, times, parts, strict=True):
        if row[:3] not in seen:
            rows.append(row)
        seen.add(row[:3])
    num_repeated, num_first = len(users) - len(rows), len(rows)
    minimum = options.min_interactions if records.parts is None else 1
    while True:
        of_users, of_items = Counter(row[0] for row in rows), Counter(row[1] for row in rows)
        kept = [row for row in rows if of_users[row[0]] >= minimum and of_items[row[1]] >= minimum]
        if len(kept) == len(rows):
            break
        rows = kept
    user_names, item_names = list(dict.fromkeys(row[0] for row in rows)), list(dict.fromkeys(row[1] for row in rows))
    draw = np.random.default_rng(options.seed).permutation(len(rows)).tolist()
    latest: dict[str, int] = {}
    num_late = 0
    for user, _, time, _ in rows:
        num_late += user in latest and time < latest[user]
        latest[user] = time

    def key(number: int) -> tuple[Any, ...]:
        user, item, time, part = rows[number]
        tie = {"file": number, "item": item, "random": draw[number]}[options.tie_order]
        return user_names.index(user), part, time, tie

    order = sorted(range(len(rows)), key=key)
    ends = np.cumsum([0, *(sum(row[0] == name for row in rows) for name in user_names)]).tolist()
    split = []
    by_time = sorted(row[2] for row in rows)
    shares = [by_time[int(len(rows) * (1 - periods * options.held_out_share))] for periods in (2, 1)]
    for start, end in pairwise(ends):
        mine = [rows[row] for row in order[start:end]]
        if options.split == "global-time":
            periods = [sum(time >= moment for moment in shares) for _, _, time, _ in mine]
        elif records.parts is not None:
            periods = [part for _, _, _, part in mine]
        else:
            periods = [0] * (len(mine) - 2) + [1, 2]
        found = [periods.count(0)]
        for period in (1, 2):
            row = periods.index(period) if period in periods else 0
            found.append(start + row if row else -1)
        split.append((start + found[0], *found[1:]))
    return {
        "offsets": ends,
        "item_ids": [item_names.index(rows[row][1]) + 1 for row in order],
        "timestamps": [rows[row][2] for row in order],
        "file_rows": order,
        "split": split,
        "users": user_names,
        "items": ["", *item_names],
        "dropped": {"could not be read": 2, "were repeated": num_repeated, "few": num_first - len(rows)},
        "late": num_late,
    }


@pytest.mark.parametrize("tie_order", ["file", "item", "random"])
@pytest.mark.parametrize("split", ["leave-one-out", "global-time", "given"])
@pytest.mark.parametrize(("seed", "block_rows"), [(0, 7), (1, 40), (2, 1000)])
def test_arrays_numbers_and_counts_are_those_of_loops_over_rows(
    monkeypatch: pytest.MonkeyPatch, tie_order: TieOrder, split: SplitRule, seed: int, block_rows: int
) -> None:
    monkeypatch.setattr(long_arrays, "BLOCK_ROWS", block_rows)
    options = PrepareOptions(tie_order=tie_order, split=split, seed=seed, held_out_share=0.2)
    records = draw_records(seed, 150, has_parts=split == "given")
    expected = slowly(records, options)
    kept = filter_records(records, "drawn", options)
    found = number_and_order(kept, options)
    for name in ("offsets", "item_ids", "timestamps", "file_rows"):
        assert getattr(found, name).tolist() == expected[name], name
    assert [found.item_ids.dtype, found.timestamps.dtype, found.file_rows.dtype] == [np.int32, np.int64, np.int64]
    rows = np.stack([found.split.training_end, found.split.validation, found.split.test], axis=1)
    assert list(map(tuple, rows.tolist())) == expected["split"]
    assert found.user_tokens.to_list() == expected["users"]
    assert found.item_tokens == expected["items"]
    assert found.counts is not None
    reason = f"were of users or items with fewer than {5 if split != 'given' else 1} interactions"
    dropped = {reason if name == "few" else name: count for name, count in expected["dropped"].items()}
    assert found.counts.dropped == {name: count for name, count in dropped.items() if count}
    assert found.notes[0] == "a note of the reader"
    late = f"{expected['late']} rows came after a later one of the same user in the file: sorted by time"
    assert late in found.notes
