"""k-medoids against a naive twin in float64, brute force and scipy's k-means; whitening against its definition."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

from athwe_core.data.features import clusters
from athwe_core.data.features.clusters import cluster_labels, k_medoids, zca_whiten

Array = NDArray[np.float64]


def blobs(
    num_points: int, num_blobs: int, *, width: int = 5, seed: int = 0, spread: float = 0.3
) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_blobs, width)) * 3
    points = centres[np.arange(num_points) % num_blobs] + spread * rng.normal(size=(num_points, width))
    return points.astype(np.float32)


def naive_k_medoids(points: Array, medoids: list[int], weights: Array) -> tuple[list[int], list[int]]:
    """The definition: nearest medoid, then the cheapest member of each cluster, until nothing moves."""
    distances = cdist(points, points)
    while True:
        labels = [int(np.argmin(distances[row, medoids])) for row in range(len(points))]
        moved = []
        for cluster, medoid in enumerate(medoids):
            members = [row for row, label in enumerate(labels) if label == cluster]
            costs = {row: sum(weights[other] * distances[row, other] for other in members) for row in members}
            best = min(members, key=lambda row: (costs[row], row))
            moved.append(best if costs[best] < costs[medoid] - 1e-9 else medoid)
        if moved == medoids:
            return labels, medoids
        medoids = moved


def naive_first_medoids(points: Array, k: int, weights: Array, seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    chosen = [int(rng.choice(len(points), p=weights / weights.sum()))]
    while len(chosen) < k:
        reach = np.cumsum(weights * cdist(points, points[chosen]).min(axis=1))
        drawn = [int(np.searchsorted(reach, u * reach[-1], side="right")) for u in rng.random(2 + int(np.log(k)))]
        left = [float(weights @ cdist(points, points[[*chosen, row]]).min(axis=1)) for row in drawn]
        chosen.append(drawn[int(np.argmin(left))])
    return chosen


def objective(points: Array, medoids: list[int]) -> float:
    return float(cdist(points, points[medoids]).min(axis=1).sum())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_naive_twin(seed: int, weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_BLOCK_ROWS", 16)  # so that several blocks meet, the last one ragged
    points = blobs(75, 9, seed=seed, spread=1.0)
    weights = np.random.default_rng(seed).integers(1, 5, 75).astype(np.float64) if weighted else np.ones(75)
    found = k_medoids(points, k=6, seed=seed, weights=weights if weighted else None)
    precise = points.astype(np.float64)
    labels, medoids = naive_k_medoids(precise, naive_first_medoids(precise, 6, weights, seed), weights)
    assert found.medoids.tolist() == medoids
    assert found.labels.tolist() == labels
    expected = float((weights * cdist(precise, precise[medoids]).min(axis=1)).sum())
    assert found.objective == pytest.approx(expected, rel=1e-6)


def test_objective_is_near_the_best_of_all_choices() -> None:
    points = blobs(30, 3, seed=5)
    precise = points.astype(np.float64)
    best = min(objective(precise, list(chosen)) for chosen in combinations(range(30), 3))
    found = min(k_medoids(points, k=3, seed=seed).objective for seed in range(3))
    assert found == pytest.approx(best, rel=1e-6)


def test_objective_is_not_behind_scipys_k_means_moved_to_the_nearest_points() -> None:
    points = blobs(600, 12, width=8, seed=3, spread=1.5)
    precise = points.astype(np.float64)
    ours, theirs = [], []
    for seed in range(5):
        ours.append(k_medoids(points, k=12, seed=seed).objective)
        centres, _ = kmeans2(precise, 12, minit="++", seed=seed)
        theirs.append(objective(precise, cdist(centres, precise).argmin(axis=1).tolist()))
    assert np.median(ours) <= 1.02 * np.median(theirs)


def test_same_seed_same_clusters_and_every_cluster_has_a_point() -> None:
    points = blobs(200, 7, seed=1, spread=2.0)
    first, second = (k_medoids(points, k=20, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.labels, second.labels)
    assert np.bincount(first.labels, minlength=20).min() >= 1
    np.testing.assert_array_equal(first.labels[first.medoids], np.arange(20))


def test_equal_points_in_more_clusters_than_there_are_places() -> None:
    points = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    found = k_medoids(points, k=8, seed=0)
    assert len(set(found.medoids.tolist())) == 8
    assert np.bincount(found.labels, minlength=8).min() >= 1
    assert found.objective == 0


@pytest.mark.parametrize("count", [1, 2, 5])
def test_more_clusters_than_points(count: int) -> None:
    found = k_medoids(blobs(count, count), k=9, seed=0)
    assert sorted(found.labels.tolist()) == list(range(count))
    assert found.objective == 0


def test_whitened_vectors_have_unit_covariance_and_stay_close_to_the_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_BLOCK_ROWS", 64)
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 50).astype(np.float32)
    whitened = zca_whiten(vectors).astype(np.float64)
    np.testing.assert_allclose(np.cov(whitened.T, bias=True), np.eye(6), atol=2e-4)
    np.testing.assert_allclose(whitened.mean(axis=0), 0, atol=1e-4)
    covariance = np.cov(vectors.astype(np.float64).T, bias=True)
    transform = np.linalg.lstsq(vectors - vectors.mean(axis=0, dtype=np.float64), whitened, rcond=None)[0]
    np.testing.assert_allclose(transform, transform.T, atol=1e-4)  # ZCA: the symmetric root, not just any
    np.testing.assert_allclose(transform @ covariance @ transform, np.eye(6), atol=1e-3)


@pytest.mark.parametrize(
    "kind", ["repeated column", "constant column", "zero column", "fewer rows than columns", "one row"]
)
def test_axes_without_variance_become_zero_not_noise(kind: str) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 8)).astype(np.float32) + 3
    rank = 7
    if kind == "repeated column":
        vectors[:, 7] = 0.3 * vectors[:, 0] - vectors[:, 1]
    elif kind == "constant column":
        vectors[:, 7] = 1000.1
    elif kind == "zero column":
        vectors[:, 7] = 0
    else:
        rank = {"fewer rows than columns": 4, "one row": 0}[kind]
        vectors = vectors[: rank + 1]
    whitened = zca_whiten(vectors).astype(np.float64)
    values = np.linalg.eigvalsh(np.cov(whitened.T, bias=True) if len(vectors) > 1 else whitened.T @ whitened)[::-1]
    np.testing.assert_allclose(values[:rank], 1, atol=1e-3)
    np.testing.assert_allclose(values[rank:], 0, atol=1e-3)


def test_labels_of_items_with_padding_missing_and_equal_vectors() -> None:
    points = blobs(40, 4, width=3, seed=2)
    vectors = np.concatenate([np.zeros_like(points[:1]), points, np.zeros_like(points[:1]), points[:3], points[:3]])
    labels = cluster_labels(vectors, k=4, seed=0)
    assert labels.dtype == np.int32
    assert labels[0] == labels[41] == -1
    assert set(labels[1:41].tolist()) == {0, 1, 2, 3}
    assert labels[42:45].tolist() == labels[45:].tolist() == labels[1:4].tolist()
    by_blob = labels[1:41].reshape(10, 4)
    assert (by_blob == by_blob[0]).all()


def test_labels_do_not_depend_on_the_place_of_missing_items() -> None:
    points = blobs(40, 4, width=3, seed=2)
    apart = np.zeros((81, 3), dtype=np.float32)
    apart[1::2][:40] = points
    together = np.concatenate([np.zeros_like(points[:1]), points])
    np.testing.assert_array_equal(cluster_labels(apart, k=4, seed=0)[1::2], cluster_labels(together, k=4, seed=0)[1:])


def test_no_vector_at_all_and_fewer_different_vectors_than_clusters() -> None:
    assert cluster_labels(np.zeros((4, 3), dtype=np.float32), k=2, seed=0).tolist() == [-1] * 4
    two = np.array([[0, 0], [1, 0], [1, 0], [0, 2], [1, 0]], dtype=np.float32)
    labels = cluster_labels(two, k=100, seed=0)
    assert labels[0] == -1
    assert labels[1] == labels[2] == labels[4] != labels[3]
    assert sorted(set(labels[1:].tolist())) == [0, 1]


def test_progress_tells_a_falling_objective() -> None:
    said: list[tuple[int, float]] = []
    vectors = np.concatenate([np.zeros((1, 5), np.float32), blobs(300, 9, spread=2.0)])
    cluster_labels(vectors, k=9, seed=0, progress=lambda moves, value: said.append((moves, value)))
    assert [moves for moves, _ in said] == list(range(1, len(said) + 1))
    assert [value for _, value in said] == sorted((value for _, value in said), reverse=True)
    assert said
