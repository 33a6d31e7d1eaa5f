"""Interval attention against a loop over queries and keys, and the intervals by hand."""

import pytest
import torch
from torch import Tensor

from athwe_core.data.packing import pack_histories
from athwe_core.nn.interval_attention import (
    IntervalAttentionLayer,
    PaddingKeys,
    Relations,
    grid_intervals,
    rounded_quotient,
)
from athwe_core.nn.transformer import AttentionGrid

D, HEADS, SPAN, SLOTS = 6, 2, 4, 5
LENGTHS = (1, 3, 5)
T = sum(LENGTHS)


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [(0, 1, 0), (5, 2, 2), (7, 2, 4), (3, 2, 2), (1, 2, 0), (2**61 + 1, 2**60, 2), (7, 3, 2)],
)
def test_quotients_are_rounded_to_even(value: int, unit: int, expected: int) -> None:
    assert rounded_quotient(torch.tensor([value]), torch.tensor([unit])).tolist() == [expected]


def grid_of(lengths: tuple[int, ...] = LENGTHS) -> AttentionGrid:
    batch = pack_histories([([1] * length, [0] * length) for length in lengths])
    return AttentionGrid(batch.grid_tokens, batch.token_slots, batch.rows)


def test_intervals_by_hand() -> None:
    grid, elapsed = grid_of((3,)), torch.tensor([0, 10, 95])
    found = grid_intervals(elapsed, torch.tensor([1, 10, 10]), grid, time_span=8)
    assert found[0, 0, :3, :3].tril().tolist() == [
        [0, 0, 0],
        [1, 0, 0],
        [8, 8, 0],
    ]  # 95 / 10 is 10: 9.5 to the even one


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer_of() -> IntervalAttentionLayer:
    layer = IntervalAttentionLayer(hidden_size=D, num_heads=HEADS, dropout_rate=0.0).eval()
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(random(*parameter.shape, seed=number) * 0.5)
    return layer


@pytest.mark.parametrize("attends_padding", [False, True])
@torch.no_grad()
def test_a_layer_is_a_loop_over_queries_and_keys(attends_padding: bool) -> None:
    layer, grid, x = layer_of(), grid_of(), random(T, D, seed=20)
    key_positions, value_positions, key_intervals, value_intervals = (
        random(count, D, seed=30 + n) for n, count in enumerate((T, T, SPAN + 1, SPAN + 1))
    )
    elapsed = torch.tensor([0, 0, 2, 3, 0, 1, 1, 3, 9])
    padding = PaddingKeys(
        visible=torch.arange(SLOTS) < SLOTS - torch.tensor([1] + [3] * 3 + [5] * 5)[:, None],
        interval=(elapsed + 1).clamp(max=SPAN),
        keys=random(SLOTS, D, seed=40),
        values=random(SLOTS, D, seed=41),
    )
    intervals = grid_intervals(elapsed, torch.ones(T, dtype=torch.int64), grid, time_span=SPAN)
    relations = Relations(grid, key_positions, value_positions, intervals, key_intervals, value_intervals)
    if attends_padding:
        relations = Relations(grid, key_positions, value_positions, intervals, key_intervals, value_intervals, padding)
    normal = layer.attention_norm(x)
    query, key, value = layer.query(normal), layer.key(x), layer.value(x)
    attended, begin = torch.zeros(T, D), 0
    for length in LENGTHS:
        for i in range(begin, begin + length):
            keys, values = [], []
            for j in range(begin, i + 1):
                r = min(int(elapsed[i] - elapsed[j]), SPAN)
                keys.append(key[j] + key_positions[j] + key_intervals[r])
                values.append(value[j] + value_positions[j] + value_intervals[r])
            if attends_padding:
                for slot in range(SLOTS - length):
                    r = int(padding.interval[i])
                    keys.append(layer.key.bias + padding.keys[slot] + key_intervals[r])
                    values.append(layer.value.bias + padding.values[slot] + value_intervals[r])
            for head in (slice(0, 3), slice(3, 6)):
                scores = torch.stack([query[i, head] @ k[head] for k in keys]) / 3**0.5
                attended[i, head] = scores.softmax(0) @ torch.stack([v[head] for v in values])
        begin += length
    y = layer.feed_forward_norm(normal + attended)
    expected = layer.outer(torch.relu(layer.inner(y))) + y
    torch.testing.assert_close(layer(x, relations, torch.float32), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_without_relations_it_is_plain_attention() -> None:
    layer, grid, x = layer_of(), grid_of(), random(T, D, seed=20)
    nothing, none = torch.zeros(T, D), torch.zeros(SPAN + 1, D)
    intervals = grid_intervals(torch.arange(T), torch.ones(T, dtype=torch.int64), grid, time_span=SPAN)
    zeros = Relations(grid, nothing, nothing, intervals, none, none)
    torch.testing.assert_close(layer(x, Relations(grid), torch.float32), layer(x, zeros, torch.float32))
