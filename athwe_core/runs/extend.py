"""More epochs or more patience for a run that exists."""

from __future__ import annotations

import yaml

from athwe_core.config import config_tree
from athwe_core.errors import ConfigError, require
from athwe_core.models.registry import replace_in
from athwe_core.runs.run import CONFIG, FINISHED, INTERRUPTED, TRAINED, RunFolder, refusals
from athwe_core.safe_write import replace_text


def extend_run(run: RunFolder, *, epochs: int | None = None, patience: int | None = None) -> None:
    """Let a run continue from its last checkpoint, also where it is finished. Its configuration records the new numbers.

    The count of epochs without improvement continues too: a run that has stopped early needs more patience to go on.

    Args:
        run: a run that no process is training.
        epochs: new maximum number of epochs, counted from the start of the run; None = as it is.
        patience: new number of epochs without improvement before training stops; None = as it is.
    Raises:
        ConfigError: The run has as many epochs already, has stopped early and would stop at once again, or has a schedule of
            the learning rate that ends with its last epoch.
        CheckpointError: Another process trains the run, its records are damaged, or the disk refuses.
    """
    changes = {"training.epochs": epochs, "training.patience": patience}
    with run.locked():
        before = run.config()
        config = replace_in(before, [f"{key}={value}" for key, value in changes.items() if value is not None])
        manifest, done = run.manifest(), len(run.metrics())
        planned = before.training.epochs
        require(
            config.training.epochs == planned or before.training.schedule.kind == "constant",
            "--epochs",
            f"must stay {planned}: the learning rate of run {run.name} falls until then",
            epochs,
            f"Train a new run with --epochs {epochs}",
        )
        rule = f"must be more than the {done} epochs that run {run.name} has"
        require(config.training.epochs > done, "--epochs", rule, config.training.epochs)
        if manifest["status"] == FINISHED:
            waited = done - manifest["results"]["best_epoch"]
            if waited >= config.training.patience:
                rule = f"has stopped early: {waited} epochs without improvement reach training.patience"
                remedy = f"Add --patience {waited + max(config.training.patience, 1)}"
                raise ConfigError(f"run {run.name}", rule, config.training.patience, remedy)
        with refusals(run.path / CONFIG):
            replace_text(run.path / CONFIG, yaml.safe_dump(config_tree(config), sort_keys=False))
        if manifest["status"] in (FINISHED, TRAINED):
            run.update_manifest(status=INTERRUPTED)
