import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from athwe_core.errors import DataError
from athwe_core.evaluation.metrics import mean_metrics, metric_name, per_user_metrics

ranks_strategy = st.lists(st.integers(2, 400).map(lambda twice: twice / 2), min_size=1, max_size=20).map(np.array)


def test_metrics_of_each_user_by_hand() -> None:
    metrics = per_user_metrics(np.array([1.0, 3.0, 7.0]), (2, 3))
    expected = {
        "ndcg@2": [1, 0, 0],
        "ndcg@3": [1, 1 / 2, 0],  # 1 / log2(3 + 1)
        "mrr@2": [1, 0, 0],
        "mrr@3": [1, 1 / 3, 0],
        "hit@2": [1, 0, 0],
        "hit@3": [1, 1, 0],
    }
    assert {name: values.tolist() for name, values in metrics.items()} == expected
    assert list(metrics) == list(expected)


def test_means_are_over_all_users_also_those_without_a_hit() -> None:
    assert mean_metrics(np.array([1.0, 3.0, 7.0]), (3,)) == {
        "ndcg@3": pytest.approx((1 + 1 / 2 + 0) / 3),
        "mrr@3": pytest.approx((1 + 1 / 3 + 0) / 3),
        "hit@3": pytest.approx(2 / 3),
    }


def test_a_rank_is_a_hit_up_to_k_and_a_half_more_is_not() -> None:
    metrics = per_user_metrics(np.array([5.0, 5.5]), (5, 6))
    assert metrics["hit@5"].tolist() == [1, 0]
    assert metrics["mrr@6"].tolist() == [1 / 5, 2 / 11]
    assert metrics["ndcg@6"].tolist() == pytest.approx([1 / np.log2(6), 1 / np.log2(13 / 2)])


def test_no_ranks_are_refused() -> None:
    with pytest.raises(DataError, match=r"ranks must not be empty"):
        mean_metrics(np.array([]), (5,))


@pytest.mark.parametrize("wrong", [0.5, float("nan")])
def test_a_rank_below_one_is_refused(wrong: float) -> None:
    with pytest.raises(DataError, match=rf"ranks must be >= 1, got {wrong}"):
        per_user_metrics(np.array([1.0, wrong]), (5,))


@settings(deadline=None)
@given(ranks=ranks_strategy)
def test_metrics_lie_in_0_to_1_and_grow_with_k(ranks: np.ndarray) -> None:
    ks = (1, 5, 10, 50)
    metrics = per_user_metrics(ranks, ks)
    for name in ("ndcg", "mrr", "hit"):
        by_k = np.stack([metrics[f"{name}@{k}"] for k in ks])
        assert by_k.shape == (len(ks), len(ranks))
        assert (by_k >= 0).all()
        assert (by_k <= 1).all()
        assert (np.diff(by_k, axis=0) >= 0).all()


@settings(deadline=None)
@given(ranks=ranks_strategy, k=st.integers(1, 60))
def test_mrr_is_at_most_ndcg_is_at_most_hit(ranks: np.ndarray, k: int) -> None:
    metrics = mean_metrics(ranks, (k,))
    assert metrics[f"mrr@{k}"] <= metrics[f"ndcg@{k}"] <= metrics[f"hit@{k}"]


@pytest.mark.parametrize(
    ("metric", "name"), [("ndcg@10", "NDCG@10"), ("mrr@5", "MRR@5"), ("hit@20", "Hit@20"), ("ndcg", "NDCG")]
)
def test_metrics_are_written_as_people_write_them(metric: str, name: str) -> None:
    assert metric_name(metric) == name
