"""What every sequential model must do, on tiny sizes: rows as histories one by one, causality, training, edges."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from athwe_core.batch import Attribute, Catalogue, PackedBatch, TimeRange
from athwe_core.data.packing import NO_PADDING, Padding, pack, pack_histories
from athwe_core.data.rows import training_rows
from athwe_core.losses.sampled_ce import LogUniformSampler, sample_candidates
from athwe_core.models.protocol import LossInputs, Model, ModelInputs, total_loss
from athwe_core.models.registry import build_config, find_model, replace_in
from athwe_core.training.optim import make_optimizer

V, L = 14, 6
WIDTH = {"text": 7, "image": 5}
START, DAY = 1_400_000_001, 86_400
Items = Sequence[int]


def build(
    preset: str,
    *overrides: str,
    spread: float | None = 0.3,
    num_items: int = V - 1,
    features: Sequence[str] = (),
) -> Any:
    """A model in evaluation mode, without dropout; with `spread`, weights large enough for every input to matter.

    `features` names the modalities of which the catalogue has random vectors.
    """
    small = ("model.hidden_size=8", f"model.max_length={L}", "model.dropout=0", "training.precision=fp32")
    config = replace_in(build_config(preset), [*small, *overrides])
    generator = torch.Generator().manual_seed(0)
    vectors = {name: torch.randn(num_items + 1, WIDTH[name], generator=generator) for name in features}
    for value in vectors.values():
        value[0] = 0
    spec = find_model(config.model.name)
    attributes = {name: labels(name, num_items + 1) for name in spec.needs(config).attributes}
    catalogue = Catalogue(num_item_rows=num_items + 1, features=vectors, attributes=attributes)
    model = spec.build(config, ModelInputs(catalogue, TimeRange(0, 1, 1), generator=generator))
    if spread is not None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, spread, generator=generator)
    return model.eval()


def labels(name: str, num_item_rows: int) -> Attribute:
    """Labels of items, one each, or at most two for categories. Item 2 has none."""
    item = torch.arange(num_item_rows)
    values = torch.stack([1 + item % 4, (1 + (item + 1) % 4) * (item % 3 > 0)], dim=1)
    values[(item == 0) | (item == 2)] = 0
    return Attribute(values if name == "categories" else values[:, 0], 5)


def batch_of(data: Any, batching: str, padding: Padding = NO_PADDING) -> PackedBatch:
    """All training rows of a data set in one batch."""
    rows = training_rows(data.split, batching=batching, max_length=L)
    return pack(data, rows, np.arange(len(rows)), max_length=L, padding=padding)


def history(items: Items, times: Items | None = None) -> tuple[Items, Items]:
    """Items with uneven gaps of days between them."""
    return items, [START + DAY * n * n for n in range(len(items))] if times is None else times


@torch.no_grad()
def assert_rows_are_histories_one_by_one(model: Model, batch: PackedBatch) -> None:
    """The state of each supervised token is that of its row up to there, alone."""
    found = model.user_vectors(batch)
    for number, (token, target) in enumerate(zip(batch.target_index.tolist(), batch.target_ids.tolist(), strict=True)):
        if target < 0:  # padding
            continue
        row = slice(int(batch.offsets[batch.rows[token]]), token + 1)
        alone = pack_histories([(batch.item_ids[row].tolist(), batch.timestamps[row].tolist())])
        torch.testing.assert_close(found[number], model.user_vectors(alone)[0], atol=1e-5, rtol=1e-5)


def step_terms(model: Model, batch: PackedBatch) -> dict[str, torch.Tensor]:
    """The loss terms of one training step, with the negatives that its main loss needs."""
    candidates = None
    if model.loss_kind == "sampled":
        sampler = LogUniformSampler(torch.ones(V, dtype=torch.int64), num_negatives=5)
        candidates = sample_candidates(sampler, batch.target_ids, torch.Generator().manual_seed(1))
    draws = model.train().draw(batch, lambda _: torch.Generator().manual_seed(2))
    return model.losses(batch, LossInputs(draws=draws, candidates=candidates))


def assert_every_parameter_trains(model: Model, other: Model, batch: PackedBatch, folder: Path) -> None:
    """Each parameter has a gradient, moves in one step, and comes back from a file into `other`."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(model, lr=0.1)
    total_loss(step_terms(model, batch), model.loss_weights).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.to_dense().abs().sum() > 0, name
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    save_file(model.state_dict(), folder / "weights.safetensors")
    other.load_state_dict(load_file(folder / "weights.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@torch.no_grad()
def assert_later_items_change_no_state(model: Model) -> None:
    """Another last item in a row whose every position is supervised changes the last state only."""
    first, second = (
        model.user_vectors(
            replace(
                pack_histories([history(items)]),
                target_index=torch.arange(4),
                target_ids=torch.ones(4, dtype=torch.int64),
                all_supervised=True,
                num_targets=4,
            )
        )
        for items in ([1, 2, 3, 4], [1, 2, 3, 9])
    )
    torch.testing.assert_close(first[:-1], second[:-1])
    assert not torch.allclose(first[-1], second[-1])


EDGES = [([3], V - 1), ([1, 2, 3, 4, 5, 6], V - 1), ([1, 1], 1)]
"""Histories and the number of items: one item, as many as the window holds, a catalogue of one item."""
