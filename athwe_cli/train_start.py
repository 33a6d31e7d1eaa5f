"""What `athwe train` begins from: a run to resume, or the run that --from names. Found before the libraries load."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from athwe_cli.render import Output

if TYPE_CHECKING:
    from athwe_core.runs.find import RunFolder

USED_WITH_RESUME = {"resume", "epochs", "patience", "verify", "dataset", "data", "prepared", "runs"}
USED_WITH_RESUME |= {"checkpoint_minutes", "track", "as_json"}
"""Parameters that a resumed run accepts."""
_NO_EPOCHS = "needs the number of epochs, since nothing is held out to stop early on"


@dataclass(frozen=True)
class FollowedRun:
    """The run that --from names: what a new run takes from it."""

    run: RunFolder
    dataset: str

    @property
    def preset(self) -> str:
        return str(self.run.manifest()["preset"])

    @property
    def configuration(self) -> dict[str, object]:
        from athwe_core.config import config_tree

        return config_tree(self.run.config())

    @property
    def best_epoch(self) -> int | None:
        found: int | None = self.run.manifest().get("results", {}).get("best_epoch")
        return found


def followed_run(context: typer.Context, name: str, runs: Path, dataset: str | None, output: Output) -> FollowedRun:
    """Find the run that --from names. Raises ConfigError for options that cannot be combined with it."""
    from athwe_core.errors import ConfigError
    from athwe_core.runs.find import find_run

    typed = [option for option in ("preset", "init_from", "config") if _is_typed(context, option)]
    if typed:
        options = ", ".join(f"--{option.replace('_', '-')}" for option in typed)
        raise ConfigError("--from", f"cannot be combined with {options}", remedy="Change keys with --set")
    run = find_run(runs, name, dataset=dataset, notify=output.note)
    return FollowedRun(run, dataset or run.manifest()["data"]["name"])


def refuse_refit(*, epochs: int | None, follow: str | None, all_data: bool) -> None:
    """Refuse options that --refit does not go with. Raises ConfigError."""
    from athwe_core.errors import ConfigError

    if all_data:
        raise ConfigError("--refit", "cannot be combined with --all-data", remedy="Remove one of them")
    if follow is not None:
        rule = "cannot be combined with --from, whose weights have had their epochs already"
        raise ConfigError("--refit", rule, remedy="Start anew, with the best number of epochs: --epochs N")
    if epochs is None:
        raise ConfigError("--refit", _NO_EPOCHS, remedy="Add --epochs N, the best number of an earlier run")


def epochs_of_all_data(epochs: int | None, before: FollowedRun | None) -> int:
    """Epochs of a training that has nothing to stop early on."""
    found = epochs or (before and before.best_epoch)
    if not found:
        from athwe_core.errors import ConfigError

        raise ConfigError("--all-data", _NO_EPOCHS, remedy="Add --from RUN, a finished run, or --epochs N")
    return found


def resumed_run(
    name: str, more: int | None, dataset: str | None, runs: Path, prepared: Path, output: Output
) -> RunFolder:
    """Find the run to resume. Say that it continues, or that it is finished and whether newer prepared data exist.

    Args:
        name: What the user typed.
        more: Whether the run gets more epochs or patience; 0 and None = it does not.
        dataset, runs, prepared, output: Of the command.
    """
    from athwe_core.runs.find import FINISHED, TRAINED, find_run

    run = find_run(runs, name, dataset=dataset, unfinished=True, notify=output.note)
    manifest = run.manifest()
    if more or manifest["status"] not in (FINISHED, TRAINED):
        output.note(f"resuming run {run.name}")
        return run
    output.note(f"run {run.name} is finished")
    from athwe_core.data.store.dataset import current_version

    data, epochs = manifest["data"], 2 * manifest["results"]["epochs"]
    if run.config().training.schedule.kind == "constant":
        more_of_it = f"To continue it: athwe train --resume {run.name} --epochs {epochs}"
    else:  # its learning rate has fallen to the end
        more_of_it = (
            f"To train longer: athwe train --dataset {data['name']} --preset {manifest['preset']} --epochs {epochs}"
        )
    output.note(more_of_it)
    current = current_version(data["name"], prepared_dir=prepared)
    if current not in (None, data["version"]):
        again = f"athwe train --dataset {data['name']}"
        output.note(f"{data['name']} has a newer prepared version, {current}. To train on it: {again}")
    return run


def refuse_settings(context: typer.Context) -> None:
    """Refuse options that would change the configuration of a resumed run, by their names as typed."""
    others = [each for each in context.command.params if each.name not in USED_WITH_RESUME]
    typed = [each.opts[0] for each in others if _is_typed(context, each.name)]
    if typed:
        from athwe_core.errors import ConfigError

        rule = f"cannot be combined with {', '.join(typed)}: a resumed run keeps its configuration"
        raise ConfigError("--resume", rule, remedy="Remove the other options, or start a new run without --resume")


def _is_typed(context: typer.Context, parameter: str | None) -> bool:
    source = context.get_parameter_source(parameter or "")
    return source is not None and source.name == "COMMANDLINE"


def restarted(name: str | None) -> str | None:
    """Name of the run to resume if torchrun restarted this process after a failure (--max-restarts)."""
    if os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") == "0":
        return None
    if name is None:
        from athwe_core.errors import ConfigError

        rule = "must be given with torchrun --max-restarts, so that a restarted process finds its run"
        raise ConfigError("--name", rule, remedy="Add --name NAME, or --resume RUN")
    return name if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" else None
