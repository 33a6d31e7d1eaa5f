"""Models side by side under the same seeds, as in table 1 of HM4SR: each preset as it is, on one data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import athwe_core
from athwe_core.analysis.evaluate_run import baseline_metrics
from athwe_core.analysis.experiments.plan import Experiment, Plan, Variant, limited
from athwe_core.analysis.experiments.result import ExperimentResult, spread
from athwe_core.config import parse_yaml
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import ConfigError, DataError, require
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.evaluation.metrics import mean_metrics
from athwe_core.models.inputs import adapt_to_data
from athwe_core.models.registry import build_config
from athwe_core.runs.find import RunFolder
from athwe_core.training.build import build_best

TABLE_1 = (
    *("gru4rec", "sasrec", "lrurec", "tisasrec", "fearec", "ticoserec", "nova", "dif-sr"),
    *("unisrec", "missrec", "m3srec-style", "iisan", "tedrec", "hm4sr", "athwe"),
)
"""Presets in the order of the paper's table; the last is not in it."""


def model_table(
    presets: Sequence[str],
    prepared: PreparedDataset,
    *,
    changes: Sequence[Mapping[str, Any]] = (),
    reference: str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    metric: str = "ndcg@10",
    split: str = "test",
    quick_epochs: int | None = None,
) -> Experiment:
    """A variant for each preset.

    Args:
        presets: names, in the order of the table. A name given twice counts once.
        prepared: the data set.
        changes: of every preset, e.g. `{"training": {"device": "cpu"}}`.
        reference: the preset that the others are tested against; None = `hm4sr` where it is there, else the first.
        seeds: of each variant, >= 1.
        metric: the metric of changes and tests.
        split: the split of changes and tests.
        quick_epochs: at most so many epochs; None = as many as each preset has.
    Returns: the experiment. Presets whose features the data set lacks are left out, with a note.
    Raises: ConfigError for an unknown preset, for a reference that is not among the variants, or where none is left.
    """
    variants, notes = [], dict[str, None]()
    for preset in dict.fromkeys(name.lower() for name in presets):
        try:
            config, adapted = adapt_to_data(build_config(preset, changes), prepared)
        except DataError as error:
            notes[f"{preset} is left out: {error}"] = None
            continue
        notes.update(dict.fromkeys(f"{preset}: {note}" for note in adapted))
        variants.append(Variant(preset, preset, (), {}, limited(config, quick_epochs), preset=preset))
    if not variants:
        raise ConfigError("--preset", "must have features that the data set has", ", ".join(presets))
    names = [variant.label for variant in variants]
    if reference is None:
        reference = "hm4sr" if "hm4sr" in names else names[0]
    require(reference.lower() in names, "--against", f"must be one of {', '.join(names)}", reference)
    return Experiment(
        kind="models",
        preset="models",
        variants=tuple(variants),
        seeds=tuple(seeds),
        metric=metric,
        split=split,
        reference=names.index(reference.lower()),
        notes=tuple(notes),
        quick_epochs=quick_epochs,
    )


def complete(
    result: ExperimentResult, plan: Plan, runs: Mapping[str, RunFolder], *, notify: Callable[[str], None]
) -> None:
    """Add what a table of models has beside the metrics of every experiment.

    - `without_seen` of each variant: its runs rank once more, seen items taken out. The rule for seen items can change the
      order of models, so a table shows both.
    - `published` of each variant: its numbers in the paper, where the paper has the data set, the split is `test`, and seen
      items are left in.
    - `baselines`: popularity and last-item transitions.

    Args:
        result: of `aggregate`.
        plan: of the same experiment.
        runs: identity to finished run.
        notify: receives a sentence for each variant.
    """
    experiment = plan.experiment
    settings = experiment.variants[0].config.evaluation
    is_as_published = experiment.split == "test" and not settings.exclude_seen
    published = published_metrics(plan.prepared.name) if is_as_published else {}
    for variant, found in zip(experiment.variants, result["variants"], strict=True):
        notify(f"{variant.label}: ranking without seen items")
        each = []
        for planned in plan.of_variant(variant):
            model = build_best(runs[planned.identity], plan.prepared).model
            ranks = rank_users(model, plan.prepared, split=experiment.split, exclude_seen=True)
            each.append(mean_metrics(ranks, variant.config.evaluation.ks))
        found["without_seen"] = {name: spread([metrics[name] for metrics in each]) for name in each[0]}
        if variant.label in published:
            found["published"] = published[variant.label]
    own, without_seen = (
        baseline_metrics(plan.prepared, split=experiment.split, ks=settings.ks, exclude_seen=rule)
        for rule in (settings.exclude_seen, True)
    )
    result["baselines"] = [
        {"label": label, "metrics": metrics, "without_seen": without_seen[label]} for label, metrics in own.items()
    ]


def published_metrics(dataset: str) -> dict[str, dict[str, float]]:
    """Test metrics of table 1 of HM4SR by preset and metric; empty for a data set that is not in it."""
    file = files(athwe_core) / "presets" / "papers" / "hm4sr_table1.yaml"
    table = parse_yaml(file.read_text(encoding="utf-8"), file.name)
    rows = table["datasets"].get(dataset, {})
    return {preset: dict(zip(table["metrics"], values, strict=True)) for preset, values in rows.items()}
