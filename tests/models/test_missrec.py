"""MISSRec: the published network, rows one by one, interests, fusion, pre-training, every loss, edges."""

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
    assert_rows_are_histories_one_by_one,
    batch_of,
    build,
    history,
    step_terms,
)

from athwe_core.data.packing import NO_PADDING, SOME_PADDING, Padding, pack_histories
from athwe_core.errors import CheckpointError, ConfigError
from athwe_core.losses.sampled_ce import Candidates
from athwe_core.models.golden import Golden
from athwe_core.models.missrec import MODEL
from athwe_core.models.missrec.interests import density_peaks, kmeans, nearest, one_pass_of_absolutes
from athwe_core.models.missrec.items import fused_scores
from athwe_core.models.missrec.published import published_missrec
from athwe_core.models.parity import parity_differences
from athwe_core.models.protocol import LossInputs
from athwe_core.models.registry import build_config, config_tree, replace_in

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ("model.inner_size=12", "model.num_heads=2")
PRETRAIN = ("model.id_embedding=false", "losses.catalogue.kind=in_batch", "losses.sequence.weight=0.5")
FUSIONS = ("dynamic", "static", "contextual")


def small(*overrides: str, spread: float | None = 0.3, num_items: int = V - 1) -> Any:
    """A small model with interests."""
    features = ("text", "image")
    model = build("missrec", *SMALL, *overrides, spread=spread, num_items=num_items, features=features)
    model.renew_interests(torch.Generator().manual_seed(5))
    return model


@pytest.mark.parametrize("name", ["missrec", "missrec-deep"])
def test_the_published_network_is_ours(name: str) -> None:
    golden = Golden.read(GOLDEN / f"{name}.npz")
    found = parity_differences(golden.path, "missrec")
    assert golden.outputs.keys() == found.keys()
    assert max(found.values()) < 1e-5


def test_a_golden_file_without_its_weights_is_named() -> None:
    golden = Golden.read(GOLDEN / "missrec.npz")
    rest = {name: value for name, value in golden.arrays.items() if "text_adaptor" not in name}
    with pytest.raises(CheckpointError, match=r"lacks w\.text_adaptor\.weight"):
        published_missrec(Golden(golden.path, rest))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("padding", [NO_PADDING, SOME_PADDING])
def test_rows_are_histories_one_by_one(padding: Padding, fusion: str, make_data: Callable[..., Any]) -> None:
    batch = batch_of(make_data([9, 4, 3, 8]), "prefix", padding)
    assert_rows_are_histories_one_by_one(small(f"model.fusion={fusion}"), batch)


def test_a_state_sees_the_whole_row_so_packed_rows_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"training\.batching must be prefix with model missrec.*Use --batching prefix"
    ):
        replace_in(build_config("missrec"), ["training.batching=packed"])


@torch.no_grad()
def test_scores_weigh_the_better_modality_more() -> None:
    vector, directions = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.0, 0.1, 0.0, 0.2, 0.0]])
    alike = fused_scores(vector, directions, torch.tensor(0.0))  # (0.2 + 2 * 0.3) / 3
    assert alike.item() == pytest.approx(0.8 / 3)
    strong = fused_scores(vector, directions, torch.tensor(1e4))  # (0.2 + 2 * 0.5) / 3
    assert strong.item() == pytest.approx(0.4)
    without_ids = fused_scores(vector, directions[:, :4], torch.tensor(2.0))
    p = torch.tensor([2 * 0.5, 2 * 0.1]).softmax(0)
    assert without_ids.item() == pytest.approx(float(p[0] * 0.5 + p[1] * 0.1))


