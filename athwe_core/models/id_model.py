"""What models over one table of item vectors share: the table, the main loss in four kinds, ranking by inner products."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from athwe_core.batch import PackedBatch, PaddedView
from athwe_core.config_schema import CatalogueLossConfig, Config, LossesSection
from athwe_core.losses.catalogue_ce import catalogue_cross_entropy
from athwe_core.losses.next_item import loss_scale, next_item_loss
from athwe_core.losses.pairwise import binary_cross_entropy, bpr_loss, item_scores, uniform_negatives
from athwe_core.models.golden import Golden
from athwe_core.models.protocol import Draws, LossInputs, Model, ModelInputs, Removal, Tree
from athwe_core.nn.dropout import dropout
from athwe_core.nn.item_embeddings import ItemEmbeddings, divided_rows, table_and_items

INIT_STD = 0.02


class IdLossConfig(CatalogueLossConfig):
    """Main loss of a model over ids."""

    kind: Literal["full", "sampled", "bce", "bpr"]
    """`full` and `sampled`: cross-entropy; `bce`: binary cross-entropy of the target and of negatives the row does not hold;
    `bpr`: the target above each of these negatives."""


class IdLosses(LossesSection):
    """The `losses` section of a model over ids."""

    catalogue: IdLossConfig


class IdModel(Model):
    """A model whose user vectors and item vectors lie in one space, with one id table for input and output.

    A subclass builds its layers after `super().__init__`, calls `self.reset_parameters(inputs.generator)` last, and defines
    `encode`.

    Args:
        config: `model.max_length`, and the main loss.
        inputs: the number of items; features are read by subclasses that pass them on.
        hidden_size: D.
        dropout_rate: of `self.drop`.
    """

    def __init__(self, config: Config, inputs: ModelInputs, *, hidden_size: int, dropout_rate: float) -> None:
        super().__init__()
        self.max_length = config.model.max_length
        self.compute_dtype = inputs.compute_dtype
        self.dropout_rate = dropout_rate
        self.loss_weights = {}
        self.loss_kind = config.losses.catalogue.kind
        self.num_negatives = config.losses.catalogue.num_negatives
        self.tables = ItemEmbeddings(
            {},
            hidden_size=hidden_size,
            num_item_rows=inputs.catalogue.num_item_rows,
            compute_dtype=inputs.compute_dtype,
            sparse=self.loss_kind == "sampled",
            world=inputs.world,
        )

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """normal(0, 0.02) for matrices and embeddings, zeros for biases, ones for LayerNorm."""
        shards = divided_rows(self)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1.0)
            elif name in shards:
                shards[name].draw_normal(parameter, INIT_STD, generator)
            else:
                parameter.normal_(0, INIT_STD, generator=generator)

    @abstractmethod
    def encode(self, items: Float[Tensor, "T K"], batch: PackedBatch) -> Float[Tensor, "N D"]:
        """Vectors of the tokens' items to states of the supervised positions, in the dtype of `items`."""

    def encode_with(self, items: Float[Tensor, "T K"], batch: PackedBatch, draws: Draws) -> Float[Tensor, "N D"]:
        """`encode` in a training step with these random choices; the default uses none."""
        return self.encode(items, batch)

    def draw(self, batch: PackedBatch, generator_of: Callable[[str], torch.Generator]) -> Draws:
        """Negatives that the row does not hold, for `bce` and `bpr`."""
        if self.loss_kind not in ("bce", "bpr"):
            return {}
        target_rows = batch.rows[batch.target_index]
        negatives = uniform_negatives(
            torch.cat([batch.rows, target_rows]),
            torch.cat([batch.item_ids, batch.target_ids]),
            target_rows,
            num_item_rows=len(self.tables.id.weight),
            num_negatives=self.num_negatives,
            generator=generator_of("unseen items"),
        )
        return {"negatives": negatives}

    def losses(self, batch: PackedBatch, inputs: LossInputs) -> dict[str, Float[Tensor, ""]]:
        """The main loss, ce, bce or bpr, and what `further_losses` adds."""
        rows = None if inputs.candidates is None else inputs.candidates.rows(batch.item_ids)
        table = self.item_vectors(rows, inputs.draws)
        tokens = batch.item_ids if rows is None else torch.searchsorted(rows, batch.item_ids)
        table, items = table_and_items(table, tokens)
        states = self.encode_with(items, batch, inputs.draws)
        further = self.further_losses(states, items, batch, inputs)
        states, table = self.scored(states, table, rows)
        scale = loss_scale(batch.target_ids, inputs.shards, self.compute_dtype, inputs.chunk_elements)
        if self.loss_kind in ("bce", "bpr"):
            negatives = item_scores(states, table, inputs.draws["negatives"])
            positive = item_scores(states, table, batch.target_ids[:, None])[:, 0]
            loss = binary_cross_entropy if self.loss_kind == "bce" else bpr_loss
            main = loss(positive, negatives, batch.target_ids, num_targets=scale["num_targets"])
            return {self.loss_kind: main} | further
        candidates = inputs.candidates
        ce = next_item_loss(
            states,
            table,
            batch.target_ids,
            scale=scale,
            candidates=candidates,
            table_items=rows,
            seen=self.seen_items(batch),
        )
        return {"ce": ce} | further

    def further_losses(
        self, states: Float[Tensor, "N D"], items: Float[Tensor, "T K"], batch: PackedBatch, inputs: LossInputs
    ) -> dict[str, Float[Tensor, ""]]:
        """Terms besides the main loss; the default has none.

        Args:
            states: what `encode` made of `items`.
            items: vectors of the tokens' items.
            batch, inputs: as in `losses`.
        """
        return {}

    def item_vectors(self, items: Int64[Tensor, " Vr"] | None, draws: Draws) -> Float[Tensor, "Vr D"]:
        """Vectors of some items, or of all, in a training step with these random choices."""
        return self.tables(items)

    def scored(
        self, states: Float[Tensor, "N D"], table: Float[Tensor, "Vr D"], rows: Int64[Tensor, " Vr"] | None
    ) -> tuple[Float[Tensor, "N K"], Float[Tensor, "Vr K"]]:
        """States and item vectors whose products are the scores in the loss.

        The bias of the items, if any, is one more column of the table.

        Args:
            states: of the supervised positions.
            table: item vectors, those of `rows` where these are given.
            rows: ascending item ids; None = all items.
        """
        bias = self.item_bias()
        if bias is None:
            return states, table
        bias = bias if rows is None else bias[rows]
        return F.pad(states, (0, 1), value=1.0), torch.cat([table, bias[:, None]], dim=1)

    def user_vectors(self, batch: PackedBatch, table: Float[Tensor, "V D"] | None = None) -> Float[Tensor, "N D"]:
        """States of the supervised positions."""
        table = self.item_table() if table is None else table
        return self.encode(table[batch.item_ids], batch)

    def item_table(self) -> Float[Tensor, "V D"]:
        """The id table, whose row 0 is the padding; where it is divided, the rows of this process."""
        return self.tables()

    def with_padding(self, items: Float[Tensor, "T D"], rows: PaddedView) -> Float[Tensor, "B L D"]:
        """Vectors of the tokens' items as a rectangle, for models that see the padding: it has the vector of item 0.

        Args:
            items: vectors of the tokens.
            rows: the rectangle.
        Returns: the vector of each position.
        """
        padding = self.tables.id(torch.zeros(1, dtype=torch.int64, device=items.device))
        index = torch.where(rows.mask, rows.token_index, len(items))
        return torch.cat([items, padding.to(items.dtype)]).index_select(0, index.flatten()).view(*index.shape, -1)

    def drop(self, x: Tensor) -> Tensor:
        """Dropout while training."""
        return dropout(x, self.dropout_rate, training=self.training)

    def product_dtype(self, items: Tensor) -> torch.dtype:
        """dtype of the products inside `encode`: the compute dtype while training, that of the items otherwise."""
        is_low = self.training and self.compute_dtype != torch.float32
        return self.compute_dtype if is_low else items.dtype


