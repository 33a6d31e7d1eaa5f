"""M3SRec-style: a Transformer over the tokens of all modalities with modality-specific and cross-modal experts.

    x^m_t = item^m + P[t] + M_m                         one token for each modality m of each item: id, text, image
    then layers of four sublayers over the tokens of all modalities of a row:
        self-attention block -> experts of each modality -> self-attention block -> experts of all modalities
    z_m   = the last token of modality m                  alpha = softmax_m(v . tanh(U z_m + u))      s = sum_m alpha_m z_m
    score(v) = s . fused item v                           fused as the states are

Self-attention blocks are post-norm with a relu feed-forward sublayer; experts are `FeedForwardExperts`. `item^text` and
`item^image` are linear maps of the features.

Source: M3SRec (Bian et al., CIKM 2023) has no public code, and its equations and settings were not available.

    verified, from its abstract      a fusion network that is a multi-modal mixture of experts, and pre-training tasks that
                                     relate the multi-modal sequence to its target item
    verified, from HM4SR's paper     modality-specific and cross-modal mixtures of experts, inside Transformers
    from a public adaptation to      the order of the sublayers, dense gates, relu experts, 4 experts of width 4 D, positions
    click prediction, MMCTR-Bench    that the modalities share, and the fusion of their last tokens
    our choice                       ids as a modality, fused items in the score, every other number in the preset

The last two may differ from the paper. Table 1 of HM4SR marks its numbers for M3SRec as its own reproduction, so they
are no reference for this form either.

Differs: the pre-training tasks are not offered. Attention is causal, so that every position of a packed row is supervised;
`causal: false` attends in both directions, in prefix rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from athwe_core.batch import MODALITIES, PackedBatch
from athwe_core.config_schema import (
    AttentionSection,
    Config,
    NotNegativeWhole,
    PositiveWhole,
    Words,
    model_validator,
    must,
)
from athwe_core.errors import require
from athwe_core.models.id_model import DROPOUT, IdLosses, IdModel
from athwe_core.models.protocol import Available, InputNeeds, ModelInputs, ModelSpec, Removal, Tree
from athwe_core.nn.dropout import with_fast_dropout
from athwe_core.nn.feed_forward_experts import FeedForwardExperts
from athwe_core.nn.item_embeddings import ItemEmbeddings
from athwe_core.nn.row_bins import RowBins, hidden_pairs_within
from athwe_core.nn.transformer import LAYER_NORM_EPS


def _are_in_order(names: Sequence[str]) -> bool:
    return tuple(names) == tuple(name for name in MODALITIES if name in names) and "id" in names


class M3SRecModelConfig(AttentionSection):
    """Sizes of the M3SRec-style model."""

    name: Literal["m3srec-style"]
    inner_size: PositiveWhole
    modalities: Annotated[Words, must("be id, then text, image or both", _are_in_order)]
    modality_experts: NotNegativeWhole
    """Experts of each modality; 0 leaves the sublayer out."""
    cross_experts: NotNegativeWhole
    """Experts of all modalities; 0 leaves the sublayer out."""
    causal: bool
    """False: a token attends to later ones too."""


class M3SRecConfig(Config):
    """Everything that decides a run of the M3SRec-style model."""

    model: M3SRecModelConfig
    losses: IdLosses

    @model_validator(mode="after")
    def _prefix_rows_unless_causal(self) -> M3SRecConfig:
        is_legal = self.model.causal or self.training.batching == "prefix"
        rule = "must be prefix with model.causal=false: a state sees later items of its row"
        require(is_legal, "training.batching", rule, self.training.batching, "Use --batching prefix")
        return self


class M3SRecLayer(nn.Module):
    """Self-attention and experts of each modality, then self-attention and experts of all modalities.

    Args:
        model: sizes.
    """

    def __init__(self, model: M3SRecModelConfig) -> None:
        super().__init__()
        D, inner, rate, M = model.hidden_size, model.inner_size, model.dropout, len(model.modalities)
        sizes = (D, model.num_heads, inner, rate, F.relu, LAYER_NORM_EPS, True)

        def experts(count: int) -> FeedForwardExperts:
            return FeedForwardExperts(hidden_size=D, inner_size=inner, num_experts=count, dropout_rate=rate)

        self.attention, self.joint_attention = (with_fast_dropout(nn.TransformerEncoderLayer(*sizes)) for _ in range(2))
        self.of_modality = nn.ModuleList(
            experts(model.modality_experts) for _ in range(M if model.modality_experts else 0)
        )
        self.of_all = experts(model.cross_experts) if model.cross_experts else None

    def forward(self, x: Float[Tensor, "G MS D"], hidden: Bool[Tensor, "H MS MS"]) -> Float[Tensor, "G MS D"]:
        """Tokens after the layer; the modalities' slots lie side by side, `hidden` has the pairs that do not attend."""
        x = self.attention(x, src_mask=hidden)
        if len(self.of_modality) > 0:
            parts = x.chunk(len(self.of_modality), dim=1)
            x = torch.cat([experts(part) for experts, part in zip(self.of_modality, parts, strict=True)], dim=1)
        x = self.joint_attention(x, src_mask=hidden)
        return x if self.of_all is None else self.of_all(x)


