"""TiSASRec: self-attention over item ids, positions and time intervals (Li et al., WSDM 2020).

    x_t = dropout(sqrt(D) E[item_t]), then layers of `IntervalAttentionLayer`, whose keys and values have
    positions PK, PV and relative intervals TK, TV, shared by all layers
    r_ij = min(|round((t_i - t_1) / unit) - round((t_j - t_1) / unit)|, time_span)
    unit = smallest interval > 0 between neighbours, or 1 s
    score(v) = LN(x_last) . E[v]
    loss = binary cross-entropy of the target and one negative + 5e-5 * sum of squares of E, PK, PV, TK, TV

Source: the equations of the paper and of its authors' code.   Differs: there the unit is that of the whole history, later
items included, and positions are counted so that the newest item has the last; here the unit of a state is that of the items
up to it and positions are counted from the oldest item, so that a state depends on nothing that follows. The keys
`interval_unit: row` and `positions_from: newest` give the published forms. Dropout of the interval tables has one mask a
step, not one for each pair. The PyTorch version lets items attend to the padding before them (`attends_padding`) and
penalises norms (`losses.penalty.kind: norm`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from pydantic import model_validator
from torch import Tensor, nn

from athwe_core.batch import PackedBatch
from athwe_core.config_schema import AttentionSection, Config, NotNegativeReal, PositiveWhole, Section
from athwe_core.errors import require
from athwe_core.models.id_model import IdLosses, IdModel, supervised
from athwe_core.models.protocol import LossInputs, ModelInputs
from athwe_core.nn.interval_attention import (
    LAYER_NORM_EPS,
    IntervalAttentionLayer,
    PaddingKeys,
    Relations,
    grid_intervals,
    rounded_quotient,
)
from athwe_core.nn.transformer import AttentionGrid

NO_INTERVAL = 2**62
"""Longer than any interval."""


class TiSASRecModelConfig(AttentionSection):
    """Sizes of TiSASRec."""

    name: Literal["tisasrec"]
    time_span: PositiveWhole
    """Largest relative interval; longer ones count as this."""
    interval_embedding: bool
    """False leaves TK and TV out."""
    position_embedding: bool
    """False leaves PK and PV out."""
    positions_from: Literal["oldest", "newest"]
    """`oldest`: the first item of a row has position 0; `newest`: the last one has position L - 1, as published."""
    interval_unit: Literal["prefix", "row"]
    """`prefix`: the smallest interval up to the state's item; `row`: that of the whole row, as published."""
    attends_padding: bool
    """True gives the row the padding slots before it as keys, as the published PyTorch version does."""

    @model_validator(mode="after")
    def _is_consistent(self) -> TiSASRecModelConfig:
        needs = self.positions_from == "newest" and self.position_embedding
        rule = "needs model.positions_from=newest and model.position_embedding=true"
        require(needs or not self.attends_padding, "model.attends_padding", rule, self.attends_padding)
        return self


class PenaltyConfig(Section):
    """Penalty on the embedding tables; of the items of a step only, where the catalogue loss is sampled."""

    weight: NotNegativeReal
    kind: Literal["squared", "norm"]
    """`squared`: sum of squares; `norm`: sum of the tables' norms, as the published PyTorch version has it."""


class TiSASRecLosses(IdLosses):
    """The `losses` section of TiSASRec."""

    penalty: PenaltyConfig


class TiSASRecConfig(Config):
    """Everything that decides a run of TiSASRec."""

    model: TiSASRecModelConfig
    losses: TiSASRecLosses


