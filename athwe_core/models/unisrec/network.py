"""UniSRec: sequences of item texts, for ids or for new items and data sets (Hou et al., KDD 2022).

    v   = sum_k g_k W_k (dropout(text) - b_k)            g = softmax(text W_gate + noise), see `WhiteningExperts`
    x_t = dropout(LN(v_t + P[t] + E[item_t]))            E only where the model has ids (transductive)
    s   = the Transformer of SASRec
    score(i) = cos(s_last, v_i + E[i])                   cross-entropy of score / 0.07

Pre-training (`losses.catalogue.kind: in_batch`, without ids) contrasts each sequence with the next items of the batch, and
with weight 0.001 with a copy of it that lacks some items:

    loss = mean_j -log softmax_j' (cos(s_j, v_next(j')) / 0.07) + 0.001 * the same with the copies' states for v

Source: the equations of the paper and of its authors' code.   Differs: an item has one vector a step, so its gate noise is
the same in a sequence and as a candidate, and the padding is no candidate. Pre-training runs on packed rows too: the copy's
state at a position is that of its latest kept item. Pairs with the same next item or of the same user are no negatives, and
dropped items are gone; `losses.published_form` has both as coded. The text with dropped words, the other kind of copy, needs
a second text vector of each item and is not offered.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from athwe_core.batch import PackedBatch, to_device
from athwe_core.losses.contrastive import contrastive_loss, excluded_pairs, exclusion_bias
from athwe_core.losses.next_item import loss_scale
from athwe_core.models.id_model import INIT_STD
from athwe_core.models.protocol import Draws, Explanation, LossInputs, ModelInputs
from athwe_core.models.sasrec import SASRec
from athwe_core.models.unisrec.config import UniSRecConfig, UniSRecModelConfig
from athwe_core.nn.transformer import ONE, AttentionGrid
from athwe_core.nn.whitening_experts import WhiteningExperts


class TextItems(nn.Module):
    """Vectors of items from their text, plus an id vector where the model has ids.

    Args:
        model: sizes.
        features: text vectors (V, F), entry 0 = padding.
        compute_dtype: of the experts' product while training.
        sparse: whether steps need a few items only.
    """

    features: Tensor

    def __init__(
        self, model: UniSRecModelConfig, features: Float[Tensor, "V F"], *, compute_dtype: torch.dtype, sparse: bool
    ) -> None:
        super().__init__()
        V, D = len(features), model.hidden_size
        self.compute_dtype = compute_dtype
        self.id = nn.Embedding(V, D, sparse=sparse, _weight=torch.empty(V, D)) if model.id_embedding else None
        self.adaptor = WhiteningExperts(
            feature_size=features.shape[1],
            hidden_size=D,
            num_experts=model.adaptor.num_experts,
            dropout_rate=model.adaptor.dropout,
            gate_noise=model.adaptor.gate_noise,
        )
        self.register_buffer("features", features, persistent=False)

    def forward(
        self, items: Int64[Tensor, " n"] | None = None, noise: Float[Tensor, "V E"] | None = None
    ) -> Float[Tensor, "n D"]:
        """Vectors of some items, or of all; `noise` has the draws of every item's gates."""
        features, noise = (x if x is None or items is None else x[items] for x in (self.features, noise))
        assert features is not None
        dtype = self.compute_dtype if self.training else torch.float32
        vectors = self.adaptor(features, noise=noise, dtype=dtype).float()
        if self.id is None:
            return vectors
        return vectors + (self.id.weight if items is None else self.id(items))


