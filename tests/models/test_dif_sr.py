"""DIF-SR: the published network, rows one by one where legal, what sees ahead, training, edges, parts."""

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
from athwe_core.errors import ConfigError
from athwe_core.models.dif_sr import MODEL
from athwe_core.models.parity import parity_differences
from athwe_core.models.registry import build_config, config_from_tree, config_tree

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = (
    *("model.inner_size=12", "model.num_layers=2", "model.num_heads=2", "model.attention_dropout=0"),
    *("model.attributes=[categories,brand]", "model.attribute_sizes=[4,6]"),
)
CAUSAL = {
    "sum": ("model.fusion=sum", "training.batching=packed"),
    "concat": ("model.fusion=concat", "model.fusion_reads_all=false", "training.batching=packed"),
    "gate": ("model.fusion=gate", "model.fusion_reads_all=false", "training.batching=packed"),
}
PUBLISHED = {"concat": ("model.fusion=concat",), "gate": ("model.fusion=gate",)}
FORMS = [*CAUSAL.values(), *PUBLISHED.values()]


@pytest.mark.parametrize(
    ("name", "further"),
    [
        ("DIF-SR", {"layer0_fused", "layer0_gate"}),
        ("DIF-SR_sum", set()),
        ("DIF-SR_concat", {"layer0_fused"}),
        ("DIF-SR_2feat", {"layer0_fused", "layer0_gate", "attr_emb1", "loss_attr1", "loss_attr1_sum_own"}),
    ],
)
def test_the_published_network_is_ours(name: str, further: set[str]) -> None:
    found = parity_differences(GOLDEN / f"{name}.npz", "dif-sr")
    states = {"attr_emb0", "input_emb", "layer0_attn", "layer0", "layer1", "seq", "scores"}
    assert set(found) == states | {"loss_ce", "loss_attr0", "loss_attr0_sum_own", "loss_total"} | further
    assert max(found.values()) < 1e-5


@pytest.mark.parametrize("form", CAUSAL)
@pytest.mark.parametrize("padding", [NO_PADDING, SOME_PADDING])
@pytest.mark.parametrize("batching", ["packed", "prefix"])
def test_causal_forms_read_packed_rows_as_histories_one_by_one(
    form: str, padding: Padding, batching: str, make_data: Callable[..., Any]
) -> None:
    batch = batch_of(make_data([9, 4, 3, 8]), batching, padding)
    assert_rows_are_histories_one_by_one(build("dif-sr", *SMALL, *CAUSAL[form]), batch)


@pytest.mark.parametrize("form", CAUSAL)
def test_causal_forms_let_no_later_item_change_a_state(form: str) -> None:
    assert_later_items_change_no_state(build("dif-sr", *SMALL, *CAUSAL[form]))


@pytest.mark.parametrize("form", PUBLISHED)
def test_published_forms_read_prefix_rows_as_histories_one_by_one(form: str, make_data: Callable[..., Any]) -> None:
    batch = batch_of(make_data([9, 4, 3, 8]), "prefix", SOME_PADDING)
    assert_rows_are_histories_one_by_one(build("dif-sr", *SMALL, *PUBLISHED[form]), batch)


