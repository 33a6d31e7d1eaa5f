"""NOVA: the published network, packed = one by one, causality, where attributes count, training, edges, parts."""

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
from athwe_core.models.nova import MODEL, published_nova
from athwe_core.models.parity import parity_differences
from athwe_core.models.registry import build_config, config_from_tree, config_tree

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ("model.inner_size=12", "model.num_layers=2", "model.num_heads=2", "model.attention_dropout=0")
BOTH = "model.attributes=[categories,brand]"
FUSIONS = pytest.mark.parametrize("fusion", ["sum", "concat", "gate"])


@pytest.mark.parametrize(
    ("name", "further"),
    [
        ("NOVA", {"layer0_fused", "layer0_gate"}),
        ("NOVA_sum", set()),
        ("NOVA_concat", {"layer0_fused"}),
        ("NOVA_2feat", {"layer0_fused", "layer0_gate", "attr_emb1", "loss_attr1", "loss_attr1_sum_own"}),
    ],
)
def test_the_published_network_is_ours(name: str, further: set[str]) -> None:
    found = parity_differences(GOLDEN / f"{name}.npz", "nova")
    states = {"attr_emb0", "input_emb", "layer0_attn", "layer0", "layer1", "seq", "scores"}
    assert set(found) == states | {"loss_ce", "loss_attr0", "loss_attr0_sum_own", "loss_total"} | further
    assert max(found.values()) < 1e-5


def test_a_golden_file_without_its_weights_is_named() -> None:
    golden = Golden.read(GOLDEN / "NOVA.npz")
    rest = {name: value for name, value in golden.arrays.items() if "projection.2" not in name}
    with pytest.raises(CheckpointError, match=r"lacks w\.trm_encoder\.layer\.0\..*fusion_layer\.projection\.2\.weight"):
        published_nova(Golden(golden.path, rest))


@FUSIONS
@pytest.mark.parametrize("padding", [NO_PADDING, SOME_PADDING])
@pytest.mark.parametrize("batching", ["packed", "prefix"])
def test_packed_rows_are_histories_one_by_one(
    fusion: str, padding: Padding, batching: str, make_data: Callable[..., Any]
) -> None:
    model = build("nova", *SMALL, BOTH, f"model.fusion={fusion}")
    assert_rows_are_histories_one_by_one(model, batch_of(make_data([9, 4, 3, 8]), batching, padding))


@FUSIONS
def test_no_later_item_changes_a_state(fusion: str) -> None:
    assert_later_items_change_no_state(build("nova", *SMALL, BOTH, f"model.fusion={fusion}"))


@torch.no_grad()
def test_attributes_change_where_attention_looks_and_not_what_it_passes_on() -> None:
    """With one item there is nothing to choose; with two, other attributes give another state."""
    model = build("nova", *SMALL)
    states = []
    for factor in (1.0, 3.0):
        model.attributes.tables[0].mul_(factor)
        batches = [pack_histories([history(items)]) for items in ([1], [1, 4])]
        states.append([model.user_vectors(batch) for batch in batches])
    torch.testing.assert_close(states[0][0], states[1][0])
    assert not torch.allclose(states[0][1], states[1][1], atol=1e-4)


@FUSIONS
@torch.no_grad()
def test_the_inside_view_is_the_attention_of_the_last_item_and_that_of_each_source(fusion: str) -> None:
    model = build("nova", *SMALL, BOTH, f"model.fusion={fusion}")
    items, n = [3, 7, 7, 2], 4
    batch = pack_histories([history(items)])
    found = model.explain(batch, model.item_table())
    layer = model.layers[0]
    x = model.embed(model.item_table()[torch.tensor(items)])[0]
    sources = [*model.attributes(batch.item_ids), x, model.position[:n]]

    def attention(fused: torch.Tensor) -> list[float]:
        query, key, _ = (fused @ layer.qkv_weight[0] + layer.qkv_bias[0]).view(n, 3, 2, 4).unbind(1)
        by_head = [(query[-1, head] @ key[:, head].T / 2).softmax(0) for head in range(2)]  # the root of 4 is 2
        return (sum(by_head) / 2).tolist()

    assert found.attention["id"][0] == pytest.approx(attention(layer.fusion(sources)), abs=1e-5)
    categories, brand, item, position = layer.fusion.parts(sources)
    parts = {"id": item, "categories": categories, "brand": brand, "position": position}
    assert list(found.attention_parts) == list(parts)
    for name, part in parts.items():
        assert found.attention_parts[name][0] == pytest.approx(attention(part), abs=1e-5)
    assert len({tuple(weights[1]) for weights in found.attention_parts.values()}) == 4
    for weights in (*found.attention.values(), *found.attention_parts.values()):
        assert [sum(of_layer) for of_layer in weights] == pytest.approx([1, 1])


def test_one_source_alone_has_no_parts() -> None:
    model = build("nova", *SMALL, "model.attributes=[]", "model.position_embedding=false")
    found = model.explain(pack_histories([history([5])]), model.item_table())
    assert (found.attention, found.attention_parts) == ({"id": [[1.0], [1.0]]}, {})


@FUSIONS
@pytest.mark.parametrize("kind", ["full", "sampled", "bce", "bpr"])
def test_every_parameter_trains(kind: str, fusion: str, make_data: Callable[..., Any], tmp_path: Path) -> None:
    loss = (f"losses.catalogue.kind={kind}", "losses.catalogue.num_negatives=2", "losses.attributes.weights=[1,2]")
    settings = (*SMALL, BOTH, *loss, f"model.fusion={fusion}")
    models = [build("nova", *settings, spread=spread) for spread in (0.3, 0.1)]
    assert_every_parameter_trains(*models, batch_of(make_data([5, 7, 6]), "packed", SOME_PADDING), tmp_path)


@pytest.mark.parametrize(("items", "num_items"), EDGES)
def test_histories_at_the_edge(items: list[int], num_items: int) -> None:
    model = build("nova", *SMALL, BOTH, num_items=num_items)
    with torch.no_grad():
        assert model.user_vectors(pack_histories([history(items)])).isfinite().all()


def test_removals_take_their_part_out() -> None:
    names = []
    for removal in MODEL.removals:
        tree = config_tree(build_config("nova"))
        if removal.is_in(tree):
            names.append(removal.name)
            assert removal.take_out(tree) == {}
            assert not removal.is_in(config_tree(config_from_tree(tree)))
    assert names == ["Attributes", "Fusion", "Position", "Dropout"]


def test_without_attributes_and_positions_it_is_attention_over_items(make_data: Callable[..., Any]) -> None:
    model = build("nova", *SMALL, "model.attributes=[]", "model.position_embedding=false")
    assert not any("fusion" in name for name, _ in model.named_parameters())
    assert_rows_are_histories_one_by_one(model, batch_of(make_data([9, 4]), "packed"))