class M3SRecStyle(IdModel):
    """The network.

    Args:
        config: sizes and the main loss.
        inputs: features of the configured modalities.
    """

    def __init__(self, config: M3SRecConfig, inputs: ModelInputs) -> None:
        model, M = config.model, len(config.model.modalities)
        super().__init__(config, inputs, hidden_size=model.hidden_size, dropout_rate=model.dropout)
        self.settings, self.num_modalities = model, M
        self.tables = ItemEmbeddings(
            {name: inputs.catalogue.features[name] for name in model.modalities[1:]},
            hidden_size=model.hidden_size,
            num_item_rows=inputs.catalogue.num_item_rows,
            compute_dtype=inputs.compute_dtype,
            sparse=self.loss_kind == "sampled",
        )
        self.position = nn.Parameter(torch.empty(model.max_length, model.hidden_size))
        self.modality = nn.Parameter(torch.empty(M, model.hidden_size))
        self.layers = nn.ModuleList(M3SRecLayer(model) for _ in range(model.num_layers))
        self.fusion = nn.Linear(model.hidden_size, model.hidden_size) if M > 1 else None
        self.fusion_vector = nn.Parameter(torch.empty(model.hidden_size)) if M > 1 else None
        self.reset_parameters(inputs.generator)

    def encode(self, items: Float[Tensor, "T K"], batch: PackedBatch) -> Float[Tensor, "N D"]:
        """States of the supervised positions, fused over the modalities."""
        M, bins = self.num_modalities, RowBins(batch.grid_tokens, batch.token_slots, batch.rows)
        x = items.float().unflatten(1, (M, -1)) + self.position[batch.positions][:, None] + self.modality
        places = bins.place(batch.positions).repeat(1, M)
        rows = bins.rows.repeat(1, M)
        hidden = hidden_pairs_within(rows, rows >= 0, num_heads=self.settings.num_heads)
        if self.settings.causal:
            later = places[:, None] > places[:, :, None]
            hidden = hidden | later.repeat_interleave(self.settings.num_heads, dim=0)
        is_low = self.training and self.compute_dtype != torch.float32
        with torch.autocast(items.device.type, self.compute_dtype, enabled=is_low):
            tokens = torch.cat(bins.place(self.drop(x)).unbind(2), dim=1)
            for layer in self.layers:
                tokens = layer(tokens, hidden)
        parts = tokens.float().chunk(M, dim=1)
        return self.fused(torch.stack([bins.take(part, batch.target_index) for part in parts], dim=1))

    def fused(self, parts: Float[Tensor, "n M D"]) -> Float[Tensor, "n D"]:
        """sum_m softmax_m(v . tanh(U z_m + u)) z_m"""
        if self.fusion is None or self.fusion_vector is None:
            return parts[:, 0]
        weights = (torch.tanh(self.fusion(parts)) @ self.fusion_vector).softmax(1)
        return torch.einsum("nm,nmd->nd", weights, parts)

    def scored(
        self, states: Float[Tensor, "N D"], table: Float[Tensor, "n K"], rows: Int64[Tensor, " n"] | None
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, "n D"]]:
        """States and fused items."""
        return states, self.fused(table.float().unflatten(1, (self.num_modalities, -1)))

    def user_vectors(self, batch: PackedBatch, table: Float[Tensor, "V D"] | None = None) -> Float[Tensor, "N D"]:
        """Fused states; the input has every modality, which the table has not."""
        return self.encode(self.tables(batch.item_ids), batch)

    def item_table(self) -> Float[Tensor, "V D"]:
        """Fused items."""
        return self.fused(self.tables().unflatten(1, (self.num_modalities, -1)))

    def recompute_stages(self) -> Sequence[nn.Module]:
        """The layers."""
        return list(self.layers)


def _adapt(tree: Tree, available: Available) -> list[str]:
    """Take out the modalities without features."""
    missing = [name for name in tree["model"]["modalities"][1:] if name not in available.features]
    tree["model"]["modalities"] = [name for name in tree["model"]["modalities"] if name not in missing]
    return [f"{available.dataset} has no {name} features: the {name} modality is off" for name in missing]


def _modality(name: str, modality: str) -> Removal:
    def take_out(tree: Tree) -> Mapping[str, str]:
        tree["model"]["modalities"] = [other for other in tree["model"]["modalities"] if other != modality]
        return {}

    return Removal(name, lambda tree: modality in tree["model"]["modalities"], take_out)


def _experts(name: str, key: str) -> Removal:
    def take_out(tree: Tree) -> Mapping[str, str]:
        tree["model"][key] = 0
        return {}

    return Removal(name, lambda tree: tree["model"][key] > 0, take_out)


MODEL = ModelSpec(
    name="m3srec-style",
    summary="M3SRec-style: modality-specific and cross-modal experts in a Transformer (after Bian et al., CIKM 2023)",
    config=M3SRecConfig,
    build=M3SRecStyle,
    needs=lambda config: InputNeeds(features=config.model.modalities[1:]),
    adapt=_adapt,
    removals=(
        _experts("ModalityMoE", "modality_experts"),
        _experts("CrossMoE", "cross_experts"),
        _modality("Text", "text"),
        _modality("Image", "image"),
        DROPOUT,
    ),
)
