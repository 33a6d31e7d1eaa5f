from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from athwe_core.batch import PackedBatch
from athwe_core.data.packing import FIXED_PADDING, SOME_PADDING, Padding, multiple_for, pack, pack_histories
from athwe_core.data.rows import (
    evaluation_rows,
    packed_rows,
    prefix_rows,
    rows_of_histories,
    training_rows,
)

USER_LENGTHS = st.lists(st.integers(3, 40), min_size=1, max_size=6)
MAX_LENGTHS = st.integers(2, 12)


NUMBERS = {"num_targets", "all_supervised", "longest_row"}


def check_invariants(batch: PackedBatch) -> None:
    lengths = batch.offsets.diff()
    T, B = batch.num_tokens, batch.num_rows
    assert batch.offsets[0] == 0
    assert batch.offsets[-1] == T
    assert (lengths > 0).all()
    assert torch.equal(batch.rows, torch.arange(B).repeat_interleave(lengths))
    assert torch.equal(batch.positions, torch.arange(T) - batch.offsets[batch.rows])
    previous = torch.cat([batch.timestamps[:1], batch.timestamps[:-1]])
    expected = torch.where(batch.positions == 0, 0, batch.timestamps - previous)
    assert torch.equal(batch.intervals, expected)
    assert (batch.target_index.diff() > 0).all()
    filled = batch.grid_tokens.flatten() >= 0
    assert filled.sum() == T
    assert torch.equal(batch.grid_tokens.flatten()[batch.token_slots], torch.arange(T))
    bins = batch.token_slots // batch.grid_tokens.shape[1]
    for row in range(B):
        slots = batch.token_slots[batch.rows == row]
        assert (slots.diff() == 1).all()
        assert bins[batch.rows == row].unique().numel() == 1
    assert (batch.prefix_weight >= 0).all()
    assert batch.num_targets == len(batch.target_index)
    assert batch.all_supervised == (batch.num_targets == T)
    for name in vars(batch).keys() - NUMBERS:
        assert getattr(batch, name).dtype == (torch.float32 if name == "prefix_weight" else torch.int64), name


@given(USER_LENGTHS, MAX_LENGTHS, st.sampled_from(["packed", "prefix", "validation", "test"]), st.randoms())
@settings(deadline=None)
def test_every_batch_keeps_the_promises_of_its_type(
    make_data: Callable, lengths: list[int], max_length: int, kind: str, random: object
) -> None:
    data = make_data([*lengths, 5])
    if kind in ("packed", "prefix"):
        rows = training_rows(data.split, batching=kind, max_length=max_length)
    else:
        rows = evaluation_rows(data.split, kind, max_length=max_length)
    chosen = np.array(random.sample(range(len(rows)), k=min(len(rows), 5)))  # type: ignore[attr-defined]
    batch = pack(data, rows, chosen, max_length=max_length)
    check_invariants(batch)
    found = [
        (batch.user_index[row].item(), batch.item_ids[a:b].tolist(), batch.timestamps[a:b].tolist())
        for row, (a, b) in enumerate(zip(batch.offsets, batch.offsets[1:], strict=False))
    ]
    columns = (rows.start, rows.stop, rows.num_supervised, rows.user_index)
    every_row = list(zip(*(column.tolist() for column in columns), strict=True))
    expected = [
        (
            every_row[i][3],
            *(array[every_row[i][0] : every_row[i][1]].tolist() for array in (data.item_ids, data.timestamps)),
        )
        for i in chosen
    ]
    assert sorted(found) == sorted(expected)
    targets = [
        (every_row[i][3], int(data.item_ids[token + 1]))
        for i in chosen
        for token in range(every_row[i][1] - every_row[i][2], every_row[i][1])
    ]
    users = batch.user_index[batch.rows[batch.target_index]].tolist()
    assert sorted(zip(users, batch.target_ids.tolist(), strict=True)) == sorted(targets)


@pytest.mark.parametrize(
    ("count", "multiple", "expected"),
    [(1, 64, 64), (2047, 64, 64), (2048, 64, 128), (5100, 64, 256), (180, 4, 8), (10**6, 1, 1)],
)
def test_more_tokens_are_filled_up_to_larger_multiples(count: int, multiple: int, expected: int) -> None:
    assert multiple_for(count, multiple) == expected


@pytest.mark.parametrize(("batching", "multiple"), [("packed", 64), ("prefix", 256)])
def test_few_shapes_of_large_batches(make_data: Callable, batching: str, multiple: int) -> None:
    data = make_data([17] * 60)
    rows = training_rows(data.split, batching=batching, max_length=16)
    tokens = {
        pack(data, rows, np.arange(count), max_length=16, padding=SOME_PADDING).num_tokens
        for count in range(len(rows) - 20, len(rows))
    }
    assert all(number % multiple == 0 for number in tokens)
    assert len(tokens) <= (2 if batching == "prefix" else 6)


