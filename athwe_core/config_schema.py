"""Validated configuration sections: what every model shares, and how a section is declared.

A section is a frozen pydantic model. Each of its fields is one key of the configuration; there are no defaults. A value of
the wrong type or out of its range is a `ConfigError` of one line: key, rule, value, remedy.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from athwe_core.errors import ConfigError, require

MAX_WHOLE = 2**32
MAX_REAL = 3e38
"""What float32 holds: the networks compute in it."""
RANKING_METRIC = re.compile(r"(ndcg|mrr|hit)@([1-9][0-9]{0,5})")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:[0-9]{1,2})?")
_BROKEN_RULE = "broken_rule"


def must(rule: str, holds: Callable[[Any], bool]) -> AfterValidator:
    """A range check for a field: `Annotated[Whole, must("be positive", lambda count: count > 0)]`."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise PydanticCustomError(_BROKEN_RULE, "{rule}", {"rule": f"must {rule}", "value": value})
        return value

    return AfterValidator(check)


def _not_a(words: str) -> PydanticCustomError:
    return PydanticCustomError(_BROKEN_RULE, "{rule}", {"rule": f"must be {words}"})


def _bounded(value: float, most: float) -> Any:
    if not abs(value) <= most:
        rule = f"must be finite, at most {most:g} in size"
        raise PydanticCustomError(_BROKEN_RULE, "{rule}", {"rule": rule})
    return value


def _whole(value: object) -> int:
    """A count; 20.0 is one, 1.5 and true are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _not_a("a whole number")
    return cast(int, _bounded(value, MAX_WHOLE))


def _real(value: object) -> float:
    """A number; 3 is one, and so is the text 1e-3, which YAML 1.1 does not read as a number; true is not."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise _not_a("a number") from None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _not_a("a number")
    return float(_bounded(value, MAX_REAL))


def _list(value: object) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _not_a("a list")
    return tuple(value)


def _word(value: object) -> object:
    """YAML 1.1 reads on and off as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Whole = Annotated[int, BeforeValidator(_whole)]
Real = Annotated[float, BeforeValidator(_real)]
PositiveWhole = Annotated[Whole, must("be positive", lambda value: value > 0)]
PositiveReal = Annotated[Real, must("be positive", lambda value: value > 0)]
NotNegativeWhole = Annotated[Whole, must("not be negative", lambda value: value >= 0)]
NotNegativeReal = Annotated[Real, must("not be negative", lambda value: value >= 0)]
Rate = Annotated[Real, must("be in [0, 1)", lambda value: 0 <= value < 1)]
"""A dropout rate."""
Share = Annotated[Real, must("be in [0, 1]", lambda value: 0 <= value <= 1)]
Wholes = Annotated[tuple[Whole, ...], BeforeValidator(_list)]
Reals = Annotated[tuple[Real, ...], BeforeValidator(_list)]
Words = Annotated[tuple[str, ...], BeforeValidator(_list)]
OnOff = Annotated[Literal["auto", "on", "off"], BeforeValidator(_word)]
RowLength = Annotated[Whole, must("be at least 2", lambda value: value >= 2)]


class Section(BaseModel):
    """Keys of a configuration that belong together: frozen, complete, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModelSection(Section):
    """What every model's `model` section has; a model adds its own keys."""

    name: str
    """Which model this is: a name of `athwe_core.models.registry.model_names()`."""
    max_length: RowLength
    """L: latest items of a history that the model reads."""
    repeat: bool
    """Whether items of the history get a learned term in their score; see `athwe_core.nn.repetition`."""


class AttentionSection(ModelSection):
    """Sizes of a model whose layers have attention heads."""

    hidden_size: PositiveWhole
    num_layers: PositiveWhole
    num_heads: PositiveWhole
    dropout: Rate

    @model_validator(mode="after")
    def _divides_heads(self) -> AttentionSection:
        rule = f"must divide model.hidden_size={self.hidden_size}"
        require(self.hidden_size % self.num_heads == 0, "model.num_heads", rule, self.num_heads)
        return self


class CatalogueLossConfig(Section):
    """Main loss: the next item against the catalogue. A model narrows `kind` to those that it offers."""

    kind: str
    """`full`: cross-entropy over every item of the catalogue; `sampled`: over the batch's targets and drawn negatives."""
    num_negatives: NotNegativeWhole
    """Negatives. Of `sampled`: drawn for a step, log-uniform in popularity; of pairwise losses: for each target, uniform."""


class LossesSection(Section):
    """What every model's `losses` section has; a model adds its own terms."""

    catalogue: CatalogueLossConfig


class CrossEntropyConfig(CatalogueLossConfig):
    """Main loss of a model that offers cross-entropy."""

    kind: Literal["full", "sampled"]


class CrossEntropyLosses(LossesSection):
    """The `losses` section of a model with cross-entropy alone."""

    catalogue: CrossEntropyConfig


class ScheduleConfig(Section):
    """How the learning rate changes during training; see `training.schedule`."""

    kind: Literal["constant", "one-cycle"]
    """`one-cycle` ends with epoch `training.epochs`."""
    warmup: Share
    """Share of the steps in which the rate rises to `training.lr`."""
    final: Share
    """Share of `training.lr` that is left at the end."""


