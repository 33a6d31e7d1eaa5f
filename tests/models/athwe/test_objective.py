import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from athwe_core.batch import Catalogue, PackedBatch
from athwe_core.config import Config
from athwe_core.data.packing import FIXED_PADDING, NO_PADDING, SOME_PADDING, Padding, pack, pack_histories
from athwe_core.data.rows import packed_rows, training_rows
from athwe_core.losses.sampled_ce import LogUniformSampler, sample_candidates
from athwe_core.models.athwe.network import Network
from athwe_core.models.athwe.objective import loss_terms, placeholder_mask
from athwe_core.models.protocol import LossInputs, total_loss

ALL = ("losses.cluster.weight=1", "losses.diversity.weight=1", "model.temporal_moe.kind=sparse")


def rows_of(lengths: list[int]) -> PackedBatch:
    return pack_histories([(list(range(1, n + 1)), list(range(n))) for n in lengths])


def draw(batch: PackedBatch, share: float, batching: str, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return placeholder_mask(batch, mask_share=share, batching=batching, generator=generator)


@pytest.fixture
def batch(make_data: Callable) -> PackedBatch:
    data = make_data([9, 8, 6, 7])
    rows = packed_rows(data.split, max_length=6)
    return pack(data, rows, np.arange(len(rows)), max_length=6)


# ---------------------------------------------------------------- placeholder mask


@pytest.mark.parametrize(
    ("share", "length", "count"),
    [
        (0.3, 10, 3),
        (0.3, 20, 6),
        (0.3, 9, 2),
        (0.3, 3, 0),
        (0.2, 5, 1),
        (0.2, 4, 0),
        (0.7, 10, 7),
        (1.0, 6, 6),
        (0.0, 6, 0),
    ],
)
def test_prefix_batching_replaces_floor_of_beta_n_in_each_row(share: float, length: int, count: int) -> None:
    batch = rows_of([length, 1, length, 4])
    for seed in range(5):
        replaced = draw(batch, share, "prefix", seed)
        for row, n in enumerate(batch.offsets.diff().tolist()):
            found = int(replaced[batch.rows == row].sum())
            assert found == (count if n == length else math.floor(share * n + 1e-9))


def test_prefix_batching_replaces_every_position_as_often() -> None:
    batch = rows_of([10])
    share = torch.stack([draw(batch, 0.3, "prefix", seed) for seed in range(600)]).float().mean(0)
    assert (share - 0.3).abs().max() < 4 * (0.21 / 600) ** 0.5


def test_prefix_batching_draws_rows_apart() -> None:
    replaced = draw(rows_of([10] * 50), 0.3, "prefix").view(50, 10)
    assert len({tuple(row) for row in replaced.tolist()}) > 25


def test_packed_batching_replaces_each_token_with_probability_beta() -> None:
    batch = rows_of([50] * 100)
    replaced = draw(batch, 0.3, "packed")
    assert replaced.float().mean().item() == pytest.approx(0.3, abs=4 * (0.21 / 5000) ** 0.5)
    assert len(Counter(replaced.view(100, 50).sum(1).tolist())) > 5  # no fixed share of a row
    assert not draw(batch, 0.0, "packed").any()
    assert draw(batch, 1.0, "packed").all()


@pytest.mark.parametrize("batching", ["packed", "prefix"])
def test_the_mask_repeats_with_its_generator(batching: str) -> None:
    batch = rows_of([9, 20, 30])
    assert torch.equal(draw(batch, 0.3, batching), draw(batch, 0.3, batching))
    assert not torch.equal(draw(batch, 0.3, batching), draw(batch, 0.3, batching, seed=1))


# ---------------------------------------------------------------- terms


def terms_of(network: Network, batch: PackedBatch, catalogue: Catalogue, config: Config) -> dict[str, Tensor]:
    replaced = torch.arange(batch.num_tokens) % 2 == 0 if network.placeholders is not None else None
    return loss_terms(network, network(batch, replaced=replaced), batch, catalogue, config.losses, inputs=LossInputs())


@pytest.mark.parametrize("off", [None, "cp", "idcl", "pcl", "cluster", "diversity"])
def test_a_term_is_there_exactly_when_its_weight_is_above_0(
    off: str | None, batch: PackedBatch, catalogue: Catalogue, make_config: Callable, make_network: Callable
) -> None:
    config = make_config("athwe", *ALL, *([f"losses.{off}.weight=0"] if off else []))
    terms = terms_of(make_network(config), batch, catalogue, config)
    assert set(terms) == {"ce", "cp", "idcl", "pcl", "cluster", "diversity"} - {off}
    assert all(value.ndim == 0 and value.isfinite() for value in terms.values())


def test_terms_without_their_data_are_left_out(
    batch: PackedBatch, catalogue: Catalogue, make_config: Callable, time_range: object
) -> None:
    config = make_config("athwe", *ALL)
    poor = replace(catalogue, categories=None, clusters={"image": catalogue.clusters["image"]})
    network = Network(config.model, config.losses, poor, time_range)  # type: ignore[arg-type]
    assert set(terms_of(network, batch, poor, config)) == {"ce", "idcl", "pcl", "cluster", "diversity"}
    bare = replace(poor, clusters={})
    network = Network(config.model, config.losses, bare, time_range)  # type: ignore[arg-type]
    assert set(terms_of(network, batch, bare, config)) == {"ce", "idcl", "pcl", "diversity"}


def test_id_alone_has_no_placeholders_and_no_clusters(
    batch: PackedBatch, catalogue: Catalogue, make_config: Callable, make_network: Callable
) -> None:
    config = make_config("athwe", "model.modalities=[id]", "losses.cluster.weight=1")
    assert set(terms_of(make_network(config), batch, catalogue, config)) == {"ce", "cp", "idcl"}


def test_every_term_is_its_formula(
    batch: PackedBatch, catalogue: Catalogue, make_config: Callable, make_network: Callable
) -> None:
    config = make_config("athwe", *ALL, "losses.idcl.temperature=0.5", "losses.pcl.temperature=2")
    network = make_network(config, spread=0.3).eval()
    outputs = network(batch)
    terms = terms_of(network, batch, catalogue, config)
    scores = network.score_vectors(outputs.states) @ outputs.table[1:].T
    ce = torch.nn.functional.cross_entropy(scores, batch.target_ids - 1)  # the padding row is no class
    torch.testing.assert_close(terms["ce"], ce)

    users = batch.user_index[batch.rows[batch.target_index]]
    same = (users[:, None] == users) | (batch.target_ids[:, None] == batch.target_ids)
    others = same & ~torch.eye(len(users), dtype=torch.bool)

    def contrast(anchors: Tensor, candidates: Tensor, temperature: float) -> Tensor:
        cosine = torch.nn.functional.cosine_similarity(anchors[:, None], candidates[None], dim=-1) / temperature
        return (cosine.masked_fill(others, -torch.inf).logsumexp(1) - cosine.diagonal()).mean()

    torch.testing.assert_close(
        terms["idcl"], contrast(outputs.states[0], network.tables.id.weight[batch.target_ids], 0.5)
    )
    replaced = torch.arange(batch.num_tokens) % 2 == 0
    masked = network(batch, replaced=replaced).augmented
    assert masked is not None
    pcl = (contrast(outputs.states[1], masked[0], 2.0) + contrast(outputs.states[2], masked[1], 2.0)) / 2
    torch.testing.assert_close(terms["pcl"], pcl)

    items, weight = batch.item_ids, batch.prefix_weight
    cluster = []
    for m, name in ((1, "text"), (2, "image")):
        logits = network.cluster_heads[name](outputs.table.view(-1, 3, 8)[items, m])
        labels = catalogue.clusters[name][items]
        known = labels >= 0
        loss = -logits.log_softmax(1)[known, labels[known]]
        cluster.append((loss * weight[known]).sum() / weight[known].sum())
    torch.testing.assert_close(terms["cluster"], (cluster[0] + cluster[1]) / 2)


def test_an_empty_mask_contrasts_a_state_with_itself(
    batch: PackedBatch, catalogue: Catalogue, make_config: Callable, make_network: Callable
) -> None:
    network = make_network(make_config("athwe"), spread=0.3).eval()
    outputs = network(batch, replaced=torch.zeros(batch.num_tokens, dtype=torch.bool))
    torch.testing.assert_close(outputs.augmented, outputs.states[1:])


def test_replaced_tokens_hold_the_placeholder_of_their_time_and_no_item(
    batch: PackedBatch, make_config: Callable, make_network: Callable
) -> None:
    network = make_network(make_config("athwe"), spread=0.3).eval()
    other_items = replace(batch, item_ids=batch.item_ids % 13 + 1)
    every = torch.ones(batch.num_tokens, dtype=torch.bool)
    found = [network(b, replaced=every).augmented for b in (batch, other_items)]
    torch.testing.assert_close(found[0], found[1])
    other_times = replace(batch, timestamps=batch.timestamps + 10**7)
    assert not torch.allclose(found[0], network(other_times, replaced=every).augmented, atol=1e-3)


FILLED = (
    (),
    ("model.wavelet.form=centred", "training.batching=prefix"),
    ("training.batching=prefix",),
    ("losses.catalogue.kind=sampled", "losses.catalogue.num_negatives=5"),
)


@pytest.mark.parametrize("padding", [Padding(2, 3), Padding(7, 1, 5), SOME_PADDING, FIXED_PADDING])
@pytest.mark.parametrize("overrides", FILLED)
def test_padding_changes_no_term_and_no_gradient(
    overrides: tuple[str, ...],
    padding: Padding,
    make_data: Callable,
    catalogue: Catalogue,
    make_config: Callable,
    make_network: Callable,
) -> None:
    config = make_config("athwe", *ALL, *overrides)
    data = make_data([9, 8, 6, 7])
    rows = training_rows(data.split, batching=config.training.batching, max_length=6)
    network = make_network(config, spread=0.3).eval()
    found = []
    for used in (NO_PADDING, padding):
        batch = pack(data, rows, np.arange(len(rows)), max_length=6, padding=used)
        assert len(batch.item_ids) % used.targets == len(batch.target_ids) % used.targets == 0
        assert batch.num_rows % used.rows == len(batch.grid_tokens) % used.bins == 0
        replaced = (batch.positions + batch.user_index[batch.rows]) % 2 == 0
        candidates = None
        if config.losses.catalogue.kind == "sampled":
            sampler = LogUniformSampler(torch.arange(catalogue.num_item_rows), num_negatives=5)
            candidates = sample_candidates(sampler, batch.target_ids, torch.Generator().manual_seed(3))
        terms = network.losses(batch, LossInputs(draws={"replaced": replaced}, candidates=candidates))
        network.zero_grad()
        total_loss(terms, network.loss_weights).backward()
        gradients = {n: p.grad.to_dense() for n, p in network.named_parameters() if p.grad is not None}
        found.append((terms, gradients))
    for plain, filled in zip(*found, strict=True):
        assert plain.keys() == filled.keys()
        for name, value in plain.items():
            torch.testing.assert_close(filled[name], value, atol=2e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


# ---------------------------------------------------------------- total


def test_total_by_hand(make_config: Callable, make_network: Callable) -> None:
    overrides = [f"losses.{name}.weight={w}" for name, w in (("cp", 0.5), ("idcl", 2), ("pcl", 3), ("cluster", 0.25))]
    weights = make_network(make_config("athwe", *overrides)).loss_weights
    values = {"ce": 7.0, "cp": 2.0, "idcl": 1.0, "pcl": 0.5, "cluster": 4.0}
    terms = {name: torch.tensor(value) for name, value in values.items()}
    assert total_loss(terms, weights).item() == 7 + 0.5 * 2 + 2 * 1 + 3 * 0.5 + 0.25 * 4


def test_total_of_the_main_loss_alone_is_it() -> None:
    assert total_loss({"ce": torch.tensor(3.0)}, {"cp": 1.0}).item() == 3
