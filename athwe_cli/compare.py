"""`athwe compare`: finished runs side by side."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from athwe_cli import options as opt
from athwe_cli.errors import one_line_errors
from athwe_cli.pages import write_page
from athwe_cli.render import Output

if TYPE_CHECKING:
    from athwe_core.analysis.experiments.comparison import Comparison, ComparisonRow, Difference
    from athwe_core.evaluation.external_ranks import ExternalRanks
    from athwe_core.runs.find import RunFolder

LABELS_A_TABLE = 3
"""Rows of the comparison that stand beside each other in 80 columns."""


@one_line_errors
def compare(
    run: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="A path, dataset/preset/name, a unique preset/name or name, last, or a pattern such as 'demo/*/*', which "
            "selects finished runs. Default: last.",
            show_default=False,
        ),
    ] = None,
    dataset: opt.Dataset = None,
    ranks: Annotated[
        list[str] | None,
        typer.Option(
            help="Also compare ranks or recommendation lists that another program made: a table with the columns user, rank "
            "or user, item, score. Repeatable; files of one LABEL are seeds of one row.",
            metavar="[LABEL=]FILE",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    metric: Annotated[
        str, typer.Option(help="Metric of change, tests and groups: ndcg@k, mrr@k or hit@k.")
    ] = "ndcg@10",
    groups: Annotated[bool, typer.Option("--groups/--no-groups", help="Show the metric by group of users.")] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Compare runs of different data, split, tie order or seen-item rule too.")
    ] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print one LaTeX table on stdout instead.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print one Markdown table on stdout instead.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with all digits on stdout instead.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="HTML page to write too, with baselines and every table to save.", show_default=False),
    ] = None,
    prepared: opt.PreparedDir = opt.PREPARED_DIR,
    runs: opt.RunsDir = opt.RUNS_DIR,
    as_json: opt.Json = False,
) -> None:
    """Compare finished runs: metrics, change, paired tests, speed and size, groups of users.

    Runs that differ only in the seed form one row with mean ± standard deviation. Change and p-values are against the first
    row. With several seeds on both sides, the test covers the spread over seeds as well as over users.

    A file of --ranks must come from the data, the split and the seen-item rule of the runs: docs/judge.md describes it.

    Example: athwe compare 'Toys_and_Games/hm4sr/*' 'Toys_and_Games/athwe/*' --metric ndcg@10

    Example: athwe compare 'demo/*/*' --markdown > table.md

    Example: athwe compare 'demo/*/*' --html comparison.html

    Example: athwe compare last --ranks recbole.csv
    """
    from athwe_core.errors import ConfigError

    given = [name for name, on in (("latex", latex), ("markdown", markdown), ("csv", as_csv), ("json", as_json)) if on]
    if len(given) > 1:
        names = ", ".join(f"--{name}" for name in given)
        raise ConfigError(names, "cannot be given together", remedy="Choose one")
    output = Output(as_json=as_json)
    found = _find(run or ["last"], runs, dataset, output)
    output.note(f"comparing {len(found)} run{'s' * (len(found) != 1)}")
    from athwe_core.analysis.experiments.comparison import compare_runs
    from athwe_core.analysis.experiments.comparison_text import comparison_text
    from athwe_core.analysis.experiments.verdict import verdict

    files = _read_files(ranks or [], found[0], prepared, split)
    result = compare_runs(found, split=split, metric=metric, force=force, files=files)
    for row in result["rows"]:
        output.note(f"{row['label']}: {', '.join(row['runs'] or row['files'])}")
    for note in result["notes"]:
        output.note(note)
    output.note(verdict(result))
    if html is not None:
        _write_page(html, result, found[0], prepared, runs, output)
    if given and not as_json:
        typer.echo(comparison_text(result, given[0]), nl=False)  # type: ignore[arg-type]
        return
    title = f"{result['dataset']}, {split}, {result['users']:,} users"
    if result["comparable"]:
        seen = f"seen items {'out' if result['exclude_seen'] else 'in'}"
        title = f"{title}, {seen}, {result['split_rule']} split, ties in {result['tie_order']} order"
    else:
        title = f"NOT COMPARABLE: {title} in the first run"
        output.table(_differences_table(result["differences"]))
    if len(result["rows"]) > 1:
        output.table(_change_table(result, title=title))
    for k in _cut_offs(result):
        output.table(_metrics_table(result, k, title=title))
    output.table(_cost_table(result["rows"]))
    if groups:
        labels = [row["label"] for row in result["rows"]]
        for first in range(0, len(labels), LABELS_A_TABLE):
            output.table(_groups_table(result, labels[first : first + LABELS_A_TABLE]))
    output.json(result)


def _find(texts: list[str], runs_dir: Path, dataset: str | None, output: Output) -> list[RunFolder]:
    from athwe_core.errors import ConfigError
    from athwe_core.runs.find import FINISHED, find_run, list_runs, short_names

    found: list[RunFolder] = []
    for text in texts:
        if text == "last":
            dataset, why = opt.choose_dataset(dataset, runs_dir)
            output.note(f"data set {dataset} ({why})")
        if not set(text) & set("*?[") or Path(text).exists():
            found.append(find_run(runs_dir, text, dataset=dataset))
            continue
        runs = list_runs(runs_dir, dataset=dataset)
        matches = [one for one in runs if any(fnmatchcase(name, text) for name in short_names(one.name))]
        finished = [one for one in matches if one.manifest().get("status") == FINISHED]
        if not finished:
            rule = f"must match a finished run in {runs_dir} as dataset/preset/name, preset/name or name"
            raise ConfigError("RUN", rule, text, f"Unfinished runs that match: {len(matches)}" if matches else "")
        if len(finished) < len(matches):
            output.note(f"{text}: left out, as not finished: {len(matches) - len(finished)} of {len(matches)} runs")
        found += finished
    return found


def _read_files(texts: list[str], run: RunFolder, prepared: Path, split: str) -> dict[str, list[ExternalRanks]]:
    """Files of ranks by label, read by the data and the rules of a run."""
    from athwe_core.errors import ConfigError
    from athwe_core.evaluation.external_ranks import read_external_ranks

    if not texts:
        return {}
    data, exclude_seen = run.open_data(prepared), run.config().evaluation.exclude_seen
    found: dict[str, list[ExternalRanks]] = {}
    for text in texts:
        label, path = _labelled(text)
        if label is None and path.stem in found:
            remedy = f"Give each a label, or both the same as seeds of one row: --ranks LABEL={path}"
            raise ConfigError("--ranks", "must not name two files of one name without labels", text, remedy)
        one = read_external_ranks(path, data, split=split, exclude_seen=exclude_seen)
        found.setdefault(label or path.stem, []).append(one)
    return found


def _labelled(text: str) -> tuple[str | None, Path]:
    """`[LABEL=]FILE` as label and path."""
    label, separator, path = text.partition("=")
    return (None, Path(text)) if not separator or not label or Path(text).exists() else (label, Path(path))


def _write_page(page: Path, result: Comparison, run: RunFolder, prepared: Path, runs: Path, output: Output) -> None:
    """The comparison as a page; without baselines where the data of the runs is gone."""
    from athwe_core.analysis.pages.html import comparison_page
    from athwe_core.analysis.pages.report import baselines_of, draw_groups, groups_by_row, result_sentences
    from athwe_core.errors import AthweError

    baselines: dict[str, dict[str, float]] = {}
    try:
        baselines = baselines_of(result, run.open_data(prepared))
    except AthweError as error:
        output.note(f"the page has no baselines: {error}")
    name = run.manifest()["data"]["name"]
    figure = draw_groups(groups_by_row(result), result["metric"], stem=name)
    verdict = result_sentences(result, baselines)
    write_page(
        page,
        lambda origin: comparison_page(result, baselines, verdict=verdict, groups_figure=figure, origin=origin),
        dataset=name,
        runs=runs,
        output=output,
    )


def _cut_offs(result: Comparison) -> list[int]:
    """Cut-offs up to 10, as in the paper's table, and that of the chosen metric."""
    chosen = int(result["metric"].split("@")[1])
    there = {int(name.split("@")[1]) for name in result["rows"][0]["metrics"]}
    return sorted(k for k in there if k <= 10 or k == chosen)


