"""IISAN: item vectors from side networks over cached states of frozen encoders (Fu et al., SIGIR 2024).

    item = W [image tower; text tower; tower of both] + b                see `Tower`
    x_t  = dropout(LN(item_t + P[t]))
    then Transformer blocks: attention without biases, relu, post-norm
    score(v) = state . item_v
    loss: cross-entropy over the items of the batch, each with -log of its popularity, without those of the own row

The encoders' states of each item are computed once (`Catalogue.layer_states`), so that no encoder runs in training. A data
set without them has one state of each encoder: its feature vector.

Source: the equations of the paper and of its authors' code.   Differs: one rate for all weights; the authors have 2e-4 (user
encoder, heads), 1e-4 (adapters) and 5e-5 (last text layer). Popularity is that of the training targets, of which a user's
first item is none. Positions are counted from the oldest item (`positions_from: newest` as published, where a row's length
moves its positions). A linear map brings image states to the width of text states where these differ.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from athwe_core.batch import Catalogue, PackedBatch
from athwe_core.losses.in_batch_ce import in_batch_cross_entropy
from athwe_core.losses.next_item import loss_scale
from athwe_core.models.iisan.config import IISANConfig, IISANModelConfig
from athwe_core.models.iisan.side_networks import SideNetworks
from athwe_core.models.protocol import LossInputs, ModelInputs
from athwe_core.models.sasrec import SASRec, slots_from_newest
from athwe_core.nn.transformer import StackedLayerNorm, StackedTransformer

LAYER_NORM_EPS = 1e-6
ADAPTER_STD = 0.01


def modalities_of(model: IISANModelConfig) -> tuple[str, ...]:
    """What the towers read, text first."""
    return tuple(name for name in ("text", "image") if name in model.towers or "both" in model.towers)


class IISAN(SASRec):
    """The network.

    Args:
        config: sizes, towers and the main loss.
        inputs: layer states of the encoders, or features; target counts for the loss `in_batch`.
    """

    has_fixed_shapes = False  # a step encodes each item of its batch once, however many there are
    tables: SideNetworks  # type: ignore[assignment]
    log_popularity: Tensor

    def __init__(self, config: IISANConfig, inputs: ModelInputs) -> None:
        super().__init__(config, inputs)
        model, catalogue = config.model, inputs.catalogue
        self.positions_from = model.positions_from
        self.tables = SideNetworks(model, layer_states(catalogue, model), compute_dtype=inputs.compute_dtype)
        self.input_norm = StackedLayerNorm(num_modalities=1, hidden_size=model.hidden_size, eps=LAYER_NORM_EPS)
        self.transformer = StackedTransformer(
            num_modalities=1,
            hidden_size=model.hidden_size,
            inner_size=model.inner_size,
            num_layers=model.num_layers,
            num_heads=model.num_heads,
            dropout_rate=model.dropout,
            activation="relu",
            attention_bias=False,
            eps=LAYER_NORM_EPS,
        )
        counts = catalogue.target_counts
        counts = torch.ones(catalogue.num_item_rows) if counts is None else counts.clamp(min=1).float()
        self.register_buffer("log_popularity", (counts / counts[1:].sum()).log(), persistent=False)
        self.reset_parameters(inputs.generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Xavier normal for the user encoder and the image head, normal(0, 0.01) for adapters, zeros for biases and gates
        (so 0.5), ones for LayerNorm; the other linear layers uniform in +-1 / sqrt(F)."""
        for name, parameter in self.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.fill_(1.0)
            elif name.endswith(("bias", "gates")):
                parameter.zero_()
            elif ".down." in name or ".up." in name:
                parameter.normal_(0, ADAPTER_STD, generator=generator)
            elif name.startswith("tables.") and "towers.image.outer" not in name:
                bound = parameter.shape[-1] ** -0.5
                parameter.uniform_(-bound, bound, generator=generator)
            else:
                for matrix in parameter.squeeze(0).chunk(3 if "qkv" in name else 1, dim=1):  # query, key and value
                    nn.init.xavier_normal_(matrix, generator=generator)

    def slots(self, batch: PackedBatch) -> Int64[Tensor, " T"]:
        """Positions, counted as the configuration says."""
        return batch.positions if self.positions_from == "oldest" else slots_from_newest(batch, self.max_length)

    def losses(self, batch: PackedBatch, inputs: LossInputs) -> dict[str, Float[Tensor, ""]]:
        """The main loss alone: `ce`."""
        if self.loss_kind != "in_batch":
            return super().losses(batch, inputs)
        targets, is_target = batch.target_ids, batch.target_ids >= 0
        items, where = torch.cat([batch.item_ids, targets.clamp(min=0)]).unique(return_inverse=True)
        tokens, own = where.split([batch.num_tokens, len(targets)])
        table = self.tables(items)
        states = self.encode(table[tokens], batch)
        target_rows = batch.rows[batch.target_index]
        # A row holds its tokens and the item after the last of them; the other targets are tokens too.
        is_last = is_target & (batch.target_index + 1 == batch.offsets[1:][target_rows])
        counts = torch.cat([tokens, own[is_last]]).bincount(minlength=len(items))
        holds = torch.zeros(batch.num_rows + 1, len(items), dtype=torch.bool, device=items.device)
        holds[batch.rows, tokens] = True
        holds[target_rows[is_target], own[is_target]] = True
        ce = in_batch_cross_entropy(
            states,
            table,
            torch.where(is_target, own, -1),
            held=holds[target_rows],
            counts=torch.where(items > 0, counts, 0),
            log_popularity=self.log_popularity[items],
            scale=loss_scale(targets, inputs.shards, self.compute_dtype, inputs.chunk_elements),
        )
        return {"ce": ce}


def layer_states(catalogue: Catalogue, model: IISANModelConfig) -> dict[str, Float[Tensor, "V S F"]]:
    """States of the encoders' layers by modality; the feature vector as the only one where there are none."""
    found = {}
    for name in modalities_of(model):
        states = catalogue.layer_states.get(name)
        found[name] = catalogue.features[name][:, None] if states is None else states
    return found