class TiSASRec(IdModel):
    """The network.

    Args:
        config: sizes and losses.
        inputs: the number of items; no features are read.
    """

    def __init__(self, config: TiSASRecConfig, inputs: ModelInputs) -> None:
        model = self.settings = config.model
        super().__init__(config, inputs, hidden_size=model.hidden_size, dropout_rate=model.dropout)
        self.penalty = config.losses.penalty
        self.loss_weights = {"l2": self.penalty.weight} if self.penalty.weight > 0 else {}
        rows = {"position": model.max_length} if model.position_embedding else {}
        rows |= {"interval": model.time_span + 1} if model.interval_embedding else {}
        self.relation_tables = nn.ParameterDict(
            {
                f"{side}_{name}": nn.Parameter(torch.empty(count, model.hidden_size))
                for name, count in rows.items()
                for side in ("key", "value")
            }
        )
        self.layers = nn.ModuleList(
            IntervalAttentionLayer(hidden_size=model.hidden_size, num_heads=model.num_heads, dropout_rate=model.dropout)
            for _ in range(model.num_layers)
        )
        self.output_norm = nn.LayerNorm(model.hidden_size, eps=LAYER_NORM_EPS)
        self.reset_parameters(inputs.generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Xavier uniform for matrices and tables, U(+-1/sqrt(D)) for biases, ones and zeros for LayerNorm."""
        bound = self.settings.hidden_size**-0.5
        for name, parameter in self.named_parameters():
            if "norm" in name:
                parameter.fill_(float(name.endswith("weight")))
            elif parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter, generator=generator)
            else:
                parameter.uniform_(-bound, bound, generator=generator)

    def encode(self, items: Float[Tensor, "T D"], batch: PackedBatch) -> Float[Tensor, "N D"]:
        """The layers, then the final norm of the supervised positions."""
        return cast(Tensor, self.output_norm(supervised(self.layer_states(items, batch, self.units(batch))[-1], batch)))

    def layer_states(
        self, items: Float[Tensor, "T D"], batch: PackedBatch, units: Int64[Tensor, " T"]
    ) -> list[Float[Tensor, "T D"]]:
        """States of all tokens after each layer."""
        x, relations, dtype = (
            self.drop(items * items.shape[1] ** 0.5),
            self._relations(batch, units),
            self.product_dtype(items),
        )
        states = []
        for layer in self.layers:
            x = layer(x, relations, dtype)
            states.append(x)
        return states

    def units(self, batch: PackedBatch, later: Int64[Tensor, " B"] | None = None) -> Int64[Tensor, " T"]:
        """Seconds of one step of the interval, for each token: the smallest interval > 0, or 1.

        Args:
            later: an interval after each row that counts too, > 0; None = none.
        """
        view = batch.padded
        gaps = view.pad(torch.where(batch.intervals > 0, batch.intervals, NO_INTERVAL), fill=NO_INTERVAL)
        if self.settings.interval_unit == "prefix":
            smallest = view.unpad(gaps.cummin(dim=1).values)
        else:
            smallest = gaps.amin(dim=1)[batch.rows]
        if later is not None:
            smallest = torch.minimum(smallest, later[batch.rows])
        return torch.where(smallest < NO_INTERVAL, smallest, 1)

    def _relations(self, batch: PackedBatch, units: Tensor) -> Relations:
        """Positions and intervals of a batch, with dropout."""
        tables, L = dict(self.relation_tables.items()), self.max_length
        grid = AttentionGrid(batch.grid_tokens, batch.token_slots, batch.rows)
        slots = batch.positions
        lengths = batch.offsets.diff()[batch.rows]
        if self.settings.positions_from == "newest":
            slots = (L - lengths + slots).clamp(min=0)
        found: dict[str, Tensor] = {}
        if "key_position" in tables:
            found = {
                f"{side}_positions": self.drop(F.embedding(slots, tables[f"{side}_position"]))
                for side in ("key", "value")
            }
        elapsed = batch.timestamps - batch.timestamps[batch.offsets[:-1].clamp(max=batch.num_tokens - 1)][batch.rows]
        if "key_interval" in tables:
            found |= {f"{side}_intervals": self.drop(tables[f"{side}_interval"]) for side in ("key", "value")}
            found["intervals"] = grid_intervals(elapsed, units, grid, time_span=self.settings.time_span)
        padding = None
        if self.settings.attends_padding:
            padding = PaddingKeys(
                visible=torch.arange(L, device=slots.device) < (L - lengths)[:, None],
                interval=(1 + rounded_quotient(elapsed, units)).clamp(max=self.settings.time_span),
                keys=self.drop(tables["key_position"]),
                values=self.drop(tables["value_position"]),
            )
        return Relations(grid, **found, padding=padding)

    def losses(self, batch: PackedBatch, inputs: LossInputs) -> dict[str, Float[Tensor, ""]]:
        """The main loss, and the penalty `l2` where it has a weight."""
        terms = super().losses(batch, inputs)
        if self.loss_weights:
            rows = None if inputs.candidates is None else inputs.candidates.rows(batch.item_ids)
            parts = 1 if inputs.shards is None else inputs.shards.num_processes
            terms["l2"] = self.table_penalty(rows) / parts
        return terms

    def table_penalty(self, rows: Int64[Tensor, " Vr"] | None = None) -> Float[Tensor, ""]:
        """Sum over the tables of their squares, or of their norms."""
        tables = [self.tables(rows), *self.relation_tables.values()]
        squares = torch.stack([table.square().sum() for table in tables])
        return squares.sum() if self.penalty.kind == "squared" else squares.sqrt().sum()

    def recompute_stages(self) -> Sequence[nn.Module]:
        """The layers."""
        return list(self.layers)