@pytest.mark.parametrize("padding", [SOME_PADDING, FIXED_PADDING, Padding(targets=48)])
@pytest.mark.parametrize(
    "lengths", [[19, 19], [35], [10, 7, 5], [4]]
)  # the first two padding their bins to the last slot
def test_padding_lies_in_an_empty_slot(make_data: Callable, lengths: list[int], padding: Padding) -> None:
    data = make_data(lengths)
    rows = packed_rows(data.split, max_length=32)
    batch = pack(data, rows, np.arange(len(rows)), max_length=32, padding=padding)
    is_filler = batch.item_ids == 0
    assert batch.num_tokens % padding.targets == 0
    assert is_filler.any()
    tokens = batch.grid_tokens.flatten()[batch.token_slots]
    assert torch.equal(tokens, torch.where(is_filler, -1, torch.arange(batch.num_tokens)))


@given(USER_LENGTHS, MAX_LENGTHS)
@settings(deadline=None)
def test_prefix_weights_count_the_prefix_rows_that_contain_a_token(
    make_data: Callable, lengths: list[int], max_length: int
) -> None:
    data = make_data([*lengths, 9])
    prefixes = prefix_rows(data.split, max_length=max_length)
    counted = np.zeros(len(data.item_ids))
    for start, stop in zip(prefixes.start, prefixes.stop, strict=True):
        counted[start:stop] += 1
    for batching in ("packed", "prefix"):
        rows = training_rows(data.split, batching=batching, max_length=max_length)
        order = np.arange(len(rows))
        batch = pack(data, rows, order, max_length=max_length)
        by_length = order[np.argsort(rows.stop - rows.start, kind="stable")]
        source = np.concatenate([np.arange(rows.start[i], rows.stop[i]) for i in by_length])
        found = np.zeros(len(data.item_ids))
        np.add.at(found, source, batch.prefix_weight.numpy())
        assert np.array_equal(found, counted)
        assert batching == "packed" or (batch.prefix_weight == 1).all()


def test_odd_seconds_survive_as_whole_numbers() -> None:
    times = [1_400_000_001, 1_400_000_002, 1_400_000_129]
    batch = pack_histories([([1, 2, 3], times)])
    assert batch.timestamps.tolist() == times
    assert batch.intervals.tolist() == [0, 1, 127]


def test_histories_are_packed_by_length_and_say_which_they_are() -> None:
    batch = pack_histories([([1, 2, 3], [10, 20, 25]), ([4], [7]), ([5, 6], [1, 1])], next_items=[9, 8, 0])
    check_invariants(batch)
    assert batch.user_index.tolist() == [1, 2, 0]
    assert batch.item_ids.tolist() == [4, 5, 6, 1, 2, 3]
    assert batch.intervals.tolist() == [0, 0, 0, 0, 10, 5]
    assert batch.target_index.tolist() == [0, 2, 5]
    assert batch.target_ids.tolist() == [8, 0, 9]
    assert batch.prefix_weight.tolist() == [1] * 6
    assert (batch.num_tokens, batch.num_rows, batch.num_targets) == (6, 3, 3)


def test_long_rows_make_wider_bins() -> None:
    batch = pack_histories([([1] * 100, list(range(100))), ([2] * 5, list(range(5)))])
    check_invariants(batch)
    assert batch.grid_tokens.shape[1] >= 100


def test_a_batch_moves_as_a_whole() -> None:
    batch = pack_histories([([1, 2], [3, 4])])
    moved = batch.to("meta")
    tensors = vars(batch).keys() - NUMBERS
    assert all(getattr(moved, name).is_meta for name in tensors)
    same = batch.to("cpu")
    assert all(torch.equal(getattr(same, name), getattr(batch, name)) for name in tensors)
    assert all(getattr(moved, name) == getattr(batch, name) for name in NUMBERS)


def test_rows_of_histories_are_the_histories_with_an_unknown_next_item(make_data: Callable) -> None:
    data = make_data([3, 9, 4])
    longer, rows = rows_of_histories(data, max_length=6)
    batch = pack(longer, rows, np.array([2, 0, 1]), max_length=6)
    histories = []
    for first, end in pairwise(data.offsets):
        window = slice(max(first, end - 6), end)
        histories.append((data.item_ids[window].tolist(), data.timestamps[window].tolist()))
    expected = pack_histories(histories)
    for name in (
        "item_ids",
        "timestamps",
        "intervals",
        "positions",
        "offsets",
        "target_ids",
        "target_index",
        "user_index",
    ):
        assert torch.equal(getattr(batch, name), getattr(expected, name)), name
    assert batch.target_ids.tolist() == [0, 0, 0]
