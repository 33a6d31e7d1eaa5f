"""Configuration sections of HM4SR and ATHWE: optional stages and loss terms."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal

from pydantic import model_validator

from athwe_core.batch import MODALITIES
from athwe_core.config_schema import (
    AttentionSection,
    Config,
    CrossEntropyConfig,
    LossesSection,
    NotNegativeReal,
    NotNegativeWhole,
    PositiveReal,
    PositiveWhole,
    Rate,
    Reals,
    Section,
    Share,
    Whole,
    Words,
    must,
)
from athwe_core.errors import require

MAX_LEVELS = 30
"""Wavelet levels: each doubles the distance that is looked back, counted in int64."""
MAX_BUCKETS_PER_LOG2 = 1e6

PerModality = Annotated[
    Reals,
    must(f"have {len(MODALITIES)} numbers, for {', '.join(MODALITIES)}", lambda values: len(values) == len(MODALITIES)),
]


def _is_ordered(modalities: tuple[str, ...]) -> bool:
    ordered = tuple(m for m in MODALITIES if m in modalities)
    return modalities == ordered and "id" in ordered


class InteractiveMoEConfig(Section):
    """Interactive MoE (HM4SR eq. 7-10)."""

    enabled: bool
    num_experts: PositiveWhole
    """k_1: experts for each target modality."""
    alpha_init: PerModality
    """Initial interaction strength of id, text, image (eq. 8), one for each of the three."""


class WaveletConfig(Section):
    """Wavelet alignment of the modalities (ATHWE)."""

    enabled: bool
    form: Literal["causal", "centred"]
    """`causal` is legal in packed and prefix batching, `centred` looks ahead and is legal in prefix batching only."""
    name: str
    """A discrete orthogonal or biorthogonal wavelet of PyWavelets, e.g. haar, db4."""
    levels: Annotated[PositiveWhole, must(f"be at most {MAX_LEVELS}", lambda levels: levels <= MAX_LEVELS)]
    weight_init: PerModality
    """Initial residual weight of id, text, image."""

    @model_validator(mode="after")
    def _has_known_wavelet(self) -> WaveletConfig:
        if self.enabled:
            import pywt  # noqa: PLC0415 - only where a wavelet is used

            known = pywt.wavelist(kind="discrete")
            near = difflib.get_close_matches(self.name, known, n=3)
            remedy = f"Did you mean {', '.join(near)}?" if near else "Try haar or db4"
            rule = "must be a discrete wavelet of PyWavelets"
            require(self.name in known, "model.wavelet.name", rule, self.name, remedy)
        return self


class TemporalMoEConfig(Section):
    """Temporal MoE (HM4SR eq. 14-16; ATHWE's sparse form)."""

    enabled: bool
    kind: Literal["dense", "sparse"]
    num_experts: PositiveWhole
    """k_2: experts routed to; the shared ones come on top."""
    top_k: Whole
    """Sparse only: experts kept per token."""
    num_shared: NotNegativeWhole
    """Sparse only: experts every token passes with weight 1."""
    trainable: bool
    """False keeps the experts as drawn (as the published code does unknowingly), but saves them."""

    @model_validator(mode="after")
    def _keeps_some_experts(self) -> TemporalMoEConfig:
        is_right = self.kind == "dense" or 1 <= self.top_k <= self.num_experts
        require(is_right, "model.temporal_moe.top_k", f"must be in 1..num_experts={self.num_experts}", self.top_k)
        return self


class TimeEncodingConfig(Section):
    """What the temporal router sees (HM4SR eq. 11-13 and figure 5)."""

    kind: Literal["interval", "absolute", "interval+absolute", "day", "day_of_year", "cos", "saturating"]
    time_unit: Literal["days", "seconds"]
    """Unit of absolute times: days since the first training interaction, or unix seconds as published."""
    buckets_per_log2: Annotated[
        PositiveReal, must(f"be at most {MAX_BUCKETS_PER_LOG2:g}", lambda value: value <= MAX_BUCKETS_PER_LOG2)
    ]
    """mu of eq. 12."""
    num_buckets: PositiveWhole | None
    """Rows of the interval table; null: from the longest training interval. For `saturating`: its upper end a; null: 200."""
    saturation_seconds: PositiveReal
    """k of the saturating interval."""
    frequency: PositiveReal
    """freq of eq. 13."""


class AthweModelConfig(AttentionSection):
    """The network and its optional stages."""

    name: Literal["athwe"]
    inner_size: PositiveWhole
    modalities: Annotated[Words, must("be a subset of id, text, image that contains id, in this order", _is_ordered)]
    """Subset of id, text, image that contains id, in this order."""
    score_weights: bool
    """Scale the three score terms by the softmax of learnt weights (athwe-published)."""
    unknown_id_dropout: Rate
    """Share of the items whose id a training step replaces by one learned vector, which items that are no training target
    always have. 0: such items keep an id vector that was never trained. Not published."""
    interactive_moe: InteractiveMoEConfig
    wavelet: WaveletConfig
    temporal_moe: TemporalMoEConfig
    time_encoding: TimeEncodingConfig


class WeightConfig(Section):
    """A loss term that has only a weight; 0 switches it off."""

    weight: NotNegativeReal


class IDCLConfig(Section):
    """Contrastive loss on ids (eq. 23)."""

    weight: NotNegativeReal
    temperature: PositiveReal
    """tau."""


class PCLConfig(Section):
    """Placeholder contrastive loss (eq. 24-26)."""

    weight: NotNegativeReal
    temperature: PositiveReal
    mask_share: Share
    """beta: share of positions replaced by the time placeholder."""


class AthweLossesConfig(LossesSection):
    """The terms of eq. 27 and two more of ATHWE."""

    catalogue: CrossEntropyConfig
    cp: WeightConfig
    idcl: IDCLConfig
    pcl: PCLConfig
    cluster: WeightConfig
    diversity: WeightConfig


class AthweConfig(Config):
    """Everything that decides a run of HM4SR or ATHWE."""

    model: AthweModelConfig
    losses: AthweLossesConfig

    @model_validator(mode="after")
    def _fits_together(self) -> AthweConfig:
        look_ahead = self.model.wavelet.enabled and self.model.wavelet.form == "centred"
        require(
            not (look_ahead and self.training.batching == "packed"),
            "training.batching",
            "must be prefix with model.wavelet.form: centred, which looks ahead",
            self.training.batching,
            "Use --batching prefix, or --set model.wavelet.form=causal",
        )
        require(
            self.losses.pcl.weight == 0 or self.model.temporal_moe.enabled,
            "losses.pcl.weight",
            "must be 0 without model.temporal_moe, whose time encoding makes the placeholder",
            self.losses.pcl.weight,
            "Use --set losses.pcl.weight=0",
        )
        is_sparse = self.model.temporal_moe.enabled and self.model.temporal_moe.kind == "sparse"
        require(
            self.losses.diversity.weight == 0 or is_sparse,
            "losses.diversity.weight",
            "must be 0 without sparse temporal experts",
            self.losses.diversity.weight,
            "Use --set losses.diversity.weight=0",
        )
        return self
