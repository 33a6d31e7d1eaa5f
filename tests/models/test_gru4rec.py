"""GRU4Rec: the published network with one and two layers, packed = one by one, causality, every loss, edges."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import (
    EDGES,
    assert_every_parameter_trains,
    assert_later_items_change_no_state,
    assert_rows_are_histories_one_by_one,
    batch_of,
    build,
    history,
)

from athwe_core.data.packing import NO_PADDING, SOME_PADDING, Padding, pack_histories
from athwe_core.errors import CheckpointError
from athwe_core.models.golden import Golden
from athwe_core.models.gru4rec import published_gru4rec, time_major_order
from athwe_core.models.parity import parity_differences

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ("model.gru_size=7",)
LAYERS = pytest.mark.parametrize("layers", [1, 2])


@pytest.mark.parametrize("name", ["GRU4Rec", "GRU4Rec_1layer"])
def test_the_published_network_is_ours(name: str) -> None:
    found = parity_differences(GOLDEN / f"{name}.npz", "gru4rec")
    assert set(found) == {"gru", "dense", "seq", "scores", "loss_ce", "loss_ce_no_pad_own", "loss_bpr"}
    assert max(found.values()) < 1e-5


def test_a_golden_file_without_its_weights_is_named() -> None:
    golden = Golden.read(GOLDEN / "SASRec.npz")
    with pytest.raises(CheckpointError, match=r"lacks w\.dense\.weight"):
        published_gru4rec(golden)


@LAYERS
@pytest.mark.parametrize("padding", [NO_PADDING, SOME_PADDING])
@pytest.mark.parametrize("batching", ["packed", "prefix"])
def test_packed_rows_are_histories_one_by_one(
    layers: int, padding: Padding, batching: str, make_data: Callable[..., Any]
) -> None:
    model = build("gru4rec", *SMALL, f"model.num_layers={layers}")
    assert_rows_are_histories_one_by_one(model, batch_of(make_data([9, 4, 3, 8]), batching, padding))


def test_two_layers_against_a_loop() -> None:
    model = build("gru4rec", *SMALL, "model.num_layers=2")
    items = [3, 1, 4, 1]
    with torch.no_grad():
        x = model.item_table()[items]
        for layer in (0, 1):
            inner, outer = (getattr(model.gru, f"weight_{kind}_l{layer}") for kind in ("ih", "hh"))
            h, states = torch.zeros(7), []
            for row in x:
                (ir, iz, ic), (hr, hz, hc) = (inner @ row).chunk(3), (outer @ h).chunk(3)
                z = torch.sigmoid(iz + hz)
                h = (1 - z) * torch.tanh(ic + torch.sigmoid(ir + hr) * hc) + z * h
                states.append(h)
            x = torch.stack(states)
        found = model.user_vectors(pack_histories([history(items)]))
        torch.testing.assert_close(found[0], model.dense.weight @ x[-1] + model.dense.bias)


def test_tokens_are_ordered_by_position_then_by_longest_row() -> None:
    batch = pack_histories([([1, 2, 3], [0] * 3), ([4], [0]), ([5, 6], [0] * 2)])
    assert batch.item_ids[time_major_order(batch)].tolist() == [1, 5, 4, 2, 6, 3]


def test_no_later_item_changes_a_state() -> None:
    assert_later_items_change_no_state(build("gru4rec", *SMALL))


@LAYERS
@pytest.mark.parametrize("kind", ["full", "sampled", "bce", "bpr"])
def test_every_parameter_trains(layers: int, kind: str, make_data: Callable[..., Any], tmp_path: Path) -> None:
    loss = (f"losses.catalogue.kind={kind}", "losses.catalogue.num_negatives=2")
    settings = (*SMALL, f"model.num_layers={layers}", *loss)
    models = (build("gru4rec", *settings, spread=spread) for spread in (0.3, 0.1))
    assert_every_parameter_trains(*models, batch_of(make_data([5, 7, 6]), "packed"), tmp_path)


@pytest.mark.parametrize(("items", "num_items"), EDGES)
def test_histories_at_the_edge(items: list[int], num_items: int) -> None:
    with torch.no_grad():
        vectors = build("gru4rec", *SMALL, num_items=num_items).user_vectors(pack_histories([history(items)]))
    assert vectors.shape == (1, 8)
    assert vectors.isfinite().all()


def test_initial_weights_have_the_documented_scales() -> None:
    sizes = ("model.hidden_size=64", "model.gru_size=100", "model.num_layers=2")
    state = build("gru4rec", *sizes, spread=None, num_items=935).state_dict()
    assert state["tables.id.weight"].std().item() == pytest.approx((2 / 1000) ** 0.5, rel=0.05)
    largest = {name: value.abs().max().item() for name, value in state.items()}
    assert largest["gru.weight_ih_l0"] == pytest.approx((6 / 364) ** 0.5, rel=0.02)
    assert largest["gru.weight_hh_l0"] == pytest.approx((6 / 400) ** 0.5, rel=0.02)
    for name in ("gru.weight_ih_l1", "gru.weight_hh_l1", "dense.weight", "dense.bias"):
        assert largest[name] == pytest.approx(0.1, rel=0.05), name
