"""Ranks do not depend on blocks, order of users, threads or training precision; float32 stays as near float64 as stated."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset, PrepareOptions, prepare
from athwe_core.evaluation import blocks, evaluate, tiles
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.evaluation.metrics import mean_metrics
from athwe_core.evaluation.ranking import target_ranks
from athwe_core.evaluation.tiles import TiledScores
from athwe_core.models.athwe.network import Network
from athwe_core.models.registry import build_config, replace_in
from athwe_core.training.build import build_setup

SMALL = ("model.hidden_size=16", "model.inner_size=32", "model.max_length=10", "training.precision=fp32")
ROUNDING = 1e-5
"""Share of a user's largest score that float32 may be wrong by, as `rank_users` states."""
KS = (1, 10, 20)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    folder = tmp_path_factory.mktemp("prepared")
    return prepare("demo", data_dir=folder, prepared_dir=folder, options=PrepareOptions(demo_users=100, demo_items=100))


@pytest.fixture(scope="module", params=["athwe", "hm4sr", "athwe-published"])
def world(request: pytest.FixtureRequest, data: PreparedDataset) -> tuple[Config, Network]:
    """A configuration and its network with weights large enough for every input to matter."""
    config = replace_in(build_config(request.param), SMALL)
    network = build_setup(config, data).model
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return config, network


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def permuted(data: PreparedDataset, order: NDArray[np.int64]) -> PreparedDataset:
    """The data set with its users in another order."""
    parts = [slice(data.offsets[user], data.offsets[user + 1]) for user in order]
    return replace(
        data,
        offsets=np.cumsum([0, *(part.stop - part.start for part in parts)]).astype(np.int64),
        item_ids=np.concatenate([data.item_ids[part] for part in parts]),
        timestamps=np.concatenate([data.timestamps[part] for part in parts]),
    )


def bounds(
    network: Network, data: PreparedDataset, exclude_seen: bool, patch: pytest.MonkeyPatch
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Best and worst rank when every score of the float64 network may be wrong by ROUNDING."""
    ends = []
    for sign in (1, -1):

        def moved(tiled: TiledScores, targets: torch.Tensor, sign: int = sign, **others: Any) -> torch.Tensor:
            padding = torch.zeros(len(targets), 1, dtype=torch.float64)
            scores = torch.cat([padding, *(tiled.tile(first) for first in tiled.starts)], dim=1)
            assert scores.dtype == torch.float64
            changed = scores.clone()
            changed[torch.arange(len(targets)), targets] += sign * ROUNDING * scores.abs().amax(dim=1)
            return target_ranks(changed, targets, **others)

        with patch.context() as patched:
            patched.setattr(evaluate, "tiled_ranks", moved)
            ends.append(rank_users(copy.deepcopy(network).double(), data, split="test", exclude_seen=exclude_seen))
    return ends[0], ends[1]


def test_numbers_ranks_lie_within_float32_rounding_of_float64_whatever_the_blocks_and_order(
    world: tuple[Config, Network], data: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, network = world
    best, worst = bounds(network, data, True, monkeypatch)
    assert (worst > best).mean() <= 0.05  # the bounds say something
    assert (worst - best).max() <= 2

    def ranked(found: PreparedDataset = data) -> NDArray[np.float64]:
        return rank_users(network, found, split="test", exclude_seen=True)

    variants = {"as it is": ranked()}
    for users, tokens, scores in ((3, 8192, 2**19), (512, 40, 2**19), (512, 8192, 1)):
        with monkeypatch.context() as patched:
            patched.setattr(blocks, "BLOCK_USERS", users)
            patched.setattr(blocks, "BATCH_TOKENS", tokens)
            patched.setattr(tiles, "TILE_SCORES", scores)
            variants[f"blocks of {users} users, {tokens} tokens, tiles of {scores} scores"] = ranked()
    order = np.random.default_rng(0).permutation(data.num_users)
    variants["users in another order"] = np.empty(data.num_users)
    variants["users in another order"][order] = ranked(permuted(data, order))
    for name, ranks in variants.items():
        assert (best <= ranks).all(), name
        assert (ranks <= worst).all(), name
        assert_near(ranks, variants["as it is"], share=float((worst > best).mean()))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("world", ["athwe"], indirect=True)
def test_numbers_ranks_with_two_threads_lie_within_float32_rounding(
    world: tuple[Config, Network], data: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, network = world
    in_one_block = rank_users(network, data, split="test")
    with monkeypatch.context() as patched:
        patched.setattr(blocks, "BLOCK_USERS", 7)
        side_by_side = rank_users(network, data, split="test")
    torch.set_num_threads(1)
    best, worst = bounds(network, data, False, monkeypatch)
    for ranks in (in_one_block, side_by_side):
        assert (best <= ranks).all()
        assert (ranks <= worst).all()
        assert_near(ranks, rank_users(network, data, split="test"), share=float((worst > best).mean()))


def assert_near(ranks: NDArray[np.float64], others: NDArray[np.float64], *, share: float) -> None:
    """No metric moves by more than the share of users who have an item within rounding of their target."""
    found, expected = mean_metrics(ranks, KS), mean_metrics(others, KS)
    assert max(abs(found[name] - expected[name]) for name in found) <= share


def test_numbers_evaluation_of_the_same_weights_is_the_same_for_a_bf16_run(
    world: tuple[Config, Network], data: PreparedDataset
) -> None:
    config, network = world
    twin = build_setup(replace_in(config, ["training.precision=bf16"]), data).model
    assert twin.get_buffer("tables.text_training_features").dtype == torch.bfloat16
    twin.load_state_dict(network.state_dict())
    assert rank_users(twin, data, split="test").tolist() == rank_users(network, data, split="test").tolist()


def test_numbers_weights_rounded_to_bf16_move_no_metric_by_three_hundredths(
    world: tuple[Config, Network], data: PreparedDataset
) -> None:
    _, network = world
    rounded = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.bfloat16())
    ranks, others = (rank_users(each, data, split="test") for each in (rounded, network))
    assert (ranks != others).any()
    assert_near(ranks, others, share=0.03)


def test_numbers_a_wrong_order_of_users_would_be_noticed(
    world: tuple[Config, Network], data: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bounds of one user hold the rank of another seldom."""
    best, worst = bounds(world[1], data, False, monkeypatch)
    shifted = np.roll(rank_users(world[1], data, split="test"), 1)
    assert ((shifted < best) | (shifted > worst)).mean() > 0.9
