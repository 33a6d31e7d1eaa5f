"""Losses on single tokens: category, cluster and expert diversity (HM4SR eq. 21-22, ATHWE)."""

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
    shards: BatchShards | None = None,
) -> Float[Tensor, ""]:
    """Category prediction (CP): binary cross-entropy, averaged over categories and, with weights, over tokens.

        loss = sum_t weight_t mean_c bce(logits_tc, categories_tc) / sum_t weight_t

    Args:
        logits: scores of the C categories for the item of each token.
        categories: multi-hot, 0 or 1.
        weight: `prefix_weight` of a batch: number of prefix rows that contain the token, >= 0.
        shards: how the batch is divided among processes; None = not at all.
    Returns: scalar, this process's part of the mean; 0 when all weights are 0.
    Source: HM4SR eq. 21-22.   Differs: eq. 22 sums over categories; this is their mean, as in the published code. That code
        also indexes the flattened logits with a pair of index vectors, and so trains on other elements.
    """
    loss = F.binary_cross_entropy_with_logits(logits, categories.to(logits.dtype), reduction="none").mean(-1)
    return _weighted_mean(loss, weight, shards)


def cluster_loss(
    logits: Float[Tensor, "T K"],
    labels: Integer[Tensor, " T"],
    weight: Float[Tensor, " T"],
    shards: BatchShards | None = None,
) -> Float[Tensor, ""]:
    """Cluster prediction: cross-entropy, averaged with weights over the tokens whose item has a cluster.

        loss = sum_t weight_t ce(logits_t, labels_t) / sum_t weight_t,    over t with labels_t >= 0

    Args:
        logits: scores of the K clusters for the item of each token.
        labels: cluster of the item's frozen features, in 0..K-1; -1 = none.
        weight, shards: as in `category_loss`.
    Returns: scalar, this process's part of the mean; 0 when no token has a cluster.
    Source: ATHWE.   Differs: the published code trains on other elements, as for categories.
    """
    loss = F.cross_entropy(logits, labels.long(), reduction="none", ignore_index=-1)
    return _weighted_mean(loss, weight * (labels >= 0), shards)


def expert_diversity(
    experts: Float[Tensor, "E C"],
    tokens: Float[Tensor, "T C"],
    weight: Float[Tensor, " T"],
    shards: BatchShards | None = None,
) -> Float[Tensor, ""]:
    """Diversity of the routed experts: mean cosine between the outputs of two of them over the batch.

        o_i = concatenation over t of sqrt(weight_t) (W_i * e_t)        loss = mean_{i != j} cos(o_i, o_j)

    This equals the cosine of the experts under the metric diag(sum_t weight_t e_t^2), so no (E, T, C) tensor is needed.

    Args:
        experts: W, element-wise weights of each expert.
        tokens: e, inputs of the experts.
        weight, shards: as in `category_loss`.
    Returns: scalar in [-1, 1], divided by the number of processes; 0 for a single expert.
    Source: ATHWE.
    """
    E = experts.shape[0]
    if E < 2:
        return experts.new_zeros(())
    metric = weight @ tokens.square()
    parts = 1 if shards is None else shards.num_processes
    if shards is not None:
        metric = shards.total(metric)
    metric = metric.clamp(min=torch.finfo(tokens.dtype).tiny)  # the square root has no gradient at 0
    scaled = F.normalize(experts * metric.sqrt(), dim=-1)
    cosine = scaled @ scaled.T
    return (cosine.sum() - cosine.diagonal().sum()) / (E * (E - 1) * parts)


def _weighted_mean(
    values: Float[Tensor, " T"], weight: Float[Tensor, " T"], shards: BatchShards | None
) -> Float[Tensor, ""]:
    """sum_t weight_t values_t over the weights of all processes."""
    total = weight.sum() if shards is None else shards.total(weight.sum())
    return (values * weight).sum() / total.clamp(min=torch.finfo(weight.dtype).tiny)
