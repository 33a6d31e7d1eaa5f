"""Every model of the registry takes a step on a device, plain and, where its shapes are fixed, recorded."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from devices import DEVICES, largest_difference
from tape import Transfers, tape_record

from athwe_core.batch import PackedBatch
from athwe_core.config import Config
from athwe_core.data.packing import FIXED_PADDING, pack
from athwe_core.data.prepare import PreparedDataset
from athwe_core.data.rows import training_rows
from athwe_core.distributed import ALONE
from athwe_core.models.inputs import adapt_to_data
from athwe_core.models.protocol import total_loss
from athwe_core.models.registry import build_config, model_names, preset_names, preset_tree, replace_in
from athwe_core.training.build import TrainingSetup, build_setup
from athwe_core.training.compiled import wants_compiler
from athwe_core.training.optim import make_optimizer
from athwe_core.training.recorded import RecordedSteps
from athwe_core.training.step import draw_inputs, train_step

PRESETS = {name: next(p for p in preset_names() if preset_tree(p)["model"]["name"] == name) for name in model_names()}


def tiny(preset: str, device: str, prepared: PreparedDataset) -> Config:
    """A preset at small sizes without dropout, which a device draws from another generator."""
    sizes = ["model.hidden_size=8", "model.max_length=6", "training.precision=fp32", f"training.device={device}"]
    model = preset_tree(preset)["model"]
    rates = [f"model.{key}=0" for key in model if "dropout" in key]
    rates += [f"model.{key}.dropout=0" for key, part in model.items() if isinstance(part, dict) and "dropout" in part]
    return adapt_to_data(replace_in(build_config(preset), [*sizes, *rates]), prepared)[0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("preset", sorted(PRESETS.values()))
def test_a_step_of_each_model(
    preset: str, device: str, prepared: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the plain step on the CPU. There models whose steps are not recorded take the plain step only: no twin."""
    config, on_device = tiny(preset, "cpu", prepared), tiny(preset, device, prepared)
    setup = build_setup(on_device, prepared)
    wanted, fixed = replace_in(config, ["training.compiler=on"]), setup.model.has_fixed_shapes
    is_recorded = wants_compiler(wanted, torch.device("cuda"), ALONE, has_fixed_shapes=fixed)
    if device == "cpu" and not is_recorded:
        return
    rows = training_rows(prepared.split, batching=config.training.batching, max_length=6)
    batch = pack(prepared, rows, np.arange(20), max_length=6, padding=FIXED_PADDING)
    reference = build_setup(config, prepared)
    reference.model.begin_epoch(0, is_resumed=False)
    setup.model.load_state_dict(copy.deepcopy(reference.model.state_dict()))
    setup.model.begin_epoch(0, is_resumed=True)
    optimizers = [make_optimizer(one.model, lr=0.001) for one in (reference, setup)]
    record = tape_record(setup.model, optimizers[1]) if device == "cpu" else None
    steps = RecordedSteps(setup, optimizers[1], on_device, notify=pytest.fail, record=record)
    given = batch.to(setup.device)
    for step in range(2):
        expected = train_step(reference, optimizers[0], batch, config, epoch=0, step=step)
        found = steps.take(given, epoch=0, step=step) if is_recorded else None
        assert (found is not None) == (is_recorded and step > 0)
        found = found or train_step(setup, optimizers[1], given, on_device, epoch=0, step=step)
        difference, term = largest_difference(found, expected)
        assert difference < 1e-3, term
        assert all(value.isfinite() for value in found.values())
    assert all(weight.isfinite().all() for weight in setup.model.parameters())
    assert next(setup.model.parameters()).device.type == torch.device(device).type
    if device == "cpu":
        copies_nothing_from_the_cpu(setup, batch, config, monkeypatch)


def copies_nothing_from_the_cpu(
    setup: TrainingSetup, batch: PackedBatch, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph would copy the same numbers again and again. torch's meta device takes the branches of CUDA."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # the meta device has none
    setup.model.zero_grad()
    setup.loss_module.to("meta")
    on_meta = batch.to("meta")
    inputs = draw_inputs(setup, on_meta, config, epoch=0, step=0)
    with Transfers() as transfers:
        total_loss(setup.model.losses(on_meta, inputs), setup.model.loss_weights).backward()
    assert transfers.are_free == []
