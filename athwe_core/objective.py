"""Outputs of the network to named loss terms and their weighted sum (HM4SR eq. 27 and ATHWE's two terms more)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from athwe_core.batch import Catalogue, PackedBatch
from athwe_core.config import LossesConfig
from athwe_core.losses.catalogue_ce import catalogue_cross_entropy
from athwe_core.losses.contrastive import contrastive_loss, exclusion_bias, false_negatives
from athwe_core.losses.items import category_loss, cluster_loss, expert_diversity
from athwe_core.network import Network, Outputs
from athwe_core.nn.moe import SparseTemporalMoE


def placeholder_mask(
    batch: PackedBatch, *, mask_share: float, batching: str, generator: torch.Generator
) -> Bool[Tensor, " T"]:
    """Tokens that hold the time placeholder in the augmented pass of PCL.

    Prefix batching replaces floor(beta n) of the n tokens of each row, packed batching each token with probability beta,
    because one augmented pass serves all its positions.
    """
    draw = torch.rand(batch.num_tokens, generator=generator).to(batch.rows.device)
    if batching == "packed":
        return draw < mask_share
    # rank of each token among the draws of its row: sorted by (row, draw), then counted from the row's first token
    by_draw = torch.argsort(draw)
    order = by_draw[torch.argsort(batch.rows[by_draw], stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(batch.num_tokens, device=order.device)
    rank = rank - batch.offsets[batch.rows]
    share = (batch.offsets.diff() * mask_share + 1e-4).floor()  # 0.3 * 10 is 3, not 2.999...
    return rank < share[batch.rows]


def loss_terms(
    network: Network,
    outputs: Outputs,
    batch: PackedBatch,
    catalogue: Catalogue,
    losses: LossesConfig,
    *,
    replaced: Bool[Tensor, " T"] | None = None,
    compute_dtype: torch.dtype = torch.float32,
) -> dict[str, Float[Tensor, ""]]:
    """The terms in use, unweighted: ce, and cp, idcl, pcl, cluster, diversity where their weight is not 0.

    Args:
        replaced: tokens that hold the placeholder, for pcl.
        compute_dtype: dtype of the catalogue's products.
    """
    states = outputs.states
    vectors = network.user_vectors(states)
    terms = {
        "ce": catalogue_cross_entropy(vectors, outputs.table[1:], batch.target_ids - 1, compute_dtype=compute_dtype)
    }
    if losses.cp.weight > 0 and network.category_head is not None:
        assert catalogue.categories is not None
        logits = network.category_head(outputs.items)
        terms["cp"] = category_loss(logits, catalogue.categories[batch.item_ids], batch.prefix_weight)
    bias = None
    if losses.idcl.weight > 0 or losses.pcl.weight > 0:
        user = batch.user_index[batch.rows[batch.target_index]]
        bias = exclusion_bias(false_negatives(batch.target_ids, user))
    if losses.idcl.weight > 0:
        assert bias is not None
        next_items = outputs.table.index_select(0, batch.target_ids)[:, : network.hidden_size]
        terms["idcl"] = contrastive_loss(states[0], next_items, bias, temperature=losses.idcl.temperature)
    if losses.pcl.weight > 0 and network.placeholders is not None:
        assert bias is not None
        assert replaced is not None, "pcl needs the mask of replaced tokens"
        augmented = network.placeholder_states(outputs, batch, replaced)
        pairs = zip(states[1:], augmented, strict=True)
        found = [contrastive_loss(own, other, bias, temperature=losses.pcl.temperature) for own, other in pairs]
        terms["pcl"] = torch.stack(found).mean()  # eq. 26
    if losses.cluster.weight > 0 and len(network.cluster_heads) > 0:
        D = network.hidden_size
        found = [
            cluster_loss(
                head(outputs.items[:, D * m : D * (m + 1)]),
                catalogue.clusters[name][batch.item_ids],
                batch.prefix_weight,
            )
            for m, name in enumerate(network.modalities)
            if m > 0 and name in network.cluster_heads
            for head in [network.cluster_heads[name]]
        ]
        terms["cluster"] = torch.stack(found).mean()
    if losses.diversity.weight > 0 and isinstance(network.temporal_moe, SparseTemporalMoE):
        terms["diversity"] = expert_diversity(
            network.temporal_moe.experts, outputs.temporal_input.flatten(1), batch.prefix_weight
        )
    return terms


def total_loss(terms: dict[str, Float[Tensor, ""]], losses: LossesConfig) -> Float[Tensor, ""]:
    """ce + sum of weight * term (eq. 27)."""
    weights = {name: getattr(losses, name).weight for name in terms if name != "ce"}
    return sum((weights[name] * terms[name] for name in weights), start=terms["ce"])
