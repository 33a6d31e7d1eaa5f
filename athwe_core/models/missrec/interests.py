"""Clusters of item tokens, which MISSRec takes for interests."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

DISTANCES_AT_ONCE = 2**24
ROUNDS = 10
"""Rounds of k-means."""
MEAN_EPS = 1e-4
"""Added to the size of a cluster of density peaks, as published."""

Clusters = tuple[Int64[Tensor, " n"], Float[Tensor, "K D"]]
"""Label of each token, in 0..K-1, and the centroids."""


def kmeans(tokens: Float[Tensor, "n D"], initial: Int64[Tensor, " K"], *, rounds: int = ROUNDS) -> Clusters:
    """Lloyd's algorithm from given tokens as centres; an empty cluster keeps its centre.

    Args:
        tokens: n vectors.
        initial: K token numbers.
        rounds: updates of the centroids, >= 1.
    Returns: the cluster of each token by the final centroids.
    """
    centroids = tokens[initial]
    for _ in range(rounds):
        centroids = _means(tokens, nearest(tokens, centroids), centroids)
    return nearest(tokens, centroids), centroids


def one_pass_of_absolutes(tokens: Float[Tensor, "n D"], initial: Int64[Tensor, " K"]) -> Clusters:
    """What the published k-means comes to: one round, whose centroids are means of the tokens' absolute values.

    Differs: over more than 2.1 K tokens (`ratio` below 0.48) and 2,048 + K the published code takes several minibatches.
    """
    absolutes = tokens.abs()
    centroids = _means(absolutes, nearest(tokens, tokens[initial]), absolutes[initial])
    return nearest(tokens, centroids), centroids


def density_peaks(tokens: Float[Tensor, "n D"], num_clusters: int, *, num_neighbours: int) -> Clusters:
    """The tokens that are dense and far from denser ones as centres (DPC-KNN), each token with its nearest centre.

        d_ij = |x_i - x_j| / sqrt(D)        density_i = exp(-mean over the nearest neighbours of d_ij^2)
        score_i = density_i * (distance to the nearest denser token; for the densest the largest of all distances)

    Args:
        tokens: n vectors.
        num_clusters: K in 1..n.
        num_neighbours: for the density, the token itself included, in 1..n.
    Returns: labels and centroids, which are sums over (size + 1e-4).
    Source: the authors' code; the paper's section on multi-modal interests names the method.
    """
    n, D = tokens.shape
    rows = max(DISTANCES_AT_ONCE // n, 1)

    def distances(part: Tensor) -> Tensor:
        return torch.cdist(part, tokens) / D**0.5

    density, largest = [], tokens.new_zeros(())
    for part in tokens.split(rows):
        found = distances(part)
        near = found.topk(num_neighbours, dim=1, largest=False).values
        density.append((-near.square().mean(1)).exp())
        largest = torch.maximum(largest, found.max())
    dense = torch.cat(density)
    gaps = []
    for part, own in zip(tokens.split(rows), dense.split(rows), strict=True):
        to_denser = distances(part).masked_fill(dense <= own[:, None], torch.inf).amin(1)
        gaps.append(torch.where(to_denser.isinf(), largest, to_denser))
    centres = (dense * torch.cat(gaps)).topk(num_clusters).indices
    labels = nearest(tokens, tokens[centres])
    labels[centres] = torch.arange(num_clusters, device=tokens.device)  # equal tokens would share one
    sums = torch.zeros_like(tokens[centres]).index_add_(0, labels, tokens)
    sizes = labels.bincount(minlength=num_clusters)
    return labels, sums / (sizes[:, None] + MEAN_EPS)


def nearest(tokens: Float[Tensor, "n D"], centroids: Float[Tensor, "K D"]) -> Int64[Tensor, " n"]:
    """The centroid that is nearest to each token, by Euclidean distance."""
    half = centroids.square().sum(1) / 2
    rows = max(DISTANCES_AT_ONCE // len(centroids), 1)
    return torch.cat([(part @ centroids.T - half).argmax(1) for part in tokens.split(rows)])


def _means(tokens: Tensor, labels: Tensor, otherwise: Tensor) -> Tensor:
    """Mean of the tokens of each label, `otherwise` where a label has none."""
    sums = torch.zeros_like(otherwise).index_add_(0, labels, tokens)
    sizes = labels.bincount(minlength=len(otherwise))[:, None]
    return torch.where(sizes > 0, sums / sizes.clamp(min=1), otherwise)
