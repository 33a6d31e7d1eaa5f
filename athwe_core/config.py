"""The configuration tree: frozen dataclasses, validated where the value is stored, read from presets, YAML and overrides.

Layers of a configuration, later ones win: preset, the project's `config/NAME.yaml`, `--config FILE`, `--set a.b=c`.
An unknown key is an error that names the nearest known one; nothing has a silent default.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from athwe_core.batch import MODALITIES
from athwe_core.errors import ConfigError

PRESETS = ("athwe", "athwe-published", "hm4sr")
TIME_KINDS = ("interval", "absolute", "interval+absolute", "day", "day_of_year", "cos", "saturating")


def require(condition: bool, name: str, rule: str, value: object, remedy: str = "") -> None:
    """Raise `ConfigError(name, rule, value, remedy)` unless `condition`."""
    if not condition:
        raise ConfigError(name, rule, value, remedy)


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
            require(self.name in known, "model.wavelet.name", "must be a discrete wavelet of PyWavelets", self.name, remedy)


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
            1 <= self.top_k <= self.num_experts,
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
    """Rows of the interval table; null: from the longest training interval. For `saturating`: its upper end a."""
    saturation_seconds: float
    """k of the saturating interval."""
    frequency: float
    """freq of eq. 13."""

    def __post_init__(self) -> None:
        _require_positive("model.time_encoding", self, "buckets_per_log2", "saturation_seconds", "frequency")
        require(
            self.num_buckets is not None or self.kind != "saturating",
            "model.time_encoding.num_buckets",
            "must be a number with kind: saturating",
            self.num_buckets,
            "The published value is 200",
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

    kind: Literal["full"]
    """`full`: cross-entropy over every item of the catalogue."""


def _require_weight(prefix: str, weight: float) -> None:
    require(weight >= 0 and math.isfinite(weight), f"{prefix}.weight", "must not be negative", weight)


@dataclass(frozen=True, kw_only=True)
class WeightConfig:
    """A loss term that has only a weight; 0 switches it off."""

    weight: float

    def __post_init__(self) -> None:
        _require_weight("losses", self.weight)


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
    device: str
    """auto, cpu, cuda, cuda:N or mps."""

    def __post_init__(self) -> None:
        _require_positive("training", self, "batch_targets", "lr", "epochs", "patience")
        require(0 <= self.seed < 2**32, "training.seed", "must be in 0..2^32-1", self.seed)
        known = self.device in ("auto", "cpu", "cuda", "mps") or (
            self.device.startswith("cuda:") and self.device[5:].isdigit()
        )
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


# ---------------------------------------------------------------- reading and writing

_Section = TypeVar("_Section")


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (Union, types.UnionType)


def _convert(key: str, annotation: Any, value: object) -> Any:
    """`value` as the annotated type; no conversion that could hide a mistake (true is no number, 1.5 no count)."""
    if _is_union(annotation):
        if value is None:
            return None
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    if typing.get_origin(annotation) is Literal:
        choices = typing.get_args(annotation)
        require(value in choices, key, f"must be one of {', '.join(map(str, choices))}", value)
        return value
    if typing.get_origin(annotation) is tuple:
        require(isinstance(value, list | tuple), key, "must be a list", value)
        element = typing.get_args(annotation)[0]
        return tuple(_convert(f"{key}[{i}]", element, v) for i, v in enumerate(typing.cast(Iterable[object], value)))
    if annotation is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            value = float(value)
        except ValueError:
            raise ConfigError(key, "must be a number", value) from None
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if annotation is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    is_right = isinstance(value, annotation) and (annotation is bool or not isinstance(value, bool))
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    require(is_right, key, f"must be {words[annotation]}", value)
    return value


def _build(cls: type[_Section], tree: object, prefix: str) -> _Section:
    require(isinstance(tree, Mapping), prefix or "configuration", "must be a section of keys", tree)
    tree = typing.cast(Mapping[str, object], tree)
    hints = typing.get_type_hints(cls)
    for name in tree:
        _require_known(f"{prefix}.{name}".lstrip("."), str(name), [f.name for f in fields(typing.cast(Any, cls))], prefix)
    values: dict[str, Any] = {}
    for f in fields(typing.cast(Any, cls)):
        key = f"{prefix}.{f.name}".lstrip(".")
        if f.name not in tree:
            raise ConfigError(key, "is missing from the configuration", remedy="Start from a preset")
        hint = hints[f.name]
        values[f.name] = _build(hint, tree[f.name], key) if is_dataclass(hint) else _convert(key, hint, tree[f.name])
    return cls(**values)


def _require_known(key: str, name: str, known: list[str], prefix: str) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    where = f"{prefix}." if prefix else ""
    remedy = f"Did you mean {where}{near[0]}?" if near else f"Known under {prefix or 'the top'}: {', '.join(known)}"
    raise ConfigError(key, "is no configuration key", remedy=remedy)


def _merge(base: dict[str, Any], change: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`base` with the leaves of `change` replaced; a key `base` does not have is an error."""
    merged = dict(base)
    for name, value in change.items():
        key = f"{prefix}.{name}".lstrip(".")
        _require_known(key, str(name), list(base), prefix)
        if isinstance(base[name], dict):
            require(isinstance(value, Mapping), key, "must be a section of keys", value)
            merged[name] = _merge(base[name], value, key)
        else:
            merged[name] = value
    return merged


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ConfigError with line where it is no YAML or no mapping."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(str(path), "must be a file", remedy="Check the path given to --config") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path}{where}", f"must be readable YAML ({str(error).splitlines()[0]})") from None
    require(tree is None or isinstance(tree, dict), str(path), "must be a mapping of configuration keys", tree)
    return tree or {}


def preset_tree(name: str) -> dict[str, Any]:
    """The complete tree of a preset."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        known = f"Known: {', '.join(PRESETS)}"
        raise ConfigError("preset", "is unknown", name, f"Did you mean {near[0]}? {known}" if near else known)
    text = resources.files("athwe_core").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
    return typing.cast(dict[str, Any], yaml.safe_load(text))


def parse_override(text: str) -> dict[str, Any]:
    """`a.b=c` as `{"a": {"b": c}}`; c is read as YAML."""
    key, equals, value = text.partition("=")
    require(bool(equals) and bool(key.strip()), f"--set {text}", "must have the form a.b=value", text)
    try:
        parsed: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {key}", "must have a YAML value after =", value) from None
    for name in reversed(key.strip().split(".")):
        parsed = {name: parsed}
    return typing.cast(dict[str, Any], parsed)


def build_config(preset: str, changes: Iterable[Mapping[str, Any]] = ()) -> Config:
    """The configuration of a preset after `changes`, in order.

    Raises: ConfigError for an unknown preset or key, or a value of the wrong type or out of its range.
    """
    tree = preset_tree(preset)
    for change in changes:
        tree = _merge(tree, change)
    return config_from_tree(tree)


def config_from_tree(tree: Mapping[str, Any]) -> Config:
    """A complete tree, e.g. the `config.yaml` of a run, as a configuration."""
    return _build(Config, tree, "")


def config_tree(config: Config) -> dict[str, Any]:
    """The configuration as plain dictionaries and lists, complete: `config_from_tree` of it is `config`."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return typing.cast(dict[str, Any], plain(dataclasses.asdict(config)))


def replace_in(config: Config, overrides: Iterable[str]) -> Config:
    """`config` after `a.b=c` overrides."""
    tree = config_tree(config)
    for text in overrides:
        tree = _merge(tree, parse_override(text))
    return config_from_tree(tree)
