"""Terms of seen items against a slow twin over each history, and the losses that add them against torch."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from athwe_core.batch import PackedBatch
from athwe_core.data.packing import FIXED_PADDING, NO_PADDING, Padding, pack, pack_histories
from athwe_core.data.rows import training_rows
from athwe_core.losses.catalogue_ce import catalogue_cross_entropy
from athwe_core.losses.next_item import loss_scale, next_item_loss
from athwe_core.losses.sampled_ce import Candidates
from athwe_core.nn.repetition import COUNTS, DAY, DISTANCES, GAPS, STEP_SCALE, Repetition

V, L = 9, 6


def random_term() -> Repetition:
    term, generator = Repetition(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in term.parameters():
            weight.normal_(generator=generator)
    return term


def bucket(value: int, buckets: int) -> int:
    return min(0 if value == 0 else math.ceil(math.log2(value)) + 1, buckets - 1)


def slow_terms(term: Repetition, items: list[int], times: list[int]) -> torch.Tensor:
    """(V,) terms after the last item of one history."""
    found = torch.zeros(V)
    for item in set(items):
        places = [place for place, other in enumerate(items) if other == item]
        found[item] = STEP_SCALE * (
            term.by_distance[bucket(len(items) - 1 - places[-1], DISTANCES)]
            + term.by_gap[bucket((times[-1] - times[places[-1]]) // DAY, GAPS)]
            + term.by_count[min(len(places), COUNTS) - 1]
        )
    return found


def slow_scores(term: Repetition, batch: PackedBatch, plain: torch.Tensor) -> torch.Tensor:
    scores = plain.clone()
    for n, token in enumerate(batch.target_index.tolist()):
        if batch.target_ids[n] < 0:
            continue
        first = int(batch.offsets[batch.rows[token]])
        items, times = batch.item_ids[first : token + 1].tolist(), batch.timestamps[first : token + 1].tolist()
        scores[n] += slow_terms(term, items, times)
    return scores


@pytest.fixture
def batch_of(make_data: Callable[..., Any]) -> Callable[..., PackedBatch]:
    def make(batching: str, padding: Padding = NO_PADDING) -> PackedBatch:
        data = make_data([5, 3, 9, 12, 4], num_rows=V)
        rows = training_rows(data.split, batching=batching, max_length=L)
        return pack(data, rows, np.arange(len(rows)), max_length=L, padding=padding)

    return make


@pytest.mark.parametrize("batching", ["packed", "prefix"])
@pytest.mark.parametrize("padding", [NO_PADDING, FIXED_PADDING], ids=["no padding", "padding"])
def test_terms_are_those_of_each_history(batching: str, padding: Padding, batch_of: Callable[..., PackedBatch]) -> None:
    term, batch = random_term(), batch_of(batching, padding)
    is_repeated = batch.item_ids[1:] == batch.item_ids[:-1]
    assert len(batch.item_ids.unique()) < batch.num_tokens or is_repeated.any()  # items come twice
    plain = torch.randn(len(batch.target_ids), V, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(term(batch).add_to(plain), slow_scores(term, batch, plain))


def test_a_term_by_hand() -> None:
    """Items 3 7 3 on days 0, 1 and 8: item 3 lies 0 positions and 0 days back, twice seen; item 7 one position, 7 days."""
    term = random_term()
    batch = pack_histories([([3, 7, 3], [0, DAY, 8 * DAY])])
    a, b, c = (weight.tolist() for weight in (term.by_distance, term.by_gap, term.by_count))
    found = term(batch).add_to(torch.zeros(1, V))[0]
    assert found[3].item() == pytest.approx(10 * (a[0] + b[0] + c[1]), abs=1e-5)
    assert found[7].item() == pytest.approx(10 * (a[1] + b[4] + c[0]), abs=1e-5)
    assert found.count_nonzero() == 2


def test_a_new_term_changes_no_score() -> None:
    scores = torch.randn(1, V)
    assert Repetition()(pack_histories([([3, 7, 3], [0, 5, 9])])).add_to(scores).equal(scores)


@pytest.mark.parametrize("chunk_elements", [1, 3 * V, 2**25])
@pytest.mark.parametrize("padding", [NO_PADDING, FIXED_PADDING], ids=["no padding", "padding"])
def test_loss_and_gradients_are_those_of_torch(
    chunk_elements: int, padding: Padding, batch_of: Callable[..., PackedBatch]
) -> None:
    term, batch = random_term(), batch_of("packed", padding)
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(len(batch.target_ids), 4, generator=generator, requires_grad=True)
    table = torch.randn(V, 4, generator=generator, requires_grad=True)
    weights = [states, table, *term.parameters()]
    scale = loss_scale(batch.target_ids, None, torch.float32, chunk_elements)
    ours = next_item_loss(states, table, batch.target_ids, scale=scale, seen=term(batch))
    found = torch.autograd.grad(3 * ours, weights)
    expected = F.cross_entropy(
        term(batch).add_to(states @ table.T)[:, 1:], torch.where(batch.target_ids < 0, -100, batch.target_ids - 1)
    )
    torch.testing.assert_close(ours, expected)
    for mine, torchs in zip(found, torch.autograd.grad(3 * expected, weights), strict=True):
        torch.testing.assert_close(mine, torchs, atol=1e-5, rtol=1e-4)
    assert any(gradient.abs().sum() > 0 for gradient in found[2:])


def test_a_sample_of_all_items_is_the_catalogue(batch_of: Callable[..., PackedBatch]) -> None:
    term, batch = random_term(), batch_of("packed")
    states, table = torch.randn(len(batch.target_ids), 4), torch.randn(V, 4)
    scale = loss_scale(batch.target_ids, None, torch.float32, 2**25)
    full = next_item_loss(states, table, batch.target_ids, scale=scale, seen=term(batch))
    everything = Candidates(torch.arange(1, V), torch.zeros(V - 1))
    sampled = next_item_loss(states, table, batch.target_ids, scale=scale, candidates=everything, seen=term(batch))
    torch.testing.assert_close(sampled, full)


def test_items_outside_a_sample_are_left_out(batch_of: Callable[..., PackedBatch]) -> None:
    term, batch = random_term(), batch_of("packed")
    some = torch.tensor([1, 2, 4, 8])
    few = term(batch).among(some).add_to(torch.zeros(len(batch.target_ids), 4))
    torch.testing.assert_close(few, term(batch).add_to(torch.zeros(len(batch.target_ids), V))[:, some])


def test_terms_are_for_one_problem(batch_of: Callable[..., PackedBatch]) -> None:
    batch = batch_of("packed")
    states, table = torch.randn(2, len(batch.target_ids), 4), torch.randn(2, V, 4)
    with pytest.raises(AssertionError, match="one problem"):
        catalogue_cross_entropy(states, table, batch.target_ids, seen=random_term()(batch))
