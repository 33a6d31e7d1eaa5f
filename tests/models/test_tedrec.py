"""TedRec: the published network, rows one by one, padding, branches, noise, training, edges, parts."""

from collections.abc import Callable
from dataclasses import replace
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
    history,
    step_terms,
)
from model_cases import build as build_any

from athwe_core.data.packing import NO_PADDING, SOME_PADDING, Padding, pack_histories
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import CheckpointError, ConfigError
from athwe_core.models.golden import Golden
from athwe_core.models.inputs import adapt_to_data
from athwe_core.models.parity import parity_differences, tolerance_of
from athwe_core.models.protocol import LossInputs
from athwe_core.models.registry import build_config, config_from_tree, config_tree
from athwe_core.models.tedrec import MODEL, TedRec, published_tedrec

GOLDEN = Path(__file__).parents[1] / "golden" / "TedRec.npz"
SMALL = ("model.inner_size=12", "model.adaptor.dropout=0", "model.adaptor.num_experts=3")
CAUSAL = ("model.fusion_reads_all=false", "training.batching=packed")
BRANCHES = ("[filter,text]", "[text]", "[filter]")


def build(*overrides: str, **settings: Any) -> Any:
    return build_any("tedrec", *SMALL, *overrides, features=("text",), **settings)


def test_the_published_network_is_ours() -> None:
    found = parity_differences(GOLDEN, "tedrec")
    states = {"adapted_seq", "fused", "input_emb", "layer0", "layer1", "seq", "scores"}
    assert set(found) == states | {"loss_ce", "loss_ce_noise"}
    assert max(found.values()) < 1e-5
    assert tolerance_of("tedrec", "scores") == 5e-5


def test_a_golden_file_without_its_weights_is_named() -> None:
    arrays = {name: value for name, value in Golden.read(GOLDEN).arrays.items() if name != "w.complex_weight"}
    with pytest.raises(CheckpointError, match=r"lacks w\.complex_weight"):
        published_tedrec(Golden(GOLDEN, arrays))


@pytest.mark.parametrize("branches", BRANCHES)
@pytest.mark.parametrize("padding", [NO_PADDING, SOME_PADDING])
def test_prefix_rows_are_histories_one_by_one(branches: str, padding: Padding, make_data: Callable[..., Any]) -> None:
    model = build(f"model.branches={branches}")
    assert_rows_are_histories_one_by_one(model, batch_of(make_data([9, 4, 3, 8]), "prefix", padding))


@pytest.mark.parametrize("branches", BRANCHES)
@pytest.mark.parametrize("padding", [NO_PADDING, SOME_PADDING])
@pytest.mark.parametrize("batching", ["packed", "prefix"])
def test_the_causal_form_sees_no_padding(
    branches: str, padding: Padding, batching: str, make_data: Callable[..., Any]
) -> None:
    model = build(*CAUSAL, f"model.branches={branches}")
    batch = batch_of(make_data([9, 4, 3, 8]), batching, padding)
    assert_rows_are_histories_one_by_one(model, batch)
    with torch.no_grad():
        before = model.user_vectors(batch)
        model.tables.id.weight[0] *= -1
        torch.testing.assert_close(model.user_vectors(batch), before)


def test_later_items_change_no_state_of_the_causal_form() -> None:
    assert_later_items_change_no_state(build(*CAUSAL))


def test_the_published_form_is_refused_packed_rows() -> None:
    rule = r"training\.batching must be prefix with model\.fusion_reads_all: true"
    with pytest.raises(ConfigError, match=rule + ".*got 'packed'.*--batching prefix, or --set model.fusion_reads_all="):
        build("training.batching=packed")


@torch.no_grad()
def test_a_state_depends_on_the_padding() -> None:
    model, batch = build(), pack_histories([history([1, 2, 3])])
    before = model.user_vectors(batch)
    model.tables.id.weight[0] *= -1
    assert not torch.allclose(before, model.user_vectors(batch), atol=1e-3)


