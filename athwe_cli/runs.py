"""`athwe runs`: list, show and remove runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from athwe_cli import options as opt
from athwe_cli.confirm import confirmed
from athwe_cli.errors import one_line_errors
from athwe_cli.render import Output, facts_table, rows_table

if TYPE_CHECKING:
    from athwe_core.runs.inventory import RunFacts

ACTIONS = ("list", "show", "remove")


@one_line_errors
def runs(
    action: Annotated[str, typer.Argument(help="list, show or remove.")] = "list",
    name: Annotated[
        str | None,
        typer.Argument(help="Of show and remove: a path, DATASET/PRESET/NAME, a unique name, or last.", metavar="RUN"),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Only runs of this data set.")] = None,
    yes: opt.Yes = False,
    runs_dir: opt.RunsDir = opt.RUNS_DIR,
    as_json: opt.Json = False,
) -> None:
    """List the runs with their results and sizes; show one, or remove one.

    Runs whose manifest cannot be read are listed as broken.

    Example: athwe runs

    Example: athwe runs show Toys_and_Games/hm4sr/paper

    Example: athwe runs remove paper --yes
    """
    from athwe_core.errors import require
    from athwe_core.runs.find import find_run
    from athwe_core.runs.inventory import all_run_facts, remove_run, run_facts

    output = Output(as_json=as_json)
    require(action in ACTIONS, "ACTION", f"must be {', '.join(ACTIONS[:-1])} or {ACTIONS[-1]}", action)
    require((name is None) == (action == "list"), "RUN", "must be given with show and remove only", name)
    if name is None:
        found = all_run_facts(runs_dir, dataset=dataset)
        rows = [_row(each) for each in found]
        if rows:
            output.table(rows_table(rows, columns=list(rows[0]), decimals={"MB": 1}))
        for each in found:
            if each.damage is not None:
                output.note(f"run {each.name} is broken: {each.damage}")
        total = sum(each.bytes for each in found)
        output.note(f"{len(found)} run{'s' * (len(found) != 1)} in {runs_dir}, {total / 1e6:,.1f} MB")
        output.json({"runs": [_facts(each) for each in found], "bytes": total})
        return
    chosen = find_run(runs_dir, name, dataset=dataset, allow_broken=True, notify=output.note)
    facts = run_facts(chosen)
    if action == "remove":
        if confirmed(f"Remove run {chosen.name} ({facts.status}, {facts.bytes / 1e6:,.1f} MB)?", yes=yes):
            remove_run(chosen)
            output.note(f"removed run {chosen.name}")
            output.json({"removed": chosen.name, "bytes": facts.bytes})
        return
    if facts.damage is not None:
        raise facts.damage
    shown: dict[str, object] = {key: value for key, value in _row(facts).items() if key not in ("run", "test_ndcg@10")}
    shown |= {key: facts.manifest.get(key) for key in ("preset", "seed", "command")} | {"folder": chosen.path}
    for split in ("validation", "test"):
        shown |= {f"{split} {key}": value for key, value in facts.manifest.get("results", {}).get(split, {}).items()}
    output.table(facts_table(shown, title=chosen.name))
    output.json(_facts(facts))


def _row(found: RunFacts) -> dict[str, object]:
    """A run for people."""
    data, results = found.manifest.get("data", {}), found.manifest.get("results", {})
    return {
        "run": found.name,
        "status": found.status,
        "test_ndcg@10": found.result("test", "ndcg@10"),
        "epochs": results.get("epochs"),
        "started": found.manifest.get("started", "")[:16].replace("T", " "),
        "data_version": data.get("version"),
        "MB": found.bytes / 1e6,
    }


def _facts(found: RunFacts) -> dict[str, object]:
    """A run for programs."""
    damage = None if found.damage is None else str(found.damage)
    return {"run": found.name, **found.manifest, "status": found.status, "bytes": found.bytes, "damage": damage}