class TrainingConfig(Section):
    """How a model is trained."""

    batching: Literal["packed", "prefix"]
    """`packed`: every position of a row is supervised; `prefix`: one row for each target, supervised at its last position."""
    batch_targets: PositiveWhole
    """Supervised positions a step."""
    lr: PositiveReal
    """Learning rate of Adam; the highest one of a schedule."""
    schedule: ScheduleConfig
    weight_decay: NotNegativeReal
    """Decoupled weight decay of matrices and tables: a step also multiplies them by 1 - lr x weight_decay."""
    epochs: PositiveWhole
    """Most epochs; early stopping usually ends sooner."""
    patience: PositiveWhole
    """Epochs without a better value of the selection metric before training stops."""
    selection_metric: Annotated[
        str,
        must("be ndcg, mrr or hit at a rank, such as ndcg@20", lambda name: RANKING_METRIC.fullmatch(name) is not None),
    ]
    """Validation metric that chooses the best epoch."""
    seed: Annotated[Whole, must("be in 0..2^32-1", lambda value: 0 <= value < 2**32)]
    precision: Literal["auto", "fp32", "bf16"]
    compiler: OnOff
    """Steps through torch's compiler, on CUDA recorded as graphs; auto = on CUDA."""
    shard_tables: bool
    """Whether the processes of a torchrun job divide the item tables by rows, each with 1/N of the id table, of its moments
    and of the features; with `losses.catalogue.kind=sampled`. One process holds them whole."""
    device: Annotated[str, must("be auto, cpu, cuda, cuda:N or mps", lambda name: _DEVICE.fullmatch(name) is not None)]


def _increasing(ks: tuple[int, ...]) -> bool:
    return len(ks) > 0 and all(k > 0 for k in ks) and tuple(sorted(set(ks))) == ks


class EvaluationConfig(Section):
    """How rankings are measured."""

    ks: Annotated[Wholes, must("be increasing positive numbers", _increasing)]
    """Ranks at which metrics are cut."""
    exclude_seen: bool
    """Take items of the user's history out of the ranking, never the target."""
    validation_users: PositiveWhole | None
    """Users of the validation split that choose the best epoch, the same ones in every epoch and run; null = all. The results
    of a run are over all users."""


class Config(Section):
    """Everything that decides a run besides the prepared data set; each model has a subclass with its own sections."""

    model: ModelSection
    losses: LossesSection
    training: TrainingConfig
    evaluation: EvaluationConfig


_Section = TypeVar("_Section", bound=Section)


def validated(cls: type[_Section], tree: object) -> _Section:
    """A section from a plain tree.

    Raises: ConfigError for the first key that is missing, unknown, of the wrong type or out of its range.
    """
    require(isinstance(tree, Mapping), "configuration", "must be a section of keys", tree)
    try:
        return cls.model_validate(tree)
    except ValidationError as errors:
        found = errors.errors(include_url=False)
        misspelt = [error for error in found if error["type"] == "extra_forbidden"]  # its right spelling is missing too
        raise _as_config_error(cls, (misspelt or found)[0]) from None


def _as_config_error(cls: type[Section], error: ErrorDetails) -> ConfigError:
    key, kind, value = _key(error["loc"]), error["type"], error["input"]
    context = error.get("ctx", {})
    if kind == "missing":
        return ConfigError(key, "is missing from the configuration", remedy="Start from a preset")
    if kind in ("extra_forbidden", "invalid_key"):
        *sections, name = error["loc"]
        return unknown_key(name, _known_keys(cls, sections), _key(sections))
    if kind == _BROKEN_RULE:
        value = context.get("value", value)
        return ConfigError(key, context["rule"], list(value) if isinstance(value, tuple) else value)
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        return ConfigError(key, f"must be one of {', '.join(choices)}", value)
    words = {"bool_type": "true or false", "string_type": "text", "model_type": "a section of keys"}
    return ConfigError(key, f"must be {words[kind]}" if kind in words else error["msg"], value)


def _key(location: Iterable[int | str]) -> str:
    """`("evaluation", "ks", 2)` as `evaluation.ks[2]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{shown_key(part)}" for part in location).lstrip(".")


def _known_keys(cls: type[BaseModel], sections: Iterable[int | str]) -> list[str]:
    for name in sections:
        cls = cast(type[BaseModel], cls.model_fields[str(name)].annotation)
    return list(cls.model_fields)


def unknown_key(name: object, known: list[str], prefix: str) -> ConfigError:
    """The error for a key that a section does not have, with the nearest one that it has."""
    shown = shown_key(name)
    near = difflib.get_close_matches(shown, known, n=1)
    where = f"{prefix}." if prefix else ""
    remedy = f"Did you mean {where}{near[0]}?" if near else f"Known under {prefix or 'the top'}: {', '.join(known)}"
    return ConfigError(f"{where}{shown}", "is no configuration key", remedy=remedy)


def shown_key(name: object) -> str:
    """A key as an error shows it: characters that could steer the terminal are escaped, long keys are cut."""
    text = str(name)
    shown = text if text.isprintable() and text.strip() else ascii(text)
    return shown if len(shown) <= 100 else f"{shown[:97]}..."


def config_tree(config: Config) -> dict[str, Any]:
    """The configuration as plain dictionaries and lists, complete: a configuration made of it is equal to `config`."""
    return config.model_dump(mode="json")


__all__ = [
    "RANKING_METRIC",
    "AttentionSection",
    "CatalogueLossConfig",
    "Config",
    "CrossEntropyConfig",
    "CrossEntropyLosses",
    "EvaluationConfig",
    "LossesSection",
    "ModelSection",
    "NotNegativeReal",
    "NotNegativeWhole",
    "OnOff",
    "PositiveReal",
    "PositiveWhole",
    "Rate",
    "Real",
    "Reals",
    "RowLength",
    "ScheduleConfig",
    "Section",
    "Share",
    "TrainingConfig",
    "Whole",
    "Wholes",
    "Words",
    "config_tree",
    "model_validator",
    "must",
    "shown_key",
    "unknown_key",
    "validated",
]
