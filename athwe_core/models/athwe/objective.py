"""Outputs of the network to named loss terms and their weighted sum (HM4SR eq. 27 and ATHWE's two terms more)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from athwe_core.batch import Catalogue, PackedBatch, to_device
from athwe_core.config import LossesConfig
from athwe_core.distributed import BatchShards
from athwe_core.losses.auxiliary import category_loss, cluster_loss, expert_diversity
from athwe_core.losses.catalogue_ce import CHUNK_ELEMENTS, catalogue_cross_entropy
from athwe_core.losses.contrastive import contrastive_loss, excluded_pairs, exclusion_bias
from athwe_core.losses.sampled_ce import LogUniformSampler, sampled_cross_entropy
from athwe_core.models.athwe.network import Network, Outputs
from athwe_core.nn.item_embeddings import linear
from athwe_core.nn.moe import SparseTemporalMoE


def placeholder_mask(
    batch: PackedBatch, *, mask_share: float, batching: str, generator: torch.Generator
) -> Bool[Tensor, " T"]:
    """Tokens that hold the time placeholder in the augmented pass of PCL.

    Prefix batching replaces floor(beta n) of the n tokens of each row, packed batching each token with probability beta,
    because one augmented pass serves all its positions.
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


@dataclass(frozen=True)
class Candidates:
    """The items that stand for the catalogue in a step, where its loss is sampled."""

    items: Int64[Tensor, " S"]
    """Targets of the whole batch and drawn items, distinct, increasing."""
    log_weight: Float[Tensor, " S"]
    """Logarithm of times drawn over times expected."""

    def rows(self, item_ids: Int64[Tensor, " T"]) -> Int64[Tensor, " Vr"]:
        """Items whose table rows a step needs: the candidates and those of its tokens, increasing."""
        return torch.cat([self.items, item_ids]).unique()


def sample_candidates(
    sampler: LogUniformSampler, target_ids: Int64[Tensor, " N_all"], generator: torch.Generator
) -> Candidates:
    """Candidates of a batch, from the targets of all its processes and the sampler's draws."""
    target_ids = target_ids[target_ids >= 0]
    found = torch.cat([target_ids, sampler.draw(generator)])
    items, times = found.unique(return_counts=True)
    expected = sampler.expected_count(items, num_targets=len(target_ids))
    return Candidates(items, times.log() - expected.log())


class _Means(TypedDict):
    """How each cross-entropy is taken."""

    num_targets: int | Tensor
    compute_dtype: torch.dtype
    chunk_elements: int


