"""Cluster labels of item vectors: ZCA whitening, then k-medoids under the Euclidean distance.

Distances are taken in blocks and never all kept, so memory grows with the vectors alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, Int64

if TYPE_CHECKING:
    from torch import Tensor

MAX_ITERATIONS = 100
_BLOCK_ROWS = 4096  # 64 MiB of float32 distances between two blocks
_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Medoids:
    """k clusters of N points.

    Attributes:
        labels: (N,) cluster of each point, 0..k-1; no cluster is empty.
        medoids: (k,) row of the point in the middle of each cluster.
        objective: Sum over the points of weight times distance to their medoid.
        iterations: How often the medoids were moved.
    """

    labels: Int32[np.ndarray, "N"]
    medoids: Int64[np.ndarray, "k"]
    objective: float
    iterations: int


def cluster_labels(
    vectors: Float[np.ndarray, "V F"], *, k: int, seed: int, progress: Callable[[int, float], None] | None = None
) -> Int32[np.ndarray, "V"]:
    """Label each item by the k-medoids cluster of its whitened vector.

    Args:
        vectors: Row 0 is the padding, zero rows are items without a vector; neither takes part.
        k: Clusters wanted, >= 1; equal vectors are one point, and with fewer points than k each is a cluster.
        seed: Of the first medoids.
        progress: Called with iterations done and the objective.
    Returns:
        (V,) int32 labels from 0 without gaps, -1 for the padding and for items without a vector.
    """
    labels = np.full(len(vectors), -1, dtype=np.int32)
    rows = np.flatnonzero(vectors.any(axis=1))
    rows = rows[rows > 0]
    if not len(rows):
        return labels
    found = np.ascontiguousarray(vectors[rows], np.float32)
    as_bytes = found.view(np.dtype((np.void, found.dtype.itemsize * found.shape[1]))).ravel()
    _, first, inverse, counts = np.unique(as_bytes, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)  # points in the order of their first item, not of their bytes
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    points = zca_whiten(found)[first[order]]
    medoids = k_medoids(points, k=k, seed=seed, weights=counts[order].astype(np.float64), progress=progress)
    labels[rows] = medoids.labels[rank[inverse]]
    return labels


def zca_whiten(vectors: Float32[np.ndarray, "N F"]) -> Float32[np.ndarray, "N F"]:
    """Rotate to principal axes, scale each to variance 1, rotate back.

        (x - mean) E diag(1 / sqrt(eigenvalues)) E'   of the covariance E diag(eigenvalues) E' (divided by N)

    Axes whose variance is within the rounding of float32 vectors (rank-deficient vectors, constant columns) become 0
    instead of amplified noise. Sums run in float64, in blocks of rows; the F x F matrices are the only other memory.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    width = vectors.shape[1]
    covariance = np.zeros((width, width))
    mean_square = 0.0
    for block in _blocks(len(vectors)):
        precise = vectors[block].astype(np.float64)
        mean_square += float((precise**2).sum()) / len(vectors)
        precise -= mean
        covariance += precise.T @ precise / len(vectors)
    eigenvalues, axes = np.linalg.eigh(covariance)
    is_noise = eigenvalues <= width * _EPS**2 * mean_square
    scales = np.where(is_noise, 0.0, 1 / np.sqrt(np.where(is_noise, 1.0, eigenvalues)))
    transform = (axes * scales) @ axes.T
    whitened = np.empty_like(vectors)
    for block in _blocks(len(vectors)):
        whitened[block] = (vectors[block].astype(np.float64) - mean) @ transform
    return whitened


