"""UniSRec: the published network, packed = one by one, cosine scores, pre-training, every loss, edges."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model_cases import (
    EDGES,
    L,
    V,
    assert_every_parameter_trains,
    assert_later_items_change_no_state,
    assert_rows_are_histories_one_by_one,
    batch_of,
    build,
    history,
    step_terms,
)

from athwe_core.data.packing import NO_PADDING, SOME_PADDING, Padding, pack_histories
from athwe_core.errors import CheckpointError, ConfigError
from athwe_core.models.golden import Golden
from athwe_core.models.parity import parity_differences, tolerance_of
from athwe_core.models.protocol import LossInputs
from athwe_core.models.registry import build_config, config_tree, replace_in
from athwe_core.models.unisrec import MODEL
from athwe_core.models.unisrec.network import same_target_as_one
from athwe_core.models.unisrec.published import published_unisrec

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ("model.inner_size=12", "model.adaptor.num_experts=3", "model.adaptor.dropout=0")
IDS, TEXT = "model.id_embedding=true", "model.id_embedding=false"
PRETRAIN = (*SMALL, TEXT, "losses.catalogue.kind=in_batch", "losses.sequence.weight=0.5")


def small(*overrides: str, spread: float | None = 0.3, num_items: int = V - 1) -> Any:
    return build("unisrec", *SMALL, *overrides, spread=spread, num_items=num_items, features=("text",))


def test_the_published_network_is_ours() -> None:
    golden = Golden.read(GOLDEN / "UniSRec.npz")
    found = parity_differences(GOLDEN / "UniSRec.npz", "unisrec")
    assert golden.outputs.keys() <= found.keys()
    assert "loss_ce_inductive (padded rows)" in found
    assert max(found.values()) < 1e-5
    assert tolerance_of("unisrec", "scores") == 5e-5


def test_a_golden_file_without_its_weights_is_named() -> None:
    golden = Golden.read(GOLDEN / "UniSRec.npz")
    rest = {name: value for name, value in golden.arrays.items() if "w_noise" not in name}
    with pytest.raises(CheckpointError, match=r"lacks w\.moe_adaptor\.w_noise"):
        published_unisrec(Golden(golden.path, rest), id_embedding=True)


@pytest.mark.parametrize("ids", [IDS, TEXT])
@pytest.mark.parametrize("padding", [NO_PADDING, SOME_PADDING])
@pytest.mark.parametrize("batching", ["packed", "prefix"])
def test_packed_rows_are_histories_one_by_one(
    padding: Padding, batching: str, ids: str, make_data: Callable[..., Any]
) -> None:
    assert_rows_are_histories_one_by_one(small(ids), batch_of(make_data([9, 4, 3, 8]), batching, padding))


def test_no_later_item_changes_a_state() -> None:
    assert_later_items_change_no_state(small())


@torch.no_grad()
def test_scores_are_cosines_and_the_loss_divides_them_by_the_temperature(make_data: Callable[..., Any]) -> None:
    model, batch = small("model.adaptor.gate_noise=false"), batch_of(make_data([5, 7, 6]), "packed")
    scores = model.user_vectors(batch) @ model.item_table().T
    items = model.tables.adaptor(model.tables.features) + model.tables.id.weight
    expected = F.cosine_similarity(model.encode(items[batch.item_ids], batch)[:, None], items[None], dim=-1)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
    ce = F.cross_entropy(scores[:, 1:] / 0.07, batch.target_ids - 1)
    torch.testing.assert_close(step_terms(model, batch), {"ce": ce}, atol=1e-4, rtol=1e-4)


def test_gate_noise_is_new_in_each_step_and_off_in_evaluation(make_data: Callable[..., Any]) -> None:
    model, batch = small(), batch_of(make_data([5, 7, 6]), "packed")
    noise = model.draw(batch, lambda _: torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert not torch.allclose(model.item_vectors(None, noise), model.tables())
        assert torch.equal(model.item_vectors(None, {}), model.tables())
        few = torch.tensor([3, 1])
        torch.testing.assert_close(model.item_vectors(few, noise), model.item_vectors(None, noise)[few])


@pytest.mark.parametrize(
    "settings",
    [
        (IDS, "losses.catalogue.kind=full"),
        (TEXT, "losses.catalogue.kind=full"),
        (IDS, "losses.catalogue.kind=sampled", "losses.catalogue.num_negatives=2"),
        (TEXT, "losses.catalogue.kind=sampled", "losses.catalogue.num_negatives=2"),
        PRETRAIN,
        (*PRETRAIN, "losses.published_form=true", "training.batching=prefix"),
    ],
)
def test_every_parameter_trains(settings: tuple[str, ...], make_data: Callable[..., Any], tmp_path: Path) -> None:
    models = (small(*settings, spread=spread) for spread in (0.3, 0.1))
    batching = "prefix" if "training.batching=prefix" in settings else "packed"
    assert_every_parameter_trains(*models, batch_of(make_data([5, 7, 6]), batching), tmp_path)


def test_a_frozen_encoder_trains_the_adaptor_and_the_norm_alone() -> None:
    model = small("model.encoder_trainable=false")
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"position", *(name for name in dict(model.named_parameters()) if name.startswith("transformer."))}


@torch.no_grad()
def test_a_copy_is_the_row_without_its_dropped_items(make_data: Callable[..., Any]) -> None:
    model = small(*PRETRAIN)
    for padding in (NO_PADDING, SOME_PADDING):
        batch = batch_of(make_data([9, 4, 3, 8]), "packed", padding)
        kept = model.kept_tokens(batch, torch.rand(batch.num_tokens, generator=torch.Generator().manual_seed(4)) < 0.5)
        assert kept[batch.positions == 0].all()
        found = model.encode_kept(model.tables(batch.item_ids), batch, kept)
        for number, (token, target) in enumerate(
            zip(batch.target_index.tolist(), batch.target_ids.tolist(), strict=True)
        ):
            if target < 0:
                continue
            row = torch.arange(int(batch.offsets[batch.rows[token]]), token + 1)
            alone = pack_histories([history(batch.item_ids[row[kept[row]]].tolist())])
            expected = model.encode(model.tables(alone.item_ids), alone)[0]
            torch.testing.assert_close(found[number], expected, atol=1e-5, rtol=1e-5)


def test_as_coded_a_dropped_item_takes_the_place_of_the_kept_one_before_it() -> None:
    model = small(*PRETRAIN, "losses.published_form=true", "training.batching=prefix")
    batch = pack_histories([history([1, 2, 3, 4, 5]), history([6, 7])])
    drawn = {1: False, 2: False, 3: True, 4: False, 5: True, 6: True, 7: False}
    kept = model.kept_tokens(batch, torch.tensor([drawn[item] for item in batch.item_ids.tolist()]))
    assert sorted(batch.item_ids[kept].tolist()) == [2, 4, 5, 7]


@torch.no_grad()
def test_pairs_of_one_user_or_one_next_item_are_no_negatives(make_data: Callable[..., Any]) -> None:
    model, batch = small(*PRETRAIN, "model.adaptor.gate_noise=false"), batch_of(make_data([5, 7, 6]), "packed")
    found = step_terms(model, batch)["contrast"]
    states = model.user_vectors(batch)
    targets, users = batch.target_ids.tolist(), batch.user_index[batch.rows[batch.target_index]].tolist()
    candidates = model.item_table()[batch.target_ids]
    losses = []
    for i in range(len(targets)):
        negatives = [j for j in range(len(targets)) if targets[j] != targets[i] and users[j] != users[i]]
        scores = candidates[[i, *negatives]] @ states[i] / 0.07
        losses.append(F.cross_entropy(scores, torch.tensor(0)))
    torch.testing.assert_close(found, torch.stack(losses).mean(), atol=1e-4, rtol=1e-4)


def test_as_coded_a_pair_with_the_same_next_item_counts_as_one() -> None:
    anchors, candidates = torch.eye(3), torch.eye(3)
    # by hand, temperature 1: own scores 1, others 0 and so exp(0) = 1 each, whether of the same item or not
    found = same_target_as_one(anchors, candidates, torch.tensor([4, 4, 5]), 1.0)
    assert found.item() == pytest.approx(np.log(np.e + 2) - 1)
    both = same_target_as_one(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([4, 4]), 1.0)
    assert both.item() == pytest.approx(np.log(np.e + 1) - 1)
    assert same_target_as_one(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([4, -1]), 1.0).item() == 0


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        (
            ("losses.sequence.weight=1",),
            r"losses\.sequence\.weight must be 0 unless losses\.catalogue\.kind is in_batch",
        ),
        ((*PRETRAIN, "losses.published_form=true"), r"training\.batching must be prefix.*Use --batching prefix"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(settings: tuple[str, ...], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        replace_in(build_config("unisrec"), settings)


@pytest.mark.parametrize(("items", "num_items"), EDGES)
def test_histories_at_the_edge(items: list[int], num_items: int) -> None:
    with torch.no_grad():
        vectors = small(num_items=num_items).user_vectors(pack_histories([history(items)]))
    assert vectors.shape == (1, 8)
    assert vectors.isfinite().all()


def test_an_item_without_text_has_a_vector() -> None:
    model = small(TEXT)
    model.tables.features[3] = 0
    with torch.no_grad():
        assert torch.isfinite(model.item_table()).all()
        assert model.item_table()[3].norm().item() == pytest.approx(1, abs=1e-5)


def test_a_longer_history_than_the_window_is_cut(make_data: Callable[..., Any]) -> None:
    batch = batch_of(make_data([20]), "packed")
    assert batch.longest_row == L
    assert small().user_vectors(batch).isfinite().all()


def test_padding_targets_have_no_part(make_data: Callable[..., Any]) -> None:
    model = small(*PRETRAIN, "model.adaptor.gate_noise=false")
    data = make_data([9, 4, 3, 8])
    terms = []
    for padding in (NO_PADDING, SOME_PADDING):
        batch = batch_of(data, "packed", padding)
        draws = {"kept": torch.ones(batch.num_tokens, dtype=torch.bool)}
        terms.append(model.losses(batch, LossInputs(draws=draws)))
    torch.testing.assert_close(terms[0], terms[1], atol=1e-5, rtol=1e-5)


def test_initial_weights_have_the_documented_scales() -> None:
    state = build(
        "unisrec", "model.hidden_size=64", "model.inner_size=256", spread=None, num_items=999, features=("text",)
    ).state_dict()
    for name in ("tables.id.weight", "tables.adaptor.expert_weight", "transformer.layers.0.qkv_weight"):
        assert state[name].std().item() == pytest.approx(0.02, rel=0.1), name
    zero = ("gate_weight", "noise_weight", "shift_bias")
    assert all((state[f"tables.adaptor.{name}"] == 0).all() for name in zero)


def test_removals_take_their_part_out() -> None:
    for removal in MODEL.removals:
        tree = config_tree(build_config("unisrec"))
        assert removal.is_in(tree)
        notes = removal.take_out(tree)
        assert notes.keys() == ({"GateNoise"} if removal.name == "MoE" else set())
        assert not removal.is_in(tree)


def test_pre_trained_rows_of_all_positions(make_data: Callable[..., Any]) -> None:
    model, batch = small(*PRETRAIN), batch_of(make_data([9, 4]), "packed")
    whole = replace(batch, all_supervised=False)
    draws = model.draw(batch, lambda _: torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(
            model.losses(batch, LossInputs(draws=draws)), model.losses(whole, LossInputs(draws=draws))
        )


@torch.no_grad()
def test_the_attention_of_a_case_study_is_that_of_the_states() -> None:
    model, batch = small("model.num_layers=1"), pack_histories([history([3, 1, 4])])
    (weights,) = model.explain(batch, model.item_table()).attention["id"]
    assert sum(weights) == pytest.approx(1)
    tokens = model.embed(model.tables(batch.item_ids), batch.positions)
    query, key, _ = (tokens[0] @ model.transformer.layers[0].qkv_weight[0]).chunk(3, dim=1)
    biased = model.transformer.layers[0].qkv_bias[0, 0]
    query, key = query + biased[:8], key + biased[8:16]
    per_head = [(query[-1].view(2, 4)[h] @ key.view(3, 2, 4)[:, h].T / 2).softmax(0) for h in range(2)]
    torch.testing.assert_close(torch.tensor(weights), torch.stack(per_head).mean(0), atol=1e-5, rtol=1e-5)
