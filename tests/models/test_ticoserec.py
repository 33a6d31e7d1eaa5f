"""TiCoSeRec: the published network, packed = one by one, views and their schedule, similar items, every loss, edges."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
from athwe_core.data.prepare import PreparedDataset
from athwe_core.data.rows import items_before
from athwe_core.data.similar_items import most_similar_items
from athwe_core.errors import CheckpointError, ConfigError
from athwe_core.models.golden import Golden
from athwe_core.models.inputs import meta_model, model_inputs
from athwe_core.models.parity import parity_differences
from athwe_core.models.protocol import ModelInputs
from athwe_core.models.registry import build_config, config_from_tree, config_tree, replace_in
from athwe_core.models.ticoserec import MODEL, OPERATORS
from athwe_core.models.ticoserec.network import TiCoSeRec, similar_by_embedding
from athwe_core.models.ticoserec.published import published_ticoserec
from athwe_core.runs.find import create_run
from athwe_core.training.loop import train

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ("model.inner_size=12",)
NOW = ("losses.contrastive.warm_up_epochs=0", "views.unaugmented_share=0", "views.threshold=3")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_published_network_is_ours() -> None:
    found = parity_differences(GOLDEN / "ticoserec.npz", "ticoserec")
    states = {"block_0", "block_1", "states", "seq", "scores", "scores_ranked", "aug_states_1", "aug_states_2"}
    losses = {"loss_rec", "loss_cl", "loss_total", "loss_cl_no_padding"}
    modes = ("minimum", "maximum")
    views = {f"op_{name}_{mode}" for name in OPERATORS for mode in modes} | {"op_mask_random", "offline_similarity"}
    windows = {
        f"window_start_{name}_{mode}{form}"
        for name in ("crop", "reorder")
        for mode in modes
        for form in ("", "_full_window")
    }
    assert set(found) == states | losses | views | windows
    assert max(found.values()) < 2e-5
    assert all(found[name] == 0 for name in found if name.startswith(("op_", "window_")))


def test_a_golden_file_without_its_weights_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"lacks w\.item_embedding\.weight"):
        published_ticoserec(Golden.read(GOLDEN / "lrurec.npz"), reads_padding=False)


@pytest.mark.parametrize("padding", [NO_PADDING, SOME_PADDING])
@pytest.mark.parametrize("batching", ["packed", "prefix"])
def test_packed_rows_are_histories_one_by_one(padding: Padding, batching: str, make_data: Callable[..., Any]) -> None:
    data = make_data([9, 4, 3, 8])
    assert_rows_are_histories_one_by_one(build("ticoserec", *SMALL), batch_of(data, batching, padding))
    if batching == "prefix":
        published = build("ticoserec", *SMALL, "model.positions_from=newest")
        assert_rows_are_histories_one_by_one(published, batch_of(data, batching, padding))


def test_no_later_item_changes_a_state() -> None:
    assert_later_items_change_no_state(build("ticoserec", *SMALL))


@pytest.mark.parametrize("reads_padding", [False, True])
@pytest.mark.parametrize("positions", ["oldest", "newest"])
def test_the_states_of_a_view_are_those_of_its_row(positions: str, reads_padding: bool) -> None:
    settings = (f"model.positions_from={positions}", f"losses.contrastive.reads_padding={reads_padding}")
    model, items = build("ticoserec", *SMALL, *settings), [3, 1, 4]
    slots = torch.tensor([[3, 1, 4, 0, 0, 0], [5, 0, 0, 0, 0, 0]])
    if positions == "newest":
        slots = torch.tensor([[0, 0, 0, 3, 1, 4], [0, 0, 0, 0, 0, 5]])
    with torch.no_grad():
        found = model.view_states(slots)
        last = model.user_vectors(pack_histories([history(items)]))[0]
    torch.testing.assert_close(found[0][slots[0] == 4][0], last)
    assert (found[slots == 0] == 0).all() != reads_padding


def views_of(model: Any, batch: Any, seed: int = 0) -> list[list[int]]:
    items, lengths = model.make_views(batch, generator(seed))
    return [row[:n] for row, n in zip(items.tolist(), lengths.tolist(), strict=True)]


def test_each_operator_makes_its_view() -> None:
    """Gaps 1, 2, 3, 9 and 8 days squared: the most even window of four items are the first ones."""
    items, days = [5, 6, 7, 8, 9], [0, 1, 3, 6, 15]
    batch = pack_histories([(items, [86_400 * day for day in days])])
    rates = [f"views.{name}_rate={rate}" for name, rate in (("crop", 0.8), ("reorder", 0.8), ("insert", 0.2))]
    found = {}
    for name in OPERATORS:
        model = build("ticoserec", *SMALL, *NOW, *rates, f"views.operators=[{name}]")
        model.similar.copy_(torch.arange(V).roll(-1))
        found[name] = views_of(model, batch)
    assert found["crop"] == [[5, 6, 7, 8]] * 2
    assert all(view[4] == 9 and sorted(view) == items for view in found["reorder"])
    assert all(view.count(0) == 2 and len(view) == 5 for view in found["mask"])
    assert found["insert"] == [[5, 6, 7, 8, 9, 9]] * 2  # after item 8, whose gap is the largest
    assert found["substitute"] == [[6, 6, 7, 8, 9]] * 2  # item 5 has the smallest gap


def test_short_rows_are_not_cropped_or_reordered() -> None:
    batch = pack_histories([history([1, 2, 3]), history([1, 2, 3, 4])])
    model = build("ticoserec", *SMALL, *NOW, "views.operators=[crop]")
    views = views_of(model, batch)
    assert views[0] == views[2] == [1, 2, 3]
    assert all(len(view) == 1 for view in (views[1], views[3]))  # two items have no variance of intervals: one stays


def test_rows_with_even_intervals_stay_as_they_are() -> None:
    batch = pack_histories([history([1, 2, 3, 4], [0, 9, 18, 27]), history([5, 6, 7, 8], [0, 1, 2, 90])])
    settings = ("views.operators=[mask]", "views.unaugmented_share=0.5")
    views = views_of(build("ticoserec", *SMALL, *NOW, *settings), batch)
    assert [0 in view for view in views] == [False, True, False, True]


def test_views_are_drawn_from_their_generator_alone(make_data: Callable[..., Any]) -> None:
    model, batch = build("ticoserec", *SMALL, *NOW), batch_of(make_data([9, 8, 7, 9, 8]), "packed")
    assert views_of(model, batch) == views_of(model, batch)
    assert views_of(model, batch) != views_of(model, batch, seed=1)


def test_views_begin_after_the_warm_up(make_data: Callable[..., Any]) -> None:
    model, batch = (
        build("ticoserec", *SMALL, "losses.contrastive.warm_up_epochs=3"),
        batch_of(make_data([9, 8]), "packed"),
    )
    names = []
    for epoch in (0, 2, 3):
        model.begin_epoch(epoch, is_resumed=False)
        names.append(list(step_terms(model, batch)))
    assert names == [["bce"], ["bce"], ["bce", "cl"]]
    none = build("ticoserec", *SMALL, *NOW, "losses.contrastive.weight=0")
    assert list(step_terms(none, batch)) == ["bce"]


def test_similar_items_of_the_table_are_those_with_the_largest_product() -> None:
    golden = Golden.read(GOLDEN / "ticoserec.npz")
    table = golden.weight("item_embedding.weight")[:31]
    scores = table @ table.T
    scores.fill_diagonal_(-torch.inf)
    scores[:, 0] = -torch.inf
    best, nearest, least = similar_by_embedding(table)
    assert torch.equal(nearest[1:], scores[1:].argmax(1))
    torch.testing.assert_close(best[1:], scores[1:].amax(1))
    torch.testing.assert_close(least, scores[1:][scores[1:] > -torch.inf].amin())
    expected = golden["out.online_most_similar_true"]
    is_an_item = expected[1:] > 0
    assert torch.equal(nearest[1:][is_an_item], expected[1:][is_an_item])


def test_similar_items_by_users_and_by_table_compete_after_the_second_warm_up() -> None:
    config = replace_in(build_config("ticoserec"), ["model.hidden_size=2", *NOW, "views.embedding_warm_up_epochs=5"])
    catalogue = Catalogue(
        num_item_rows=5,
        similar_items=torch.tensor([0, 4, 4, 1, 4]),
        similarity=torch.tensor([0.0, 0.9, 0.1, 0.0, 0.0]),  # items 3 and 4 have no common users
    )
    model = TiCoSeRec(config, ModelInputs(catalogue, TimeRange(0, 1, 1), generator=generator()))
    with torch.no_grad():
        model.tables.id.weight.copy_(torch.tensor([[9.0, 9.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [-1.0, 2.0]]))
    model.begin_epoch(4, is_resumed=False)
    assert model.similar.tolist() == [0, 4, 4, 1, 4]
    model.begin_epoch(5, is_resumed=True)
    assert model.similar.tolist() == [0, 4, 4, 1, 4]
    model.begin_epoch(5, is_resumed=False)
    assert model.similar.tolist()[1:] == [4, 1, 4, 3]


@pytest.mark.parametrize("kind", ["full", "sampled", "bce", "bpr"])
@pytest.mark.parametrize("reads_padding", [False, True])
def test_every_parameter_trains(kind: str, reads_padding: bool, make_data: Callable[..., Any], tmp_path: Path) -> None:
    loss = (f"losses.catalogue.kind={kind}", "losses.catalogue.num_negatives=2")
    settings = (*SMALL, *NOW, *loss, f"losses.contrastive.reads_padding={reads_padding}")
    models = [build("ticoserec", *settings, spread=spread) for spread in (0.3, 0.1)]
    assert_every_parameter_trains(*models, batch_of(make_data([5, 7, 6]), "packed", SOME_PADDING), tmp_path)


def test_the_gradient_of_a_view_reaches_its_own_items_alone() -> None:
    model = build("ticoserec", *SMALL).train()
    states = model.view_states(torch.tensor([[3, 1, 0, 0, 0, 0], [5, 0, 7, 0, 0, 0]]))
    slope = torch.randn(states.shape, generator=generator())
    (found,) = torch.autograd.grad((states * slope)[0].sum(), model.tables.id.weight, retain_graph=True)
    assert found.abs().sum(1).nonzero().flatten().tolist() == [1, 3]
    alone = model.view_states(torch.tensor([[3, 1, 0, 0, 0, 0]]))
    for parameter in (model.position, model.transformer.layers[0].qkv_weight):
        (first,) = torch.autograd.grad((states * slope)[0].sum(), parameter, retain_graph=True)
        (second,) = torch.autograd.grad((alone * slope[:1]).sum(), parameter, retain_graph=True)
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("items", "num_items"), EDGES)
def test_histories_at_the_edge(items: list[int], num_items: int) -> None:
    model, batch = (
        build("ticoserec", *SMALL, *NOW, num_items=num_items),
        pack_histories([history(items)], next_items=[1]),
    )
    model.begin_epoch(99, is_resumed=False)
    with torch.no_grad():
        terms = step_terms(model, batch)
    assert list(terms) == ["bce", "cl"]
    assert all(np.isfinite(float(term)) for term in terms.values())


def test_removals_take_their_part_out() -> None:
    assert [removal.name for removal in MODEL.removals[:3]] == ["Views", "Crop", "Mask"]
    for removal in MODEL.removals:
        tree = config_tree(build_config("ticoserec"))
        assert removal.is_in(tree)
        assert removal.take_out(tree) == {}
        assert not removal.is_in(config_tree(config_from_tree(tree)))


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"views\.operators must be among crop, mask, reorder, insert, substitute"):
        build("ticoserec", "views.operators=[crop, shuffle]")


def test_similar_items_come_from_the_training_split(prepared: PreparedDataset) -> None:
    found = model_inputs(prepared, build_config("ticoserec")).catalogue
    users, items = items_before(prepared, np.arange(len(prepared.offsets) - 1), prepared.split.training_end)
    nearest, best = most_similar_items(users, items, num_item_rows=prepared.num_item_rows)
    assert found.similar_items is not None
    assert found.similarity is not None
    assert found.similar_items.tolist() == nearest.tolist()
    assert found.similarity.tolist() == best.tolist()
    assert meta_model(prepared, build_config("ticoserec")) is not None


class Steps:
    """A listener that counts."""

    def __init__(self) -> None:
        self.count = 0

    def epoch_begins(self, *_: Any, **__: Any) -> None:
        pass

    def step_ends(self, *_: Any) -> None:
        self.count += 1

    def epoch_ends(self, *_: Any, **__: Any) -> None:
        pass


def test_a_stopped_run_ends_as_if_it_had_not_been(prepared: PreparedDataset, tmp_path: Path) -> None:
    """The schedule goes on inside an epoch whose similar items were renewed at its beginning."""
    settings = ("model.hidden_size=8", "model.max_length=6", *SMALL, "training.batch_targets=300", "training.epochs=3")
    schedule = ("losses.contrastive.warm_up_epochs=1", "views.embedding_warm_up_epochs=2")
    config = replace_in(build_config("ticoserec"), [*settings, *schedule])
    runs = [create_run(tmp_path, config, prepared, preset="ticoserec", name=n, command="test") for n in ("a", "b")]
    counter, stopped = Steps(), Steps()
    assert train(runs[0], prepared, listener=counter).finished
    last_epoch = counter.count // 3 * 2
    assert counter.count // 3 >= 2
    assert not train(runs[1], prepared, listener=stopped, should_stop=lambda: stopped.count > last_epoch).finished
    assert train(runs[1], prepared, listener=Steps()).finished
    first, second = ([epoch["losses"] for epoch in run.metrics()] for run in runs)
    assert first == second
    assert [set(losses) for losses in first] == [{"bce", "total"}, {"bce", "cl", "total"}, {"bce", "cl", "total"}]
