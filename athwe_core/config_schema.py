"""The sections of a configuration: frozen dataclasses, each validated where its values are stored."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import Literal

from athwe_core.batch import MODALITIES
from athwe_core.errors import require

MAX_LEVELS = 30
"""Wavelet levels: each doubles the distance that is looked back, counted in int64."""
MAX_BUCKETS_PER_LOG2 = 1e6
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:[0-9]{1,2})?")


def _require_positive(prefix: str, section: object, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        require(value > 0 and math.isfinite(value), f"{prefix}.{name}", "must be positive", value)


@dataclass(frozen=True, kw_only=True)
class InteractiveMoEConfig:
    """Interactive MoE (HM4SR eq. 7-10)."""

    enabled: bool
    num_experts: int
    """k_1: experts for each target modality."""
    alpha_init: tuple[float, ...]
    """Initial interaction strength of id, text, image (eq. 8), one for each of the three."""

    def __post_init__(self) -> None:
        _require_positive("model.interactive_moe", self, "num_experts")
        require(
            len(self.alpha_init) == len(MODALITIES),
            "model.interactive_moe.alpha_init",
            f"must have {len(MODALITIES)} numbers, for {', '.join(MODALITIES)}",
            list(self.alpha_init),
        )


@dataclass(frozen=True, kw_only=True)
class WaveletConfig:
    """Wavelet alignment of the modalities (ATHWE)."""

    enabled: bool
    form: Literal["causal", "centred"]
    """`causal` is legal in packed and prefix batching, `centred` looks ahead and is legal in prefix batching only."""
    name: str
    """A discrete orthogonal or biorthogonal wavelet of PyWavelets, e.g. haar, db4."""
    levels: int
    weight_init: tuple[float, ...]
    """Initial residual weight of id, text, image."""

    def __post_init__(self) -> None:
        _require_positive("model.wavelet", self, "levels")
        require(self.levels <= MAX_LEVELS, "model.wavelet.levels", f"must be at most {MAX_LEVELS}", self.levels)
        require(
            len(self.weight_init) == len(MODALITIES),
            "model.wavelet.weight_init",
            f"must have {len(MODALITIES)} numbers, for {', '.join(MODALITIES)}",
            list(self.weight_init),
        )
        if self.enabled:
            import pywt  # noqa: PLC0415 - only where a wavelet is used

            known = pywt.wavelist(kind="discrete")
            near = difflib.get_close_matches(self.name, known, n=3)
            remedy = f"Did you mean {', '.join(near)}?" if near else "Try haar or db4"
            require(
                self.name in known, "model.wavelet.name", "must be a discrete wavelet of PyWavelets", self.name, remedy
            )


@dataclass(frozen=True, kw_only=True)
class TemporalMoEConfig:
    """Temporal MoE (HM4SR eq. 14-16; ATHWE's sparse form)."""

    enabled: bool
    kind: Literal["dense", "sparse"]
    num_experts: int
    """k_2: experts routed to; the shared ones come on top."""
    top_k: int
    """Sparse only: experts kept per token."""
    num_shared: int
    """Sparse only: experts every token passes with weight 1."""
    trainable: bool
    """False keeps the experts as drawn (as the published code does unknowingly), but saves them."""

    def __post_init__(self) -> None:
        _require_positive("model.temporal_moe", self, "num_experts")
        require(self.num_shared >= 0, "model.temporal_moe.num_shared", "must not be negative", self.num_shared)
        require(
            self.kind == "dense" or 1 <= self.top_k <= self.num_experts,
            "model.temporal_moe.top_k",
            f"must be in 1..num_experts={self.num_experts}",
            self.top_k,
        )


@dataclass(frozen=True, kw_only=True)
class TimeEncodingConfig:
    """What the temporal router sees (HM4SR eq. 11-13 and figure 5)."""

    kind: Literal["interval", "absolute", "interval+absolute", "day", "day_of_year", "cos", "saturating"]
    time_unit: Literal["days", "seconds"]
    """Unit of absolute times: days since the first training interaction, or unix seconds as published."""
    buckets_per_log2: float
    """mu of eq. 12."""
    num_buckets: int | None
    """Rows of the interval table; null: from the longest training interval. For `saturating`: its upper end a; null: 200."""
    saturation_seconds: float
    """k of the saturating interval."""
    frequency: float
    """freq of eq. 13."""

    def __post_init__(self) -> None:
        _require_positive("model.time_encoding", self, "buckets_per_log2", "saturation_seconds", "frequency")
        require(
            self.buckets_per_log2 <= MAX_BUCKETS_PER_LOG2,
            "model.time_encoding.buckets_per_log2",
            f"must be at most {MAX_BUCKETS_PER_LOG2:g}",
            self.buckets_per_log2,
        )
        if self.num_buckets is not None:
            _require_positive("model.time_encoding", self, "num_buckets")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The one network and its optional stages."""

    hidden_size: int
    inner_size: int
    num_layers: int
    num_heads: int
    dropout: float
    max_length: int
    modalities: tuple[str, ...]
    """Subset of id, text, image that contains id, in this order."""
    score_weights: bool
    """Scale the three score terms by the softmax of learnt weights (athwe-published)."""
    interactive_moe: InteractiveMoEConfig
    wavelet: WaveletConfig
    temporal_moe: TemporalMoEConfig
    time_encoding: TimeEncodingConfig

    def __post_init__(self) -> None:
        _require_positive("model", self, "hidden_size", "inner_size", "num_layers", "num_heads", "max_length")
        require(
            self.hidden_size % self.num_heads == 0,
            "model.num_heads",
            f"must divide model.hidden_size={self.hidden_size}",
            self.num_heads,
        )
        require(0 <= self.dropout < 1, "model.dropout", "must be in [0, 1)", self.dropout)
        require(self.max_length >= 2, "model.max_length", "must be at least 2", self.max_length)
        ordered = tuple(m for m in MODALITIES if m in self.modalities)
        require(
            self.modalities == ordered and "id" in ordered,
            "model.modalities",
            "must be a subset of id, text, image that contains id, in this order",
            list(self.modalities),
        )


@dataclass(frozen=True, kw_only=True)
class CatalogueLossConfig:
    """Main loss (eq. 20)."""

    kind: Literal["full", "sampled"]
    """`full`: cross-entropy over every item of the catalogue; `sampled`: over the batch's targets and drawn negatives."""
    num_negatives: int
    """Items drawn a step beside the batch's targets, log-uniform in popularity; of `sampled` only."""

    def __post_init__(self) -> None:
        require(self.num_negatives >= 0, "losses.catalogue.num_negatives", "must not be negative", self.num_negatives)


def _require_weight(prefix: str, weight: float) -> None:
    require(weight >= 0 and math.isfinite(weight), f"{prefix}.weight", "must not be negative", weight)


@dataclass(frozen=True, kw_only=True)
class WeightConfig:
    """A loss term that has only a weight; 0 switches it off."""

    weight: float


@dataclass(frozen=True, kw_only=True)
class IDCLConfig:
    """Contrastive loss on ids (eq. 23)."""

    weight: float
    temperature: float
    """tau."""

    def __post_init__(self) -> None:
        _require_weight("losses.idcl", self.weight)
        _require_positive("losses.idcl", self, "temperature")


@dataclass(frozen=True, kw_only=True)
class PCLConfig:
    """Placeholder contrastive loss (eq. 24-26)."""

    weight: float
    temperature: float
    mask_share: float
    """beta: share of positions replaced by the time placeholder."""

    def __post_init__(self) -> None:
        _require_weight("losses.pcl", self.weight)
        _require_positive("losses.pcl", self, "temperature")
        require(0 <= self.mask_share <= 1, "losses.pcl.mask_share", "must be in [0, 1]", self.mask_share)


@dataclass(frozen=True, kw_only=True)
class LossesConfig:
    """The terms of eq. 27 and ATHWE's two more."""

    catalogue: CatalogueLossConfig
    cp: WeightConfig
    idcl: IDCLConfig
    pcl: PCLConfig
    cluster: WeightConfig
    diversity: WeightConfig

    def __post_init__(self) -> None:
        for name in ("cp", "cluster", "diversity"):
            _require_weight(f"losses.{name}", getattr(self, name).weight)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How the network is trained."""

    batching: Literal["packed", "prefix"]
    batch_targets: int
    """Supervised positions a step."""
    lr: float
    epochs: int
    """Most epochs; early stopping usually ends sooner."""
    patience: int
    """Epochs without a better validation NDCG@20 before stopping."""
    seed: int
    precision: Literal["auto", "fp32", "bf16"]
    compiler: Literal["auto", "on", "off"]
    """Steps through torch's compiler; auto = on CUDA."""
    device: str
    """auto, cpu, cuda, cuda:N or mps."""

    def __post_init__(self) -> None:
        _require_positive("training", self, "batch_targets", "lr", "epochs", "patience")
        require(0 <= self.seed < 2**32, "training.seed", "must be in 0..2^32-1", self.seed)
        known = _DEVICE.fullmatch(self.device) is not None
        require(known, "training.device", "must be auto, cpu, cuda, cuda:N or mps", self.device)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the ranking is judged."""

    ks: tuple[int, ...]
    exclude_seen: bool
    """Remove items the user already has from the ranking, never the target."""

    def __post_init__(self) -> None:
        valid = len(self.ks) > 0 and all(k > 0 for k in self.ks) and tuple(sorted(set(self.ks))) == self.ks
        require(valid, "evaluation.ks", "must be increasing positive numbers", list(self.ks))


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a run beside the prepared data set."""

    model: ModelConfig
    losses: LossesConfig
    training: TrainingConfig
    evaluation: EvaluationConfig

    def __post_init__(self) -> None:
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
        sparse = self.model.temporal_moe.enabled and self.model.temporal_moe.kind == "sparse"
        require(
            self.losses.diversity.weight == 0 or sparse,
            "losses.diversity.weight",
            "must be 0 without sparse temporal experts",
            self.losses.diversity.weight,
            "Use --set losses.diversity.weight=0",
        )
