"""TedRec: item ids and texts fused in the frequency domain of a sequence (Xu et al., CIKM 2024).

    text_t  = sum_k g_k W_k (dropout(features_t) - b_k[t])        g: gates with noise, see `WhiteningExperts`
    f       = gated sum of the filtered ids and of the product of ids and texts, see `FrequencyFusion`
    x_t     = dropout(LN(f_t + P[t]))                             then the Transformer of SASRec
    score(v) = cos(x_last, E[v]),  loss = cross-entropy of score / 0.07

The fusion is circular over all L slots. With `fusion_reads_all: true`, as published, a state depends on later slots and the
padding, which is item 0 with a text of zeros; rows are prefixes, padded to L in training and in ranking. With
`fusion_reads_all: false`, our form, nothing wraps around: a state sees the items up to its own and no padding, and the model
trains on packed rows. The Transformer reads the items alone in both.

Source: the paper and its authors' code.   Differs: the paper adds b_k, the code subtracts it; its sign is free. The experts
share one dropout mask. The padding is no item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor

from athwe_core.batch import Catalogue, PackedBatch, PaddedView, TimeRange, to_device
from athwe_core.config_schema import CrossEntropyLosses, PositiveReal, Words, must
from athwe_core.errors import require
from athwe_core.losses.catalogue_ce import catalogue_cross_entropy
from athwe_core.models.golden import Golden, outputs_of
from athwe_core.models.id_model import DROPOUT, INIT_STD
from athwe_core.models.protocol import (
    Available,
    Draws,
    Explanation,
    InputNeeds,
    ModelInputs,
    ModelSpec,
    Removal,
    Tree,
)
from athwe_core.models.registry import build_config, replace_in
from athwe_core.models.sasrec import POSITION, SASRec, SASRecConfig, SASRecModelConfig, published_state
from athwe_core.models.unisrec.config import AdaptorConfig
from athwe_core.nn.frequency_fusion import FrequencyFusion
from athwe_core.nn.whitening_experts import WhiteningExperts

BRANCHES = ("filter", "text")


class TedRecModelConfig(SASRecModelConfig):
    """Sizes of TedRec."""

    name: Literal["tedrec"]  # type: ignore[assignment]
    branches: Annotated[
        Words, must("be filter, text or both", lambda names: 0 < len(names) == len(set(names) & set(BRANCHES)))
    ]
    """What is fused: the filtered ids, the product of ids and texts."""
    fusion_reads_all: bool
    """True fuses over all slots of a row, later ones and padding too, as published."""
    adaptor: AdaptorConfig


class TedRecLosses(CrossEntropyLosses):
    """The `losses` section of TedRec."""

    temperature: PositiveReal


class TedRecConfig(SASRecConfig):
    """Everything that decides a run of TedRec."""

    model: TedRecModelConfig
    losses: TedRecLosses  # type: ignore[assignment]

    @model_validator(mode="after")
    def _fits_its_rows(self) -> TedRecConfig:
        require(
            not (self.model.fusion_reads_all and self.training.batching == "packed"),
            "training.batching",
            "must be prefix with model.fusion_reads_all: true, which sees ahead",
            self.training.batching,
            "Use --batching prefix, or --set model.fusion_reads_all=false",
        )
        return self


class TedRec(SASRec):
    """The network.

    Args:
        config: sizes, branches and the main loss.
        inputs: text features of the items, where the text is a branch.
    """

    def __init__(self, config: TedRecConfig, inputs: ModelInputs) -> None:
        super().__init__(config, inputs)
        model, adaptor = config.model, config.model.adaptor
        self.temperature, self.reads_all = config.losses.temperature, model.fusion_reads_all
        has_text = "text" in model.branches
        features = inputs.catalogue.features["text"] if has_text else None
        self.register_buffer("features", features, persistent=False)
        self.adaptor = None
        if features is not None:
            self.adaptor = WhiteningExperts(
                feature_size=features.shape[1],
                hidden_size=model.hidden_size,
                num_experts=adaptor.num_experts,
                dropout_rate=adaptor.dropout,
                gate_noise=adaptor.gate_noise,
                num_shifts=model.max_length,
            )
        self.fusion = FrequencyFusion(
            length=model.max_length,
            hidden_size=model.hidden_size,
            has_filter="filter" in model.branches,
            has_product=has_text,
            reads_all=self.reads_all,
        )
        self.reset_parameters(inputs.generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """As SASRec, with the experts' own start and U(+-1/sqrt(D)) for the biases of the two gates of the fusion."""
        super().reset_parameters(generator)
        if not hasattr(self, "fusion"):  # called by the constructor of SASRec
            return
        if self.adaptor is not None:
            self.adaptor.reset_parameters(INIT_STD, generator)
        for gate in (self.fusion.filter_gate, self.fusion.product_gate):
            if gate is not None:
                bound = gate.in_features**-0.5
                gate.bias.uniform_(-bound, bound, generator=generator)

    def draw(self, batch: PackedBatch, generator_of: Callable[[str], torch.Generator]) -> Draws:
        """Noise of the gates of every slot, (B, L, E)."""
        if self.adaptor is None or self.adaptor.noise_weight is None:
            return {}
        shape = (batch.num_rows, self.max_length, self.adaptor.gate_weight.shape[1])
        return {"gate_noise": to_device(torch.randn(shape, generator=generator_of("gate noise")), self.device)}

    def encode(self, items: Float[Tensor, "T D"], batch: PackedBatch) -> Float[Tensor, "N D"]:
        """Fusion without noise, then the Transformer."""
        return self.encode_with(items, batch, {})

    def encode_with(self, items: Float[Tensor, "T D"], batch: PackedBatch, draws: Draws) -> Float[Tensor, "N D"]:
        """Fusion with the step's noise of the gates, then the Transformer."""
        return super().encode(self.fuse(items, batch, draws.get("gate_noise")), batch)

    def fuse(
        self, items: Float[Tensor, "T D"], batch: PackedBatch, noise: Float[Tensor, "B L E"] | None
    ) -> Float[Tensor, "T D"]:
        """f of every token."""
        rows = batch.padded_to(self.max_length)
        texts = None if self.adaptor is None else self.texts(rows, batch, noise)
        return rows.unpad(self.fusion(self.with_padding(items, rows) if self.reads_all else rows.pad(items), texts))

    def texts(
        self, rows: PaddedView, batch: PackedBatch, noise: Float[Tensor, "B L E"] | None
    ) -> Float[Tensor, "B L D"]:
        """Adapted texts of every slot; padding that counts has features of zeros, which no expert needs to see."""
        assert self.adaptor is not None
        tokens = self.adaptor(
            self.get_buffer("features")[batch.item_ids],
            noise=None if noise is None else rows.unpad(noise),
            shifts=rows.positions,
            dtype=self.compute_dtype if self.training else torch.float32,
        )
        texts = rows.pad(tokens.float())
        return torch.where(rows.mask[..., None], texts, self.adaptor.of_zeros(noise)) if self.reads_all else texts

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
        return self.explain_tokens(self.fuse(self.tables(batch.item_ids), batch, None), batch)