def loss_terms(
    network: Network,
    outputs: Outputs,
    batch: PackedBatch,
    catalogue: Catalogue,
    losses: LossesConfig,
    *,
    candidates: Candidates | None = None,
    shares: BatchShards | None = None,
    compute_dtype: torch.dtype = torch.float32,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> dict[str, Float[Tensor, ""]]:
    """The terms in use, unweighted: ce, and cp, idcl, pcl, cluster, diversity where their weight is not 0.

    Args:
        candidates: for a sampled catalogue loss; `outputs` hold their table rows.
        shares: where the batch is spread over several processes; each term is then this process's part of it.
        compute_dtype: dtype of the products.
        chunk_elements: most scores held at a time.
    The term pcl is there where the outputs have an augmented pass.
    """
    states, target_mask = outputs.states, batch.target_ids >= 0
    # a tensor, not `batch.num_targets`: compiled code is for one value of a number, and for every value of a tensor
    means: _Means = {
        "num_targets": target_mask.sum() if shares is None else shares.num_targets,
        "compute_dtype": compute_dtype,
        "chunk_elements": chunk_elements,
    }
    terms = {"ce": _catalogue_loss(network.user_vectors(states), outputs, batch, candidates, means)}
    if losses.cp.weight > 0 and network.category_head is not None:
        assert catalogue.categories is not None
        logits = linear(network.category_head, outputs.items, compute_dtype).float()
        terms["cp"] = category_loss(logits, catalogue.categories[batch.item_ids], batch.prefix_weight, shares)
    terms |= _contrastive_losses(outputs, batch, losses, target_mask, shares, means)
    if losses.cluster.weight > 0 and len(network.cluster_heads) > 0:
        D = network.hidden_size
        found = [
            cluster_loss(
                linear(head, outputs.items[:, D * m : D * (m + 1)], compute_dtype).float(),
                catalogue.clusters[name][batch.item_ids],
                batch.prefix_weight,
                shares,
            )
            for m, name in enumerate(network.modalities)
            if m > 0 and name in network.cluster_heads
            for head in [cast(nn.Linear, network.cluster_heads[name])]
        ]
        terms["cluster"] = torch.stack(found).mean()
    if losses.diversity.weight > 0 and isinstance(network.temporal_moe, SparseTemporalMoE):
        terms["diversity"] = expert_diversity(
            network.temporal_moe.experts, outputs.temporal_input.flatten(1), batch.prefix_weight, shares
        )
    return terms


def _contrastive_losses(
    outputs: Outputs,
    batch: PackedBatch,
    losses: LossesConfig,
    target_mask: Bool[Tensor, " N"],
    shares: BatchShards | None,
    means: _Means,
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
    bias = exclusion_bias(excluded_pairs(batch.target_ids, user, shares), means["compute_dtype"])
    first = 0 if has_idcl else 1
    found = contrastive_loss(
        outputs.states[first : first + len(temperatures)],
        torch.cat(candidates),
        bias,
        temperatures=temperatures,
        target_mask=target_mask,
        shares=shares,
        **means,
    )
    terms = {"idcl": found[0]} if has_idcl else {}
    if has_pcl:
        terms["pcl"] = found[1 - first :].mean()  # eq. 26
    return terms


def _catalogue_loss(
    vectors: Float[Tensor, "N K"],
    outputs: Outputs,
    batch: PackedBatch,
    candidates: Candidates | None,
    means: _Means,
) -> Float[Tensor, ""]:
    """Cross-entropy of the next item against the catalogue, or against the items that stand for it."""
    if candidates is None:
        return catalogue_cross_entropy(
            vectors,
            outputs.table,
            batch.target_ids,
            first_row=1,  # row 0 is the padding
            **means,
        )
    return sampled_cross_entropy(
        vectors,
        outputs.of_items(candidates.items),
        torch.where(batch.target_ids < 0, -1, torch.searchsorted(candidates.items, batch.target_ids)),
        candidates.log_weight,
        **means,
    )


class Objective(nn.Module):
    """Batch to loss terms in one call, so that the processes of a spread batch can share its gradients."""

    def __init__(
        self, network: Network, catalogue: Catalogue, losses: LossesConfig, *, compute_dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.network = network
        self.catalogue, self.losses, self.compute_dtype = catalogue, losses, compute_dtype

    def forward(
        self,
        batch: PackedBatch,
        *,
        replaced: Bool[Tensor, " T"] | None = None,
        candidates: Candidates | None = None,
        shares: BatchShards | None = None,
        chunk_elements: int = CHUNK_ELEMENTS,
    ) -> dict[str, Float[Tensor, ""]]:
        """The terms of `loss_terms`."""
        rows = None if candidates is None else candidates.rows(batch.item_ids)
        outputs = self.network(batch, rows=rows, replaced=replaced)
        return loss_terms(
            self.network,
            outputs,
            batch,
            self.catalogue,
            self.losses,
            candidates=candidates,
            shares=shares,
            compute_dtype=self.compute_dtype,
            chunk_elements=chunk_elements,
        )


def total_loss(terms: dict[str, Float[Tensor, ""]], losses: LossesConfig) -> Float[Tensor, ""]:
    """ce + sum of weight * term (eq. 27)."""
    weights = {name: getattr(losses, name).weight for name in terms if name != "ce"}
    return sum((weights[name] * terms[name] for name in weights), start=terms["ce"])
