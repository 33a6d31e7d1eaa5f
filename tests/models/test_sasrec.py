"""SASRec: the published network, packed = padded = one by one, causality, and the edges of its input."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from athwe_core.batch import Catalogue, TimeRange
from athwe_core.data.packing import pack, pack_histories
from athwe_core.data.rows import training_rows
from athwe_core.errors import CheckpointError
from athwe_core.models.golden import Golden
from athwe_core.models.parity import parity_differences
from athwe_core.models.protocol import LossInputs, ModelInputs, total_loss
from athwe_core.models.registry import build_config, replace_in
from athwe_core.models.sasrec import SASRec, SASRecConfig, published_sasrec

GOLDEN = Path(__file__).parents[1] / "golden" / "SASRec.npz"
V, L = 14, 6
SMALL = (
    "model.hidden_size=8",
    "model.inner_size=12",
    "model.max_length=6",
    "model.dropout=0",
    "training.precision=fp32",
)


def build(*overrides: str, spread: float | None = 0.3, num_items: int = V - 1) -> SASRec:
    config = cast(SASRecConfig, replace_in(build_config("sasrec"), [*SMALL, *overrides]))
    catalogue = Catalogue(num_item_rows=num_items + 1)
    generator = torch.Generator().manual_seed(0)
    model = SASRec(config, ModelInputs(catalogue, TimeRange(0, 1, 1), generator=generator))
    if spread is not None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, spread, generator=generator)
    return model.eval()


def test_the_published_network_is_ours() -> None:
    found = parity_differences(GOLDEN, "sasrec")
    expected = {"seq", "scores", "loss_ce", "loss_ce_no_pad_own", "loss_bpr", "input_emb", "layer0", "layer1"}
    assert expected | {f"{name} (padded rows)" for name in expected} <= set(found)
    assert max(found.values()) < 1e-5


def test_a_golden_file_without_its_weights_is_named() -> None:
    golden = Golden.read(GOLDEN)
    rest = {name: value for name, value in golden.arrays.items() if "feed_forward.dense_2" not in name}
    with pytest.raises(CheckpointError, match=r"lacks w\.trm_encoder\.layer\.0\.feed_forward\.dense_2\.weight"):
        published_sasrec(Golden(golden.path, rest))


@pytest.mark.parametrize("batching", ["packed", "prefix"])
def test_packed_rows_are_histories_one_by_one(batching: str, make_data: Callable[..., Any]) -> None:
    model, data = build(), make_data([9, 4, 3, 8])
    rows = training_rows(data.split, batching=batching, max_length=L)
    batch = pack(data, rows, np.arange(len(rows)), max_length=L)
    with torch.no_grad():
        found = model.user_vectors(batch)
        for number, token in enumerate(batch.target_index.tolist()):
            begin = int(batch.offsets[batch.rows[token]])
            items = batch.item_ids[begin : token + 1].tolist()
            alone = model.user_vectors(pack_histories([(items, [0] * len(items))]))
            torch.testing.assert_close(found[number], alone[0], atol=1e-5, rtol=1e-5)


def test_no_later_item_changes_a_state() -> None:
    model = build()
    with torch.no_grad():
        first, other = (pack_histories([(items, [0] * 4)]) for items in ([1, 2, 3, 4], [1, 2, 3, 9]))
        table = model.item_table()
        states = [model.encode(table[batch.item_ids], _all_supervised(batch)) for batch in (first, other)]
    torch.testing.assert_close(states[0][:3], states[1][:3])
    assert not torch.allclose(states[0][3], states[1][3])


def _all_supervised(batch: Any) -> Any:
    from dataclasses import replace

    return replace(batch, all_supervised=True)


def test_without_positions_the_order_before_the_last_item_is_lost_in_one_layer() -> None:
    model = build("model.position_embedding=false", "model.num_layers=1")
    vectors = []
    with torch.no_grad():
        for items in ([1, 2, 3], [2, 1, 3]):
            vectors.append(model.user_vectors(pack_histories([(items, [0] * 3)])))
    torch.testing.assert_close(vectors[0], vectors[1])


@pytest.mark.parametrize("kind", ["full", "sampled", "bce", "bpr"])
def test_every_parameter_has_a_gradient_and_comes_back_from_a_file(
    kind: str, make_data: Callable[..., Any], tmp_path: Path
) -> None:
    from athwe_core.losses.sampled_ce import LogUniformSampler, sample_candidates

    settings = (f"losses.catalogue.kind={kind}", "losses.catalogue.num_negatives=2")
    model, data = build(*settings).train(), make_data([5, 7, 6])
    rows = training_rows(data.split, batching="packed", max_length=L)
    batch = pack(data, rows, np.arange(len(rows)), max_length=L)
    candidates = None
    if kind == "sampled":
        sampler = LogUniformSampler(torch.ones(V, dtype=torch.int64), num_negatives=5)
        candidates = sample_candidates(sampler, batch.target_ids, torch.Generator().manual_seed(1))
    draws = model.draw(batch, lambda _: torch.Generator().manual_seed(2))
    total_loss(model.losses(batch, LossInputs(draws=draws, candidates=candidates)), model.loss_weights).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.to_dense().abs().sum() > 0, name
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    other = build(*settings, spread=0.1)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(("items", "num_items"), [([3], 13), ([1, 2, 3, 4, 5, 6], 13), ([1, 1], 1)])
def test_histories_at_the_edge(items: list[int], num_items: int) -> None:
    """One item, as many as the window holds, a catalogue of one item."""
    model = build(num_items=num_items)
    with torch.no_grad():
        vectors = model.user_vectors(pack_histories([(items, [0] * len(items))]))
    assert vectors.shape == (1, 8)
    assert vectors.isfinite().all()


def test_pairwise_losses_draw_negatives_that_the_row_does_not_hold(make_data: Callable[..., Any]) -> None:
    model, data = build("losses.catalogue.kind=bpr", "losses.catalogue.num_negatives=40"), make_data([5, 7, 6])
    rows = training_rows(data.split, batching="packed", max_length=L)
    batch = pack(data, rows, np.arange(len(rows)), max_length=L)
    negatives = model.draw(batch, lambda _: torch.Generator().manual_seed(2))["negatives"]
    for token, drawn in zip(batch.target_index.tolist(), negatives.tolist(), strict=True):
        row = batch.rows[token]
        held = {*batch.item_ids[batch.rows == row].tolist()}
        held |= {*batch.target_ids[batch.rows[batch.target_index] == row].tolist()}
        assert not held & set(drawn)
        assert set(drawn) <= set(range(1, V))


def test_initial_weights_have_the_documented_scales() -> None:
    model = build("model.hidden_size=64", "model.inner_size=256", spread=None, num_items=999)
    state = model.state_dict()
    assert state["tables.id.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert all((value == 0).all() for name, value in state.items() if name.endswith("bias"))
    assert all((value == 1).all() for name, value in state.items() if "norm" in name and name.endswith("weight"))


@torch.no_grad()
def test_the_inside_view_is_the_attention_of_the_last_item() -> None:
    model = build()
    items, n = [3, 7, 7, 2], 4
    found = model.explain(pack_histories([(items, [0, 5, 9, 9])]), model.item_table()).attention["id"]
    assert [len(layer) for layer in found] == [n, n]
    assert [sum(layer) for layer in found] == pytest.approx([1, 1])
    grid_free = model.transformer.layers[0]
    tokens = model.embed(model.item_table()[torch.tensor(items)], torch.arange(n))[0]
    query, key, _ = (tokens @ grid_free.qkv_weight[0] + grid_free.qkv_bias[0]).view(n, 3, 2, 4).unbind(1)
    by_head = [(query[-1, head] @ key[:, head].T / 2).softmax(0) for head in range(2)]  # the root of 4 is 2
    assert found[0] == pytest.approx(sum(by_head).div(2).tolist(), abs=1e-5)
    assert model.explain(pack_histories([([5], [0])]), model.item_table()).attention["id"] == [[1.0], [1.0]]