@torch.no_grad()
def _golden_pairs(golden: Golden) -> dict[str, tuple[Tensor, Tensor]]:
    """(ours, published) of each recorded output."""
    model, batch = published_tedrec(golden), golden.batch()
    table, rows = model.tables(), batch.padded_to(model.max_length)
    items = table[batch.item_ids]
    found = {"adapted_seq": rows.unpad(model.texts(rows, batch, None)), "fused": model.fuse(items, batch, None)}
    modules = {"input_emb": model.input_norm} | {f"layer{n}": layer for n, layer in enumerate(model.transformer.layers)}
    with outputs_of(modules) as seen:
        model.encode(items, golden.all_supervised(batch))
    found |= {name: value[0] for name, value in seen.items()}
    found["seq"] = model.encode(items, batch)
    found["scores"] = model.user_vectors(batch) @ model.item_table().T
    losses = {"loss_ce": found["seq"]}
    if "in.noise_seq" in golden:
        losses["loss_ce_noise"] = model.encode_with(items, batch, {"gate_noise": golden.at_rows("in.noise_seq", batch)})
    for name, states in losses.items():  # the padding counts as an item
        found[name] = catalogue_cross_entropy(*model.scored(states, table, None), batch.target_ids)
    return {name: golden.pair(name, ours, batch) for name, ours in found.items() if f"out.{name}" in golden}