@torch.no_grad()
def test_static_fusion_is_dynamic_fusion_without_a_preference() -> None:
    batch = pack_histories([history([3, 1, 4])])
    static, dynamic = small("model.fusion=static"), small("model.fusion=dynamic")
    dynamic.load_state_dict(static.state_dict() | {"preference": torch.tensor(0.0)})
    scores = [model.scores(model.user_vectors(batch), model.item_table(), None) for model in (static, dynamic)]
    torch.testing.assert_close(*scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_loss_is_the_cross_entropy_of_the_scores(fusion: str, make_data: Callable[..., Any]) -> None:
    model, batch = small(f"model.fusion={fusion}"), batch_of(make_data([5, 7, 6]), "prefix", SOME_PADDING)
    with torch.no_grad():
        scores = model.scores(model.user_vectors(batch), model.item_table(), None)
        is_target = batch.target_ids > 0
        expected = F.cross_entropy(scores[is_target, 1:], batch.target_ids[is_target] - 1)
        for chunk in (40, 2**20):
            found = model.losses(batch, LossInputs(chunk_elements=chunk))
            torch.testing.assert_close(found["ce"], expected, atol=1e-4, rtol=1e-4)


def test_the_sampled_loss_of_every_item_is_the_loss_of_the_catalogue(make_data: Callable[..., Any]) -> None:
    batch = batch_of(make_data([5, 7, 6]), "prefix", SOME_PADDING)
    every = torch.arange(1, V)
    with torch.no_grad():
        for fusion in ("dynamic", "static"):
            model = small(f"model.fusion={fusion}", "losses.catalogue.kind=sampled", "losses.catalogue.num_negatives=2")
            inputs = LossInputs(candidates=Candidates(every, torch.zeros(len(every))), chunk_elements=40)
            whole = small(f"model.fusion={fusion}").losses(batch, LossInputs())
            torch.testing.assert_close(model.losses(batch, inputs), whole, atol=1e-4, rtol=1e-4)


def test_a_drawn_negative_counts_with_its_weight_and_a_target_once() -> None:
    model = small("losses.catalogue.kind=sampled", "losses.catalogue.num_negatives=2")
    batch = pack_histories([history([3, 1])], next_items=[7])
    candidates = Candidates(torch.tensor([2, 7, 9]), torch.tensor([0.5, 3.0, -1.0]))
    with torch.no_grad():
        scores = model.scores(model.user_vectors(batch), model.item_table(), None)[0]
        found = model.losses(batch, LossInputs(candidates=candidates))["ce"]
    weighted = torch.stack([scores[7], scores[2] + 0.5, scores[9] - 1.0])
    torch.testing.assert_close(found, F.cross_entropy(weighted, torch.tensor(0)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        ("losses.catalogue.kind=sampled", "losses.catalogue.num_negatives=2"),
        ("model.fusion=dynamic",),
        ("model.fusion=static",),
        ("model.fusion=contextual",),
        ("model.fusion=static", "losses.catalogue.kind=sampled", "losses.catalogue.num_negatives=2"),
        ("model.id_embedding=false",),
        PRETRAIN,
        ("model.num_encoder_layers=2", "model.num_layers=2"),
    ],
)
def test_every_parameter_trains(settings: tuple[str, ...], make_data: Callable[..., Any], tmp_path: Path) -> None:
    models = (small(*settings, spread=spread) for spread in (0.3, 0.1))
    assert_every_parameter_trains(*models, batch_of(make_data([5, 7, 6]), "prefix"), tmp_path)


def test_a_frozen_transformer_leaves_the_projections_and_the_input_norm() -> None:
    model = small("model.transformer_trainable=false")
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"tables", "input_norm", "preference"}


def test_an_item_without_text_is_one_of_its_image_alone() -> None:
    model = small()
    with torch.no_grad():
        model.tables.text_features[3] = 0
        model.tables.has_text[3] = False
        parts = model.tables()
        assert (parts.text[3] == 0).all()
        text, image, _ = model.item_table()[3].split(8)
        torch.testing.assert_close(text, image)
        torch.testing.assert_close(image, F.normalize(parts.image[3], dim=0))
        coded = small("model.skips_missing=false")
        coded.tables.text_features[3] = 0
        torch.testing.assert_close(coded.tables().text[3], coded.tables.projections["text"].bias)


def test_interests_are_renewed_at_the_beginning_of_an_epoch() -> None:
    model = small()
    with torch.no_grad():
        model.tables.projections["text"].weight.mul_(3)
    before = model.interest_embeddings.clone()
    model.begin_epoch(1, is_resumed=True)
    assert torch.equal(model.interest_embeddings, before)
    model.begin_epoch(1, is_resumed=False)
    assert not torch.equal(model.interest_embeddings, before)
    again = model.interest_embeddings.clone()
    model.begin_epoch(1, is_resumed=False)
    assert torch.equal(model.interest_embeddings, again)
    assert (model.interest_embeddings[0] == 0).all()
    assert model.text_interests[0] == model.image_interests[0] == 0
    assert model.text_interests[1:].min() >= 1
    assert model.image_interests.max() <= len(model.interest_embeddings) - 1


TOKENS = torch.tensor([[0.0, 0], [0.1, 0], [0, 0.1], [5, 5], [5.1, 5], [5, 5.1], [-9, 9]])


def test_kmeans_finds_groups_that_lie_apart() -> None:
    labels, centroids = kmeans(TOKENS, torch.tensor([0, 1, 6]))
    assert labels.tolist() in ([0, 0, 0, 1, 1, 1, 2], [0, 1, 0, 1, 1, 1, 2])
    torch.testing.assert_close(centroids[2], TOKENS[6])
    for k in range(3):
        torch.testing.assert_close(centroids[k], TOKENS[labels == k].mean(0))


def test_kmeans_keeps_the_centre_of_an_empty_cluster() -> None:
    _, centroids = kmeans(torch.zeros(3, 2), torch.tensor([0, 1]))
    assert torch.equal(centroids, torch.zeros(2, 2))


def test_density_peaks_are_dense_and_far_apart() -> None:
    tokens = torch.tensor([[0.0, 0], [0.1, 0], [0, 0.12], [5, 5], [5.11, 5], [5, 5.13]])
    labels, centroids = density_peaks(tokens, 2, num_neighbours=3)
    assert labels[0] == labels[1] == labels[2]
    assert labels[3] == labels[4] == labels[5] != labels[0]
    torch.testing.assert_close(centroids[labels[0]], tokens[:3].sum(0) / 3.0001)


