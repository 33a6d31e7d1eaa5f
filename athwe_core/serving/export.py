"""A trained run as a folder for other programs: vectors, an ONNX graph, or a model of the Hugging Face hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import athwe_core
from athwe_core.config import Config
from athwe_core.data.export.write import require_replaceable
from athwe_core.data.histories import histories_of_users
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import ConfigError
from athwe_core.models.registry import replace_in
from athwe_core.runs.run import RunFolder
from athwe_core.safe_write import replacing_folder
from athwe_core.serving.hub import write_hub
from athwe_core.serving.onnx_model import LIBRARIES, require_libraries, write_onnx
from athwe_core.serving.trained_model import open_trained
from athwe_core.serving.vectors import write_vectors

VECTORS, ONNX, HUB = "vectors", "onnx", "hub"
FORMATS = (VECTORS, ONNX, HUB)
MARKER = "export.json"


@dataclass(frozen=True)
class ExportedRun:
    """What was written.

    Attributes:
        path: The folder.
        files: Name and bytes of each file.
    """

    path: Path
    files: dict[str, int]


def export_run(
    run: RunFolder,
    data: PreparedDataset,
    to: Path,
    *,
    form: str,
    k: int = 100,
    columns: tuple[str, ...] = (),
    data_licence: str | None = None,
    overwrite: bool = False,
) -> ExportedRun:
    """Write the folder `to`, whole or not at all.

    Args:
        run: a run with best weights.
        data: what it was trained on.
        to: the new folder; the folder above it must exist.
        form: `vectors`, see `write_vectors`; `onnx`, see `write_onnx`; `hub`, see `write_hub`.
        k: of `onnx`: items for each history, >= 1.
        columns: of `hub`: columns of the item table to write beside the ids.
        data_licence: of `hub`: for the model card.
        overwrite: replace an earlier export, and nothing else.
    Raises:
        ConfigError: The form is unknown, needs a library that is missing or another model, or `to` exists.
        CheckpointError: The run has no best weights.
    """
    if form not in FORMATS:
        raise ConfigError("--format", f"must be {', '.join(FORMATS[:-1])} or {FORMATS[-1]}", form)
    if not to.absolute().parent.is_dir():
        raise ConfigError("--to", "must be in a folder that exists", str(to), f"Type: mkdir -p {to.parent}")
    require_replaceable(to, marker=MARKER, overwrite=overwrite)
    if form == ONNX:
        require_libraries(*LIBRARIES)
        _require_causal(run.config())
    trained = open_trained(run, data)
    trained.texts(columns)
    with replacing_folder(to) as folder:
        if form == VECTORS:
            write_vectors(trained, histories_of_users(data), folder)
        elif form == ONNX:
            write_onnx(trained, folder, k=k)
        else:
            write_hub(run, data, trained, folder, columns=columns, data_licence=data_licence)
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        facts = {
            "form": form,
            "run": run.name,
            "data": run.manifest()["data"],
            "athwe_version": athwe_core.__version__,
            "files": files,
        }
        (folder / MARKER).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return ExportedRun(to, files)


def _require_causal(config: Config) -> None:
    """Refuse a model whose states see later items, or padding: what can be trained on packed rows is causal."""
    try:
        replace_in(config, ["training.batching=packed"])
    except ConfigError:
        rule = "is for models whose states see no later item, which training.batching=packed needs too"
        raise ConfigError("--format onnx", rule, config.model.name, "Use --format hub") from None
