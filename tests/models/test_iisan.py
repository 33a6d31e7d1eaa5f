"""IISAN: the published network, packed = one by one, towers, the loss over the batch, edges."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import (
    EDGES,
    V,
    assert_every_parameter_trains,
    assert_later_items_change_no_state,
    assert_rows_are_histories_one_by_one,
    batch_of,
    build,
    history,
    step_terms,
)

from athwe_core.batch import Catalogue, TimeRange
from athwe_core.data.packing import NO_PADDING, SOME_PADDING, Padding, pack_histories
from athwe_core.errors import CheckpointError, ConfigError
from athwe_core.models.golden import Golden
from athwe_core.models.iisan import MODEL
from athwe_core.models.iisan.network import IISAN
from athwe_core.models.iisan.published import published_iisan
from athwe_core.models.iisan.side_networks import Tower
from athwe_core.models.parity import parity_differences
from athwe_core.models.protocol import Available, LossInputs, ModelInputs
from athwe_core.models.registry import build_config, config_tree, replace_in

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ("model.inner_size=12", "model.adapter_size=3")


def small(*overrides: str, spread: float | None = 0.3, num_items: int = V - 1) -> Any:
    return build("iisan", *SMALL, *overrides, spread=spread, num_items=num_items, features=("text", "image"))


def test_the_published_network_is_ours() -> None:
    golden = Golden.read(GOLDEN / "iisan.npz")
    found = parity_differences(golden.path, "iisan")
    assert golden.outputs.keys() == found.keys()
    assert max(found.values()) < 1e-5


def test_a_golden_file_without_its_weights_is_named() -> None:
    golden = Golden.read(GOLDEN / "iisan.npz")
    rest = {name: value for name, value in golden.arrays.items() if "fc_mm_down" not in name}
    with pytest.raises(CheckpointError, match=r"lacks w\.mm_encoder\.fc_mm_down\.weight"):
        published_iisan(Golden(golden.path, rest))


@pytest.mark.parametrize("padding", [NO_PADDING, SOME_PADDING])
@pytest.mark.parametrize("batching", ["packed", "prefix"])
def test_packed_rows_are_histories_one_by_one(padding: Padding, batching: str, make_data: Callable[..., Any]) -> None:
    assert_rows_are_histories_one_by_one(small(), batch_of(make_data([9, 4, 3, 8]), batching, padding))


def test_positions_from_the_newest_item_are_those_of_rows_padded_on_the_left() -> None:
    model, batch = small("model.positions_from=newest"), pack_histories([history([1, 2]), history([3, 4, 5, 6])])
    by_item = dict(zip(batch.item_ids.tolist(), model.slots(batch).tolist(), strict=True))
    assert by_item == {1: 4, 2: 5, 3: 2, 4: 3, 5: 4, 6: 5}


def test_no_later_item_changes_a_state() -> None:
    assert_later_items_change_no_state(small())


@pytest.mark.parametrize("has_other", [False, True])
@torch.no_grad()
def test_a_tower_is_a_chain_of_gated_adapters(has_other: bool) -> None:
    tower, generator = Tower(width=4, num_states=3, adapter_size=2, hidden_size=5), torch.Generator().manual_seed(0)
    for parameter in tower.parameters():
        parameter.normal_(0, 0.5, generator=generator)
    image, text = (torch.randn(6, 3, 4, generator=generator) for _ in range(2))
    found = tower(image, text if has_other else None, torch.float32)
    h = torch.zeros(6, 4)
    for s in range(3):
        g = torch.sigmoid(10 * tower.gates[s])
        h = h + g * image[:, s] + (1 - g) * text[:, s] if has_other else g * image[:, s] + (1 - g) * h
        h = h + tower.up[s](tower.down[s](h).relu())
    torch.testing.assert_close(found, tower.outer(tower.inner(h)))


@pytest.mark.parametrize("kind", ["in_batch", "full", "sampled"])
@pytest.mark.parametrize("batching", ["packed", "prefix"])
def test_every_parameter_trains(kind: str, batching: str, make_data: Callable[..., Any], tmp_path: Path) -> None:
    settings = (f"losses.catalogue.kind={kind}", "losses.catalogue.num_negatives=2")
    models = (small(*settings, spread=spread) for spread in (0.3, 0.1))
    assert_every_parameter_trains(*models, batch_of(make_data([5, 7, 6]), batching), tmp_path)


@pytest.mark.parametrize("padding", [NO_PADDING, SOME_PADDING])
def test_the_loss_counts_the_items_of_other_rows_as_often_as_they_occur(
    padding: Padding, make_data: Callable[..., Any]
) -> None:
    model, batch = small(), batch_of(make_data([5, 7, 6], num_rows=9), "packed", padding)
    model.log_popularity = torch.linspace(-3, -1, V)
    with torch.no_grad():
        found = model.losses(batch, LossInputs())["ce"]
        scores = model.user_vectors(batch) @ model.item_table().T - model.log_popularity
    offsets, rows = batch.offsets.tolist(), range(int((batch.user_index >= 0).sum()))
    supervised = dict(zip(batch.target_index.tolist(), batch.target_ids.tolist(), strict=True))
    held = [[*batch.item_ids[offsets[b] : offsets[b + 1]].tolist(), supervised[offsets[b + 1] - 1]] for b in rows]
    losses = []
    for n, (token, target) in enumerate(zip(batch.target_index.tolist(), batch.target_ids.tolist(), strict=True)):
        if target < 0:
            continue
        own = held[batch.rows[token]]
        others = [item for row in held for item in row if item not in own]
        losses.append(torch.logsumexp(scores[n, [target, *others]], 0) - scores[n, target])
    torch.testing.assert_close(found, torch.stack(losses).mean(), atol=1e-4, rtol=1e-4)


def test_layer_states_take_the_place_of_features_and_may_be_in_half_precision() -> None:
    generator = torch.Generator().manual_seed(3)
    states = {name: torch.randn(V, 4, 5, generator=generator).half() for name in ("text", "image")}
    config = replace_in(build_config("iisan"), [*SMALL, "model.hidden_size=8", "training.precision=fp32"])
    model = IISAN(config, ModelInputs(Catalogue(num_item_rows=V, layer_states=states), TimeRange(0, 1, 1))).eval()
    assert len(model.tables.towers["text"].down) == 4
    assert model.tables.align is None
    whole = model.item_table()
    with torch.no_grad():
        torch.testing.assert_close(whole, model.item_table())
    torch.testing.assert_close(whole[[3, 5]], model.tables(torch.tensor([3, 5])))


def test_popularity_is_the_share_of_the_training_targets() -> None:
    features = {name: torch.ones(4, 3) for name in ("text", "image")}
    catalogue = Catalogue(num_item_rows=4, features=features, target_counts=torch.tensor([0, 6, 2, 0]))
    config = replace_in(build_config("iisan"), [*SMALL, "model.hidden_size=8"])
    model = IISAN(config, ModelInputs(catalogue, TimeRange(0, 1, 1)))
    torch.testing.assert_close(model.log_popularity[1:].exp(), torch.tensor([6 / 9, 2 / 9, 1 / 9]))


def test_towers_of_unlike_depth_have_no_tower_of_both() -> None:
    states = {"text": torch.ones(4, 3, 5), "image": torch.ones(4, 2, 5)}
    catalogue = Catalogue(num_item_rows=4, layer_states=states)
    config = replace_in(build_config("iisan"), [*SMALL, "model.hidden_size=8"])
    with pytest.raises(
        ConfigError, match=r"unlike numbers of layer states, got \[3, 2\]\. Use --set model\.towers=\[image,text\]"
    ):
        IISAN(config, ModelInputs(catalogue, TimeRange(0, 1, 1)))
    alone = replace_in(config, ["model.towers=[image, text]"])
    assert IISAN(alone, ModelInputs(catalogue, TimeRange(0, 1, 1))).item_table().shape == (4, 8)


@pytest.mark.parametrize("towers", ["[]", "[text, text]", "[sound]"])
def test_towers_are_some_of_three(towers: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.towers must be some of image, text, both"):
        replace_in(build_config("iisan"), [f"model.towers={towers}"])


def test_a_data_set_without_images_leaves_the_text_tower() -> None:
    tree = config_tree(build_config("iisan"))
    texts = frozenset({"text"})
    available = Available("beauty", texts, categories=False, clusters=frozenset(), layer_states=texts)
    assert MODEL.adapt(tree, available) == ["beauty has no image features: without the towers image and both"]
    assert tree["model"]["towers"] == ["text"]
    config = replace_in(build_config("iisan"), ["model.towers=[text]"])
    assert MODEL.needs(config).features == ("text",)
    assert MODEL.needs(config).target_counts
    assert MODEL.adapt(tree, available) == []


def test_a_data_set_without_layer_states_is_told_how_to_have_them() -> None:
    both = frozenset({"text", "image"})
    available = Available("toys", both, categories=False, clusters=frozenset(), layer_states=frozenset({"text"}))
    tree = config_tree(build_config("iisan"))
    first, second = MODEL.adapt(tree, available)
    assert first.startswith("toys has no layer states of its image encoder: its vectors are the only state; to have")
    assert second == "one encoder has layer states and the other has not: without the tower both"
    assert tree["model"]["towers"] == ["image", "text"]


@pytest.mark.parametrize(("items", "num_items"), EDGES)
def test_histories_at_the_edge(items: list[int], num_items: int) -> None:
    with torch.no_grad():
        vectors = small(num_items=num_items).user_vectors(pack_histories([history(items)]))
    assert vectors.shape == (1, 8)
    assert vectors.isfinite().all()


def test_a_batch_of_one_row_has_no_negatives_and_no_loss() -> None:
    model = small()
    with torch.no_grad():
        assert step_terms(model, pack_histories([history([1, 2])], next_items=[3]))["ce"].item() == pytest.approx(0)


def test_products_in_bfloat16_stay_near() -> None:
    model, batch = small(), pack_histories([history([3, 1, 4, 1, 5])])
    with torch.no_grad():
        exact = model.user_vectors(batch)
        model.compute_dtype = model.tables.compute_dtype = torch.bfloat16
        torch.testing.assert_close(model.train().user_vectors(batch), exact, atol=0.2, rtol=0.1)


def test_initial_weights_have_the_documented_scales() -> None:
    sizes = ("model.hidden_size=64", "model.inner_size=256", "model.adapter_size=50")
    state = build("iisan", *sizes, spread=None, features=("text", "image")).state_dict()
    assert state["transformer.layers.0.qkv_weight"].std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    assert state["transformer.layers.0.inner_weight"].std().item() == pytest.approx((2 / 320) ** 0.5, rel=0.05)
    assert state["tables.towers.text.down.0.weight"].std().item() == pytest.approx(0.01, rel=0.1)
    assert all((value == 0).all() for name, value in state.items() if name.endswith(("bias", "gates")))
    assert "transformer.layers.0.qkv_bias" not in state


def test_removals_take_their_part_out() -> None:
    for removal in MODEL.removals:
        tree = config_tree(build_config("iisan"))
        assert removal.is_in(tree)
        assert removal.take_out(tree) == {}
        assert not removal.is_in(tree)
    tree["model"]["towers"] = ["text"]
    assert not next(removal for removal in MODEL.removals if removal.name == "TextTower").is_in(tree)