def test_one_pass_takes_means_of_absolute_values() -> None:
    labels, centroids = one_pass_of_absolutes(TOKENS, torch.tensor([0, 6]))
    torch.testing.assert_close(centroids[1], torch.tensor([9.0, 9.0]))
    assert torch.equal(labels, nearest(TOKENS, centroids))


@torch.no_grad()
def test_the_orthogonal_term_is_that_of_each_rows_interests_alone() -> None:
    model, rows = small(), [history([3, 1, 4, 1]), history([5]), history([2, 2])]
    together = model.losses(pack_histories(rows, next_items=[1, 1, 1]), LossInputs())["orthogonal"]
    alone = [model.losses(pack_histories([row], next_items=[1]), LossInputs())["orthogonal"] for row in rows]
    torch.testing.assert_close(together, torch.stack(alone).mean(), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_copy_is_the_row_without_its_dropped_items(make_data: Callable[..., Any]) -> None:
    model = small(*PRETRAIN)
    for padding in (NO_PADDING, SOME_PADDING):
        batch = batch_of(make_data([6, 4, 3]), "prefix", padding)
        kept = torch.rand(batch.num_tokens, generator=torch.Generator().manual_seed(4)) < 0.5
        found, _ = model.encode(model.row_tokens(batch, model.tables(batch.item_ids), kept), batch)
        for number, (token, target) in enumerate(
            zip(batch.target_index.tolist(), batch.target_ids.tolist(), strict=True)
        ):
            if target < 0:
                continue
            row = torch.arange(int(batch.offsets[batch.rows[token]]), token + 1)
            stays = kept[row] | (batch.positions[row] == 0)
            alone = pack_histories([history(batch.item_ids[row[stays]].tolist())])
            expected, _ = model.encode(model.row_tokens(alone, model.tables(alone.item_ids)), alone)
            torch.testing.assert_close(found[number], expected[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pre_training_contrasts_the_next_items_of_the_batch() -> None:
    model = small(*PRETRAIN, "losses.sequence.weight=0")
    batch = pack_histories([history([3, 1]), history([4, 2]), history([5])], next_items=[7, 7, 9])
    found = step_terms(model, batch)["contrast"]
    scores = model.scores(model.user_vectors(batch), model.item_table(), None)
    targets = batch.target_ids.tolist()
    torch.testing.assert_close(found, _in_batch_by_hand(scores, targets), atol=1e-4, rtol=1e-4)


def _in_batch_by_hand(scores: torch.Tensor, targets: list[int]) -> torch.Tensor:
    losses = []
    for i, own in enumerate(targets):
        others = [target for target in targets if target != own]
        losses.append(F.cross_entropy(scores[i, [own, *others]], torch.tensor(0)))
    return torch.stack(losses).mean()


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        (
            ("losses.sequence.weight=1",),
            r"losses\.sequence\.weight must be 0 unless losses\.catalogue\.kind is in_batch",
        ),
        (("model.num_heads=3",), r"model\.num_heads must divide model\.hidden_size=64, got 3"),
        (("model.interests.ratio=0",), r"model\.interests\.ratio must be positive"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(settings: tuple[str, ...], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        replace_in(build_config("missrec"), settings)


@pytest.mark.parametrize(("items", "num_items"), EDGES)
def test_histories_at_the_edge(items: list[int], num_items: int) -> None:
    with torch.no_grad():
        vectors = small(num_items=num_items).user_vectors(pack_histories([history(items)]))
    assert vectors.shape == (1, 8)
    assert vectors.isfinite().all()


def test_an_untrained_model_without_interests_ranks() -> None:
    model = build("missrec", *SMALL, features=("text", "image"))
    with torch.no_grad():
        assert model.user_vectors(pack_histories([history([1, 2])])).isfinite().all()


def test_products_in_bfloat16_stay_near() -> None:
    model, batch = small(), pack_histories([history([3, 1, 4, 1, 5])])
    with torch.no_grad():
        exact = model.user_vectors(batch)
        model.compute_dtype = model.tables.compute_dtype = torch.bfloat16
        torch.testing.assert_close(model.train().user_vectors(batch), exact, atol=0.7, rtol=0.1)


def test_initial_weights_have_the_documented_scales() -> None:
    model = build("missrec", "model.hidden_size=64", spread=None, num_items=999, features=("text", "image"))
    state = model.state_dict()
    for name in (
        "tables.id.weight",
        "position",
        "encoder.0.linear1.weight",
        "decoder.0.multihead_attn.out_proj.weight",
    ):
        assert state[name].std().item() == pytest.approx(0.02, rel=0.1), name
    assert state["encoder.0.self_attn.in_proj_weight"].abs().max().item() == pytest.approx((6 / 256) ** 0.5, rel=0.05)
    assert state["tables.projections.text.weight"].abs().max().item() == pytest.approx(7**-0.5, rel=0.05)
    assert state["preference"] == 0
    assert len(state["interest_embeddings"]) == 1 + 999


def test_removals_take_their_part_out() -> None:
    for removal in MODEL.removals:
        tree = config_tree(build_config("missrec"))
        assert removal.is_in(tree)
        assert removal.take_out(tree) == {}
        assert not removal.is_in(tree)