class UniSRec(SASRec):
    """The network.

    Args:
        config: sizes and losses.
        inputs: text features of the items.
    """

    tables: TextItems  # type: ignore[assignment]

    def __init__(self, config: UniSRecConfig, inputs: ModelInputs) -> None:
        super().__init__(config, inputs)
        model, losses, text = config.model, config.losses, inputs.catalogue.features["text"]
        self.temperature, self.sequence, self.published_form = (
            losses.temperature,
            losses.sequence,
            losses.published_form,
        )
        self.loss_weights = {"sequence": losses.sequence.weight}
        is_sparse = self.loss_kind == "sampled"
        self.tables = TextItems(model, text, compute_dtype=inputs.compute_dtype, sparse=is_sparse)
        self.reset_parameters(inputs.generator)
        self.tables.adaptor.reset_parameters(INIT_STD, inputs.generator)
        if not model.encoder_trainable:
            self.transformer.requires_grad_(False)
            if self.position is not None:
                self.position.requires_grad_(False)

    def draw(self, batch: PackedBatch, generator_of: Callable[[str], torch.Generator]) -> Draws:
        """Noise of the gates of every item, and which tokens the copies of the rows keep."""
        draws = {}
        if self.tables.adaptor.noise_weight is not None:
            shape = (len(self.tables.features), self.tables.adaptor.gate_weight.shape[1])
            draws["gate_noise"] = torch.randn(shape, generator=generator_of("gate noise"))
        if self.loss_kind == "in_batch" and self.sequence.weight > 0:
            uniform = torch.rand(batch.num_tokens, generator=generator_of("dropped items"))
            draws["kept"] = uniform < self.sequence.keep_share
        return {name: to_device(value, self.device) for name, value in draws.items()}

    def item_vectors(self, items: Int64[Tensor, " n"] | None, draws: Draws) -> Float[Tensor, "n D"]:
        """Vectors with the step's gate noise."""
        return self.tables(items, draws.get("gate_noise"))

    def scored(
        self, states: Float[Tensor, "N D"], table: Float[Tensor, "n D"], rows: Tensor | None
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, "n D"]]:
        """Directions, so that products are cosines, over the temperature."""
        return F.normalize(states, dim=-1) / self.temperature, F.normalize(table, dim=-1)

    def user_vectors(self, batch: PackedBatch, table: Float[Tensor, "V D"] | None = None) -> Float[Tensor, "N D"]:
        """Directions of the states; the input needs the items' lengths too, so it does not come from the table."""
        return F.normalize(self.encode(self.tables(batch.item_ids), batch), dim=-1)

    def item_table(self) -> Float[Tensor, "V D"]:
        """Directions of the item vectors."""
        return F.normalize(self.tables(), dim=-1)

    def explain(self, batch: PackedBatch, table: Float[Tensor, "V D"]) -> Explanation:
        """Attention of the last position in each layer, mean over heads."""
        return super().explain(batch, self.tables())

    def losses(self, batch: PackedBatch, inputs: LossInputs) -> dict[str, Float[Tensor, ""]]:
        """`ce`; in pre-training `contrast`, and `sequence` where its weight is not 0."""
        if self.loss_kind != "in_batch":
            return super().losses(batch, inputs)
        items, where = torch.cat([batch.item_ids, batch.target_ids.clamp(min=0)]).unique(return_inverse=True)
        tokens, targets = self.item_vectors(items, inputs.draws)[where].split([batch.num_tokens, len(batch.target_ids)])
        states = self.encode(tokens, batch)
        terms = {"contrast": self.in_batch_loss(states, targets, batch, inputs)}
        if self.sequence.weight > 0:
            kept = self.kept_tokens(batch, inputs.draws["kept"])
            terms["sequence"] = self.in_batch_loss(states, self.encode_kept(tokens, batch, kept), batch, inputs)
        return terms

    def in_batch_loss(
        self,
        states: Float[Tensor, "N D"],
        candidates: Float[Tensor, "N D"],
        batch: PackedBatch,
        inputs: LossInputs,
    ) -> Float[Tensor, ""]:
        """Each state finds its candidate among those of the batch."""
        targets, users = batch.target_ids, batch.user_index[batch.rows[batch.target_index]]
        scale = loss_scale(targets, inputs.shards, self.compute_dtype, inputs.chunk_elements)
        if self.published_form:
            parts = 1 if inputs.shards is None else inputs.shards.num_processes
            return same_target_as_one(states, candidates, targets, self.temperature) / parts
        (loss,) = contrastive_loss(
            states[None],
            candidates[None],
            exclusion_bias(excluded_pairs(targets, users, inputs.shards), self.compute_dtype),
            temperatures=[self.temperature],
            target_mask=targets >= 0,
            shards=inputs.shards,
            **scale,
        )
        return loss

    def kept_tokens(self, batch: PackedBatch, kept: Bool[Tensor, " T"]) -> Bool[Tensor, " T"]:
        """The tokens of the rows' copies from the drawn ones: the first token of a row is always kept.

        As coded, a token that is not kept takes the place of the kept one before it, so that the last of each run stays.
        """
        kept = kept | (batch.positions == 0)
        return kept.roll(-1, 0) | (batch.positions.roll(-1, 0) == 0) if self.published_form else kept

    def encode_kept(
        self, tokens: Float[Tensor, "T D"], batch: PackedBatch, kept: Bool[Tensor, " T"]
    ) -> Float[Tensor, "N D"]:
        """States of rows without the tokens that are not kept, at the latest kept token of each supervised position."""
        count = kept.long().cumsum(0)
        first = batch.offsets[:-1].clamp(max=batch.num_tokens - 1)
        before_row = (count - kept.long())[first]
        slots = (count - before_row[batch.rows] - 1).clamp(0, self.max_length - 1)  # padding tokens have no copy
        index = torch.arange(batch.num_tokens, device=kept.device)
        latest = torch.where(kept, index, 0).cummax(0).values[batch.target_index]
        grid = AttentionGrid(batch.grid_tokens, batch.token_slots, batch.rows, kept=kept)
        return self.transformer(self.embed(tokens, slots), grid, ONE, latest)[0].to(tokens.dtype)


def same_target_as_one(
    anchors: Float[Tensor, "N D"], candidates: Float[Tensor, "N D"], targets: Int64[Tensor, " N"], temperature: float
) -> Float[Tensor, ""]:
    """In-batch contrast as coded: a pair with the same next item adds exp(0) = 1 to the denominator.

    Args:
        anchors, candidates: vectors of the same index belong together.
        targets: next item of each; -1 = padding.
    Returns: mean over the targets that are not padding.
    """
    anchors, candidates, targets = (x[targets >= 0] for x in (anchors, candidates, targets))
    scores = F.normalize(anchors, dim=-1) @ F.normalize(candidates, dim=-1).T / temperature
    is_same = targets[:, None] == targets
    is_same.fill_diagonal_(False)
    own = torch.arange(len(targets), device=targets.device)
    return F.cross_entropy(scores.masked_fill(is_same, 0.0), own)
