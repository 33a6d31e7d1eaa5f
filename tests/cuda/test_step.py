"""A step on a device is the step on the CPU, in float32 to rounding and in bfloat16 nearly, and waits for nothing."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from devices import DEVICES, ON_CUDA, gradients, largest_difference
from setups import setup_of

from athwe_core.batch import PackedBatch
from athwe_core.config import Config
from athwe_core.data.packing import FIXED_PADDING, NO_PADDING, Padding, pack
from athwe_core.data.rows import training_rows
from athwe_core.nn.transformer import AttentionGrid, StackedTransformer
from athwe_core.training.build import TrainingSetup
from athwe_core.training.optim import make_optimizer
from athwe_core.training.step import PendingLosses, compute_gradients, train_step

PRESETS = ["athwe", "hm4sr", "sasrec"]
Make = Callable[..., tuple[TrainingSetup, PackedBatch, Config]]


@pytest.fixture
def make(catalogue: Any, time_range: Any, make_config: Callable[..., Config], make_data: Any) -> Make:
    def made(
        preset: str, device: str, *overrides: str, padding: Padding = NO_PADDING, dtype: torch.dtype = torch.float32
    ) -> tuple[TrainingSetup, PackedBatch, Config]:
        config = make_config(preset, f"training.device={device}", *overrides)
        data = make_data([9, 8, 5, 4, 7, 6])
        rows = training_rows(data.split, batching=config.training.batching, max_length=6)
        batch = pack(data, rows, np.arange(len(rows)), max_length=6, padding=padding)
        setup = setup_of(config, catalogue, time_range, dtype)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in setup.model.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
        return setup, batch.to(device), config

    return made


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batching", ["packed", "prefix"])
@pytest.mark.parametrize("preset", PRESETS)
def test_losses_and_gradients_are_those_of_the_cpu(preset: str, batching: str, device: str, make: Make) -> None:
    kind = f"training.batching={batching}"
    mask = ("losses.pcl.mask_share=0",) if preset != "sasrec" else ()  # which tokens are masked depends on the padding
    results = []
    for where, padding in (("cpu", NO_PADDING), (device, FIXED_PADDING)):
        setup, batch, config = make(preset, where, kind, *mask, padding=padding)
        terms = compute_gradients(setup, batch, config, epoch=0, step=0)
        results.append((terms, gradients(setup.model)))
    (expected_terms, expected), (terms, found) = results
    assert largest_difference(terms, expected_terms)[0] < 1e-4
    assert largest_difference(found, expected)[0] < 1e-3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("preset", PRESETS)
def test_bf16_is_near_fp32(preset: str, device: str, make: Make) -> None:
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        setup, batch, config = make(preset, device, dtype=dtype, padding=FIXED_PADDING)
        terms = compute_gradients(setup, batch, config, epoch=0, step=0)
        every = torch.cat([value.flatten() for value in gradients(setup.model).values()])
        results.append((float(terms["total"]), every))
    (expected, gradient), (found, low) = results
    assert found == pytest.approx(expected, rel=0.02)
    assert found != expected
    assert torch.nn.functional.cosine_similarity(low, gradient, dim=0) > 0.98


@pytest.mark.parametrize("device", ON_CUDA)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_waits_for_nothing(preset: str, device: str, make: Make) -> None:
    """The twin of `tests/training/test_no_waiting.py`, which runs on torch's meta device."""
    setup, batch, config = make(preset, device, "model.dropout=0.2", padding=FIXED_PADDING, dtype=torch.bfloat16)
    optimizer, on_cpu = make_optimizer(setup.model, lr=0.01), batch.to("cpu").pinned()
    train_step(setup, optimizer, batch, config, epoch=0, step=0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        pending = PendingLosses(train_step(setup, optimizer, on_cpu.to(device), config, epoch=0, step=1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert pending.read()["total"] > 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_fused_attention_there_and_back_is_the_plain_attention(device: str, dtype: torch.dtype, make: Make) -> None:
    """Ranking on a CPU and everything on CUDA take torch's fused attention, training on a CPU plain products."""
    _, batch, _ = make("sasrec", device, padding=FIXED_PADDING)
    sizes = {"num_modalities": 2, "hidden_size": 32, "inner_size": 16, "num_layers": 2, "num_heads": 2}
    plain = StackedTransformer(**sizes, dropout_rate=0.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in plain.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    fused = copy.deepcopy(plain).to(device).eval()
    x = torch.randn(2, batch.num_tokens, 32, generator=generator)
    real = (batch.item_ids > 0).cpu()
    results = []
    for stack, where in ((plain.train(), "cpu"), (fused, device)):
        rows = batch.to(where)
        grid = AttentionGrid(rows.grid_tokens, rows.token_slots, rows.rows)
        given = x.detach().clone().to(where, torch.float32 if stack is plain else dtype).requires_grad_()
        states = stack(given, grid, (slice(0, 2),), None)
        (states.float() * real.to(where)[:, None]).square().sum().backward()
        results.append({"states": states[:, real.to(where)], "input": given.grad, **gradients(stack)})
    assert largest_difference(results[1], results[0])[0] < (1e-3 if dtype == torch.float32 else 0.05)