@torch.no_grad()
def test_only_published_forms_see_the_padding() -> None:
    batch = pack_histories([history([1, 2, 3])])
    for settings in FORMS:
        model = build("dif-sr", *SMALL, *settings)
        before = model.user_vectors(batch)
        model.tables.id.weight[0] *= -1
        assert torch.allclose(before, model.user_vectors(batch)) != (settings in PUBLISHED.values())


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_the_inside_view_is_the_attention_of_the_last_item_and_that_of_each_source(form: tuple[str, ...]) -> None:
    model = build("dif-sr", *SMALL, *form)
    items, n = [3, 7, 7, 2], 4
    batch = pack_histories([history(items)])
    found = model.explain(batch, model.item_table())
    layer, L = model.layers[0], model.max_length
    rows = batch.padded_to(L)
    x, sides = model.rectangle(model.item_table()[batch.item_ids], rows, batch)

    def scores(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Of the last item with each slot, by head."""
        query, key = (part.unflatten(-1, (2, -1)) for part in (query, key))
        return torch.stack([query[n - 1, head] @ key[:, head].T for head in range(2)])

    query, key, _ = (x[0] @ layer.qkv_weight[0] + layer.qkv_bias[0]).chunk(3, dim=-1)
    by_source = {"id": scores(query, key)}
    for name, side, linear in zip(("categories", "brand", "position"), sides, layer.sides, strict=True):
        by_source[name] = scores(*linear(side[0]).chunk(2, dim=-1))
    order = ("categories", "brand", "id", "position")
    if "model.fusion_reads_all=false" in form:
        by_source = {name: found.clone() for name, found in by_source.items()}
        for each in by_source.values():
            each[:, n:] = 0
    each = [by_source[name] for name in order]
    if model.sums:
        fused, parts = sum(each), dict(zip(order, each, strict=True))
    else:
        fused, parts = layer.fusion(each), dict(zip(order, layer.fusion.parts(each), strict=True))

    def attention(fused: torch.Tensor) -> list[float]:
        return (fused[:, :n] / 2).softmax(-1).mean(0).tolist()  # the root of a head's width, 4, is 2

    assert found.attention["id"][0] == pytest.approx(attention(fused), abs=1e-5)
    assert list(found.attention_parts) == ["id", "categories", "brand", "position"]
    for name, part in parts.items():
        assert found.attention_parts[name][0] == pytest.approx(attention(part), abs=1e-5)
    for weights in (*found.attention.values(), *found.attention_parts.values()):
        assert [sum(of_layer) for of_layer in weights] == pytest.approx([1, 1])
        assert [len(of_layer) for of_layer in weights] == [n, n]


def test_forms_that_see_ahead_are_refused_packed_rows() -> None:
    rule = r"training\.batching must be prefix with model\.fusion: gate and model\.fusion_reads_all: true"
    with pytest.raises(
        ConfigError, match=rule + ".*got 'packed'.*--batching prefix, or --set model.fusion_reads_all=false"
    ):
        build("dif-sr", "training.batching=packed")


def test_sizes_are_multiples_of_the_heads() -> None:
    with pytest.raises(ConfigError, match=r"model\.attribute_sizes must be multiples of model\.num_heads=4, got \[6\]"):
        build("dif-sr", "model.attribute_sizes=[6]")


@pytest.mark.parametrize("kind", ["full", "sampled", "bce", "bpr"])
@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_trains(
    kind: str, form: tuple[str, ...], make_data: Callable[..., Any], tmp_path: Path
) -> None:
    loss = (f"losses.catalogue.kind={kind}", "losses.catalogue.num_negatives=2", "losses.attributes.weights=[1,2]")
    models = [build("dif-sr", *SMALL, *form, *loss, spread=spread) for spread in (0.3, 0.1)]
    batching = "packed" if "training.batching=packed" in form else "prefix"
    assert_every_parameter_trains(*models, batch_of(make_data([5, 7, 6]), batching, SOME_PADDING), tmp_path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("items", "num_items"), EDGES)
def test_histories_at_the_edge(items: list[int], num_items: int, form: tuple[str, ...]) -> None:
    model = build("dif-sr", *SMALL, *form, num_items=num_items)
    with torch.no_grad():
        assert model.user_vectors(pack_histories([history(items)])).isfinite().all()


def test_removals_take_their_part_out() -> None:
    names = []
    for removal in MODEL.removals:
        tree = config_tree(build_config("dif-sr"))
        assert removal.is_in(tree)
        names.append(removal.name)
        assert removal.take_out(tree) == {}
        assert not removal.is_in(config_tree(config_from_tree(tree)))
    assert names == ["Attributes", "Prediction", "Fusion", "Position", "Dropout"]