def k_medoids(
    points: Float32[np.ndarray, "N F"],
    *,
    k: int,
    seed: int,
    weights: Float64[np.ndarray, "N"] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Medoids:
    """Alternate between nearest medoids and the best medoid of each cluster until neither changes.

    Args:
        points: N >= 1 points.
        k: >= 1; at most N are used.
        seed: Of the first medoids.
        weights: How often each point counts, > 0; None = once.
        progress: Called after each move with the number of moves and the objective.
    Source: Park and Jun, Expert Systems with Applications 36 (2009); seeding after Arthur and Vassilvitskii, SODA (2007),
        with plain distances and the best of 2 + ln k draws.
    """
    import torch  # noqa: PLC0415  (seconds to import)

    x = torch.from_numpy(np.ascontiguousarray(points))
    w = torch.ones(len(x), dtype=torch.float64) if weights is None else torch.from_numpy(weights)
    medoids = _first_medoids(x, w, min(k, len(x)), np.random.default_rng(seed))
    labels = _nearest(x, medoids)
    objective = _objective(x, w, medoids[labels])
    stale = torch.ones(len(medoids), dtype=torch.bool)  # clusters whose points changed since their medoid was sought
    iterations = 0
    while stale.any() and iterations < MAX_ITERATIONS:
        moved = medoids.clone()
        for cluster in torch.nonzero(stale).ravel().tolist():
            moved[cluster] = _middle(x, w, torch.nonzero(labels == cluster).ravel(), int(medoids[cluster]))
        relabelled = _nearest(x, moved)
        value = _objective(x, w, moved[relabelled])
        if value >= objective:  # float32 distances: nothing more to gain than their rounding
            break
        stale = torch.zeros_like(stale)
        changed = relabelled != labels
        stale[labels[changed]] = True
        stale[relabelled[changed]] = True
        medoids, labels, objective = moved, relabelled, value
        iterations += 1
        if progress is not None:
            progress(iterations, objective)
    return Medoids(labels.numpy().astype(np.int32), medoids.numpy(), objective, iterations)


def _first_medoids(x: Tensor, w: Tensor, k: int, rng: np.random.Generator) -> Tensor:
    """One medoid after the other: of a few draws in proportion to weight times distance, the one that helps most."""
    import torch  # noqa: PLC0415

    tries = 2 + int(np.log(k))
    chosen = [int(rng.choice(len(x), p=(w / w.sum()).numpy()))]
    squares = x.square().sum(dim=1)
    nearest = _distances(x, squares, torch.tensor(chosen)).double().ravel()
    while len(chosen) < k:
        nearest[chosen[-1]] = 0.0
        reach = np.cumsum((w * nearest).numpy())
        if reach[-1] > 0:
            drawn = torch.from_numpy(np.searchsorted(reach, rng.random(tries) * reach[-1], side="right"))
        else:  # all others lie on a medoid
            drawn = torch.from_numpy(np.setdiff1d(np.arange(len(x)), chosen)[:1])
        remaining = torch.minimum(nearest[:, None], _distances(x, squares, drawn).double())
        best = int((w @ remaining).argmin())
        chosen.append(int(drawn[best]))
        nearest = remaining[:, best].clone()
    return torch.tensor(chosen)


def _distances(x: Tensor, squares: Tensor, rows: Tensor) -> Tensor:
    """(N, len(rows)) distances to the points at `rows`; `squares` are the squared lengths of all."""
    return (squares[:, None] + squares[rows] - 2 * (x @ x[rows].T)).clamp_(min=0).sqrt_()


def _nearest(x: Tensor, medoids: Tensor) -> Tensor:
    """(N,) number of the nearest medoid, the lower one on a tie; a medoid is its own."""
    import torch  # noqa: PLC0415

    labels = torch.cat([torch.cdist(x[block], x[medoids]).argmin(dim=1) for block in _blocks(len(x))])
    labels[medoids] = torch.arange(len(medoids))
    return labels


def _objective(x: Tensor, w: Tensor, medoids_of_rows: Tensor) -> float:
    import torch  # noqa: PLC0415

    distances = [torch.linalg.vector_norm(x[b] - x[medoids_of_rows[b]], dim=1) for b in _blocks(len(x))]
    return float(w @ torch.cat(distances).double())


def _middle(x: Tensor, w: Tensor, members: Tensor, medoid: int) -> int:
    """The member with the least weighted sum of distances to the others; `medoid` where that is as good.

    Each pair of blocks is computed once and added to both.
    """
    import torch  # noqa: PLC0415

    inside, weights = x[members], w[members]
    costs = torch.zeros(len(members), dtype=torch.float64)
    blocks = list(_blocks(len(members)))
    for number, rows in enumerate(blocks):
        for columns in blocks[number:]:
            distances = torch.cdist(inside[rows], inside[columns])
            costs[rows] += (distances @ weights[columns].float()).double()
            if rows != columns:
                costs[columns] += (weights[rows].float() @ distances).double()
    best = int(costs.argmin())
    current = int(torch.nonzero(members == medoid).ravel()[0])
    return medoid if costs[best] >= costs[current] else int(members[best])


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _BLOCK_ROWS):
        yield slice(start, min(start + _BLOCK_ROWS, count))
