"""From options to a prepared data set and a configuration that fits it, the same for every command that trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from athwe_cli.render import Output

if TYPE_CHECKING:
    from athwe_core.config import Config
    from athwe_core.data.prepare import PreparedDataset


def open_or_prepare(
    name: str, version: str | None, data: Path, prepared: Path, output: Output, *, check_all: bool = False
) -> PreparedDataset:
    """Open a prepared version; prepare a data set that has none with the default options.

    Args:
        name: Name of the data set.
        version: A prepared version, or None for the current one.
        data: Folder of the data sets.
        prepared: Folder of prepared versions.
        output: Receives notes.
        check_all: Compare every file of the version with its checksum.

    Raises:
        ConfigError, DataError: The data set or version does not exist or is damaged.
    """
    from athwe_core.data.prepare import list_versions, open_prepared, prepare

    if version is None and not list_versions(name, prepared_dir=prepared):
        output.note(f"{name} is not prepared yet: preparing it with the default options")
        return prepare(name, data_dir=data, prepared_dir=prepared, notify=output.note)
    return open_prepared(name, prepared_dir=prepared, version=version, check_all=check_all)


def option_of(key: str) -> str:
    """The option that sets a configuration key, as typed.

    Args:
        key: For example `training.batch_targets`, whose option is `--batch-targets`.
    """
    name = key.rpartition(".")[2].replace("_", "-")
    return {"compiler": "--compile"}.get(name, f"--{name}")


def configure(
    preset: str,
    dataset: str,
    config_file: Path | None,
    flags: Mapping[str, object],
    overrides: list[str],
    found: PreparedDataset,
    output: Output,
    *,
    base: Mapping[str, object] | None = None,
) -> Config:
    """Build a configuration from its layers and adapt it to the data set.

    Later layers override earlier ones: preset, config/NAME.yaml, `--config`, options, `--set`. Parts that need features
    which the data set lacks are disabled, with a note.

    Args:
        preset: Name of a preset.
        dataset: NAME of the data set.
        config_file: Value of `--config`, or None.
        flags: Configuration keys and the values of their options; None = the option was not given.
        overrides: Values of `--set`.
        found: The prepared data set.
        output: Receives notes.
        base: A complete configuration that takes the place of the preset's and of config/NAME.yaml.

    Raises:
        ConfigError: A key is unknown, or a value is out of its range. A value from an option is named by the option.
    """
    from athwe_core.config import nested, parse_override, read_yaml
    from athwe_core.errors import ConfigError
    from athwe_core.models.inputs import adapt_to_data
    from athwe_core.models.registry import build_config

    changes: list[Mapping[str, object]] = [] if base is None else [base]
    of_dataset = Path("config") / f"{dataset}.yaml"
    if base is None and of_dataset.is_file():
        output.note(f"using {of_dataset}")
        changes.append(read_yaml(of_dataset))
    if config_file is not None:
        changes.append(read_yaml(config_file))
    given = {key: value for key, value in flags.items() if value is not None}
    changes += [nested(key, value) for key, value in given.items()]
    changes += [parse_override(text) for text in overrides]
    try:
        config = build_config(preset, changes)
    except ConfigError as error:
        is_of_option = error.name in given and not any(text.startswith(f"{error.name}=") for text in overrides)
        if not is_of_option:
            raise
        shown = {} if error.value is None else {"value": error.value}
        raise ConfigError(f"{option_of(error.name)} ({error.name})", error.rule, remedy=error.remedy, **shown) from None
    fitted, notes = adapt_to_data(config, found)
    for note in notes:
        output.note(note)
    return fitted
