"""LRURec: the published network, packed = one by one, causality, the recurrence by a loop, every loss, edges."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from model_cases import (
    EDGES,
    assert_every_parameter_trains,
    assert_later_items_change_no_state,
    assert_rows_are_histories_one_by_one,
    batch_of,
    build,
    history,
    step_terms,
)

from athwe_core.data.packing import NO_PADDING, SOME_PADDING, Padding, pack_histories
from athwe_core.errors import CheckpointError
from athwe_core.models.golden import Golden
from athwe_core.models.lrurec import MODEL, published_lrurec
from athwe_core.models.parity import parity_differences
from athwe_core.models.registry import build_config, config_tree

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ("model.state_size=5", "model.inner_size=12")


def test_the_published_network_is_ours() -> None:
    found = parity_differences(GOLDEN / "lrurec.npz", "lrurec")
    layers = {f"{kind}_{n}" for kind in ("lru", "block") for n in (0, 1)}
    scores = {"logits", "scores", "scores_ranked", "loss_ce", "loss_ce_no_first_item"}
    assert set(found) == {"embedding", "states", "seq", *layers, *scores}
    assert max(found.values()) < 1e-5


def test_a_golden_file_without_its_weights_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"lacks w\.embedding\.token\.weight"):
        published_lrurec(Golden.read(GOLDEN / "SASRec.npz"))


@pytest.mark.parametrize("padding", [NO_PADDING, SOME_PADDING])
@pytest.mark.parametrize("batching", ["packed", "prefix"])
def test_packed_rows_are_histories_one_by_one(padding: Padding, batching: str, make_data: Callable[..., Any]) -> None:
    assert_rows_are_histories_one_by_one(build("lrurec", *SMALL), batch_of(make_data([9, 4, 3, 8]), batching, padding))


def test_the_recurrence_is_a_loop_over_time() -> None:
    model, items = build("lrurec", *SMALL, "model.num_layers=1", "model.feed_forward=false"), [3, 1, 4, 1]
    layer = model.recurrent[0]
    inward = torch.view_as_complex(layer.inward.weight.detach().view(5, 2, 8).transpose(1, 2).contiguous())
    outward = torch.view_as_complex(layer.outward.weight.detach().view(8, 5, 2)).conj()
    shift = torch.view_as_complex(layer.inward.bias.detach().view(5, 2))
    decay = torch.exp(-layer.log_nu.exp() + 1j * layer.log_theta.exp())
    h = torch.zeros(5, dtype=torch.complex64)
    with torch.no_grad():
        for x in model.input_norm(model.item_table()[items]):
            h = decay * h + layer.log_gamma.exp() * (inward @ x.to(h.dtype) + shift)
            expected = layer.norm((outward @ h).real + layer.outward.bias + x)
        torch.testing.assert_close(model.user_vectors(pack_histories([history(items)]))[0], expected)


def test_no_later_item_changes_a_state() -> None:
    assert_later_items_change_no_state(build("lrurec", *SMALL))


@pytest.mark.parametrize("kind", ["full", "sampled", "bce", "bpr"])
def test_every_parameter_trains(kind: str, make_data: Callable[..., Any], tmp_path: Path) -> None:
    settings = (*SMALL, f"losses.catalogue.kind={kind}", "losses.catalogue.num_negatives=2")
    models = (build("lrurec", *settings, spread=spread) for spread in (0.3, 0.1))
    assert_every_parameter_trains(*models, batch_of(make_data([5, 7, 6]), "packed"), tmp_path)


def test_the_loss_is_the_cross_entropy_of_the_scores_with_the_bias(make_data: Callable[..., Any]) -> None:
    model, batch = build("lrurec", *SMALL), batch_of(make_data([5, 7, 6]), "packed")
    with torch.no_grad():
        found = step_terms(model, batch)
        scores = model.user_vectors(batch) @ model.item_table().T + model.item_bias()
    torch.testing.assert_close(found, {"ce": F.cross_entropy(scores[:, 1:], batch.target_ids - 1)})


@pytest.mark.parametrize(("items", "num_items"), EDGES)
def test_histories_at_the_edge(items: list[int], num_items: int) -> None:
    with torch.no_grad():
        vectors = build("lrurec", *SMALL, num_items=num_items).user_vectors(pack_histories([history(items)]))
    assert vectors.shape == (1, 8)
    assert vectors.isfinite().all()


def test_products_in_bfloat16_stay_near() -> None:
    model, batch = build("lrurec", *SMALL), pack_histories([history([3, 1, 4, 1, 5])])
    with torch.no_grad():
        exact = model.user_vectors(batch)
        model.compute_dtype = torch.bfloat16
        torch.testing.assert_close(model.train().user_vectors(batch), exact, atol=0.1, rtol=0.1)


def test_initial_weights_have_the_documented_scales() -> None:
    sizes = ("model.hidden_size=64", "model.state_size=999", "model.inner_size=256")
    model = build("lrurec", *sizes, spread=None, num_items=999)
    layer, state = model.recurrent[0], model.state_dict()
    size = torch.exp(-layer.log_nu.exp())
    assert 0.8 <= size.min() < 0.81
    assert 0.985 < size.max() <= 0.99
    assert layer.log_theta.exp().max().item() == pytest.approx(6.28, abs=0.05)
    torch.testing.assert_close(layer.log_gamma.exp() ** 2 + size**2, torch.ones(999))
    for name in ("tables.id.weight", "bias", "recurrent.1.outward.weight", "feed_forward.0.inner.bias"):
        assert state[name].std().item() == pytest.approx(0.0176, rel=0.1), name  # of the cut distribution
        assert state[name].abs().max() <= 0.04


def test_removals_take_their_part_out() -> None:
    for removal in MODEL.removals:
        tree = config_tree(build_config("lrurec"))
        assert removal.is_in(tree)
        assert removal.take_out(tree) == {}
        assert not removal.is_in(tree)
    assert len(build("lrurec", *SMALL, "model.feed_forward=false").feed_forward) == 0
