"""The padded view of a batch: there and back, by hand and against a loop."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from athwe_core.batch import PackedBatch
from athwe_core.data.packing import NO_PADDING, Padding, pack, pack_histories
from athwe_core.data.rows import training_rows


def test_rows_stand_in_a_rectangle_with_padding_on_the_right() -> None:
    batch = pack_histories([([7, 8, 9], [1, 2, 3]), ([4], [5])], next_items=[1, 2])  # sorted by length
    view = batch.padded
    assert view.pad(batch.item_ids).tolist() == [[4, 0, 0], [7, 8, 9]]
    assert view.pad(batch.timestamps, fill=-1).tolist() == [[5, -1, -1], [1, 2, 3]]
    assert view.mask.tolist() == [[True, False, False], [True, True, True]]
    assert view.lengths.tolist() == [1, 3]
    assert view.unpad(view.pad(batch.item_ids)).tolist() == batch.item_ids.tolist()
    assert view.at_targets(view.pad(batch.item_ids)).tolist() == [4, 9]
    assert batch.padded_to(5).pad(batch.item_ids).tolist() == [[4, 0, 0, 0, 0], [7, 8, 9, 0, 0]]


def test_a_view_is_as_long_as_the_longest_row() -> None:
    with pytest.raises(AssertionError, match="expected a length of at least 2, got 1"):
        pack_histories([([7, 8], [1, 2])]).padded_to(1)


@pytest.mark.parametrize("padding", [NO_PADDING, Padding(targets=8, rows=4, bins=2), Padding(8, 4, 2, is_fixed=True)])
@pytest.mark.parametrize("batching", ["packed", "prefix"])
def test_padding_and_back_is_each_row_in_a_loop(batching: str, padding: Padding, make_data: Callable[..., Any]) -> None:
    data = make_data([9, 4, 3, 8])
    rows = training_rows(data.split, batching=batching, max_length=6)
    batch: PackedBatch = pack(data, rows, np.arange(len(rows)), max_length=6, padding=padding)
    values = torch.randn(batch.num_tokens, 2, generator=torch.Generator().manual_seed(0))
    view = batch.padded
    rectangle = view.pad(values)
    for row in range(batch.num_rows):
        begin, end = batch.offsets[row : row + 2].tolist()
        length = end - begin if batch.user_index[row] >= 0 else 0
        assert view.lengths[row] == length
        torch.testing.assert_close(rectangle[row, :length], values[begin : begin + length])
        assert not rectangle[row, length:].any()
    real = batch.item_ids > 0
    torch.testing.assert_close(view.unpad(rectangle)[real], values[real])
    is_target = batch.target_ids >= 0
    torch.testing.assert_close(view.at_targets(rectangle)[is_target], values[batch.target_index][is_target])
