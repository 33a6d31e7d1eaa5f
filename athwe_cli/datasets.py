"""`athwe datasets`: list, show and remove prepared data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from athwe_cli import options as opt
from athwe_cli.confirm import confirmed
from athwe_cli.errors import one_line_errors
from athwe_cli.render import Output, rows_table, statistics_table

if TYPE_CHECKING:
    from athwe_core.data.store.inventory import PreparedVersion

ACTIONS = ("list", "show", "remove")


@one_line_errors
def datasets(
    action: Annotated[str, typer.Argument(help="list, show or remove.")] = "list",
    name: Annotated[str | None, typer.Argument(help="Of show and remove: a data set.", metavar="NAME")] = None,
    version: Annotated[
        str | None, typer.Option(help="Prepared version. Default: show the current one, remove all versions.")
    ] = None,
    yes: opt.Yes = False,
    prepared: opt.PreparedDir = opt.PREPARED_DIR,
    runs: opt.RunsDir = opt.RUNS_DIR,
    as_json: opt.Json = False,
) -> None:
    """List the prepared data sets with their sizes; show one, or remove one. Source files are never removed.

    Versions that cannot be opened are listed as broken.

    Example: athwe datasets

    Example: athwe datasets show Toys_and_Games

    Example: athwe datasets remove Toys_and_Games --version 0123456789ab --yes
    """
    from athwe_core.data.store.inventory import find_prepared, list_prepared, remove_prepared
    from athwe_core.errors import require
    from athwe_core.runs.find import list_runs

    output = Output(as_json=as_json)
    require(action in ACTIONS, "ACTION", f"must be {', '.join(ACTIONS[:-1])} or {ACTIONS[-1]}", action)
    require((name is None) == (action == "list"), "NAME", "must be given with show and remove only", name)
    require(version is None or action != "list", "--version", "is for show and remove", version)
    if name is None:
        found = list_prepared(prepared)
        if found:
            rows = [_row(each) for each in found]
            output.table(rows_table(rows, columns=list(rows[0]), decimals=DECIMALS))
        for each in found:
            if each.damage is not None:
                output.note(f"version {each.version} of {each.name} is broken: {each.damage}")
        total = sum(each.bytes for each in found)
        output.note(f"{len(found)} prepared version{'s' * (len(found) != 1)} in {prepared}, {total / 1e6:,.1f} MB")
        output.json({"datasets": [_facts(each) for each in found], "bytes": total})
        return
    chosen = find_prepared(prepared, name, version=version)
    if action == "remove":
        versions, size = {each.version for each in chosen}, sum(each.bytes for each in chosen)
        used = [run for run in list_runs(runs, dataset=name) if run.manifest()["data"]["version"] in versions]
        of_runs = f"; {len(used)} runs in {runs} need it to be evaluated" if used else ""
        what = f"{name} ({', '.join(sorted(versions))}; {size / 1e6:,.1f} MB{of_runs})"
        if confirmed(f"Remove the prepared data set {what}?", yes=yes):
            remove_prepared(prepared, name, version=version)
            output.note(f"removed {what}")
            output.json({"removed": sorted(versions), "bytes": size})
        return
    shown = next((each for each in chosen if each.is_current or version), chosen[-1])
    if shown.damage is not None:
        raise shown.damage
    output.table(statistics_table(shown.statistics or {}, title=name))
    output.note(f"{shown.bytes / 1e6:,.1f} MB in {prepared / name / shown.version}")
    output.json(_facts(shown))


DECIMALS = {"users": 0, "items": 0, "interactions": 0, "MB": 1}


def _row(found: PreparedVersion) -> dict[str, object]:
    """A version for people."""
    facts = found.statistics or {}
    return {
        "data_set": found.name,
        "version": found.version,
        "status": "broken" if found.damage is not None else "current" if found.is_current else "",
        "users": facts.get("users"),
        "items": facts.get("items"),
        "interactions": facts.get("interactions"),
        "split": facts.get("split", "leave-one-out"),
        "ties": facts.get("tie_order"),
        "MB": found.bytes / 1e6,
    }


def _facts(found: PreparedVersion) -> dict[str, object]:
    """A version for programs."""
    damage = None if found.damage is None else str(found.damage)
    facts = {"name": found.name, "version": found.version, "is_current": found.is_current}
    return {**facts, "bytes": found.bytes, "damage": damage, "statistics": found.statistics}
