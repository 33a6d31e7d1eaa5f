"""Ranks of the whole catalogue, under both splits, against scoring one user at a time."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from athwe_core.config import Config
from athwe_core.data.packing import pack_histories
from athwe_core.data.prepare import PreparedDataset, PrepareOptions, prepare
from athwe_core.data.rows import evaluation_rows
from athwe_core.errors import AthweError
from athwe_core.evaluation import evaluate
from athwe_core.evaluation.baselines import popularity_ranks, training_popularity, transition_ranks
from athwe_core.evaluation.evaluate import rank_users, sampled_rows
from athwe_core.evaluation.groups import per_user_frame
from athwe_core.models.inputs import training_time_range
from athwe_core.training.build import build_setup


@pytest.fixture(scope="module")
def global_time_data(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    folder = tmp_path_factory.mktemp("prepared")
    options = PrepareOptions(demo_users=150, demo_items=100, split="global-time", held_out_share=0.2)
    return prepare("demo", data_dir=folder, prepared_dir=folder, options=options)


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_every_asked_user_gets_the_rank_that_its_history_alone_gives(
    global_time_data: PreparedDataset, make_config: Callable[..., Config], split: str, exclude_seen: bool
) -> None:
    data = global_time_data
    network = build_setup(make_config("athwe"), data).model
    users = data.split.users(split)
    assert 10 < len(users) < data.num_users
    ranks = rank_users(network, data, split=split, exclude_seen=exclude_seen)
    assert len(ranks) == len(users)
    for user, rank in list(zip(users, ranks, strict=True))[::7]:
        row, start = data.split.held_out(split)[user], data.offsets[user]
        window = slice(max(start, row - 6), row)
        batch = pack_histories([(data.item_ids[window].tolist(), data.timestamps[window].tolist())])
        with torch.inference_mode():
            outputs = network(batch)
            scores = (network.score_vectors(outputs.states) @ outputs.table.T)[0, 1:]
        target = int(data.item_ids[row])
        others = set(range(1, data.num_item_rows)) - {target}
        if exclude_seen:
            others -= set(data.item_ids[start:row].tolist())
        above = sum(bool(scores[item - 1] > scores[target - 1]) for item in others)
        assert rank == pytest.approx(1 + above, abs=0.5)


def test_a_sample_is_the_same_users_every_time_with_the_ranks_that_they_have_among_all(
    global_time_data: PreparedDataset, make_config: Callable[..., Config]
) -> None:
    network = build_setup(make_config("sasrec"), global_time_data).model
    rows = evaluation_rows(global_time_data.split, "test", max_length=network.max_length)
    sampled = sampled_rows(rows, 7)
    assert len(set(sampled.user_index)) == 7
    assert sampled.user_index.tolist() == sorted(sampled.user_index)
    assert sampled.user_index.tolist() == sampled_rows(rows, 7).user_index.tolist()
    every = dict(zip(rows.user_index, rank_users(network, global_time_data, split="test"), strict=True))
    few = rank_users(network, global_time_data, split="test", sample=7)
    assert few.tolist() == pytest.approx([every[user] for user in sampled.user_index], abs=0.5)
    assert sampled_rows(rows, len(rows)) is rows


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("is_broken", [False, True])
def test_blocks_are_ranked_side_by_side_and_the_threads_are_as_before(
    global_time_data: PreparedDataset,
    make_config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    is_broken: bool,
) -> None:
    network = build_setup(make_config("athwe"), global_time_data).model
    if is_broken:
        with torch.no_grad():
            network.tables.id.weight[3] = torch.nan
    ranking_of, seen = evaluate.target_ranks, set()
    meet = threading.Barrier(2, timeout=60)

    def noted(*given: Any, **named: Any) -> torch.Tensor:
        if len(seen) < 2 and threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            meet.wait()  # comes back only where two blocks are under way
        assert torch.get_num_threads() == 2
        return ranking_of(*given, **named)

    monkeypatch.setattr(evaluate, "target_ranks", noted)
    monkeypatch.setattr(evaluate, "workers_and_users", lambda *_: (2, 5))
    of_new_threads = set()

    def start_a_thread(*_: int) -> None:
        other = threading.Thread(target=lambda: of_new_threads.add(torch.get_num_threads()))
        other.start()
        other.join()

    if is_broken:
        with pytest.raises(AthweError, match="must not be NaN"):
            rank_users(network, global_time_data, split="test")
    else:
        rank_users(network, global_time_data, split="test", on_progress=start_a_thread)
        assert of_new_threads == {4}  # other threads of the program are not slowed down by the workers' setting
    assert len(seen) == 2
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("num_item_rows", "device", "workers", "users"),
    [
        (12_102, "cpu", 4, 512),
        (100_000, "cpu", 4, 167),
        (200_000, "cpu", 2, 167),
        (1_000_000, "cpu", 1, 67),
        (100_000_000, "cpu", 1, 1),
        (12_102, "cuda", 1, 512),
        (200_000, "cuda", 1, 335),
    ],
)
def test_fewer_blocks_side_by_side_where_the_catalogue_is_large(
    num_item_rows: int, device: str, workers: int, users: int
) -> None:
    assert evaluate.workers_and_users(num_item_rows, torch.device(device)) == (workers, users)
    assert workers * users * num_item_rows <= max(evaluate.BLOCK_SCORES, num_item_rows)


def test_baselines_and_groups_of_a_global_split_cover_the_asked_users_only(global_time_data: PreparedDataset) -> None:
    data = global_time_data
    asked = data.split.users("test")
    for ranks_of in (popularity_ranks, transition_ranks):
        ranks = ranks_of(data, split="test", exclude_seen=False)
        assert len(ranks) == len(asked)
    frame = per_user_frame(data, ranks, split="test")
    assert frame["user_id"].to_list() == [data.user_tokens[user] for user in asked]
    rows = data.split.test[asked]
    assert frame["history_length"].to_list() == (rows - data.offsets[asked]).tolist()


def test_training_knows_nothing_later_than_the_validation_period(global_time_data: PreparedDataset) -> None:
    data = global_time_data
    users = data.split.users("validation")
    asked_from = data.timestamps[data.split.validation[users]].min()
    assert training_time_range(data).last < asked_from
    is_training = data.split.is_training(len(data.item_ids))
    assert (data.timestamps[is_training] < asked_from).all()
    assert training_popularity(data).sum() == is_training.sum()


def test_a_global_split_is_another_version_with_another_content(
    global_time_data: PreparedDataset, tmp_path: Path
) -> None:
    options = PrepareOptions(demo_users=150, demo_items=100)
    plain = prepare("demo", data_dir=tmp_path, prepared_dir=tmp_path, options=options)
    assert plain.version != global_time_data.version
    assert plain.manifest["content_hash"] != global_time_data.manifest["content_hash"]
    assert (plain.split_rule, global_time_data.split_rule) == ("leave-one-out", "global-time")
    np.testing.assert_array_equal(plain.item_ids, global_time_data.item_ids)
    same = replace(plain, training_ends=None)
    assert (same.split.test == plain.offsets[1:] - 1).all()
