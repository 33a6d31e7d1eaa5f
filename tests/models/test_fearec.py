"""FEARec: the published network, rows one by one, padding, rows of the same target, terms, training, edges, parts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
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
    step_terms,
)

from athwe_core.batch import Histories
from athwe_core.data.packing import NO_PADDING, SOME_PADDING, Padding, pack_histories
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import CheckpointError, ConfigError
from athwe_core.models.fearec import MODEL
from athwe_core.models.fearec.published import published_fearec
from athwe_core.models.fearec.same_target import SameTargetRows
from athwe_core.models.golden import Golden
from athwe_core.models.inputs import meta_model, model_inputs, training_histories
from athwe_core.models.parity import parity_differences
from athwe_core.models.registry import build_config, config_from_tree, config_tree

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ("model.inner_size=12",)
CAUSAL = (*SMALL, "model.attention_reads_all=false", "training.batching=packed")
ALL_TERMS = tuple(f"losses.contrastive.{name}_weight=0.5" for name in ("unsupervised", "supervised", "frequency"))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("name", "further"),
    [
        ("FEARec", {"loss_nce_sem", "loss_fredom"}),
        ("FEARec_local", {"loss_nce_sem", "loss_nce_unsup"}),
        ("FEARec_recbole", set()),
    ],
)
def test_the_published_network_is_ours(name: str, further: set[str]) -> None:
    found = parity_differences(GOLDEN / f"{name}.npz", "fearec")
    states = {"input_emb", "layer0_attn", "layer0", "layer1", "seq", "scores"}
    trained = {"layer0_train", "layer1_train", "seq_train", "seq_sem_train", "loss_ce", "loss_total"}
    delays = {f"delay{n}_{mode}" for n in (0, 1) for mode in ("eval", "train")}
    assert set(found) == states | trained | delays | further
    assert max(found.values()) < 1e-5
    assert all(found[name] == 0 for name in delays)


def test_a_golden_file_without_its_weights_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"lacks w\.item_encoder\.layer\.0\.feed_forward\.dense_1\.weight"):
        published_fearec(Golden.read(GOLDEN / "SASRec.npz"))


@pytest.mark.parametrize("padding", [NO_PADDING, SOME_PADDING])
def test_prefix_rows_are_histories_one_by_one(padding: Padding, make_data: Callable[..., Any]) -> None:
    batch = batch_of(make_data([9, 4, 3, 8]), "prefix", padding)
    assert_rows_are_histories_one_by_one(build("fearec", *SMALL), batch)


@pytest.mark.parametrize("padding", [NO_PADDING, SOME_PADDING])
@pytest.mark.parametrize("batching", ["packed", "prefix"])
def test_the_causal_form_sees_no_padding(batching: str, padding: Padding, make_data: Callable[..., Any]) -> None:
    model, batch = build("fearec", *CAUSAL), batch_of(make_data([9, 4, 3, 8]), batching, padding)
    assert_rows_are_histories_one_by_one(model, batch)
    with torch.no_grad():
        before = model.user_vectors(batch)
        model.tables.id.weight[0] *= -1
        torch.testing.assert_close(model.user_vectors(batch), before)


def test_later_items_change_no_state_of_the_causal_form() -> None:
    assert_later_items_change_no_state(build("fearec", *CAUSAL))


@torch.no_grad()
def test_rows_of_the_same_target_are_encoded_as_each_alone() -> None:
    model = build("fearec", *CAUSAL)
    lengths = torch.randint(1, 7, (20,), generator=generator())
    is_item = torch.arange(6) < lengths[:, None]
    item_ids = torch.randint(1, 14, (20, 6), generator=generator(1)) * is_item
    is_item[3] = False  # of a target that is padding
    found = model.encode_same_target(item_ids, is_item)
    for number, row in enumerate(item_ids):
        if number != 3:
            alone = pack_histories([history(row[row > 0].tolist())])
            torch.testing.assert_close(found[number], model.user_vectors(alone)[0], atol=1e-5, rtol=1e-5)


def test_the_published_form_is_refused_packed_rows() -> None:
    rule = r"training\.batching must be prefix with model\.attention_reads_all: true"
    other = ".*got 'packed'.*--batching prefix, or --set model.attention_reads_all=false"
    with pytest.raises(ConfigError, match=rule + other):
        build("fearec", "training.batching=packed")


@torch.no_grad()
def test_a_state_depends_on_the_padding() -> None:
    model, batch = build("fearec", *SMALL), pack_histories([history([1, 2, 3])])
    before = model.user_vectors(batch)
    model.tables.id.weight[0] *= -1
    assert not torch.allclose(before, model.user_vectors(batch), atol=1e-3)


@torch.no_grad()
def test_the_inside_view_is_the_attention_of_both_branches_and_the_energy_of_each_input() -> None:
    model = build("fearec", *SMALL, "model.global_ratio=0.6", "model.spatial_ratio=0.25")
    batch = pack_histories([history([3, 7, 7, 2])])
    found = model.explain(batch, model.item_table())
    assert [len(weights) for weights in found.attention["id"]] == [4, 4]
    assert list(found.attention_parts) == ["delays", "time"]
    for whole, delays, time in zip(found.attention["id"], *found.attention_parts.values(), strict=True):
        assert whole == pytest.approx([0.75 * a + 0.25 * b for a, b in zip(delays, time, strict=True)])
        assert sum(time) == pytest.approx(1)
        assert 0 < sum(delays) < 1 + 1e-6
    # 4 frequencies; layer 1 has those from int(4 * 0.4) = 1 on, layer 2 those below int(4 - 1) = 3
    assert model.bands == [(1, 4), (0, 3)]
    assert found.frequency_bands == ("0-0 (layer 2)", "1-2 (layers 1, 2)", "3-3 (layer 1)")
    assert list(found.frequency_energy) == ["layer 1", "layer 2"]
    x = model.embed(model.with_padding(model.item_table()[batch.item_ids], batch.padded_to(6)))[0]
    energy = np.abs(np.fft.fft(x.numpy(), axis=0)) ** 2
    by_frequency = energy.sum(1)  # frequencies 0, 1, 2, 3, then 2 and 1 once more
    shares = [by_frequency[[0]].sum(), by_frequency[[1, 2, 4, 5]].sum(), by_frequency[[3]].sum()]
    assert found.frequency_energy["layer 1"] == pytest.approx(np.array(shares) / by_frequency.sum(), abs=1e-5)
    assert sum(found.frequency_energy["layer 2"]) == pytest.approx(1, abs=1e-5)


@torch.no_grad()
def test_the_inside_view_of_the_causal_form_leaves_no_weight_to_padding() -> None:
    model = build("fearec", *CAUSAL)
    found = model.explain(pack_histories([history([3, 7, 2])]), model.item_table())
    for weights in (*found.attention["id"], *found.attention_parts["delays"]):
        assert len(weights) == 3
        assert sum(weights) == pytest.approx(1)
    assert sum(found.frequency_energy["layer 1"]) == pytest.approx(1)


def test_without_the_branch_over_time_the_delays_are_all() -> None:
    model = build("fearec", *SMALL, "model.dual_domain=false")
    found = model.explain(pack_histories([history([3, 7])]), model.item_table())
    assert found.attention_parts == {}
    assert [len(weights) for weights in found.attention["id"]] == [2, 2]


def test_each_layer_needs_a_frequency() -> None:
    with pytest.raises(
        ConfigError, match=r"model\.max_length must be at least 8, so that each of 5 layers has a frequency"
    ):
        build("fearec", "model.num_layers=5")


HISTORIES = Histories(
    offsets=torch.tensor([0, 3, 3, 8, 10]),
    item_ids=torch.tensor([1, 2, 9, 5, 6, 7, 8, 9, 9, 2]),
)
"""User 0: 1 2 9; user 1: none; user 2: 5 6 7 8 9; user 3: 9 2. Rows of target 9: user 0's [1, 2], user 2's latest four."""


def test_rows_of_the_same_target_are_those_of_other_users() -> None:
    rows = SameTargetRows(HISTORIES, max_length=3)
    batch = pack_histories([history([1, 2]), history([5, 6]), history([7]), history([9])], next_items=[9, 7, 3, 2])
    batch = replace(batch, user_index=torch.tensor([0, 2, 2, 3])[batch.user_index])
    found = dict(zip(batch.target_ids.tolist(), rows.draw(batch, generator()).tolist(), strict=True))
    assert found == {
        9: [6, 7, 8],  # user 2's row, its latest three items; that 9 is user 3's first item makes no row
        7: [5, 6, 0],  # no other user has a row of 7
        3: [7, 0, 0],  # nobody has
        2: [1, 0, 0],  # user 0's row
    }


def test_each_other_row_is_drawn_with_the_same_probability() -> None:
    """Four users have item 9 as a target; the draw for the second of them is among the other three."""
    items = torch.tensor([1, 9, 2, 9, 3, 9, 4, 9])
    rows = SameTargetRows(Histories(offsets=torch.tensor([0, 2, 4, 6, 8]), item_ids=items), max_length=2)
    batch = pack_histories([history([2])] * 3000, next_items=[9] * 3000)
    batch = replace(batch, user_index=torch.ones_like(batch.user_index))
    counts = rows.draw(batch, generator())[:, 0].bincount(minlength=5).tolist()
    assert counts[0] == counts[2] == 0
    assert all(count == pytest.approx(1000, abs=120) for count in (counts[1], counts[3], counts[4]))


def test_training_histories_are_the_training_split(prepared: PreparedDataset) -> None:
    found = training_histories(prepared.item_ids, prepared.split)
    for user in (0, 7, prepared.num_users - 1):
        begin, end = found.offsets[user : user + 2].tolist()
        start, stop = prepared.split.start[user], prepared.split.training_end[user]
        assert found.item_ids[begin:end].tolist() == prepared.item_ids[start:stop].tolist()
    config = build_config("fearec")
    assert model_inputs(prepared, config).histories is not None
    assert meta_model(prepared, config) is not None


def test_terms_in_use(make_data: Callable[..., Any]) -> None:
    batch = batch_of(make_data([9, 8]), "prefix", SOME_PADDING)
    assert list(step_terms(build("fearec", *SMALL), batch)) == ["ce", "supervised"]
    model = build("fearec", *SMALL, *ALL_TERMS)
    assert list(step_terms(model, batch)) == ["ce", "unsupervised", "supervised", "frequency"]
    assert not model.has_fixed_shapes  # complex numbers
    none = build("fearec", *SMALL, "losses.contrastive.supervised_weight=0")
    assert list(step_terms(none, batch)) == ["ce"]


def test_terms_by_loops(make_data: Callable[..., Any]) -> None:
    """Without dropout both passes are equal: h' = h."""
    model, batch = build("fearec", *SMALL, *ALL_TERMS), batch_of(make_data([9, 8]), "prefix", SOME_PADDING)
    terms = step_terms(model, batch)
    with torch.no_grad():
        real = batch.target_ids >= 0
        h = model.encode(model.tables.id(batch.item_ids), batch)
        other = model.draw(batch, lambda _: generator(2))["same_target"]
        is_item = (other > 0) & real[:, None]
        h_s = model.encode_rows(model.tables.id(other), is_item)[real].numpy()
        h = h[real].numpy()
    spectrum = np.abs(np.fft.rfft(h - h_s, norm="ortho")).mean()
    assert float(terms["frequency"].detach()) == pytest.approx(spectrum, rel=1e-4)
    for name, second in (("supervised", h_s), ("unsupervised", h)):
        z = np.concatenate([h, second])
        scores = z @ z.T
        total = 0.0
        for i in range(len(z)):
            others = np.delete(scores[i], i)
            total += np.log(np.exp(others).sum()) - scores[i, (i + len(h)) % len(z)]
        assert float(terms[name].detach()) == pytest.approx(total / len(z), rel=1e-4)