def published_tedrec(golden: Golden) -> TedRec:
    """Our network with the published weights of a golden file, in evaluation mode.

    Raises: CheckpointError for a missing weight.
    """
    sizes, state = published_state(golden)
    gate = golden.weight("moe_adaptor.w_gate")
    settings = [
        f"model.num_heads={golden.setting('num_heads', 2)}",
        f"model.adaptor.num_experts={gate.shape[1]}",
        f"losses.temperature={golden['in.temperature'].item()}",
    ]
    config = replace_in(build_config("tedrec"), [*sizes, *settings])
    features = golden.weight("plm_embedding.weight")
    model = TedRec(
        cast(TedRecConfig, config),
        ModelInputs(Catalogue(num_item_rows=len(features), features={"text": features}), TimeRange(0, 1, 1)),
    )
    experts = [f"moe_adaptor.experts.{n}." for n in range(gate.shape[1])]
    state |= {
        "adaptor.gate_weight": gate,
        "adaptor.noise_weight": golden.weight("moe_adaptor.w_noise"),
        "adaptor.shift_bias": torch.cat([golden.weight(f"{name}bias") for name in experts]),
        "adaptor.expert_weight": torch.stack([golden.weight(f"{name}lin.weight").T for name in experts]),
        "fusion.filter": torch.cat(golden.weight("complex_weight")[0].unbind(-1)),
    }
    for ours, published in (("filter_gate", "item_gating"), ("product_gate", "fusion_gating")):
        state |= {f"fusion.{ours}.{kind}": golden.weight(f"{published}.{kind}") for kind in ("weight", "bias")}
    model.load_state_dict(state)
    return model.eval()


def _needs(config: TedRecConfig) -> InputNeeds:
    return InputNeeds(features=("text",) if "text" in config.model.branches else ())


def _adapt(tree: Tree, available: Available) -> list[str]:
    """Leave the text out where the data set has none, if the filter stays."""
    branches = tree["model"]["branches"]
    if "text" not in branches or "text" in available.features or len(branches) == 1:
        return []
    branches.remove("text")
    return [f"{available.dataset} has no text features: the text branch is off"]


def _branch(name: str, branch: str) -> Removal:
    def take_out(tree: Tree) -> Mapping[str, str]:
        tree["model"]["branches"].remove(branch)
        return {}

    return Removal(name, lambda tree: len(tree["model"]["branches"]) > 1, take_out)


def _take_out_gate_noise(tree: Tree) -> Mapping[str, str]:
    tree["model"]["adaptor"]["gate_noise"] = False
    return {}


MODEL = ModelSpec(
    name="tedrec",
    summary="TedRec: ids and texts fused in the frequency domain of the sequence (Xu et al., CIKM 2024)",
    config=TedRecConfig,
    build=TedRec,
    batchings=("prefix", "packed"),
    needs=_needs,
    adapt=_adapt,
    removals=(
        _branch("Text", "text"),
        _branch("Filter", "filter"),
        Removal("GateNoise", lambda tree: tree["model"]["adaptor"]["gate_noise"], _take_out_gate_noise),
        POSITION,
        DROPOUT,
    ),
    golden_pairs=_golden_pairs,
    golden_tolerance={"scores": 5e-5},  # tells exact gelu from its approximation
)
