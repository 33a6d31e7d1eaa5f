"""FEARec: attention in frequency bands with contrastive terms (Du et al., SIGIR 2023).

    x_t = dropout(LN(E[item_t] + P[t]))                        t = 0..L-1, padding included
    y   = LN(x + dropout(W_o context(x) + b_o))                see `athwe_core/nn/frequency_attention.py`
    x'  = LN(y + dropout(W_2 gelu(W_1 y + b_1) + b_2))         exact gelu; n such blocks
    score(v) = x_last . E[v]
    loss = main + w_1 NCE(h, h') + w_2 NCE(h' or h, h_s) + w_3 mean |rfft(h' - h_s)|

h is the state of a row, h' that of a second pass with other dropout, h_s that of another training row with the same target.
NCE compares each vector of two views with all others of the batch. With `attention_reads_all: true`, as published, a state
depends on later items and on the padding, and so on L: rows are prefixes, padded to L in training and in ranking. With
`attention_reads_all: false`, our form, it depends on the items up to its own, and the model trains on packed rows.

Source: the paper and its authors' code.   Differs: the padding is no item. h_s is drawn from the rows of other users with
the target, where the code also draws other rows of the same user. Rows with the same target are negatives of each other, as
in the code. With several processes each has the delays of its own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from athwe_core.batch import Histories, PackedBatch
from athwe_core.losses.contrastive import symmetric_contrastive_loss
from athwe_core.losses.next_item import loss_scale
from athwe_core.models.fearec.config import FEARecConfig
from athwe_core.models.fearec.same_target import SameTargetRows
from athwe_core.models.id_model import IdModel
from athwe_core.models.protocol import Draws, Explanation, LossInputs, ModelInputs
from athwe_core.nn.frequency_attention import (
    FrequencyAttentionLayer,
    disjoint_bands,
    energy_shares,
    frequency_bands,
)
from athwe_core.nn.transformer import ONE, StackedLayerNorm

ROW_GROUPS = 8
"""Groups of rows of like length: most rows are far shorter than the longest."""


class FEARec(IdModel):
    """The network.

    Args:
        config: sizes, bands and losses.
        inputs: the number of items, and the training interactions where a term compares rows of the same target.
    """

    def __init__(self, config: FEARecConfig, inputs: ModelInputs) -> None:
        model = config.model
        super().__init__(config, inputs, hidden_size=model.hidden_size, dropout_rate=model.dropout)
        self.reads_all, self.contrastive = model.attention_reads_all, config.losses.contrastive
        weights = {
            "unsupervised": self.contrastive.unsupervised_weight,
            "supervised": self.contrastive.supervised_weight,
            "frequency": self.contrastive.frequency_weight,
        }
        self.loss_weights = {name: weight for name, weight in weights.items() if weight > 0}
        # torch's compiler makes no code for complex numbers, and without padding the rows of the same target vary in length
        has_complex = "frequency" in self.loss_weights
        self.has_fixed_shapes = not has_complex and (self.reads_all or not self.contrastive.has_same_target)
        none = torch.zeros(0, dtype=torch.int64)
        histories = inputs.histories or Histories(offsets=torch.zeros(1, dtype=torch.int64), item_ids=none)
        self.same_target = SameTargetRows(histories, max_length=model.max_length)
        self.position = None
        if model.position_embedding:
            self.position = nn.Parameter(torch.empty(model.max_length, model.hidden_size))
        self.input_norm = StackedLayerNorm(num_modalities=1, hidden_size=model.hidden_size)
        self.bands = frequency_bands(
            length=model.max_length, num_layers=model.num_layers, global_ratio=model.global_ratio
        )
        self.layers = nn.ModuleList(
            FrequencyAttentionLayer(
                length=model.max_length,
                band=band,
                topk_factor=model.topk_factor,
                dual_domain=model.dual_domain,
                spatial_ratio=model.spatial_ratio,
                filters_time_branch=model.filters_time_branch,
                reads_all=self.reads_all,
                hidden_size=model.hidden_size,
                inner_size=model.inner_size,
                num_heads=model.num_heads,
                dropout_rate=model.dropout,
                attention_dropout=model.dropout,
            )
            for band in self.bands
        )
        self.reset_parameters(inputs.generator)

    def draw(self, batch: PackedBatch, generator_of: Callable[[str], torch.Generator]) -> Draws:
        """Negatives of pairwise losses, and as `same_target` another row for each target, item ids (N, L)."""
        draws = dict(super().draw(batch, generator_of))
        if self.contrastive.has_same_target:
            draws["same_target"] = self.same_target.draw(batch, generator_of("same target"))
        return draws

    def encode(self, items: Float[Tensor, "T D"], batch: PackedBatch) -> Float[Tensor, "N D"]:
        """Rows padded to L; as published each has one supervised position, its last."""
        rows = batch.padded_to(self.max_length)
        if self.reads_all:
            states = self.encode_rows(self.with_padding(items, rows), rows.mask)
            return states[batch.rows[batch.target_index]]
        x = self.embed(rows.pad(items))
        for layer in self.layers:
            x = layer(x, rows.mask)
        return rows.at_targets(x).to(items.dtype)

    def encode_rows(self, items: Float[Tensor, "B L D"], is_item: Bool[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """Vectors of the items of right-padded rows to the states of their last items."""
        x = self.embed(items)
        for layer in self.layers[:-1]:
            x = layer(x, is_item)
        last = (is_item.sum(1) - 1).clamp(min=0)
        states: Tensor = self.layers[-1](x, is_item, last)
        return states[:, 0].to(items.dtype)

    def encode_same_target(self, item_ids: Int64[Tensor, "N L"], is_item: Bool[Tensor, "N L"]) -> Float[Tensor, "N D"]:
        """The state of each row of the same target; where padding does not count, rows of like length together."""
        if self.reads_all:
            return self.encode_rows(self.tables.id(item_ids), is_item)
        order, lengths = is_item.sum(1).argsort(), is_item.sum(1)
        states = []
        for rows in order.chunk(ROW_GROUPS):
            width = max(int(lengths[rows[-1]]), 1)
            states.append(self.encode_rows(self.tables.id(item_ids[rows, :width]), is_item[rows, :width]))
        return torch.cat(states)[order.argsort()]

    def embed(self, items: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Normalised sum of item and position, with dropout."""
        if self.position is not None:
            items = items + self.position[: items.shape[1]]
        x = items.flatten(0, 1)[None].to(self.product_dtype(items))
        return self.drop(self.input_norm(x, ONE)).view(items.shape)

    def further_losses(
        self, states: Float[Tensor, "N D"], items: Float[Tensor, "T D"], batch: PackedBatch, inputs: LossInputs
    ) -> dict[str, Float[Tensor, ""]]:
        """The terms in use: `unsupervised`, `supervised`, `frequency`."""
        if not self.loss_weights:
            return {}
        second = self.encode(items, batch)
        scale = loss_scale(batch.target_ids, inputs.shards, self.compute_dtype, inputs.chunk_elements)
        is_target = batch.target_ids >= 0

        def nce(first: Tensor, other: Tensor) -> Tensor:
            return symmetric_contrastive_loss(
                first,
                other,
                temperature=self.contrastive.temperature,
                similarity=self.contrastive.similarity,
                target_mask=is_target,
                shards=inputs.shards,
                **scale,
            )

        terms = {}
        if "unsupervised" in self.loss_weights:
            terms["unsupervised"] = nce(states, second)
        if self.contrastive.has_same_target:
            item_ids = inputs.draws["same_target"]
            same_target = self.encode_same_target(item_ids, (item_ids > 0) & is_target[:, None])
            if "supervised" in self.loss_weights:
                terms["supervised"] = nce(states if self.contrastive.anchor == "first" else second, same_target)
            if "frequency" in self.loss_weights:
                modulus = torch.fft.rfft((second - same_target).float(), norm="ortho").abs().mean(-1)
                terms["frequency"] = torch.where(is_target, modulus, 0).sum() / scale["num_targets"]
        return terms

    def explain(self, batch: PackedBatch, table: Float[Tensor, "V D"]) -> Explanation:
        """Attention of the last position by delays and over time, and where the energy of each layer's input is.

        A range of frequencies is named by its first and last one and the layers whose band holds it.
        """
        rows, ranges = batch.padded_to(self.max_length), disjoint_bands(self.bands, length=self.max_length)
        items = table[batch.item_ids]
        x = self.embed(self.with_padding(items, rows) if self.reads_all else rows.pad(items))
        layers, energy = [], {}
        for number, layer in enumerate(self.layers, 1):
            assert isinstance(layer, FrequencyAttentionLayer)
            layers.append([weights.tolist() for weights in layer.attention_parts(x, rows.mask)])
            energy[f"layer {number}"] = energy_shares(x[0] if self.reads_all else rows.mask[0, :, None] * x[0], ranges)
            x = layer(x, rows.mask)
        whole, *parts = ([*part] for part in zip(*layers, strict=True))
        return Explanation(
            attention={"id": whole},
            attention_parts=dict(zip(("delays", "time"), parts, strict=False)),  # the branch over time may be off
            frequency_bands=tuple(map(self._range_name, ranges)),
            frequency_energy=energy,
        )

    def _range_name(self, frequencies: tuple[int, int]) -> str:
        """`10-15 (layers 1, 2)` for the frequencies 10 to 15."""
        first, end = frequencies
        inside = [str(number) for number, (low, high) in enumerate(self.bands, 1) if low <= first and end <= high]
        layers = f"layer{'s' if len(inside) > 1 else ''} {', '.join(inside)}" if inside else "no layer"
        return f"{first}-{end - 1} ({layers})"

    def recompute_stages(self) -> Sequence[nn.Module]:
        """The layers."""
        return list(self.layers)
