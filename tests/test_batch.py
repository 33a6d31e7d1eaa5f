from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from athwe_core.batch import PackedBatch, to_device
from athwe_core.data.packing import SOME_PADDING, pack
from athwe_core.data.rows import training_rows


@pytest.fixture
def batch(make_data: Callable[..., Any]) -> PackedBatch:
    """Rows of 7, 5 and 1 tokens, and padding."""
    data = make_data([10, 8, 4])
    rows = training_rows(data.split, batching="packed", max_length=9)
    return pack(data, rows, np.arange(len(rows)), max_length=9, padding=SOME_PADDING)


def test_sizes_include_padding(batch: PackedBatch) -> None:
    assert batch.num_targets == 7 + 5 + 1
    assert batch.num_tokens == len(batch.item_ids) == 64
    assert batch.num_rows == len(batch.user_index) == 64


def test_a_batch_moves_with_all_its_tensors(batch: PackedBatch) -> None:
    moved = batch.to("meta")
    for field in fields(PackedBatch):
        before, after = getattr(batch, field.name), getattr(moved, field.name)
        if isinstance(before, Tensor):
            assert after.is_meta, field.name
            assert (after.shape, after.dtype) == (before.shape, before.dtype), field.name
        else:
            assert after == before, field.name


def test_a_tensor_that_is_on_the_device_is_not_copied() -> None:
    value = torch.arange(3)
    assert to_device(value, "cpu") is value


@pytest.mark.gpu
def test_a_tensor_moves_to_a_cuda_device() -> None:
    assert to_device(torch.arange(3), "cuda").tolist() == [0, 1, 2]
