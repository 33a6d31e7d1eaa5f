"""Files of another program about two users, whose ranks can be worked out by hand."""

import json
from collections.abc import Callable
from math import inf
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from athwe_core.data.rows import items_before
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import ConfigError, DataError
from athwe_core.evaluation.external_ranks import ExternalRanks, read_external_ranks
from athwe_core.evaluation.metrics import mean_metrics
from athwe_core.evaluation.ranking import target_ranks

MakeDataset = Callable[..., PreparedDataset]


@pytest.fixture
def data(dataset: MakeDataset) -> PreparedDataset:
    """Test: u0 has i1 i2 i3 and takes i4, u1 has i2 i1 i5 and takes i3; 6 items."""
    return dataset([[1, 2, 3, 4], [2, 1, 5, 3]], num_items=6)


@pytest.fixture
def read(data: PreparedDataset, tmp_path: Path) -> Callable[..., ExternalRanks]:
    """Read a file with this content."""

    def run(content: str, *, exclude_seen: bool = False, split: str = "test", name: str = "other.csv") -> ExternalRanks:
        (tmp_path / name).write_text(content)
        return read_external_ranks(tmp_path / name, data, split=split, exclude_seen=exclude_seen)

    return run


Read = Callable[..., ExternalRanks]


def test_ranks_in_any_order_with_ties(read: Read) -> None:
    found = read("user,rank\nu1,2.5\nu0,6\n")
    assert found.frame["user_id"].to_list() == ["u0", "u1"]
    assert found.frame["rank"].to_list() == [6, 2.5]
    assert found.frame["target_item_id"].to_list() == ["i4", "i3"]
    assert found.known_to is None
    assert found.notes == (
        "other.csv: taken as ranked with seen items left in, as the runs are; its targets could not be checked, as it has "
        "no column target",
    )


def test_targets_are_checked_where_the_file_names_them(read: Read) -> None:
    content = "user_id,target_item_id,rank,other\nu0,i4,1,x\nu1,{},1,y\n"
    assert "its targets are those of the data set" in read(content.format("i3")).notes[0]
    with pytest.raises(DataError) as caught:
        read(content.format("i5"))
    assert "line 3: target must be the held-out item of the test split of data set small, got 'i5'." in str(
        caught.value
    )
    assert "The held-out item of that user is i3" in str(caught.value)
    validation = "user,target,rank\nu0,i3,2\nu1,i5,1\n"
    assert read(validation, split="validation").frame["rank"].to_list() == [2, 1]


def test_ranks_of_lists_with_scores_by_hand(read: Read) -> None:
    # u0: i5 is above i4, i6 is level with it; u1's list does not hold i3
    rows = ["u0,i4,0.5", "u1,i1,0.9", "u0,i5,0.9", "u0,i6,0.5", "u1,i2,8e-1", "u0,i1,0.1", "u1,i4,-7", "u1,i6,-inf"]
    found = read("user,item,score\n" + "\n".join(rows) + "\n")
    assert found.frame["rank"].to_list() == [1 + 1 + 1 / 2, inf]
    assert found.known_to == 4
    assert "known to rank 4 only" in found.notes[1]
    assert len(found.notes) == 2
    assert mean_metrics(found.frame["rank"].to_numpy(), (4,)) == {
        "ndcg@4": pytest.approx(1 / np.log2(3.5) / 2),
        "mrr@4": pytest.approx(1 / 2.5 / 2),
        "hit@4": 1 / 2,
    }


def test_ranks_of_lists_with_places(read: Read) -> None:
    found = read("user,item,rank\nu0,i6,2\nu0,i4,3\nu0,i1,1\nu1,i3,1\nu1,i4,2\n")
    assert found.frame["rank"].to_list() == [3, 1]
    assert found.known_to == 2


def test_lists_of_all_ranked_items_know_every_rank(read: Read) -> None:
    rows = ["u0,i4,1", "u0,i5,2", "u0,i6,3", "u1,i3,1", "u1,i4,0", "u1,i6,0"]
    found = read("user,item,score\n" + "\n".join(rows), exclude_seen=True)
    assert found.frame["rank"].to_list() == [3, 1]
    assert found.known_to is None
    assert len(found.notes) == 1
    assert "seen items taken out" in found.notes[0]


