import subprocess
import sys
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import DataError
from athwe_core.evaluation.baselines import popularity_ranks
from athwe_core.evaluation.groups import group_metrics, per_user_frame

MakeDataset = Callable[..., PreparedDataset]
DAY = 86_400


@pytest.fixture
def two_users(dataset: MakeDataset) -> PreparedDataset:
    # training: 1 1 | 2
    times = [[0, 10, DAY - 1, DAY], [-DAY, -2, -1]]
    return dataset([[1, 1, 2, 3], [2, 1, 2]], num_items=3, timestamps=times)


def test_per_user_frame_of_the_test_split_by_hand(two_users: PreparedDataset) -> None:
    frame = per_user_frame(two_users, np.array([2.5, 1.0]), split="test")
    assert frame.to_dict(as_series=False) == {
        "user_id": ["u0", "u1"],
        "split": ["test", "test"],
        "target_item_id": ["i3", "i2"],
        "rank": [5 / 2, 1],
        "history_length": [3, 2],
        "target_popularity": [0, 1],
        "same_day": [False, True],  # one second over midnight; two seconds before 1970 began
    }


def test_per_user_frame_of_the_validation_split_by_hand(two_users: PreparedDataset) -> None:
    frame = per_user_frame(two_users, np.array([1.0, 2.0]), split="validation")
    assert frame["target_item_id"].to_list() == ["i2", "i1"]
    assert frame["history_length"].to_list() == [2, 1]
    assert frame["target_popularity"].to_list() == [1, 2]
    assert frame["same_day"].to_list() == [True, True]


def test_per_user_frame_has_the_types_of_the_file_format(two_users: PreparedDataset) -> None:
    schema = per_user_frame(two_users, np.array([1.0, 2.0]), split="test").schema
    assert schema == {
        "user_id": pl.String,
        "split": pl.String,
        "target_item_id": pl.String,
        "rank": pl.Float64,
        "history_length": pl.Int64,
        "target_popularity": pl.Int64,
        "same_day": pl.Boolean,
    }


def test_one_rank_per_user_is_needed(two_users: PreparedDataset) -> None:
    with pytest.raises(DataError, match=r"ranks must be one for each of 2 users, got 3"):
        per_user_frame(two_users, np.ones(3), split="test")


def test_group_metrics_by_hand() -> None:
    frame = pl.DataFrame(
        {
            "rank": [1.0, 3.0, 7.0, 1.0],
            "history_length": [4, 5, 9, 50],
            "target_popularity": [0, 1, 0, 49],
            "same_day": [True, False, False, False],
        }
    )
    groups = group_metrics(frame, (3,))
    first, third, mean = [1, 1, 1], [1 / 2, 1 / 3, 1], [1 / 4, 1 / 6, 1 / 2]  # ndcg, mrr, hit; the mean of rank 3 and 7
    assert list(groups) == ["history_length", "target_popularity", "same_day"]
    assert flat(groups["history_length"]) == {"1-4": (1, first), "5-9": (2, mean), "50+": (1, first)}
    assert flat(groups["target_popularity"]) == {
        "0 (cold)": (2, [1 / 2, 1 / 2, 1 / 2]),
        "1-4": (1, third),
        "10-49": (1, first),
    }
    assert flat(groups["same_day"]) == {
        "later": (3, pytest.approx([3 / 2 / 3, 4 / 3 / 3, 2 / 3])),
        "same day": (1, first),
    }


def flat(labels: dict[str, dict[str, float]]) -> dict[str, tuple[float, list[float]]]:
    return {
        label: (values["users"], [values["ndcg@3"], values["mrr@3"], values["hit@3"]])
        for label, values in labels.items()
    }


@pytest.mark.parametrize(
    ("column", "bounds"),
    [
        ("history_length", {"1-4": (1, 4), "5-9": (5, 9), "10-19": (10, 19), "20-49": (20, 49), "50+": (50, 99)}),
        ("target_popularity", {"0 (cold)": (0, 0), "1-4": (1, 4), "5-9": (5, 9), "10-49": (10, 49), "50+": (50, 99)}),
    ],
)
def test_labels_say_which_values_they_hold(column: str, bounds: dict[str, tuple[int, int]]) -> None:
    values = np.concatenate([np.arange(first, last + 1) for first, last in bounds.values()])
    columns = {"rank": 1.0, "history_length": 1, "target_popularity": 1, "same_day": False}
    frame = pl.DataFrame({**columns, column: values})
    groups = group_metrics(frame, (1,))[column]
    assert {label: group["users"] for label, group in groups.items()} == {
        label: last - first + 1 for label, (first, last) in bounds.items()
    }


def test_groups_partition_all_users(random_dataset: PreparedDataset) -> None:
    ranks = popularity_ranks(random_dataset, split="test", exclude_seen=False)
    frame = per_user_frame(random_dataset, ranks, split="test")
    overall = np.mean(ranks <= 5)
    for labels in group_metrics(frame, (5,)).values():
        assert sum(group["users"] for group in labels.values()) == random_dataset.num_users
        hits = sum(group["users"] * group["hit@5"] for group in labels.values())
        assert hits / random_dataset.num_users == pytest.approx(overall)


def test_importing_groups_does_not_load_polars() -> None:
    code = "import sys, athwe_core.evaluation.groups; sys.exit('polars' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
