"""MISSRec: sequences of item texts and images that look up the interests of their user (Wang et al., ACM MM 2023).

    t_v = A_T text_v + a_T        i_v = A_I image_v + a_I                    an item without text (image) has none
    interests: clusters of all t and i, renewed at the beginning of each epoch, without a gradient into their centroids
    m   = encoder(centroids of the distinct clusters of the row's texts and images)            no positions
    x_j = dropout(LN(t_j + i_j + P[j] + E[item_j]))                          E only where the model has ids
    s   = decoder(x, m)                                                     self-attention in both directions, to m
    score(v) = (cos(s, E[v]) + 2 fused(v)) / 3 / tau        fused: see `fused_scores`; without ids fused(v) / tau
    loss = cross-entropy over all items + 0.1 * orthogonal
    orthogonal = mean over rows of |sum_k m_k|^2 / (n D)                     n interests of a row

Fusion `static` takes the mean of text and image instead, `contextual` has tokens of their own for text and image, the state
being that of the last text. Encoder and decoder are post-norm layers with exact gelu and a final norm.

Pre-training (`losses.catalogue.kind: in_batch`, without ids): cross-entropy over the next items of the batch, and with weight
0.001 contrast with a copy of the row that lacks some items.

Source: the equations of the paper and of its authors' code.   Differs: the preset clusters by k-means; the paper has density
peaks, and its code a k-means of one round over absolute values (`interests.method`). As coded a missing text or image adds
the projection's bias (`skips_missing: false`), the orthogonal term is a sum over the batch and its padding with weight 1e-4,
the padding is an item, and a dropped item overwrites the kept one before it and leaves its image; the recorded outputs show
these forms. Rows are prefixes, since a state sees its whole row. The text with dropped words, the other kind of copy, needs a
second text vector of each item and is not offered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from athwe_core.batch import PackedBatch, to_device
from athwe_core.losses.next_item import loss_scale, next_item_loss
from athwe_core.models.id_model import INIT_STD
from athwe_core.models.missrec.config import MISSRecConfig
from athwe_core.models.missrec.interests import density_peaks, kmeans, one_pass_of_absolutes
from athwe_core.models.missrec.items import MODALITIES, ItemModalities, ItemParts, fused_cross_entropy, fused_scores
from athwe_core.models.protocol import Draws, LossInputs, Model, ModelInputs
from athwe_core.nn.dropout import dropout, with_fast_dropout
from athwe_core.nn.row_bins import RowBins, first_of_each, hidden_pairs, hidden_pairs_within
from athwe_core.nn.transformer import LAYER_NORM_EPS


@dataclass(frozen=True)
class RowTokens:
    """What the network reads of a batch, by token."""

    parts: ItemParts
    interests: tuple[Int64[Tensor, " T"], Int64[Tensor, " T"]]
    """Interest of each token's text and image; 0 = none."""
    positions: Int64[Tensor, " T"]
    kept: Bool[Tensor, " T"]
    """False: no token attends to it."""
    read: Int64[Tensor, " N"]
    """Tokens whose states are returned."""


