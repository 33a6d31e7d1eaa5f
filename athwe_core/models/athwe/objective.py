"""Outputs of the network to named loss terms (HM4SR eq. 20-27 and two terms of ATHWE)."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from athwe_core.batch import Catalogue, PackedBatch, SeenItems, to_device
from athwe_core.distributed import BatchShards
from athwe_core.losses.auxiliary import category_loss, cluster_loss, expert_diversity
from athwe_core.losses.contrastive import contrastive_loss, excluded_pairs, exclusion_bias
from athwe_core.losses.next_item import LossScale, loss_scale, next_item_loss
from athwe_core.models.athwe.config import AthweLossesConfig
from athwe_core.models.athwe.network import Network, Outputs
from athwe_core.models.protocol import LossInputs
from athwe_core.nn.item_embeddings import linear
from athwe_core.nn.moe import SparseTemporalMoE


def placeholder_mask(
    batch: PackedBatch, *, mask_share: float, batching: str, generator: torch.Generator
) -> Bool[Tensor, " T"]:
    """Tokens that hold the time placeholder in the augmented pass of PCL.

    Prefix batching replaces floor(beta n) of the n tokens of each row, packed batching each token with probability beta,
    because one augmented pass serves all its positions.

    Source: HM4SR eq. 24.   Differs: the share in packed batching holds on average, not in each row.
    """
    draw = to_device(torch.rand(batch.num_tokens, generator=generator), batch.rows.device)
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
    losses: AthweLossesConfig,
    *,
    inputs: LossInputs,
    seen: SeenItems | None = None,
    compute_dtype: torch.dtype = torch.float32,
) -> dict[str, Float[Tensor, ""]]:
    """The terms in use, unweighted: ce, and cp, idcl, pcl, cluster, diversity where their weight is not 0.

    Args:
        inputs: candidates of a sampled catalogue loss, whose table rows `outputs` hold; how the batch is divided over
            processes, each term then being this process's part of it; most scores held at a time.
        seen: terms for items of the histories.
        compute_dtype: dtype of the products.
    The term pcl is present where the outputs have an augmented pass.
    """
    states, target_mask, shards = outputs.states, batch.target_ids >= 0, inputs.shards
    scale = loss_scale(batch.target_ids, shards, compute_dtype, inputs.chunk_elements)
    terms = {
        "ce": next_item_loss(
            network.score_vectors(states),
            outputs.table,
            batch.target_ids,
            scale=scale,
            candidates=inputs.candidates,
            table_items=outputs.rows,
            seen=seen,
        )
    }
    if losses.cp.weight > 0 and network.category_head is not None:
        assert catalogue.categories is not None
        logits = linear(network.category_head, outputs.items, compute_dtype).float()
        terms["cp"] = category_loss(logits, catalogue.categories[batch.item_ids], batch.prefix_weight, shards)
    terms |= _contrastive_losses(outputs, batch, losses, target_mask, shards, scale)
    if losses.cluster.weight > 0 and len(network.cluster_heads) > 0:
        D = network.hidden_size
        found = [
            cluster_loss(
                linear(head, outputs.items[:, D * m : D * (m + 1)], compute_dtype).float(),
                catalogue.clusters[name][batch.item_ids],
                batch.prefix_weight,
                shards,
            )
            for m, name in enumerate(network.modalities)
            if m > 0 and name in network.cluster_heads
            for head in [cast(nn.Linear, network.cluster_heads[name])]
        ]
        terms["cluster"] = torch.stack(found).mean()
    if losses.diversity.weight > 0 and isinstance(network.temporal_moe, SparseTemporalMoE):
        terms["diversity"] = expert_diversity(
            network.temporal_moe.experts, outputs.temporal_input.flatten(1), batch.prefix_weight, shards
        )
    return terms


def _contrastive_losses(
    outputs: Outputs,
    batch: PackedBatch,
    losses: AthweLossesConfig,
    target_mask: Bool[Tensor, " N"],
    shards: BatchShards | None,
    scale: LossScale,
) -> dict[str, Float[Tensor, ""]]:
    """The terms idcl and pcl, those of them that are in use, from one product."""
    candidates: list[Tensor] = []  # for the states of id, or of text and image, or of all three
    temperatures: list[float] = []
    has_idcl, has_pcl = losses.idcl.weight > 0, losses.pcl.weight > 0 and outputs.augmented is not None
    if has_idcl:
        candidates.append(outputs.next_items[None, :, : outputs.states.shape[-1]])
        temperatures.append(losses.idcl.temperature)
    if has_pcl:
        assert outputs.augmented is not None
        candidates.append(outputs.augmented)
        temperatures += [losses.pcl.temperature] * len(outputs.augmented)
    if not candidates:
        return {}
    user = batch.user_index[batch.rows[batch.target_index]]
    bias = exclusion_bias(excluded_pairs(batch.target_ids, user, shards), scale["compute_dtype"])
    first = 0 if has_idcl else 1
    found = contrastive_loss(
        outputs.states[first : first + len(temperatures)],
        torch.cat(candidates),
        bias,
        temperatures=temperatures,
        target_mask=target_mask,
        shards=shards,
        **scale,
    )
    terms = {"idcl": found[0]} if has_idcl else {}
    if has_pcl:
        terms["pcl"] = found[1 - first :].mean()  # eq. 26
    return terms
