"""The popularity-corrected cross-entropy over the items of a batch against a loop over every occurrence."""

import pytest
import torch

from athwe_core.losses.catalogue_ce import CHUNK_ELEMENTS
from athwe_core.losses.in_batch_ce import in_batch_cross_entropy
from athwe_core.losses.next_item import loss_scale

OCCURRENCES = [0, 0, 1, 2, 2, 2, 3]
"""Index of the item of each occurrence in the batch; item 4 occurs nowhere."""


def test_it_is_a_loop_over_every_occurrence() -> None:
    generator = torch.Generator().manual_seed(0)
    states, table = torch.randn(3, 4, generator=generator), torch.randn(5, 4, generator=generator)
    states.requires_grad_()
    popularity = torch.tensor([0.4, 0.1, 0.2, 0.25, 0.05])
    held = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    targets = torch.tensor([2, 0, -1])
    counts = torch.tensor(OCCURRENCES).bincount(minlength=5)
    scale = loss_scale(targets, None, torch.float32, CHUNK_ELEMENTS)
    found = in_batch_cross_entropy(
        states, table, targets, held=held, counts=counts, log_popularity=popularity.log(), scale=scale
    )
    losses = []
    for i in (0, 1):
        logits = states[i] @ table.T - popularity.log()
        own = int(targets[i])
        others = [logits[item] for item in OCCURRENCES if not held[i, item] and item != own]
        if not held[i, own]:  # its occurrences in other rows are hidden too
            assert own in OCCURRENCES
        losses.append(torch.logsumexp(torch.stack([logits[own], *others]), 0) - logits[own])
    torch.testing.assert_close(found, torch.stack(losses).mean())
    (gradient,) = torch.autograd.grad(found, states, retain_graph=True)
    (expected,) = torch.autograd.grad(torch.stack(losses).mean(), states)
    torch.testing.assert_close(gradient, expected)


def test_padding_alone_has_no_loss() -> None:
    targets = torch.tensor([-1])
    found = in_batch_cross_entropy(
        torch.ones(1, 2),
        torch.ones(2, 2),
        targets,
        held=torch.zeros(1, 2, dtype=torch.bool),
        counts=torch.tensor([0, 1]),
        log_popularity=torch.zeros(2),
        scale={"num_targets": 1, "compute_dtype": torch.float32, "chunk_elements": CHUNK_ELEMENTS},
    )
    assert found.item() == pytest.approx(0)