@torch.no_grad()
def test_texts_of_a_row_are_those_of_its_items_and_of_zeros() -> None:
    model, batch = build(), pack_histories([history([4, 2]), history([5])])
    rows = batch.padded_to(model.max_length)
    noise = torch.randn(2, model.max_length, 3, generator=torch.Generator().manual_seed(0))
    items = rows.pad(batch.item_ids)
    for drawn in (None, noise):
        found = model.texts(rows, batch, drawn)
        for b in range(2):
            slots = torch.arange(model.max_length)
            own = None if drawn is None else drawn[b]
            expected = model.adaptor(model.features[items[b]], noise=own, shifts=slots)
            torch.testing.assert_close(found[b], expected, atol=1e-5, rtol=1e-5)


def test_scores_are_cosines_and_the_loss_divides_them_by_the_temperature() -> None:
    model = build("losses.temperature=0.5")
    batch = pack_histories([history([1, 2, 3])], next_items=[4])
    with torch.no_grad():
        table, state = model.item_table(), model.user_vectors(batch)[0]
        torch.testing.assert_close(table.norm(dim=1), torch.ones(len(table)))
        expected = -(table[1:] @ state / 0.5).log_softmax(0)[4 - 1]
        loss = model.losses(batch, LossInputs())["ce"]
    torch.testing.assert_close(loss, expected)


def test_gates_have_noise_in_training_alone(make_data: Callable[..., Any]) -> None:
    batch = batch_of(make_data([9, 8]), "prefix", SOME_PADDING)
    model = build()
    first, second = (float(step_terms(model, batch)["ce"].detach()) for _ in range(2))
    without = float(model.losses(batch, LossInputs())["ce"].detach())
    assert first == second != without
    quiet = build("model.adaptor.gate_noise=false")
    assert quiet.draw(batch, lambda _: torch.Generator()) == {}


@pytest.mark.parametrize("kind", ["full", "sampled"])
@pytest.mark.parametrize("form", [(f"model.branches={branches}",) for branches in BRANCHES] + [CAUSAL])
def test_every_parameter_trains(
    kind: str, form: tuple[str, ...], make_data: Callable[..., Any], tmp_path: Path
) -> None:
    models = [build(f"losses.catalogue.kind={kind}", *form, spread=spread) for spread in (0.3, 0.1)]
    batch = batch_of(make_data([5, 7, 6]), "packed" if form == CAUSAL else "prefix", SOME_PADDING)
    assert_every_parameter_trains(*models, batch, tmp_path)


@pytest.mark.parametrize("form", [(), CAUSAL])
@pytest.mark.parametrize(("items", "num_items"), EDGES)
def test_histories_at_the_edge(items: list[int], num_items: int, form: tuple[str, ...]) -> None:
    """Items without text too: their features are 0."""
    model, batch = build(*form, num_items=num_items), pack_histories([history(items)], next_items=[1])
    with torch.no_grad():
        assert model.user_vectors(batch).isfinite().all()
        model.features.zero_()
        assert model.user_vectors(batch).isfinite().all()
        assert step_terms(model, batch)["ce"].isfinite()


def test_initial_weights_have_the_documented_scales() -> None:
    model: TedRec = build("model.hidden_size=64", spread=None)
    assert model.fusion.filter is not None
    assert model.fusion.filter.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.fusion.product_gate is not None
    assert 0 < model.fusion.product_gate.bias.abs().item() <= 1 / 8
    assert model.adaptor is not None
    assert model.adaptor.expert_weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not model.adaptor.shift_bias.any()


def test_without_texts_the_filter_stays(prepared: PreparedDataset) -> None:
    config = build_config("tedrec")
    assert adapt_to_data(config, prepared) == (config, [])
    found, notes = adapt_to_data(config, replace(prepared, text_features=None))
    assert config_tree(found)["model"]["branches"] == ["filter"]
    assert notes == ["demo has no text features: the text branch is off"]


def test_removals_take_their_part_out() -> None:
    for removal in MODEL.removals:
        tree = config_tree(build_config("tedrec"))
        assert removal.is_in(tree)
        assert removal.take_out(tree) == {}
        assert not removal.is_in(config_tree(config_from_tree(tree)))
    assert [removal.name for removal in MODEL.removals] == ["Text", "Filter", "GateNoise", "Position", "Dropout"]


def test_no_branch_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.branches must be filter, text or both, got \[\]"):
        build("model.branches=[]")
