"""A step asks nothing of the device: run on torch's meta device, where a value that is read is an error."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from setups import setup_of
from tape import Transfers

from athwe_core.config import Config
from athwe_core.data.packing import FIXED_PADDING, SOME_PADDING, Padding, pack
from athwe_core.data.rows import training_rows
from athwe_core.training.build import TrainingSetup
from athwe_core.training.step import PendingLosses, compute_gradients


def on_meta(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: value.to("meta") for name, value in values.items()}
    return None if values is None else values.to("meta")


@pytest.fixture
def take_step(
    catalogue: Any, time_range: Any, make_config: Callable[..., Config], make_data: Callable[..., Any]
) -> Callable[[str, str, Padding], Transfers]:
    def take(preset: str, batching: str, padding: Padding) -> Transfers:
        config = make_config(preset, f"training.batching={batching}", "model.dropout=0.5")
        setup: TrainingSetup = setup_of(config, catalogue, time_range, torch.bfloat16)
        data = make_data([9, 8, 5, 4])
        rows = training_rows(data.split, batching=batching, max_length=6)
        batch = pack(data, rows, np.arange(len(rows)), max_length=6, padding=padding)
        setup.loss_module.to("meta")
        with Transfers() as transfers:
            terms = compute_gradients(setup, batch.to("meta"), config, epoch=0, step=0)
        assert all(value.is_meta for value in terms.values())
        trained = [parameter for parameter in setup.model.parameters() if parameter.requires_grad]
        assert all(parameter.grad is not None for parameter in trained)
        return transfers

    return take


@pytest.mark.parametrize("preset", ["athwe", "hm4sr"])
@pytest.mark.parametrize("batching", ["packed", "prefix"])
@pytest.mark.parametrize("padding", [SOME_PADDING, FIXED_PADDING], ids=["some", "full"])
def test_a_step_reads_nothing_and_waits_for_no_copy(
    preset: str, batching: str, padding: Padding, take_step: Any
) -> None:
    transfers = take_step(preset, batching, padding)
    assert len(transfers.are_free) > 10  # the batch, and which tokens hold the placeholder
    assert all(transfers.are_free)


def test_a_centred_wavelet_reads_the_lengths_of_the_rows(take_step: Any) -> None:
    with pytest.raises(NotImplementedError, match="nonzero"):
        take_step("athwe-published", "prefix", SOME_PADDING)


def test_what_is_read_later_is_what_was() -> None:
    terms = {"ce": torch.tensor(1.5), "total": torch.tensor(2.5)}
    readout = PendingLosses(terms)
    terms["ce"].fill_(9.0)  # the next step's, in the same memory
    assert readout.read() == {"ce": 1.5, "total": 2.5}


@pytest.mark.gpu
def test_a_readout_of_a_device_is_what_was() -> None:
    terms = {"ce": torch.tensor(1.5, device="cuda")}
    readout = PendingLosses(terms)
    terms["ce"].fill_(9.0)
    assert readout.read() == {"ce": 1.5}