def _change_table(result: Comparison, *, title: str) -> Table:
    from athwe_core.analysis.experiments.result import mean_and_sd, p_text
    from athwe_core.evaluation.metrics import metric_name

    rows, metric = result["rows"], result["metric"]
    caption = None if result["test"] is None else escape(result["test"])
    heading = escape(f"{title}: against {rows[0]['label']}")
    table = Table(title=heading, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("", overflow="fold")
    for name in (metric_name(metric), "change", "p", "p (Holm)"):
        table.add_column(name, justify="right")
    for i, row in enumerate(rows):
        change = "" if row["change_percent"] is None else f"{row['change_percent']:+.1f} %"
        tests = ("", "") if i == 0 else tuple(p_text(row[p], untested="not tested") for p in ("p_value", "p_holm"))
        table.add_row(escape(row["label"]), mean_and_sd(row["metrics"][metric]), change, *tests)
    return table


def _metrics_table(result: Comparison, k: int, *, title: str) -> Table:
    """NDCG, MRR and Hit at k: three columns of mean ± standard deviation; bold is best beyond chance."""
    from athwe_core.analysis.experiments.result import mean_and_sd
    from athwe_core.evaluation.metrics import metric_name

    columns = [f"{metric}@{k}" for metric in ("ndcg", "mrr", "hit")]
    table = Table(title=escape(title), title_justify="left")
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(metric_name(column), justify="right")
    for row in result["rows"]:
        found = {column: mean_and_sd(row["metrics"][column]) for column in columns}
        marked = [
            f"[bold]{text}[/]" if result["best"][column] == row["label"] else text for column, text in found.items()
        ]
        table.add_row(escape(row["label"]), *marked)
    return table


def _cost_table(rows: list[ComparisonRow]) -> Table:
    table = Table(title="cost", title_justify="left")
    table.add_column("", overflow="fold")
    for name in ("seeds", "epochs", "s per epoch", "device", "parameters"):
        table.add_column(name, justify="right")
    for row in rows:
        if row["seconds_per_epoch"] is None:  # a file tells nothing of this
            continue
        size = "unknown" if row["parameters"] is None else f"{row['parameters']:,}"
        lists = [", ".join(map(str, numbers)) for numbers in (row["seeds"], row["epochs"])]
        table.add_row(escape(row["label"]), *lists, f"{row['seconds_per_epoch']:.1f}", ", ".join(row["devices"]), size)
    return table


def _groups_table(result: Comparison, labels: list[str]) -> Table:
    from athwe_core.evaluation.metrics import metric_name

    table = Table(title=f"{metric_name(result['metric'])} by group", title_justify="left")
    for name in ("group", "", "users", *labels):
        table.add_column(escape(name), justify="left" if name in ("group", "") else "right", overflow="fold")
    for grouping, entries in result["groups"].items():
        for i, (group, values) in enumerate(entries.items()):
            name = grouping.replace("_", " ") if i == 0 else ""
            numbers = [f"{values[label]:.4f}" if label in values else "" for label in labels]
            table.add_row(name, group, f"{values['users']:,}", *numbers)
    return table


def _differences_table(differences: list[Difference]) -> Table:
    table = Table(title="what differs", title_justify="left")
    for name in ("", "run", "value"):
        table.add_column(name, overflow="fold")
    for difference in differences:
        for i, (run, value) in enumerate(difference["values"].items()):
            table.add_row(difference["what"].replace("_", " ") if i == 0 else "", escape(run), escape(str(value)))
    return table
