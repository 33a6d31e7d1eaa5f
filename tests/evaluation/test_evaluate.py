"""Ranks of the whole catalogue, under both splits, against scoring one user at a time."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from athwe_core.config import Config
from athwe_core.data.packing import pack, pack_histories
from athwe_core.data.prepare import PreparedDataset, PrepareOptions, prepare
from athwe_core.data.rows import evaluation_rows, items_before
from athwe_core.distributed import ProcessGroup
from athwe_core.errors import AthweError
from athwe_core.evaluation import blocks, evaluate, tiles
from athwe_core.evaluation.baselines import popularity_ranks, training_popularity, transition_ranks
from athwe_core.evaluation.evaluate import rank_users, sampled_rows, tiled_ranks
from athwe_core.evaluation.groups import per_user_frame
from athwe_core.evaluation.ranking import target_ranks
from athwe_core.evaluation.tiles import Cells, TiledScores
from athwe_core.models.inputs import training_time_range
from athwe_core.row_shard import RowShard
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


MODELS = {"sasrec": (), "lrurec": (), "missrec": (), "hm4sr": ("model.repeat=true",)}
"""Without a bias and with one, scores that are no products, terms of seen items."""


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("preset", list(MODELS))
def test_ranks_in_tiles_are_those_among_all_scores_at_once(
    preset: str,
    exclude_seen: bool,
    global_time_data: PreparedDataset,
    make_config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = global_time_data
    model = build_setup(make_config(preset, *MODELS[preset]), data).model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    rows = evaluation_rows(data.split, "test", max_length=model.max_length)
    with torch.inference_mode():
        batch = pack(data, rows, np.arange(len(rows)), max_length=model.max_length)
        scores = model.ranking_scores(batch, model.item_table(), model.item_bias())
        users = batch.user_index.numpy()
        at = np.searchsorted(rows.user_index, users)
        seen = tuple(torch.from_numpy(part) for part in items_before(data, users, rows.stop[at]))
        expected = np.empty(len(rows))
        expected[at] = target_ranks(scores, batch.target_ids, excluded=seen if exclude_seen else None).numpy()
    monkeypatch.setattr(tiles, "TILE_SCORES", 1)  # as many items as a product needs
    monkeypatch.setattr(blocks, "BATCH_TOKENS", 40)
    found = rank_users(model, data, split="test", exclude_seen=exclude_seen)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=0.5)
    assert (found == expected).mean() > 0.9


NAN, INF = float("nan"), float("inf")


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 4), st.data())
def test_tiled_ranks_are_those_of_the_whole_table(users: int, items: int, size: int, data: st.DataObject) -> None:
    """The table's columns are the scores, so that they are exact. Ties, infinities, terms and what is excluded."""
    values = st.sampled_from([-INF, -1.0, 0.0, 1 / 3, 1.0, INF])
    cells = data.draw(st.lists(values, min_size=users * items, max_size=users * items))
    scores = torch.cat([torch.full((users, 1), NAN), torch.tensor(cells).view(users, items)], dim=1)
    place = st.tuples(st.integers(0, users - 1), st.integers(1, items))
    targets = torch.tensor(data.draw(st.lists(st.integers(1, items), min_size=users, max_size=users)))
    excluded = tuple(torch.tensor(data.draw(st.lists(place, max_size=9)), dtype=torch.int64).view(-1, 2).T)
    raised = torch.tensor(data.draw(st.lists(place, unique=True, max_size=9)), dtype=torch.int64).view(-1, 2).T
    terms = Cells(raised[0], raised[1], torch.tensor([-1.0, 1 / 3, 1.0]).repeat(3)[: raised.shape[1]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_SCORES", size * users)
        patch.setattr(tiles, "TILE_MULTIPLE", 1)
        tiled = TiledScores(lambda part, _: part.T.clone(), scores.T.contiguous(), None, users=users, terms=terms)
        found = [tiled_ranks(tiled, targets), tiled_ranks(tiled, targets, excluded=excluded)]
    scores[raised[0], raised[1]] += terms.values
    expected = [target_ranks(scores, targets), target_ranks(scores, targets, excluded=excluded)]
    assert [ranks.tolist() for ranks in found] == [ranks.tolist() for ranks in expected]


class Meeting:
    """Stands for torch.distributed: processes are threads, and a sum waits for all of them."""

    def __init__(self, size: int) -> None:
        self.values: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=60)

    def total(self, rank: int, value: torch.Tensor) -> torch.Tensor:
        self.values[rank] = value
        self.barrier.wait()
        found = sum(self.values[1:], start=self.values[0])
        self.barrier.wait()
        return found

    def ranks(self, table: torch.Tensor, terms: Cells | None, *given: Any, **named: Any) -> list[Any]:
        """What each process finds that has its rows of a table whose columns are the scores, or its error."""

        def of(rank: int) -> Any:
            shard = RowShard(len(table), ProcessGroup(rank, len(self.values)))
            own = table[shard.rows]
            tiled = TiledScores(lambda part, _: part.T.clone(), own, None, users=own.shape[1], terms=terms, shard=shard)
            try:
                return tiled_ranks(tiled, *given, **named)
            except AthweError as error:
                return str(error)

        def total(group: ProcessGroup, value: torch.Tensor) -> torch.Tensor:
            return self.total(group.rank, value)

        with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(len(self.values)) as pool:
            patch.setattr(ProcessGroup, "total", total)
            return list(pool.map(of, range(len(self.values))))


@given(st.integers(1, 3), st.integers(2, 9), st.integers(2, 3), st.data())
@settings(max_examples=10)
def test_processes_count_among_their_own_items_to_the_ranks_of_the_whole_table(
    users: int, items: int, processes: int, data: st.DataObject
) -> None:
    values = st.sampled_from([-INF, -1.0, 0.0, 1 / 3, INF])
    cells = data.draw(st.lists(values, min_size=users * items, max_size=users * items))
    scores = torch.cat([torch.full((users, 1), NAN), torch.tensor(cells).view(users, items)], dim=1)
    place = st.tuples(st.integers(0, users - 1), st.integers(1, items))
    targets = torch.tensor(data.draw(st.lists(st.integers(1, items), min_size=users, max_size=users)))
    excluded = tuple(torch.tensor(data.draw(st.lists(place, max_size=9)), dtype=torch.int64).view(-1, 2).T)
    raised = torch.tensor(data.draw(st.lists(place, unique=True, max_size=9)), dtype=torch.int64).view(-1, 2).T
    terms = Cells(raised[0], raised[1], torch.tensor([-1.0, 1 / 3, 1.0]).repeat(3)[: raised.shape[1]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_SCORES", 2 * users)
        patch.setattr(tiles, "TILE_MULTIPLE", 1)
        found = Meeting(processes).ranks(scores.T.contiguous(), terms, targets, excluded=excluded)
    scores[raised[0], raised[1]] += terms.values
    expected = target_ranks(scores, targets, excluded=excluded).tolist()
    assert [ranks.tolist() for ranks in found] == [expected] * processes


def test_a_nan_score_of_one_process_is_an_error_in_all() -> None:
    table = torch.zeros(5, 2)
    table[4, 1] = NAN
    found = Meeting(3).ranks(table, None, torch.ones(2, dtype=torch.int64))
    assert [text.partition(" must not be NaN")[0] for text in found] == ["scores of row 1"] * 3


def test_a_nan_score_of_any_tile_is_an_error_also_of_an_excluded_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_SCORES", 1)
    table = torch.zeros(150, 3)
    table[140, 1] = NAN
    tiled = TiledScores(lambda part, _: part.T.clone(), table, None, users=3)
    excluded = torch.tensor([1]), torch.tensor([140])
    with pytest.raises(AthweError, match="scores of row 1 must not be NaN"):
        tiled_ranks(tiled, torch.ones(3, dtype=torch.int64), excluded=excluded)


def test_progress_counts_the_users_of_all_processes(
    global_time_data: PreparedDataset, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equally often in each, so that all can agree to stop at the same block."""
    monkeypatch.setattr(blocks, "BLOCK_USERS", 9)
    monkeypatch.setattr(ProcessGroup, "total", lambda _, value: value)
    network = build_setup(make_config("sasrec"), global_time_data).model
    users = len(global_time_data.split.users("test"))
    reports: list[list[tuple[int, int]]] = [[], [], []]
    ranks = []
    for rank, seen in enumerate(reports):
        world = ProcessGroup(rank, 3)
        note = partial(lambda seen, *at: seen.append(at), seen)
        ranks.append(rank_users(network, global_time_data, split="test", world=world, on_progress=note))
    assert reports[0] == reports[1] == reports[2]
    assert len(reports[0]) > 1
    assert reports[0][-1] == (users, users)
    assert sum(ranks).tolist() == rank_users(network, global_time_data, split="test").tolist()


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
    ranking_of, seen = evaluate.tiled_ranks, set()
    meet = threading.Barrier(2, timeout=60)

    def noted(*given: Any, **named: Any) -> torch.Tensor:
        if len(seen) < 2 and threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            meet.wait()  # comes back only where two blocks are under way
        assert torch.get_num_threads() == 2
        return ranking_of(*given, **named)

    monkeypatch.setattr(evaluate, "tiled_ranks", noted)
    monkeypatch.setattr(evaluate, "workers_on", lambda _: 2)
    monkeypatch.setattr(evaluate, "most_users", lambda _: 5)
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
