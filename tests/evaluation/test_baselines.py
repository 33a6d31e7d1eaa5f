from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import ConfigError
from athwe_core.evaluation import baselines
from athwe_core.evaluation.baselines import popularity_ranks, training_popularity, transition_ranks

MakeDataset = Callable[..., PreparedDataset]
SPLITS = ("validation", "test")


def sequences(data: PreparedDataset) -> list[list[int]]:
    return [data.item_ids[first:last].tolist() for first, last in pairwise(data.offsets)]


def popularity_score(training: list[list[int]], item: int, last_item: int) -> Fraction:
    return Fraction(sum(sequence.count(item) for sequence in training))


def transition_score(training: list[list[int]], item: int, last_item: int) -> Fraction:
    seen = [pair for sequence in training for pair in pairwise(sequence)]
    most = max(popularity_score(training, other, 0) for sequence in training for other in sequence)
    return seen.count((last_item, item)) + popularity_score(training, item, 0) / (most + 1)


def naive_ranks(
    data: PreparedDataset,
    score: Callable[[list[list[int]], int, int], Fraction],
    *,
    split: str,
    exclude_seen: bool,
) -> list[float]:
    """Exact arithmetic, one user and one item at a time."""
    training = [sequence[:-2] for sequence in sequences(data)]
    ranks = []
    for sequence in sequences(data):
        held_out = {"validation": 2, "test": 1}[split]
        history, target = sequence[:-held_out], sequence[-held_out]
        own = score(training, target, history[-1])
        rank = Fraction(1)
        for item in range(1, data.num_items + 1):
            if item == target or (exclude_seen and item in history):
                continue
            other = score(training, item, history[-1])
            rank += (other > own) + Fraction(other == own) / 2
        ranks.append(float(rank))
    return ranks


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize(
    ("ranks", "score"), [(popularity_ranks, popularity_score), (transition_ranks, transition_score)]
)
def test_baselines_equal_a_naive_double_loop(
    random_dataset: PreparedDataset,
    ranks: Callable[..., np.ndarray],
    score: Callable[[list[list[int]], int, int], Fraction],
    split: str,
    exclude_seen: bool,
) -> None:
    expected = naive_ranks(random_dataset, score, split=split, exclude_seen=exclude_seen)
    assert ranks(random_dataset, split=split, exclude_seen=exclude_seen).tolist() == expected


@pytest.mark.parametrize("ranks", [popularity_ranks, transition_ranks])
def test_the_size_of_a_block_changes_nothing(
    random_dataset: PreparedDataset, monkeypatch: pytest.MonkeyPatch, ranks: Callable[..., np.ndarray]
) -> None:
    at_once = ranks(random_dataset, split="test", exclude_seen=True)
    for pairs in (1, 40):
        monkeypatch.setattr(baselines, "BLOCK_PAIRS", pairs)
        assert ranks(random_dataset, split="test", exclude_seen=True).tolist() == at_once.tolist()


def test_popularity_by_hand(dataset: MakeDataset) -> None:
    # training: 1 1 2 | 1 3; item 4 is never trained on
    data = dataset([[1, 1, 2, 3, 4], [1, 3, 2, 1]], num_items=4)
    assert training_popularity(data).tolist() == [0, 3, 1, 1, 0]
    assert popularity_ranks(data, split="validation", exclude_seen=False).tolist() == [2 + 1 / 2, 2 + 1 / 2]
    assert popularity_ranks(data, split="test", exclude_seen=False).tolist() == [4, 1]
    # user 0 has seen 1, 2, 3 before 4; user 1 has seen its target 1, which stays in
    assert popularity_ranks(data, split="test", exclude_seen=True).tolist() == [1, 1]


def test_transitions_by_hand(dataset: MakeDataset) -> None:
    # training: 1 2 | 1 2 | 3 4; popularity 2, 2, 1, 1, 0
    data = dataset([[1, 2, 1, 2], [1, 2, 3, 5], [3, 4, 3, 4]], num_items=5)
    # after 2 (and after 4) nothing was seen, so popularity decides: item 1 ties with 2, item 3 with 4
    assert transition_ranks(data, split="validation", exclude_seen=False).tolist() == [1 + 1 / 2, 3 + 1 / 2, 3 + 1 / 2]
    # 2 followed 1 twice: first; 5 after 3 is last; 4 followed 3: first although 1 and 2 are more popular
    assert transition_ranks(data, split="test", exclude_seen=False).tolist() == [1, 5, 1]


def test_what_users_hold_out_is_not_counted(dataset: MakeDataset) -> None:
    data = dataset([[1, 2, 3, 3], [1, 2, 3, 3]], num_items=3)
    assert training_popularity(data)[3] == 0
    # 3 followed 2 in both users, but only in what is held out
    assert transition_ranks(data, split="validation", exclude_seen=False).tolist() == [3, 3]


@pytest.mark.parametrize("ranks", [popularity_ranks, transition_ranks])
def test_excluding_seen_items_never_worsens_a_rank_and_keeps_the_target(
    random_dataset: PreparedDataset, ranks: Callable[..., np.ndarray]
) -> None:
    for split in SPLITS:
        kept = ranks(random_dataset, split=split, exclude_seen=False)
        excluded = ranks(random_dataset, split=split, exclude_seen=True)
        assert (excluded >= 1).all()
        assert (excluded <= kept).all()


def test_an_unknown_split_is_refused(random_dataset: PreparedDataset) -> None:
    with pytest.raises(ConfigError, match=r"split must be one of validation, test, got 'train'"):
        popularity_ranks(random_dataset, split="train", exclude_seen=False)