def supervised(states: Float[Tensor, "T D"], batch: PackedBatch) -> Float[Tensor, "N D"]:
    """States of the supervised positions among those of all tokens."""
    return states if batch.all_supervised else states.index_select(0, batch.target_index)


def recbole_outputs(model: IdModel, golden: Golden, batch: PackedBatch) -> dict[str, Tensor]:
    """What RecBole records of every sequential model: last states, scores, losses.

    Args:
        model: a model with its main loss `full`.
        golden: may hold one negative for each row.
        batch: its rows.
    Returns: our values by the name of the recorded output, in the order of the batch.
    """
    table, targets = model.item_table(), batch.target_ids
    states = model.user_vectors(batch, table)
    found = {"seq": states, "scores": states @ table.T}
    found["loss_ce"] = catalogue_cross_entropy(states, table, targets)  # the padding counts as an item
    found["loss_ce_no_pad_own"] = model.losses(batch, LossInputs())["ce"]
    if "in.neg_items" in golden:
        items = torch.stack([targets, golden.at_rows("in.neg_items", batch)], dim=1)
        positive, negative = item_scores(states, table, items).unbind(1)
        found["loss_bpr"] = bpr_loss(positive, negative[:, None], targets)
    return found


def _take_out_dropout(tree: Tree) -> Mapping[str, str]:
    tree["model"]["dropout"] = 0.0
    return {}


DROPOUT = Removal("Dropout", lambda tree: tree["model"]["dropout"] > 0, _take_out_dropout)
"""The removal of a model whose configuration has `model.dropout`."""