def test_a_score_takes_precedence_over_a_rank(read: Read) -> None:
    rows = ["u0,2,i4,9", "u0,1,i1,8", "u1,1,i3,7", "u1,2,i1,7"]
    assert read("user_id,rank,item_id,score\n" + "\n".join(rows)).frame["rank"].to_list() == [1, 1.5]


def test_lists_without_a_seen_item_raise_a_question(read: Read) -> None:
    content = "user,item,score\nu0,i5,1\nu1,i4,2\n"
    assert any("no list holds an item of its user's history" in note for note in read(content).notes)
    assert not any("no list holds" in note for note in read(content, exclude_seen=True).notes)


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("k", [3, 7])
def test_lists_agree_with_the_ranking_of_all_scores(
    random_dataset: PreparedDataset, tmp_path: Path, k: int, exclude_seen: bool
) -> None:
    """Coarse scores, so that ties are common; k = 7 is the whole catalogue."""
    data = random_dataset
    users = data.split.users("test")
    stop = data.split.held_out("test")[users]
    targets = torch.from_numpy(data.item_ids[stop].astype(np.int64))
    scores = torch.randint(0, 4, (len(users), 8), generator=torch.Generator().manual_seed(k)).double()
    seen = tuple(map(torch.from_numpy, items_before(data, users, stop)))
    expected = target_ranks(scores, targets, excluded=seen if exclude_seen else None).double().numpy()
    scores[:, 0] = -inf
    if exclude_seen:
        own = scores.gather(1, targets[:, None])
        scores[seen] = -inf
        scores.scatter_(1, targets[:, None], own)
    listed = [
        {"user": data.user_tokens[user], "item": data.item_tokens[item], "score": row[item]}
        for user, row in zip(users, scores.tolist(), strict=True)
        for item in sorted(range(8), key=lambda item: -row[item])[:k]
        if row[item] > -inf
    ]
    pl.DataFrame(listed).sample(fraction=1, shuffle=True, seed=1).write_parquet(tmp_path / "lists.parquet")
    found = read_external_ranks(tmp_path / "lists.parquet", data, split="test", exclude_seen=exclude_seen)
    ranks = found.frame["rank"].to_numpy()
    if k == 7:
        np.testing.assert_array_equal(ranks, expected)
        assert found.known_to is None
        return
    # a target within the list has the same number of items above it; ties with items behind the list are not known
    assert found.known_to is not None
    is_listed = np.isfinite(ranks)
    assert (expected[~is_listed] > 1).all()
    assert (ranks[is_listed] <= expected[is_listed]).all()
    strict = [float((row > row[target]).sum()) + 1 for row, target in zip(scores, targets.tolist(), strict=True)]
    assert (ranks[is_listed] >= np.array(strict)[is_listed]).all()


def test_every_format_reads_the_same(read: Read, data: PreparedDataset, tmp_path: Path) -> None:
    tab = read("user_id:token\trank:float\nu0\t1\nu1\t2\n", name="other.tsv")
    lines = "".join(json.dumps({"user": user, "rank": rank}) + "\n" for user, rank in (("u0", 1), ("u1", 2.0)))
    objects = read(lines, name="other.jsonl")
    pl.DataFrame({"user": ["u0", "u1"], "rank": [1.0, 2.0]}).write_parquet(tmp_path / "other.parquet")
    table = read_external_ranks(tmp_path / "other.parquet", data, split="test", exclude_seen=False)
    assert [found.frame["rank"].to_list() for found in (tab, objects, table)] == [[1, 2]] * 3


RANK_MISTAKES = {
    "user,rank\nu0,1\n": "must hold all 2 users of the test split of data set small (1 missing), got 'u1'",
    "user,rank\nu0,1\nu1,2\nu0,3\n": "line 4: user must have one row, got 'u0'. Rank each user once",
    "user,rank\nu0,1\nu1,2\nu9,3\nu8,3\n": "line 4: user must be a user of the test split of data set small (2 of 4 rows "
    "are not), got 'u9'",
    "user,rank\nu0,0\nu1,2\n": "line 2: rank must be at least 1 (1 = best), got '0'. Add 1 to ranks that begin at 0",
    "user,rank\nu0,1\nu1,-2\n": "line 3: rank must be at least 1 (1 = best), got '-2'",
    "user,rank\nu0,1\nu1,7\n": "line 3: rank must be at most 6, the number of items of the data set, got '7'",
    "user,rank\nu0,1\nu1,inf\n": "line 3: rank must be a whole number, or a half where items tie, got 'inf'",
    "user,rank\nu0,1\nu1,1.3\n": "line 3: rank must be a whole number, or a half where items tie, got '1.3'",
    "user,rank\nu0,1\nu1,\n": "line 3: rank must be a number, got",
    "user,rank\nu0,1\nu1,first\n": "line 3: rank must be a number, got 'first'",
    "user,score\nu0,1\nu1,2\n": "line 1 must have the columns user and rank, or user, item and score (or rank), got "
    "'user, score'. Rename the columns",
    "user,item\nu0,i4\n": "must have the columns user and rank, or user, item and score (or rank), got 'user, item'",
    "user,user_id,rank\nu0,u0,1\n": "must not have both columns user and user_id. Rename one",
    "u0,1\nu1,2\n": "Put a line with the names of the columns before it",
    "user,rank\nu0,1\nu1,2,3\n": "Repair the file, or write it again",
    "": "is empty",
}


