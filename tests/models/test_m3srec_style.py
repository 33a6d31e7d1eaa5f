"""M3SRec-style: packed = one by one, causality, fusion, every loss, edges."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
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

from athwe_core.data.packing import NO_PADDING, SOME_PADDING, Padding, pack_histories
from athwe_core.errors import CheckpointError, ConfigError
from athwe_core.models.m3srec_style import MODEL
from athwe_core.models.parity import parity_differences
from athwe_core.models.protocol import Available
from athwe_core.models.registry import build_config, config_tree, replace_in

SMALL = ("model.inner_size=6", "model.num_heads=2", "model.modality_experts=2", "model.cross_experts=3")
BOTH_WAYS = ("model.causal=false", "training.batching=prefix")


def small(*overrides: str, spread: float | None = 0.3, num_items: int = V - 1) -> Any:
    features = ("text", "image")
    return build("m3srec-style", *SMALL, *overrides, spread=spread, num_items=num_items, features=features)


@pytest.mark.parametrize("padding", [NO_PADDING, SOME_PADDING])
@pytest.mark.parametrize("batching", ["packed", "prefix"])
def test_packed_rows_are_histories_one_by_one(padding: Padding, batching: str, make_data: Callable[..., Any]) -> None:
    assert_rows_are_histories_one_by_one(small(), batch_of(make_data([9, 4, 3, 8]), batching, padding))


def test_rows_in_both_directions_are_histories_one_by_one(make_data: Callable[..., Any]) -> None:
    assert_rows_are_histories_one_by_one(small(*BOTH_WAYS), batch_of(make_data([9, 4, 3, 8]), "prefix", SOME_PADDING))


def test_no_later_item_changes_a_state() -> None:
    assert_later_items_change_no_state(small("model.num_layers=2"))


def test_attention_in_both_directions_sees_later_items() -> None:
    with pytest.raises(AssertionError):
        assert_later_items_change_no_state(small(*BOTH_WAYS))
    with pytest.raises(
        ConfigError, match=r"training\.batching must be prefix with model\.causal=false.*Use --batching prefix"
    ):
        replace_in(build_config("m3srec-style"), ["model.causal=false"])


@torch.no_grad()
def test_a_token_reads_every_modality_of_earlier_items() -> None:
    model, batch = small(), pack_histories([history([3, 1, 4])])
    before = model.user_vectors(batch)
    for name in ("text", "image"):
        other = small()
        other.tables.get_buffer(f"{name}_features")[3] += 1
        assert not torch.allclose(other.user_vectors(batch), before)


@torch.no_grad()
def test_states_and_items_are_fused_by_attention_over_modalities() -> None:
    model, parts = small(), torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(1))
    found = model.fused(parts)
    for i in range(4):
        scores = torch.stack([model.fusion_vector @ torch.tanh(model.fusion(part)) for part in parts[i]])
        torch.testing.assert_close(found[i], scores.softmax(0) @ parts[i], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.item_table(), model.fused(model.tables().view(V, 3, 8)))


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_the_scores(make_data: Callable[..., Any]) -> None:
    model, batch = small(), batch_of(make_data([5, 7, 6]), "packed")
    scores = model.user_vectors(batch) @ model.item_table().T
    expected = {"ce": F.cross_entropy(scores[:, 1:], batch.target_ids - 1)}
    torch.testing.assert_close(step_terms(model, batch), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["full", "sampled", "bce", "bpr"])
def test_every_parameter_trains(kind: str, make_data: Callable[..., Any], tmp_path: Path) -> None:
    settings = (f"losses.catalogue.kind={kind}", "losses.catalogue.num_negatives=2")
    models = (small(*settings, spread=spread) for spread in (0.3, 0.1))
    assert_every_parameter_trains(*models, batch_of(make_data([5, 7, 6]), "packed"), tmp_path)


def test_parts_that_are_taken_out_have_no_weights(make_data: Callable[..., Any], tmp_path: Path) -> None:
    off = ("model.modality_experts=0", "model.cross_experts=0", "model.modalities=[id]")
    names = dict(small(*off).named_parameters())
    assert not [name for name in names if "of_" in name or "fusion" in name or "projections" in name]
    models = (small(*off, spread=spread) for spread in (0.3, 0.1))
    assert_every_parameter_trains(*models, batch_of(make_data([5, 7, 6]), "packed"), tmp_path)


def test_modalities_without_features_are_off() -> None:
    tree = config_tree(build_config("m3srec-style"))
    available = Available("beauty", frozenset({"text"}), categories=False, clusters=frozenset())
    assert MODEL.adapt(tree, available) == ["beauty has no image features: the image modality is off"]
    assert tree["model"]["modalities"] == ["id", "text"]


@pytest.mark.parametrize("modalities", ["[text]", "[text, id]", "[id, id]", "[id, sound]"])
def test_modalities_are_ids_and_some_features(modalities: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.modalities must be id, then text, image or both"):
        replace_in(build_config("m3srec-style"), [f"model.modalities={modalities}"])


def test_no_published_form_is_known(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no published form to compare with"):
        parity_differences(Path(__file__).parents[1] / "golden" / "SASRec.npz", "m3srec-style")


@pytest.mark.parametrize(("items", "num_items"), EDGES)
def test_histories_at_the_edge(items: list[int], num_items: int) -> None:
    with torch.no_grad():
        vectors = small(num_items=num_items).user_vectors(pack_histories([history(items)]))
    assert vectors.shape == (1, 8)
    assert vectors.isfinite().all()


def test_products_in_bfloat16_stay_near() -> None:
    model, batch = small(), pack_histories([history([3, 1, 4, 1, 5])])
    with torch.no_grad():
        exact = model.user_vectors(batch)
        model.compute_dtype = model.tables.compute_dtype = torch.bfloat16
        torch.testing.assert_close(model.train().user_vectors(batch), exact, atol=0.2, rtol=0.1)


def test_removals_take_their_part_out() -> None:
    for removal in MODEL.removals:
        tree = config_tree(build_config("m3srec-style"))
        assert removal.is_in(tree)
        assert removal.take_out(tree) == {}
        assert not removal.is_in(tree)
