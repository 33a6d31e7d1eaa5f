"""TiSASRec: both published versions, packed = one by one, causality, intervals, penalty, every loss, edges."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import (
    DAY,
    EDGES,
    START,
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
from athwe_core.models.parity import parity_differences
from athwe_core.models.registry import build_config, config_from_tree, config_tree
from athwe_core.models.tisasrec import MODEL
from athwe_core.models.tisasrec.published import published_tisasrec

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ("model.time_span=5",)
PUBLISHED = ("model.positions_from=newest", "model.interval_unit=row", "model.attends_padding=true")
STATES = {"states", "seq", "scores", "pos_logits", "neg_logits", "loss_total"}


def test_the_published_network_is_ours() -> None:
    found = parity_differences(GOLDEN / "tisasrec.npz", "tisasrec")
    both = {*STATES, "block_0", "block_1", "loss_bce_pos", "loss_bce_neg"}
    assert set(found) == both | {f"{name}_keymask" for name in both} | {"loss_l2", "loss_l2_squared"}
    assert max(found.values()) < 1e-5


def test_the_network_of_the_authors_is_ours() -> None:
    found = parity_differences(GOLDEN / "tisasrec-tf.npz", "tisasrec")
    assert set(found) == {*STATES, "loss_bce", "loss_l2"}
    assert max(found.values()) < 1e-5


def test_a_golden_file_without_its_weights_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"lacks w\.item_emb\.weight"):
        published_tisasrec(Golden.read(GOLDEN / "SASRec.npz"), attends_padding=False)


@pytest.mark.parametrize("padding", [NO_PADDING, SOME_PADDING])
@pytest.mark.parametrize("batching", ["packed", "prefix"])
def test_packed_rows_are_histories_one_by_one(padding: Padding, batching: str, make_data: Callable[..., Any]) -> None:
    model = build("tisasrec", *SMALL, "model.num_heads=2")
    assert_rows_are_histories_one_by_one(model, batch_of(make_data([9, 4, 3, 8]), batching, padding))


@pytest.mark.parametrize("padding", [NO_PADDING, SOME_PADDING])
def test_prefix_rows_of_the_published_form_are_histories_one_by_one(
    padding: Padding, make_data: Callable[..., Any]
) -> None:
    model = build("tisasrec", *SMALL, *PUBLISHED)
    assert_rows_are_histories_one_by_one(model, batch_of(make_data([9, 4, 3, 8]), "prefix", padding))


def test_no_later_item_changes_a_state() -> None:
    assert_later_items_change_no_state(build("tisasrec", *SMALL))


def test_units_are_the_smallest_interval_so_far_or_of_the_row() -> None:
    batch = pack_histories([([1], [9]), ([1, 2, 3, 4, 5], [0, 0, 50, 57, 70])])
    assert build("tisasrec").units(batch).tolist() == [1, 1, 1, 50, 7, 7]
    published = build("tisasrec", "model.interval_unit=row")
    assert published.units(batch).tolist() == [1, 7, 7, 7, 7, 7]
    assert published.units(batch, torch.tensor([4, 5])).tolist() == [4, 5, 5, 5, 5, 5]


@pytest.mark.parametrize(
    ("setting", "matters"), [("model.interval_embedding=true", True), ("model.interval_embedding=false", False)]
)
def test_times_matter_through_intervals_alone(setting: str, matters: bool) -> None:
    model, items = build("tisasrec", *SMALL, setting), [3, 1, 4]
    with torch.no_grad():
        first, second = (
            model.user_vectors(pack_histories([history(items, [START, START + DAY, START + days * DAY])]))
            for days in (2, 5)
        )
    assert torch.allclose(first, second) != matters


@pytest.mark.parametrize("kind", ["full", "sampled", "bce", "bpr"])
def test_every_parameter_trains(kind: str, make_data: Callable[..., Any], tmp_path: Path) -> None:
    settings = (*SMALL, f"losses.catalogue.kind={kind}", "losses.catalogue.num_negatives=2")
    models = (build("tisasrec", *settings, spread=spread) for spread in (0.3, 0.1))
    assert_every_parameter_trains(*models, batch_of(make_data([5, 7, 6]), "packed"), tmp_path)


@pytest.mark.parametrize(
    ("kind", "expected"), [("squared", 4 * 14 * 8 + 4 * 6 * 8), ("norm", 2 * (14 * 8) ** 0.5 + 4 * (6 * 8) ** 0.5)]
)
def test_the_penalty_by_hand(kind: str, expected: float, make_data: Callable[..., Any]) -> None:
    """Tables of 14 items (all 2), and two each of 6 positions and 6 intervals (all 1), 8 wide."""
    model = build("tisasrec", *SMALL, f"losses.penalty.kind={kind}")
    with torch.no_grad():
        model.tables.id.weight.fill_(2.0)
        for table in model.relation_tables.values():
            table.fill_(1.0)
        found = step_terms(model, batch_of(make_data([5, 7, 6]), "packed"))
    assert found["l2"].item() == pytest.approx(expected)
    assert model.loss_weights == {"l2": 5e-5}
    assert "l2" not in step_terms(build("tisasrec", "losses.penalty.weight=0"), batch_of(make_data([5, 7]), "packed"))


@pytest.mark.parametrize(("items", "num_items"), EDGES)
@pytest.mark.parametrize("settings", [(), PUBLISHED])
def test_histories_at_the_edge(settings: tuple[str, ...], items: list[int], num_items: int) -> None:
    model = build("tisasrec", *SMALL, *settings, num_items=num_items)
    with torch.no_grad():
        vectors = model.user_vectors(pack_histories([history(items)]))
    assert vectors.shape == (1, 8)
    assert vectors.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (("model.num_heads=3",), r"model\.num_heads must divide model\.hidden_size=8, got 3"),
        (("model.attends_padding=true",), r"model\.attends_padding needs model\.positions_from=newest and"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: tuple[str, ...], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build("tisasrec", *settings)


def test_removals_take_their_part_out() -> None:
    for removal in MODEL.removals:
        tree = config_tree(build_config("tisasrec"))
        assert removal.is_in(tree)
        assert removal.take_out(tree) == {}
        assert not removal.is_in(config_tree(config_from_tree(tree)))


def test_initial_weights_have_the_documented_scales() -> None:
    state = build("tisasrec", "model.hidden_size=64", spread=None, num_items=935).state_dict()
    largest = {name: value.abs().max().item() for name, value in state.items()}
    assert largest["tables.id.weight"] == pytest.approx((6 / 1000) ** 0.5, rel=0.02)
    assert largest["layers.0.query.weight"] == pytest.approx((6 / 128) ** 0.5, rel=0.02)
    assert largest["layers.1.inner.bias"] == pytest.approx(1 / 8, rel=0.1)
    assert all((value == 1).all() for name, value in state.items() if name.endswith("norm.weight"))
