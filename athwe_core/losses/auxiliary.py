"""Losses on single tokens: what an item is, and how unlike the experts are (HM4SR eq. 21-22, ATHWE)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from athwe_core.distributed import BatchShards


def category_loss(
    logits: Float[Tensor, "T C"],
    categories: Integer[Tensor, "T C"],
    weight: Float[Tensor, " T"],
    shares: BatchShards | None = None,
) -> Float[Tensor, ""]:
    """Category prediction: weighted mean over tokens of the mean binary cross-entropy over categories.

        loss = sum_t weight_t mean_c bce(logits_tc, categories_tc) / sum_t weight_t

    Args:
        logits: W [x_id; x_text; x_image] + b for each token's item.
        categories: multi-hot, 0 or 1.
        weight: rows of prefix batching that contain the token, >= 0.
        shares: where the batch is spread over processes.
    Returns: scalar, this process's share of the mean; 0 when all weights are 0.
    Source: HM4SR eq. 21-22 (22 sums over categories; the published criterion takes the mean, and so does this).
    Differs: the published code indexes the flattened scores with a pair of index vectors and trains on other elements.
    """
    loss = F.binary_cross_entropy_with_logits(logits, categories.to(logits.dtype), reduction="none").mean(-1)
    return _weighted_mean(loss, weight, shares)


def cluster_loss(
    logits: Float[Tensor, "T K"],
    labels: Integer[Tensor, " T"],
    weight: Float[Tensor, " T"],
    shares: BatchShards | None = None,
) -> Float[Tensor, ""]:
    """Cluster prediction: weighted mean cross-entropy over tokens whose item has a cluster.

    Args:
        logits: linear classifier on the projected features of each token's item.
        labels: k-medoids cluster of the frozen features, -1 = none.
        weight, shares: as in `category_loss`.
    Returns: scalar, this process's share of the mean; 0 when no token has a cluster.
    Source: ATHWE.   Differs: the published code picks the wrong elements, as for categories.
    """
    loss = F.cross_entropy(logits, labels.long(), reduction="none", ignore_index=-1)
    return _weighted_mean(loss, weight * (labels >= 0), shares)


def expert_diversity(
    experts: Float[Tensor, "E C"],
    tokens: Float[Tensor, "T C"],
    weight: Float[Tensor, " T"],
    shares: BatchShards | None = None,
) -> Float[Tensor, ""]:
    """Mean off-diagonal cosine of the routed experts' outputs over the batch.

        o_i = concatenation over t of sqrt(weight_t) (W_i * e_t)        loss = mean_{i != j} cos(o_i, o_j)

    Exactly the cosine of the experts under the metric diag(sum_t weight_t e_t^2): O(E^2 C), no (E, T, C) tensor.
    Returns: scalar in [-1, 1], divided by the number of processes where the batch is spread; 0 for a single expert.
    Source: ATHWE.
    """
    E = experts.shape[0]
    if E < 2:
        return experts.new_zeros(())
    metric = weight @ tokens.square()
    parts = 1 if shares is None else shares.num_processes
    if shares is not None:
        metric = shares.total(metric)
    metric = metric.clamp(min=torch.finfo(tokens.dtype).tiny)  # a zero has no gradient of its root
    scaled = F.normalize(experts * metric.sqrt(), dim=-1)
    cosine = scaled @ scaled.T
    return (cosine.sum() - cosine.diagonal().sum()) / (E * (E - 1) * parts)


def _weighted_mean(
    values: Float[Tensor, " T"], weight: Float[Tensor, " T"], shares: BatchShards | None
) -> Float[Tensor, ""]:
    total = weight.sum() if shares is None else shares.total(weight.sum())
    return (values * weight).sum() / total.clamp(min=torch.finfo(weight.dtype).tiny)
