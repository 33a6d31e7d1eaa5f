"""`athwe evaluate`: metrics of a run on a split."""

from __future__ import annotations

from typing import Annotated

import typer

from athwe_cli import options as opt
from athwe_cli.errors import one_line_errors
from athwe_cli.render import Output, groups_table, metrics_table


@one_line_errors
def evaluate(
    run: opt.Run = "last",
    dataset: opt.Dataset = None,
    split: Annotated[str, typer.Option(help="validation or test (glossary: split).")] = "test",
    exclude_seen: Annotated[
        bool | None,
        typer.Option(
            "--exclude-seen/--keep-seen",
            help="Remove the items of the user's history from the ranking, never the target (glossary: seen items). "
            "Default: as in the run's configuration.",
        ),
    ] = None,
    k: Annotated[
        list[int] | None,
        typer.Option("--k", help="Cut-off of the metrics. Repeatable. Default: as in the run's configuration."),
    ] = None,
    verify: opt.Verify = False,
    prepared: opt.PreparedDir = opt.PREPARED_DIR,
    runs: opt.RunsDir = opt.RUNS_DIR,
    as_json: opt.Json = False,
) -> None:
    """Rank the whole catalogue for every user with the best weights of a run.

    Prints NDCG, MRR and Hit of the run and of two baselines, and NDCG by history length, target popularity and same-day
    targets. Writes each user's rank to per_user.parquet in the run's folder.

    Example: athwe evaluate --run last --split test --exclude-seen
    """
    from athwe_core.errors import ConfigError
    from athwe_core.runs.find import find_run

    output = Output(as_json=as_json)
    if split not in ("validation", "test"):
        raise ConfigError("--split", "must be validation or test", split)
    if k is not None and (min(k, default=0) < 1):
        raise ConfigError("--k", "must be at least 1", min(k))
    name, why = (dataset, "--dataset") if run != "last" else opt.choose_dataset(dataset, runs)
    if run == "last":
        output.note(f"data set {name} ({why})")
    found = find_run(runs, run, dataset=name, notify=output.note)
    data = found.open_data(prepared, check_all=verify)
    output.note(f"run {found.name}, prepared version {data.version}")
    from athwe_core.analysis.evaluate_run import evaluate_run

    chosen_ks = None if k is None else tuple(sorted(set(k)))
    result = evaluate_run(found, data, split=split, exclude_seen=exclude_seen, ks=chosen_ks, notify=output.note)
    rule = f"seen items {'excluded' if result['exclude_seen'] else 'included'}"
    title = f"{data.name}, {split}, {result['users']:,} users, {rule}, {data.rules}"
    ks = tuple(sorted({int(key.split("@")[1]) for key in result["metrics"]}))
    rows = result["baselines"] | {found.manifest()["preset"]: result["metrics"]}
    for pair in (ks[i : i + 2] for i in range(0, len(ks), 2)):
        output.table(metrics_table(rows, title=title, ks=pair))
    output.table(groups_table(result["groups"], metric=f"ndcg@{10 if 10 in ks else ks[0]}"))
    output.json(result)