@pytest.mark.parametrize("content", RANK_MISTAKES)
def test_mistakes_in_ranks_are_one_line(content: str, read: Read) -> None:
    with pytest.raises(DataError) as caught:
        read(content)
    assert RANK_MISTAKES[content] in str(caught.value)
    assert "--" not in str(caught.value).replace("athwe prepare --dataset small --export recbole --to FOLDER", "")


LIST_MISTAKES = {
    "user,item,score\nu0,i4,1\nu1,i9,1\n": "line 3: item must be an item of data set small, got 'i9'",
    "user,item,score\nu0,i4,1\nu1,[PAD],1\n": "line 3: item must be an item of data set small, got '[PAD]'",
    "user,item,score\nu0,i4,1\nu1,i3,1\nu0,i4,2\n": "line 4: item must occur once in the list of its user, got 'i4'",
    "user,item,score\nu0,i4,1\nu1,i3,nan\n": "line 3: score must be a number, got 'nan'",
    "user,item,rank\nu0,i4,1\nu0,i5,3\nu1,i3,1\n": "line 3: rank must be 1, 2, 3, ... in the list of each user, got '3'",
    "user,item,rank\nu0,i4,1\nu0,i5,1\nu1,i3,1\n": "line 3: rank must be 1, 2, 3, ... in the list of each user, got '1'. "
    "Where items tie, give a column score",
    "user,item,rank\nu0,i4,0\nu0,i5,1\nu1,i3,1\n": "line 2: rank must be 1, 2, 3, ... in the list of each user (2 of 3 "
    "rows are not), got '0'",
}


@pytest.mark.parametrize("content", LIST_MISTAKES)
def test_mistakes_in_lists_are_one_line(content: str, read: Read) -> None:
    with pytest.raises(DataError) as caught:
        read(content)
    assert LIST_MISTAKES[content] in str(caught.value)


def test_what_contradicts_the_seen_item_rule_is_refused(read: Read) -> None:
    ranks = "user,rank\nu0,3\nu1,4\n"
    assert read(ranks).frame["rank"].to_list() == [3, 4]
    rule = (
        r"line 3: rank must be at most 3, the number of items that are ranked for the user without seen items, got '4'"
    )
    with pytest.raises(DataError, match=rule):
        read(ranks, exclude_seen=True)
    lists = "user,item,score\nu0,i4,1\nu1,i5,1\n"
    assert read(lists).frame["rank"].to_list() == [1, inf]
    rule = r"line 3: item must not be in the history of its user, as the runs take seen items out, got 'i5'"
    with pytest.raises(DataError, match=rule):
        read(lists, exclude_seen=True)


def test_a_target_that_the_user_has_seen_is_ranked(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset([[1, 2, 3, 1]], num_items=4)  # ranked without seen items: i1, the target, and i4
    path = tmp_path / "lists.csv"
    path.write_text("user,item,score\nu0,i1,1\nu0,i4,2\n")
    found = read_external_ranks(path, data, split="test", exclude_seen=True)
    assert (found.frame["rank"].to_list(), found.known_to) == ([2], None)


def test_no_file_and_an_unknown_split(data: PreparedDataset, tmp_path: Path, read: Read) -> None:
    with pytest.raises(DataError, match=r"none.csv must be a file that exists. Check the path"):
        read_external_ranks(tmp_path / "none.csv", data, split="test", exclude_seen=False)
    with pytest.raises(ConfigError, match="--split must be one of validation, test, got 'train'"):
        read("user,rank\nu0,1\nu1,2\n", split="train")
