"""`athwe audit`: check a prepared data set before training on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from athwe_cli import options as opt
from athwe_cli.errors import one_line_errors
from athwe_cli.pages import write_page
from athwe_cli.render import Output, findings_table, metrics_table, statistics_table


@one_line_errors
def audit(
    dataset: opt.Dataset = None,
    version: Annotated[str | None, typer.Option(help="Prepared version. Default: the current one.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of random tie orders, shuffles and pairs of vectors.")] = 0,
    shuffles: Annotated[int, typer.Option(help="Number of random orders that the shuffle test averages.")] = 3,
    to: Annotated[
        Path | None, typer.Option("--to", help="HTML page. Default: audit.html in the data set's folder of runs.")
    ] = None,
    prepared: opt.PreparedDir = opt.PREPARED_DIR,
    runs: opt.RunsDir = opt.RUNS_DIR,
    as_json: opt.Json = False,
) -> None:
    """Measure ties, leakage, cold items, popularity, the value of the order, and the features, and grade each.

    Prints the findings, the worst first, each with its grade (problem, look, ok), advice and a command, and writes a
    self-contained HTML page that says what each means.

    Example: athwe audit --dataset Toys_and_Games
    """
    output = Output(as_json=as_json)
    name, why = opt.choose_dataset(dataset, runs)
    output.note(f"data set {name} ({why})")
    from athwe_core.analysis.audit.measure import audit as run_audit
    from athwe_core.analysis.audit.page import audit_page
    from athwe_core.data.prepare import open_prepared

    data = open_prepared(name, prepared_dir=prepared, version=version, check_all=True)
    facts = run_audit(data, seed=seed, shuffles=shuffles, progress=lambda what: output.note(f"measuring {what}"))
    page = to or runs / name / "audit.html"
    output.table(statistics_table(data.statistics, title=name))
    output.table(metrics_table(facts["baselines"], title=f"Baselines, test, {data.rules}"))
    output.table(findings_table(facts["findings"]))
    times = data.timestamps
    write_page(page, lambda origin: audit_page(facts, times, origin), dataset=name, runs=runs, output=output)
    output.json({**facts, "page": str(page)})