class MISSRec(Model):
    """The network.

    Args:
        config: sizes, interests and losses.
        inputs: text and image features of the items.
    """

    has_fixed_shapes = False  # the bins of the rows' interests are masked by value
    interest_embeddings: Tensor
    text_interests: Tensor
    image_interests: Tensor

    def __init__(self, config: MISSRecConfig, inputs: ModelInputs) -> None:
        super().__init__()
        model, losses, V = config.model, config.losses, inputs.catalogue.num_item_rows
        self.settings, self.sequence, self.seed = model, losses.sequence, config.training.seed
        self.max_length, self.compute_dtype = model.max_length, inputs.compute_dtype
        self.temperature, self.loss_kind = losses.temperature, losses.catalogue.kind
        self.loss_weights = {"orthogonal": losses.orthogonal.weight, "sequence": losses.sequence.weight}
        self.tables = ItemModalities(
            model, inputs.catalogue.features, compute_dtype=inputs.compute_dtype, sparse=self.loss_kind == "sampled"
        )
        self.position = nn.Parameter(torch.empty(model.max_length, model.hidden_size))
        self.preference = nn.Parameter(torch.empty(())) if model.fusion != "static" else None
        self.input_norm, self.encoder_norm, self.decoder_norm = (
            nn.LayerNorm(model.hidden_size, eps=LAYER_NORM_EPS) for _ in range(3)
        )
        sizes = (model.hidden_size, model.num_heads, model.inner_size, model.dropout, F.gelu, LAYER_NORM_EPS, True)
        encoders, decoders = range(model.num_encoder_layers), range(model.num_layers)
        self.encoder = nn.ModuleList(with_fast_dropout(nn.TransformerEncoderLayer(*sizes)) for _ in encoders)
        self.decoder = nn.ModuleList(with_fast_dropout(nn.TransformerDecoderLayer(*sizes)) for _ in decoders)
        num_interests = min(math.ceil(round(model.interests.ratio * 2 * (V - 1), 6)), 2 * (V - 1))
        self.register_buffer("interest_embeddings", torch.zeros(num_interests + 1, model.hidden_size))
        for name in MODALITIES:
            self.register_buffer(f"{name}_interests", torch.zeros(V, dtype=torch.int64))
        self.reset_parameters(inputs.generator)
        self._set_interests(torch.arange(2 * (V - 1)) % num_interests, torch.zeros(num_interests, model.hidden_size))
        if not model.transformer_trainable:
            for part in (self.encoder, self.decoder, self.encoder_norm, self.decoder_norm):
                part.requires_grad_(False)
            self.position.requires_grad_(False)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """normal(0, 0.02) for matrices and embeddings, xavier uniform for the inputs of attention, zeros for biases and the
        preference, ones for LayerNorm; the projections as torch's linear layers."""
        for name, parameter in self.named_parameters():
            if name.startswith("tables.projections."):
                bound = 1 / math.sqrt(self.tables.feature_widths[name.split(".")[2]])
                parameter.uniform_(-bound, bound, generator=generator)
            elif name.endswith("bias") or name == "preference":
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1.0)
            elif name.endswith("in_proj_weight"):
                nn.init.xavier_uniform_(parameter, generator=generator)
            else:
                parameter.normal_(0, INIT_STD, generator=generator)

    def begin_epoch(self, epoch: int, *, is_resumed: bool) -> None:
        """Renew the interests."""
        if not is_resumed:
            self.renew_interests(torch.Generator().manual_seed(self.seed * 100_003 + epoch))

    @torch.no_grad()
    def renew_interests(self, generator: torch.Generator) -> None:
        """Cluster the texts and images of all items as they are projected now."""
        tokens, interests = self.interest_tokens(), self.settings.interests
        num_interests = len(self.interest_embeddings) - 1
        if interests.method == "density_peaks":
            num_neighbours = math.ceil(round(interests.neighbour_share * len(tokens), 6))
            found = density_peaks(tokens, num_interests, num_neighbours=num_neighbours)
        else:
            initial = torch.randperm(len(tokens), generator=generator)[:num_interests].to(tokens.device)
            found = (kmeans if interests.method == "kmeans" else one_pass_of_absolutes)(tokens, initial)
        self._set_interests(*found)

    def interest_tokens(self) -> Float[Tensor, "n D"]:
        """Projected texts of all items, then their images, in float32."""
        buffers = (self.tables.get_buffer(f"{name}_features")[1:] for name in MODALITIES)
        pairs = zip(MODALITIES, buffers, strict=True)
        return torch.cat([F.linear(x.float(), *self.tables.projections[name].parameters()) for name, x in pairs])

    def _set_interests(self, labels: Int64[Tensor, " n"], centroids: Float[Tensor, "K D"]) -> None:
        """Interest 0 is none."""
        self.interest_embeddings[1:] = centroids
        self.text_interests[1:], self.image_interests[1:] = (labels + 1).chunk(2)

    def draw(self, batch: PackedBatch, generator_of: Callable[[str], torch.Generator]) -> Draws:
        """Which tokens the copies of the rows keep."""
        if self.sequence.weight == 0:
            return {}
        uniform = torch.rand(batch.num_tokens, generator=generator_of("dropped items"))
        return {"kept": to_device(uniform < self.sequence.keep_share, self.device)}

    def row_tokens(self, batch: PackedBatch, parts: ItemParts, kept: Bool[Tensor, " T"] | None = None) -> RowTokens:
        """A batch as the network reads it, all of it or without the tokens that are not kept.

        Args:
            parts: of each token's item.
            kept: the first token of a row is always kept; None = all tokens.
        """
        found = self.text_interests[batch.item_ids], self.image_interests[batch.item_ids]
        if kept is None:
            return RowTokens(parts, found, batch.positions, batch.positions >= 0, batch.target_index)
        kept = kept | (batch.positions == 0)
        count, index = kept.long().cumsum(0), torch.arange(batch.num_tokens, device=kept.device)
        first = batch.offsets[:-1].clamp(max=batch.num_tokens - 1)
        positions = (count - (count - kept.long())[first][batch.rows] - 1).clamp(0, self.max_length - 1)
        latest = torch.where(kept, index, 0).cummax(0).values[batch.target_index]
        text, image = (torch.where(kept, interests, 0) for interests in found)
        return RowTokens(parts, (text, image), positions, kept, latest)

    def encode(self, tokens: RowTokens, batch: PackedBatch) -> tuple[Float[Tensor, "N D"], Float[Tensor, ""]]:
        """States of the tokens to read, and the orthogonal term."""
        bins, heads = RowBins(batch.grid_tokens, batch.token_slots, batch.rows), self.settings.num_heads
        is_low = self.training and self.compute_dtype != torch.float32
        with torch.autocast(self.device.type, self.compute_dtype, enabled=is_low):
            labels = torch.cat([bins.place(interests) for interests in tokens.interests], dim=1)
            rows = bins.rows.repeat(1, 2)
            is_interest = first_of_each(rows, labels) & (labels > 0) & (rows >= 0)
            memory = self.interest_embeddings[labels]
            mask = hidden_pairs_within(rows, is_interest, num_heads=heads)
            for layer in self.encoder:
                memory = layer(memory, src_mask=mask)
            memory = self.encoder_norm(memory)
            x, slots, kept = self.inputs(tokens, bins)
            mask = hidden_pairs_within(slots, kept, num_heads=heads)
            cross = hidden_pairs(slots, rows, is_interest, num_heads=heads)
            for layer in self.decoder:
                x = layer(x, memory, tgt_mask=mask, memory_mask=cross)
            states = bins.take(self.decoder_norm(x)[:, : bins.rows.shape[1]], tokens.read)
        return states.float(), self._orthogonal(memory.float(), rows, is_interest, batch)

    def inputs(self, tokens: RowTokens, bins: RowBins) -> tuple[Tensor, Tensor, Tensor]:
        """Input of the decoder, the row of each of its slots, and which slots are attended to."""
        parts, common = tokens.parts, self.position[tokens.positions]
        if parts.id is not None:
            common = common + parts.id
        if self.settings.fusion != "contextual":
            x = bins.place(self._normal(parts.text + parts.image + common))
            return x, bins.rows, bins.place(tokens.kept)
        x = torch.cat([bins.place(self._normal(part + common)) for part in (parts.text, parts.image)], dim=1)
        kept = [bins.place(tokens.kept & there) for there in (parts.has_text, parts.has_image)]
        return x, bins.rows.repeat(1, 2), torch.cat(kept, dim=1)

    def _normal(self, x: Tensor) -> Tensor:
        return dropout(self.input_norm(x), self.settings.dropout, training=self.training)

    def _orthogonal(self, memory: Tensor, rows: Tensor, is_interest: Tensor, batch: PackedBatch) -> Tensor:
        """mean over rows of |sum of the row's interests|^2 / (their number D)."""
        row = torch.where(is_interest, rows, batch.num_rows).flatten()
        sums = memory.new_zeros(batch.num_rows + 1, memory.shape[-1]).index_add(0, row, memory.flatten(0, 1))
        counts = row.bincount(minlength=batch.num_rows + 1)[:-1]
        squares = sums[:-1].square().mean(1) / counts.clamp(min=1)
        return squares.sum() / (batch.user_index >= 0).sum().clamp(min=1)

    def losses(self, batch: PackedBatch, inputs: LossInputs) -> dict[str, Float[Tensor, ""]]:
        """`ce`, in pre-training `contrast` and `sequence`, and `orthogonal`."""
        targets, parts_of_all = batch.target_ids, 1 if inputs.shards is None else inputs.shards.num_processes
        items = None
        if inputs.candidates is not None:
            items = inputs.candidates.rows(batch.item_ids)
        elif self.loss_kind == "in_batch":
            items = torch.cat([batch.item_ids, targets.clamp(min=0)]).unique()
        parts = self.tables(items)
        where = batch.item_ids if items is None else torch.searchsorted(items, batch.item_ids)
        states, orthogonal = self.encode(self.row_tokens(batch, parts.at(where)), batch)
        vectors, directions = self._vectors(states), self._directions(parts)
        terms = {}
        if self.loss_kind == "in_batch":
            assert items is not None
            own = torch.searchsorted(items, targets.clamp(min=0))
            terms["contrast"] = self.in_batch_loss(vectors, directions[own], targets) / parts_of_all
        else:
            terms["ce"] = self._cross_entropy(vectors, directions, targets, inputs, items)
        if self.sequence.weight > 0:
            copies, more = self.encode(self.row_tokens(batch, parts.at(where), inputs.draws["kept"]), batch)
            copied = F.normalize(copies, dim=-1)
            terms["sequence"] = _contrast(vectors @ copied.T, targets) / parts_of_all
            orthogonal = orthogonal + more
        return terms | {"orthogonal": orthogonal / parts_of_all}

    def in_batch_loss(
        self, vectors: Float[Tensor, "N D"], directions: Float[Tensor, "N K"], targets: Int64[Tensor, " N"]
    ) -> Float[Tensor, ""]:
        """Each state finds its next item among those of the batch; the same item is no negative."""
        is_same = (targets[:, None] == targets).fill_diagonal_(False)
        return _contrast(self.scores(vectors, directions, None).masked_fill(is_same, -torch.inf), targets)

    def _cross_entropy(
        self, vectors: Tensor, directions: Tensor, targets: Tensor, inputs: LossInputs, items: Tensor | None
    ) -> Tensor:
        """The main loss over the catalogue or over the candidates; `items` has the ids of the directions."""
        candidates = inputs.candidates
        scale = loss_scale(targets, inputs.shards, torch.float32, inputs.chunk_elements)
        if self.preference is None:
            return next_item_loss(vectors, directions, targets, scale=scale, candidates=candidates, table_items=items)
        if candidates is None or items is None:
            directions, labels, log_weight = directions[1:], targets - 1, None
        else:
            directions = directions[torch.searchsorted(items, candidates.items)]
            labels, log_weight = torch.searchsorted(candidates.items, targets), candidates.log_weight
        labels, preference = torch.where(targets > 0, labels, -1), self.preference * self.temperature
        total = fused_cross_entropy(vectors, directions, labels, preference, log_weight, inputs.chunk_elements)
        return total / scale["num_targets"]

    def _vectors(self, states: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Directions of states over the temperature."""
        return F.normalize(states, dim=-1) / self.temperature

    def _directions(self, parts: ItemParts) -> Float[Tensor, "n K"]:
        return self.tables.directions(parts, as_mean=self.preference is None)

    def user_vectors(self, batch: PackedBatch, table: Float[Tensor, "V K"] | None = None) -> Float[Tensor, "N D"]:
        """Directions of the states over the temperature; the input needs more than the table has."""
        return self._vectors(self.encode(self.row_tokens(batch, self.tables(batch.item_ids)), batch)[0])

    def item_table(self) -> Float[Tensor, "V K"]:
        """Directions of text, image and id side by side; their mean with static fusion."""
        return self._directions(self.tables())

    def scores(
        self, user_vectors: Float[Tensor, "N D"], table: Float[Tensor, "V K"], bias: Float[Tensor, " V"] | None
    ) -> Float[Tensor, "N V"]:
        """Cosines over the temperature, fused."""
        if self.preference is None:
            return super().scores(user_vectors, table, bias)
        return fused_scores(user_vectors, table, self.preference * self.temperature)

    def recompute_stages(self) -> Sequence[nn.Module]:
        """Layers of the encoder and the decoder."""
        return [*self.encoder, *self.decoder]


def _contrast(scores: Float[Tensor, "N N"], targets: Int64[Tensor, " N"]) -> Float[Tensor, ""]:
    """Cross-entropy of the diagonal; rows and columns of padding have no part."""
    is_target = targets >= 0
    own = torch.where(is_target, torch.arange(len(targets), device=targets.device), -1)
    hidden = scores.masked_fill(~is_target, -torch.inf)
    total = F.cross_entropy(hidden[is_target], own[is_target], reduction="sum")
    return total / is_target.sum().clamp(min=1)
