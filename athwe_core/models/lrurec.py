"""LRURec: linear recurrent units over item ids (Yue et al., WSDM 2024).

    x_t = LN(dropout(E[item_t]))                                 no positions
    u_t = gamma * (B x_t + b_B)                                  complex, S channels
    h_t = lambda * h_{t-1} + u_t                                 lambda = exp(-nu + i theta), |lambda| < 1, h_0 = 0
    y_t = LN(dropout(Re(C h_t + b_C)) + x_t)
    x'_t = LN(dropout(W_2 dropout(gelu(W_1 y_t + b_1)) + b_2) + y_t)     n such blocks
    score(v) = x_last . E[v] + bias_v

nu, theta and gamma are exponentials of free parameters. The recurrence is a parallel scan over the tokens of packed rows.

Source: the equations of the paper and of its authors' code.   Differs: the published code decays weights (AdamW), clips
gradients and counts the padding as an item. Its rows begin with a padding token whose label is the first item; here the first
item of a history is no target. The imaginary part of b_C has no effect and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from athwe_core.batch import Catalogue, PackedBatch, TimeRange
from athwe_core.config_schema import Config, ModelSection, PositiveWhole, Rate
from athwe_core.data.packing import pack_histories
from athwe_core.models.golden import Golden
from athwe_core.models.id_model import DROPOUT, INIT_STD, IdLosses, IdModel, supervised
from athwe_core.models.protocol import ModelInputs, ModelSpec, Removal, Tree
from athwe_core.models.registry import build_config, replace_in
from athwe_core.nn.dropout import dropout
from athwe_core.nn.item_embeddings import linear
from athwe_core.nn.parallel_scan import linear_recurrence

SMALLEST_DECAY, LARGEST_DECAY = 0.8, 0.99
"""Range of the initial |lambda|."""


class LRURecModelConfig(ModelSection):
    """Sizes of LRURec."""

    name: Literal["lrurec"]
    hidden_size: PositiveWhole
    state_size: PositiveWhole
    """S: complex channels of the recurrence; 2 D in the published code."""
    inner_size: PositiveWhole
    num_layers: PositiveWhole
    dropout: Rate
    feed_forward: bool
    """False leaves the sublayer of W_1 and W_2 out."""


class LRURecConfig(Config):
    """Everything that decides a run of LRURec."""

    model: LRURecModelConfig
    losses: IdLosses


class LRULayer(nn.Module):
    """The recurrent sublayer: y = LN(dropout(Re(C h + b_C)) + x)."""

    def __init__(self, model: LRURecModelConfig) -> None:
        super().__init__()
        D, S = model.hidden_size, model.state_size
        self.dropout_rate, self.max_length = model.dropout, model.max_length
        self.log_nu, self.log_theta, self.log_gamma = (nn.Parameter(torch.empty(S)) for _ in range(3))
        # Real and imaginary parts alternate: rows of the first, columns of the second, where they are Re(C) and -Im(C).
        self.inward, self.outward = nn.Linear(D, 2 * S), nn.Linear(2 * S, D)
        self.norm = nn.LayerNorm(D)

    def forward(self, x: Float[Tensor, "T D"], batch: PackedBatch, dtype: torch.dtype) -> Float[Tensor, "T D"]:
        """The states of all tokens; products with weights are in `dtype`, the recurrence is in float32."""
        projected = linear(self.inward, x, dtype).to(x.dtype)
        u = torch.view_as_complex(projected.unflatten(-1, (-1, 2)).contiguous()) * self.log_gamma.exp()
        decay = torch.polar(torch.exp(-self.log_nu.exp()), self.log_theta.exp())
        h = linear_recurrence(u, decay, batch.positions, max_length=self.max_length)
        out = linear(self.outward, torch.view_as_real(h).flatten(-2), dtype).to(x.dtype)
        return cast(Tensor, self.norm(dropout(out, self.dropout_rate, training=self.training) + x))


class FeedForward(nn.Module):
    """The second sublayer: LN(dropout(W_2 dropout(gelu(W_1 y + b_1)) + b_2) + y)."""

    def __init__(self, model: LRURecModelConfig) -> None:
        super().__init__()
        self.dropout_rate = model.dropout
        self.inner = nn.Linear(model.hidden_size, model.inner_size)
        self.outer = nn.Linear(model.inner_size, model.hidden_size)
        self.norm = nn.LayerNorm(model.hidden_size)

    def forward(self, y: Float[Tensor, "T D"], dtype: torch.dtype) -> Float[Tensor, "T D"]:
        """The states after the sublayer; products are in `dtype`."""
        inner = dropout(F.gelu(linear(self.inner, y, dtype)), self.dropout_rate, training=self.training)
        outer = dropout(linear(self.outer, inner, dtype).to(y.dtype), self.dropout_rate, training=self.training)
        return cast(Tensor, self.norm(outer + y))


class LRURec(IdModel):
    """The network.

    Args:
        config: sizes and the main loss.
        inputs: the number of items; no features are read.
    """

    has_fixed_shapes = False  # torch's compiler makes no code for complex numbers

    def __init__(self, config: LRURecConfig, inputs: ModelInputs) -> None:
        model = config.model
        super().__init__(config, inputs, hidden_size=model.hidden_size, dropout_rate=model.dropout)
        self.bias = nn.Parameter(torch.empty(inputs.catalogue.num_item_rows))
        self.input_norm = nn.LayerNorm(model.hidden_size)
        self.recurrent = nn.ModuleList(LRULayer(model) for _ in range(model.num_layers))
        self.feed_forward = nn.ModuleList(FeedForward(model) for _ in range(model.num_layers * model.feed_forward))
        self.reset_parameters(inputs.generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """normal(0, 0.02) cut at two deviations, biases included; ones and zeros for LayerNorm; |lambda| in 0.8..0.99."""
        for name, parameter in self.named_parameters():
            if "norm" in name:
                parameter.fill_(float(name.endswith("weight")))
            elif "log_" not in name:
                nn.init.trunc_normal_(parameter, 0, INIT_STD, -2 * INIT_STD, 2 * INIT_STD, generator=generator)
        for layer in self.recurrent:
            assert isinstance(layer, LRULayer)
            first, second = (torch.rand(len(layer.log_nu), generator=generator) for _ in range(2))
            squared = first * (LARGEST_DECAY**2 - SMALLEST_DECAY**2) + SMALLEST_DECAY**2  # |lambda|^2
            layer.log_nu.copy_((-0.5 * squared.log()).log())
            layer.log_theta.copy_((2 * math.pi * second).log())
            layer.log_gamma.copy_(0.5 * (1 - squared).log())

    def encode(self, items: Float[Tensor, "T D"], batch: PackedBatch) -> Float[Tensor, "N D"]:
        """Input norm, then the blocks."""
        return supervised(self.sublayers(items, batch)[-1], batch)

    def sublayers(self, items: Float[Tensor, "T D"], batch: PackedBatch) -> list[Float[Tensor, "T D"]]:
        """The normalised items, then the states after each sublayer."""
        states, dtype = [self.input_norm(self.drop(items))], self.product_dtype(items)
        for n, layer in enumerate(self.recurrent):
            states.append(layer(states[-1], batch, dtype))
            states.extend(layer(states[-1], dtype) for layer in self.feed_forward[n : n + 1])
        return states

    def item_bias(self) -> Float[Tensor, " V"]:
        """A trained bias of each item."""
        return self.bias

    def recompute_stages(self) -> Sequence[nn.Module]:
        """The sublayers."""
        return [*self.recurrent, *self.feed_forward]


def _golden_pairs(golden: Golden) -> dict[str, tuple[Tensor, Tensor]]:
    """(ours, published) of each recorded output."""
    model, rows = published_lrurec(golden), golden.batch()
    batch = golden.all_supervised(rows, "in.labels")
    table, bias = model.item_table(), model.item_bias()
    with torch.no_grad():
        names = ["embedding", *(f"{kind}_{n}" for n in range(len(model.recurrent)) for kind in ("lru", "block"))]
        found = dict(zip(names, model.sublayers(table[batch.item_ids], batch), strict=True))
        found["states"] = model.user_vectors(batch)
        found["logits"] = found["states"] @ table.T + bias
        found["seq"] = model.user_vectors(rows)
        found["scores"] = found["seq"] @ table.T + bias
        ranked = found["scores"].clone()
        ranked[batch.rows, batch.item_ids] = -1e9
        ranked[:, 0] = -1e9
        found["scores_ranked"] = ranked
        losses = F.cross_entropy(found["logits"], batch.target_ids, reduction="none")  # the padding counts as an item
        found["loss_ce_no_first_item"] = losses.mean()
        # A padding slot is a row of its own; the label of the last one before a short row is the row's first item.
        padding = model.user_vectors(pack_histories([([0], [0])])) @ table.T + bias
        is_short = golden["in.lengths"][rows.user_index] < golden["in.item_seq"].shape[1]
        firsts = batch.item_ids[batch.offsets[:-1]][is_short]
        first_losses = F.cross_entropy(padding.expand(len(firsts), -1), firsts, reduction="none")
        found["loss_ce"] = torch.cat([losses, first_losses]).mean()
    return {name: golden.pair(name, ours, rows) for name, ours in found.items() if f"out.{name}" in golden}


def published_lrurec(golden: Golden) -> LRURec:
    """Our network with the published weights of a golden file, in evaluation mode.

    Raises: CheckpointError for a missing weight.
    """
    table, block = golden.weight("embedding.token.weight"), "model.lru_blocks.{}."
    inner = golden.weight(f"{block.format(0)}feed_forward.w_1.weight")
    num_layers = sum(f"w.{block.format(n)}lru_layer.params_log" in golden for n in range(100))
    config = replace_in(
        build_config("lrurec"),
        [
            f"model.hidden_size={table.shape[1]}",
            f"model.state_size={golden.weight(f'{block.format(0)}lru_layer.params_log').shape[1]}",
            f"model.inner_size={len(inner)}",
            f"model.num_layers={num_layers}",
            f"model.max_length={golden['in.item_seq'].shape[1]}",
        ],
    )
    model = LRURec(cast(LRURecConfig, config), ModelInputs(Catalogue(num_item_rows=len(table)), TimeRange(0, 1, 1)))
    state = {"tables.id.weight": table, "bias": golden.weight("model.bias")}
    state |= {f"input_norm.{kind}": golden.weight(f"embedding.layer_norm.{kind}") for kind in ("weight", "bias")}
    for n in range(num_layers):
        state |= _published_block(golden, n, block.format(n))
    model.load_state_dict(state)
    return model.eval()


def _published_block(golden: Golden, number: int, block: str) -> dict[str, Tensor]:
    """Weights of one block by our names."""
    recurrent, lru = f"recurrent.{number}.", f"{block}lru_layer."
    names = ("log_nu", "log_theta", "log_gamma")
    state = {recurrent + name: value for name, value in zip(names, golden.weight(f"{lru}params_log"), strict=True)}
    weight, bias = golden[f"w.{lru}in_proj.weight"], golden[f"w.{lru}in_proj.bias"]
    state[f"{recurrent}inward.weight"] = torch.view_as_real(weight).transpose(1, 2).flatten(0, 1)
    state[f"{recurrent}inward.bias"] = torch.view_as_real(bias).flatten()
    weight, bias = golden[f"w.{lru}out_proj.weight"].conj(), golden[f"w.{lru}out_proj.bias"]
    state[f"{recurrent}outward.weight"] = torch.view_as_real(weight.resolve_conj()).flatten(1)
    state[f"{recurrent}outward.bias"] = bias.real
    for kind in ("weight", "bias"):
        state[f"{recurrent}norm.{kind}"] = golden.weight(f"{lru}layer_norm.{kind}")
        for ours, published in (("inner", "w_1"), ("outer", "w_2"), ("norm", "layer_norm")):
            state[f"feed_forward.{number}.{ours}.{kind}"] = golden.weight(f"{block}feed_forward.{published}.{kind}")
    return state


def _take_out_feed_forward(tree: Tree) -> Mapping[str, str]:
    tree["model"]["feed_forward"] = False
    return {}


MODEL = ModelSpec(
    name="lrurec",
    summary="LRURec: linear recurrent units over item ids (Yue et al., WSDM 2024)",
    config=LRURecConfig,
    build=LRURec,
    removals=(
        Removal("FeedForward", lambda tree: tree["model"]["feed_forward"], _take_out_feed_forward),
        DROPOUT,
    ),
    golden_pairs=_golden_pairs,
)