@pytest.mark.parametrize("kind", ["full", "sampled", "bce", "bpr"])
def test_every_parameter_trains(kind: str, make_data: Callable[..., Any], tmp_path: Path) -> None:
    loss = (f"losses.catalogue.kind={kind}", "losses.catalogue.num_negatives=2")
    for form, batching in ((SMALL, "prefix"), (CAUSAL, "packed")):
        models = [build("fearec", *form, *ALL_TERMS, *loss, spread=spread) for spread in (0.3, 0.1)]
        assert_every_parameter_trains(*models, batch_of(make_data([5, 7, 6]), batching, SOME_PADDING), tmp_path)


@pytest.mark.parametrize("form", [SMALL, CAUSAL])
@pytest.mark.parametrize(("items", "num_items"), EDGES)
def test_histories_at_the_edge(items: list[int], num_items: int, form: tuple[str, ...]) -> None:
    model = build("fearec", *form, *ALL_TERMS, num_items=num_items)
    batch = pack_histories([history(items)], next_items=[1])
    with torch.no_grad():
        terms = step_terms(model, batch)
        assert all(np.isfinite(float(term)) for term in terms.values())
        assert model.eval().user_vectors(batch).isfinite().all()


def test_removals_take_their_part_out() -> None:
    for removal in MODEL.removals:
        tree = config_tree(build_config("fearec"))
        assert removal.is_in(tree)
        assert removal.take_out(tree) == {}
        assert not removal.is_in(config_tree(config_from_tree(tree)))
    assert [removal.name for removal in MODEL.removals] == ["Contrast", "TimeDomain", "Bands", "Position", "Dropout"]
