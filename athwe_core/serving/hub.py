"""A trained model as a folder that works without its data set, in the form of the Hugging Face hub.

    config.json            configuration, facts about data and training, checksums of the other files
    model.safetensors      weights
    catalogue.safetensors  features, categories and labels of the items, as far as the model reads them
    items.json             raw ids of the items by number, and columns that were chosen
    README.md              the model card

Such folders come from anybody: everything in them is checked, and nothing in them is run.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import athwe_core
from athwe_core.batch import Attribute, Catalogue, TimeRange
from athwe_core.config_schema import Config, config_tree
from athwe_core.data.features.download import fetch_model
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.device import resolve_device
from athwe_core.errors import AthweError, ConfigError, DataError
from athwe_core.messages import reason
from athwe_core.models.inputs import make_catalogue, training_time_range
from athwe_core.models.protocol import ModelInputs
from athwe_core.models.registry import build_model, config_from_tree, find_model, replace_in
from athwe_core.runs.checkpoint import require_same
from athwe_core.runs.run import RunFolder
from athwe_core.safe_write import file_hash
from athwe_core.serving.model_card import model_card
from athwe_core.serving.trained_model import ITEM_ID, TrainedModel
from athwe_core.training.randomness import default_generators_kept

FORMAT = 1
CONFIG, WEIGHTS, CATALOGUE, ITEMS, CARD = (
    *("config.json", "model.safetensors", "catalogue.safetensors"),
    *("items.json", "README.md"),
)
HUB = "hf:"
"""Begins the name of a run on the Hugging Face hub: `hf:owner/name` or `hf:owner/name@revision`."""
_REMEDY = "Export or fetch it again"


def write_hub(
    run: RunFolder,
    data: PreparedDataset,
    trained: TrainedModel,
    folder: Path,
    *,
    columns: tuple[str, ...] = (),
    data_licence: str | None = None,
) -> None:
    """Write the files above.

    Args:
        run: a run with best weights.
        data: what it was trained on.
        trained: the model of the run.
        folder: must exist and be empty.
        columns: of the item table, to be published beside the ids.
        data_licence: of the data, for the model card; None = the card says that it is not stated.
    """
    config, time_range = run.config(), training_time_range(data)
    weights = {name: value.cpu().contiguous() for name, value in trained.model.state_dict().items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    catalogue, needs = make_catalogue(data, config), find_model(config.model.name).needs(config)
    save_file(
        _catalogue_tensors(catalogue, needs_counts=needs.target_counts), folder / CATALOGUE, metadata={"format": "pt"}
    )
    table = trained.items.select(ITEM_ID).hstack(trained.texts(columns))
    (folder / ITEMS).write_text(json.dumps(table.to_dict(as_series=False), ensure_ascii=False), encoding="utf-8")
    manifest = run.manifest()
    facts: dict[str, Any] = {
        "library_name": "athwe",
        "athwe_version": athwe_core.__version__,
        "format": FORMAT,
        "configuration": config_tree(config),
        "run": run.name,
        "preset": manifest["preset"],
        "data": {**manifest["data"], **_sizes(data), "licence": data_licence},
        "exclude_seen": config.evaluation.exclude_seen,
        "results": manifest.get("results"),
        "attribute_sizes": {name: found.num_values for name, found in catalogue.attributes.items()},
        "time_range": {
            "first": time_range.first,
            "last": time_range.last,
            "longest_interval": time_range.longest_interval,
        },
    }
    (folder / CARD).write_text(model_card(facts), encoding="utf-8")
    facts["files"] = {path.name: file_hash(path) for path in sorted(folder.iterdir())}
    (folder / CONFIG).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def is_hub(name: str) -> bool:
    """Whether the name of a run means a model of the hub, or a folder in its form."""
    return name.startswith(HUB) or ((Path(name) / CONFIG).is_file() and (Path(name) / WEIGHTS).is_file())


def open_hub(name: str, *, device: str = "auto") -> TrainedModel:
    """Open a model of the hub, or a folder in its form.

    Args:
        name: `hf:owner/name`, `hf:owner/name@revision`, or a folder.
        device: where the model computes.
    Raises: DataError where it cannot be fetched, or a file is missing, damaged or of another model.
    """
    folder = _fetched(name.removeprefix(HUB)) if name.startswith(HUB) else Path(name)
    facts = _read_json(folder / CONFIG)
    if facts.get("library_name") != "athwe" or facts.get("format") != FORMAT:
        rule = f"must be a model of athwe in format {FORMAT}"
        raise DataError(str(folder / CONFIG), rule, facts.get("format"), "Export it with this version")
    for file in (WEIGHTS, CATALOGUE, ITEMS):
        if not (folder / file).is_file() or file_hash(folder / file) != _section(facts, "files").get(file):
            raise DataError(str(folder / file), "is not the file that was exported", remedy=_REMEDY)
    config = _config(facts, folder)
    items = _items(folder / ITEMS)
    catalogue = _catalogue(_tensors(folder / CATALOGUE), _section(facts, "attribute_sizes"), len(items))
    inputs = ModelInputs(catalogue, _time_range(facts, folder))
    place = resolve_device(device)
    try:
        with default_generators_kept():
            model = build_model(config, inputs)
    except (AthweError, KeyError, RuntimeError) as error:
        raise DataError(str(folder), f"has files that do not fit together ({reason(error)})", remedy=_REMEDY) from None
    weights = _tensors(folder / WEIGHTS)
    require_same(folder / WEIGHTS, weights, model.state_dict())
    model.load_state_dict(weights)
    name_of_data = str(_section(facts, "data").get("name", folder.name))
    return TrainedModel(model.to(place).eval(), name_of_data, file_hash(folder / CONFIG), items)


def _fetched(repository: str) -> Path:
    name, _, revision = repository.partition("@")
    if name.count("/") != 1 or not all(name.split("/")):
        raise ConfigError("--run", "must be hf:owner/name", f"{HUB}{repository}")
    if importlib.util.find_spec("huggingface_hub") is None:
        rule = "needs huggingface_hub, not installed here"
        raise ConfigError(f"--run {HUB}", rule, remedy="Run: pip install 'athwe[hub]'")
    return fetch_model(name, revision=revision or None, option="--run")


def _sizes(data: PreparedDataset) -> dict[str, int]:
    return {"users": data.num_users, "items": data.num_items, "interactions": len(data.item_ids)}


def _catalogue_tensors(catalogue: Catalogue, *, needs_counts: bool) -> dict[str, Tensor]:
    """Tensors of a catalogue by name; those of a dictionary as `features.text`. Counts only tell which items are new."""
    found: dict[str, Tensor] = {}
    for field in fields(catalogue):
        value = getattr(catalogue, field.name)
        if isinstance(value, dict):
            parts = {name: part.values if isinstance(part, Attribute) else part for name, part in value.items()}
            found |= {f"{field.name}.{name}": part.contiguous() for name, part in parts.items()}
        elif isinstance(value, Tensor) and (field.name != "target_counts" or needs_counts):
            found[field.name] = value.contiguous() if field.name != "target_counts" else value.clamp(max=1)
    return found


def _catalogue(tensors: Mapping[str, Tensor], attribute_sizes: dict[str, Any], num_item_rows: int) -> Catalogue:
    """The inverse of `_catalogue_tensors`. Raises DataError for a wrong name, number of items or label."""
    found: dict[str, Any] = {}
    names = {field.name for field in fields(Catalogue)}
    for name, tensor in tensors.items():
        field, _, key = name.partition(".")
        if field not in names or tensor.ndim < 1 or len(tensor) != num_item_rows:
            rule = f"must have {num_item_rows} rows and a known name"
            raise DataError(f"{CATALOGUE}: {name}", rule, tuple(tensor.shape), _REMEDY)
        if field == "attributes":
            size = attribute_sizes.get(key)
            is_label = tensor.dtype == torch.int64 and int(tensor.min()) >= 0
            if not (is_label and isinstance(size, int) and int(tensor.max()) < size):
                raise DataError(f"{CATALOGUE}: {name}", "must be labels below attribute_sizes", size, _REMEDY)
            found.setdefault(field, {})[key] = Attribute(tensor, size)
        elif key:
            found.setdefault(field, {})[key] = tensor
        else:
            found[field] = tensor
    return Catalogue(num_item_rows=num_item_rows, **found)


def _config(facts: dict[str, Any], folder: Path) -> Config:
    try:
        config = config_from_tree(facts.get("configuration"))
        return replace_in(config, ["training.device=auto", "training.precision=fp32"])
    except ConfigError as error:
        raise DataError(f"{folder / CONFIG}: {error.name}", error.rule, remedy=_REMEDY) from None


def _time_range(facts: dict[str, Any], folder: Path) -> TimeRange:
    found = _section(facts, "time_range")
    values = {field.name: found.get(field.name) for field in fields(TimeRange)}
    seconds = {name: value for name, value in values.items() if type(value) is int and 0 <= value < 2**62}
    if seconds.keys() != values.keys():
        raise DataError(f"{folder / CONFIG}: time_range", "must be whole seconds", values, _REMEDY)
    return TimeRange(**seconds)


def _items(path: Path) -> pl.DataFrame:
    found = _read_json(path)
    columns = list(found.values())
    is_good = ITEM_ID in found and all(
        isinstance(column, list) and len(column) == len(columns[0]) and all(isinstance(text, str) for text in column)
        for column in columns
    )
    if not is_good or len(columns[0]) < 2 or found[ITEM_ID][0] != "":
        raise DataError(str(path), "must hold columns of text, item_id among them", remedy=_REMEDY)
    return pl.DataFrame(found, schema=dict.fromkeys(found, pl.String))


def _section(facts: dict[str, Any], name: str) -> dict[str, Any]:
    found = facts.get(name)
    return found if isinstance(found, dict) else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(str(path), f"must be readable JSON ({reason(error)})", remedy=_REMEDY) from None
    if not isinstance(found, dict):
        raise DataError(str(path), "must be a JSON object", type(found).__name__, _REMEDY)
    return found


def _tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, all of them finite."""
    try:
        found = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(str(path), f"must be a readable safetensors file ({reason(error)})", remedy=_REMEDY) from None
    for name, value in found.items():
        if not bool(torch.isfinite(value).all()):
            raise DataError(f"{path}: {name}", "must be finite", remedy=_REMEDY)
    return found
