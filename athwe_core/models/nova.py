"""NOVA: attributes decide where attention looks and stay out of what it passes on (Liu et al., AAAI 2021).

    x_t = dropout(LN(E[item_t]))        r_t = fusion(a_1(item_t), ..., a_S(item_t), x_t, P[t])
    query, key = projections of r, value = projection of x
    y   = LN(x + dropout(W_o attention + b_o))                             causal, h heads, scale 1 / sqrt(D / h)
    x'  = LN(y + dropout(W_2 gelu(W_1 y + b_1) + b_2))                     exact gelu; n such blocks, r anew in each
    score(v) = x_last . E[v]

a_j are the vectors of the attributes, of width D; P those of the positions. `fusion` is the sum, a linear layer on all of
them, or a sum with the weights of a gate (`athwe_core/nn/fusion.py`). `losses.attributes.weights` adds DIF-SR's prediction of
the next item's attributes, which NOVA itself does not have.

Source: the paper, in the form in which DIF-SR (SIGIR 2022) and MSSR (WSDM 2024) compare with it.   Differs: the paper is
bidirectional and trained on masked items; this form is causal and predicts the next item. The gate of that code is a softmax
of a two-layer network. It never trains the attribute tables (`attributes_trainable: false` as published). The padding is no
item here. No settings are published for it on Amazon data: the preset has those of MSSR's code for Beauty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from athwe_core.batch import PackedBatch, TimeRange
from athwe_core.models.attribute_model import (
    REMOVALS,
    AttributeConfig,
    AttributeModel,
    AttributeModelConfig,
    adapt,
    attribute_outputs,
    golden_catalogue,
    needs,
    published_attribute_state,
    published_fusion,
)
from athwe_core.models.golden import Golden, outputs_of
from athwe_core.models.protocol import Explanation, ModelInputs, ModelSpec
from athwe_core.models.registry import build_config, replace_in
from athwe_core.nn.fusion import FusionKind, SourceFusion
from athwe_core.nn.transformer import ONE, AttentionGrid, LayerSizes, TransformerLayer, last_token_attention


class NOVAModelConfig(AttributeModelConfig):
    """Sizes and attributes of NOVA."""

    name: Literal["nova"]  # type: ignore[assignment]


class NOVAConfig(AttributeConfig):
    """Everything that decides a run of NOVA."""

    model: NOVAModelConfig


class NOVALayer(TransformerLayer):
    """A Transformer layer whose queries and keys see the attributes and the position, and whose values do not.

    Args:
        fusion, num_sources: of attributes, items and position, see `SourceFusion`.
        sizes: as in `TransformerLayer`.
    """

    def __init__(self, *, fusion: FusionKind, num_sources: int, **sizes: Unpack[LayerSizes]) -> None:
        super().__init__(num_modalities=1, **sizes)
        self.fusion = SourceFusion(fusion, num_sources=num_sources, size=sizes["hidden_size"])

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "1 T D"],
        attributes: Sequence[Float[Tensor, "T D"]],
        position: Float[Tensor, "T D"] | None,
        grid: AttentionGrid,
        token_index: Tensor | None = None,
    ) -> Float[Tensor, "1 N D"]:
        """States of all tokens, or of those in `token_index`.

        Args:
            x: tokens.
            attributes, position: side information of each token.
            grid: which token attends to which.
            token_index: tokens whose states are returned; None = all.
        Returns: states in the dtype of x.
        """
        D = x.shape[-1]
        fused = self.fusion(_sources(x, attributes, position))[None]
        query_key = self._linear("qkv", fused, ONE, slice(0, 2 * D))
        query, key = self._in_slots(query_key, grid, parts=2)
        (value,) = self._in_slots(self._linear("qkv", x, ONE, slice(2 * D, None)), grid, parts=1)
        return self._finish(*self._of_tokens(x, self._attend(query, key, value, grid), grid, token_index), ONE)

    def attention_parts(
        self,
        x: Float[Tensor, "1 T D"],
        attributes: Sequence[Float[Tensor, "T D"]],
        position: Float[Tensor, "T D"] | None,
        grid: AttentionGrid,
    ) -> list[Float[Tensor, " T"]]:
        """Attention of the last token, mean over heads; for the inspection of single rows.

        Args:
            x, attributes, position, grid: as in `forward`, of a batch of one row.
        Returns: the weights, then those of queries and keys from the items' part of the fusion alone, then from that of each
            attribute and of the position.
        """
        sources = _sources(x, attributes, position)
        parts = self.fusion.parts(sources)
        parts.insert(0, parts.pop(len(attributes)))
        fused = [self.fusion(sources), *parts]
        return [last_token_attention(self.attention_weights(each[None], grid, ONE), grid)[0] for each in fused]


def _sources(
    x: Float[Tensor, "1 T D"], attributes: Sequence[Float[Tensor, "T D"]], position: Float[Tensor, "T D"] | None
) -> list[Float[Tensor, "T D"]]:
    """What queries and keys are made of, in the order of the fusion."""
    return [*attributes, x[0], *([] if position is None else [position])]


class NOVA(AttributeModel):
    """The network.

    Args:
        config: sizes, attributes and losses.
        inputs: the number of items and their attributes; no features are read.
    """

    def __init__(self, config: NOVAConfig, inputs: ModelInputs) -> None:
        model = config.model
        super().__init__(config, inputs, attribute_sizes=[model.hidden_size] * len(model.attributes))
        self.layers = nn.ModuleList(
            NOVALayer(
                fusion=model.fusion,
                num_sources=len(model.attributes) + 1 + model.position_embedding,
                **model.layer_sizes(),
            )
            for _ in range(model.num_layers)
        )
        self.reset_parameters(inputs.generator)

    def encode(self, items: Float[Tensor, "T D"], batch: PackedBatch) -> Float[Tensor, "N D"]:
        """Input norm, then the layers; the last one computes the supervised positions only."""
        x, attributes, position, grid = self._inputs(items, batch)
        for layer in self.layers[:-1]:
            x = layer(x, attributes, position, grid)
        wanted = None if batch.all_supervised else batch.target_index
        states: Tensor = self.layers[-1](x, attributes, position, grid, wanted)
        return states[0].to(items.dtype)

    def _inputs(
        self, items: Float[Tensor, "T D"], batch: PackedBatch
    ) -> tuple[Tensor, list[Tensor], Tensor | None, AttentionGrid]:
        """The input of the first layer, and what all layers read besides it: attributes, positions, grid."""
        x = self.embed(items)
        attributes = [vectors.to(x.dtype) for vectors in self.attributes(batch.item_ids)]
        position = None if self.position is None else self.position[batch.positions].to(x.dtype)
        return x, attributes, position, AttentionGrid(batch.grid_tokens, batch.token_slots, batch.rows)

    def explain(self, batch: PackedBatch, table: Float[Tensor, "V D"]) -> Explanation:
        """Attention of the last position, and that of the items, each attribute and the positions alone."""
        x, attributes, position, grid = self._inputs(table[batch.item_ids], batch)
        layers = []
        for layer in self.layers:
            assert isinstance(layer, NOVALayer)
            layers.append(layer.attention_parts(x, attributes, position, grid))
            x = layer(x, attributes, position, grid)
        return self.explanation(layers)

    def recompute_stages(self) -> Sequence[nn.Module]:
        """The layers."""
        return list(self.layers)


@torch.no_grad()
def _golden_pairs(golden: Golden) -> dict[str, tuple[Tensor, Tensor]]:
    """(ours, published) of each recorded output."""
    model, batch = published_nova(golden), golden.batch()
    found = attribute_outputs(model, golden, batch)
    first = cast(NOVALayer, model.layers[0])
    modules = {"input_emb": model.input_norm, "layer0_attn": first.attention_norm, "layer0_fused": first.fusion}
    modules |= {f"layer{n}": layer for n, layer in enumerate(model.layers)}
    with outputs_of(modules) as seen:
        model.encode(model.item_table()[batch.item_ids], golden.all_supervised(batch))
    found |= {name: value.flatten(0, -2) for name, value in seen.items()}
    if first.fusion.kind == "gate":
        assert model.position is not None
        sources = [*model.attributes(batch.item_ids), found["input_emb"], model.position[batch.positions]]
        found["layer0_gate"] = first.fusion.weights(sources)
    return {name: golden.pair(name, ours, batch) for name, ours in found.items() if f"out.{name}" in golden}


def published_nova(golden: Golden) -> NOVA:
    """Our network with the published weights of a golden file, in evaluation mode.

    Raises: CheckpointError for a missing weight.
    """
    settings, state = published_attribute_state(golden)
    config = cast(NOVAConfig, replace_in(build_config("nova"), settings))
    for n in range(config.model.num_layers):
        state |= {f"layers.{n}.fusion.{name}": value for name, value in published_fusion(golden, n).items()}
    model = NOVA(config, ModelInputs(golden_catalogue(golden), TimeRange(0, 1, 1)))
    model.load_state_dict(state)
    return model.eval()


MODEL = ModelSpec(
    name="nova",
    summary="NOVA: attributes guide self-attention over item ids (Liu et al., AAAI 2021)",
    config=NOVAConfig,
    build=NOVA,
    needs=needs,
    adapt=adapt,
    removals=REMOVALS,
    golden_pairs=_golden_pairs,
)
