"""Options to a prepared data set and a configuration that fits it: the same for every command that trains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from athwe_cli.render import Output

if TYPE_CHECKING:
    from athwe_core.config import Config
    from athwe_core.data.prepare import PreparedDataset


def open_or_prepare(name: str, version: str | None, data: Path, prepared: Path, output: Output) -> PreparedDataset:
    """The prepared version asked for, else the current one; a data set that has none is prepared with defaults."""
    from athwe_core.data.prepare import list_versions, open_prepared, prepare

    if version is None and not list_versions(name, prepared_dir=prepared):
        output.note(f"{name} is not prepared yet: preparing it with defaults")
        return prepare(name, data_dir=data, prepared_dir=prepared, notify=output.note)
    return open_prepared(name, prepared_dir=prepared, version=version)


def configure(
    preset: str,
    dataset: str,
    config_file: Path | None,
    flags: dict[str, Any],
    overrides: list[str],
    found: PreparedDataset,
    output: Output,
) -> Config:
    """Preset, then config/NAME.yaml, then --config, then flags, then --set; then without what the data lacks.

    Args:
        flags: configuration keys to the values of options; None = the option was not given.
    """
    from athwe_core.config import build_config, nested, parse_override, read_yaml
    from athwe_core.training.build import adapt_to_data

    changes = []
    own = Path("config") / f"{dataset}.yaml"
    if own.is_file():
        output.note(f"using {own}")
        changes.append(read_yaml(own))
    if config_file is not None:
        changes.append(read_yaml(config_file))
    changes += [nested(key, value) for key, value in flags.items() if value is not None]
    changes += [parse_override(text) for text in overrides]
    fitted, notes = adapt_to_data(build_config(preset, changes), found)
    for note in notes:
        output.note(note)
    return fitted
