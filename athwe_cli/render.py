"""What the commands show: notes and tables, progress in a terminal, plain lines elsewhere.

Names, titles and lines of files are foreign text. It is shown as it is, never read as markup, and none of its control
characters reaches the terminal.
"""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from athwe_core.analysis.audit.result import Finding

LOG_WIDTH = 100
"""Characters of a table in a log file."""
_COMMAND = re.compile(r"\bathwe [a-z0-9-]+ -")
LABEL_WIDTH = 10
"""Characters that a label column keeps when numbers need the room."""


def printable(text: object) -> str:
    """The text on one line without control, format and private characters: no escape code, no change of direction."""
    return " ".join(_shown(" ".join(str(text).split())).split())


def _shown(text: str) -> str:
    """Of each line what a terminal only shows; every kind of blank is one."""
    if text.isprintable():
        return text
    kept = (" " if character.isspace() and character != "\n" else character for character in text)
    return "".join(c for c in kept if c == "\n" or not unicodedata.category(c).startswith("C"))


class SafeConsole(Console):
    """A console that writes no control characters but its own, whatever is in the texts it is given."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does, the texts without what a terminal would obey."""
        for segment in super().render(renderable, options):
            is_safe = segment.control is not None or segment.text.isprintable()
            yield segment if is_safe else Segment(_shown(segment.text), segment.style)


class Output:
    """Results go to stdout, notes to stderr; with `--json` stdout is one JSON object and tables go to stderr.

    A silent one shows nothing: of several processes that work as one, only the first speaks.
    """

    def __init__(self, *, as_json: bool, is_silent: bool = False) -> None:
        self.as_json = as_json and not is_silent
        self.err = SafeConsole(stderr=True, highlight=False, emoji=False, quiet=is_silent)
        self.out = self.err if as_json else SafeConsole(highlight=False, emoji=False, quiet=is_silent)
        self._log: Path | None = None
        self._unlogged: list[RenderableType] = []

    def note(self, text: str) -> None:
        """One line about what happens. A terminal that is too narrow has it in several, but for a command to be copied."""
        line = " ".join(text.splitlines())
        parts = [line]
        if self.err.is_terminal and not _COMMAND.search(line):  # words and paths stay whole
            parts = wrap(line, self.err.width, break_long_words=False, break_on_hyphens=False)
        self.err.print(Text("\n".join(parts)), soft_wrap=True)
        self._keep(Text(line))

    def table(self, table: Table) -> None:
        """A result for people, in several tables where the terminal is too narrow for one: no number is cut."""
        for part in fitting_parts(table, self.out):
            self.out.print(part)
            self._keep(part)

    def log_to(self, path: Path, *, heading: str) -> None:
        """Append notes and tables to a file too, beginning with a heading and those so far.

        Args:
            path: the file; what cannot be written is left out.
            heading: one line, e.g. the command.
        """
        self._log, before = path, self._unlogged
        self._unlogged = []
        for line in (Text(heading), *before):
            self._keep(line)

    def _keep(self, renderable: RenderableType) -> None:
        if self._log is None:
            self._unlogged.append(renderable)
            return
        with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as file:
            SafeConsole(file=file, width=LOG_WIDTH, highlight=False, emoji=False).print(renderable, soft_wrap=True)

    def text(self, text: str) -> None:
        """A result for people that is to be copied as it is."""
        self.out.print(text, markup=False, soft_wrap=True)

    def json(self, value: Mapping[str, object]) -> None:
        """The result for programs, when asked for."""
        if self.as_json:
            print(json.dumps(value))  # noqa: T201 - stdout is the interface


def fitting_parts(table: Table, console: Console, *, num_labels: int | None = None) -> list[Table]:
    """A table cut between its columns so that every number fits into the terminal.

    Label columns are in every part, and fold where they are too long. The first part has the title, the last one the
    caption.

    Args:
        table: its columns may have header, alignment and cells of their own; their other settings are replaced.
        console: the terminal.
        num_labels: how many columns at the beginning are labels; None = the first and the left-aligned ones that follow it.
    """
    if num_labels is None:
        after_first = (at for at, column in enumerate(table.columns) if at > 0 and column.justify != "left")
        num_labels = next(after_first, len(table.columns))
    labels, numbers = table.columns[:num_labels], table.columns[num_labels:]
    groups: list[list[Column]] = [[]]
    for column in numbers:
        wider = [*groups[-1], column]
        if groups[-1] and _least_width(_part(table, [*labels, *wider], num_labels), num_labels) > console.width:
            groups.append([column])
        else:
            groups[-1] = wider
    parts = [_part(table, [*labels, *group], num_labels) for group in groups]
    parts[0].title, parts[-1].caption = table.title, table.caption
    return parts


def _part(table: Table, columns: list[Column], num_labels: int) -> Table:
    """The given columns of a table, without title and caption."""
    part = Table(
        box=table.box,
        pad_edge=table.pad_edge,
        padding=table.padding,
        show_header=table.show_header,
        show_lines=table.show_lines,
        title_justify=table.title_justify,
        caption_justify=table.caption_justify,
    )
    for at, column in enumerate(columns):
        part.add_column(column.header, justify=column.justify, overflow="fold", no_wrap=at >= num_labels)
    for row, cells in zip(table.rows, zip(*(column.cells for column in columns), strict=True), strict=True):
        part.add_row(*cells, style=row.style, end_section=row.end_section)
    return part


def _least_width(part: Table, num_labels: int) -> int:
    """Characters that a part needs for whole numbers, with its labels folded to `LABEL_WIDTH`."""
    unlimited = Console(width=10_000)
    for at, column in enumerate(part.columns):
        if at < num_labels:
            column.max_width = LABEL_WIDTH
        else:
            column.min_width = max(unlimited.measure(cell).maximum for cell in (column.header, *column.cells))
    return Measurement.get(unlimited, unlimited.options, part).minimum


def rows_table(
    rows: Sequence[Mapping[str, object]],
    *,
    columns: Sequence[str],
    title: str = "",
    decimals: Mapping[str, int] = MappingProxyType({}),
) -> Table:
    """One line per row, in plain text; columns of numbers are aligned on the right.

    Args:
        rows: values by column; fractions are shown with 4 decimals, None as nothing.
        columns: headings, in their order.
        title: of the table; empty = none.
        decimals: of some columns of numbers, which are then shown with commas between thousands.
    """
    table = Table(title=Text(title, style="table.title") if title else None, title_justify="left")
    for column in columns:
        is_number = bool(rows) and all(isinstance(row[column], int | float | None) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row[column], decimals.get(column))) for column in columns))
    return table


def _cell(value: object, decimals: int | None = None) -> str:
    if decimals is not None and isinstance(value, int | float):
        return f"{value:,.{decimals}f}"
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else str(value)


def facts_table(facts: Mapping[str, object], *, title: str) -> Table:
    """One line per fact, in plain text; facts without a value are left out."""
    table = Table(title=Text(title, style="table.title"), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value is not None:
            table.add_row(Text(name.replace("_", " ")), Text(_cell(value)))
    return table


def metrics_table(rows: dict[str, dict[str, float]], *, title: str, ks: tuple[int, ...] = (5, 10)) -> Table:
    """One row per method, one column per metric; title and names are plain text."""
    from athwe_core.evaluation.metrics import metric_name

    columns = [f"{metric}@{k}" for metric in ("ndcg", "mrr", "hit") for k in ks]
    columns = [column for column in columns if all(column in row for row in rows.values())]
    table = Table(title=Text(title, style="table.title"), title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(metric_name(column), justify="right")
    best = {column: max(row[column] for row in rows.values()) for column in columns}
    for name, row in rows.items():
        cells = [Text(f"{row[c]:.4f}", "bold" if row[c] == best[c] else "") for c in columns]
        table.add_row(Text(name), *cells)
    return table


def groups_table(groups: dict[str, dict[str, dict[str, float]]], *, metric: str) -> Table:
    """One row per group of users."""
    from athwe_core.evaluation.metrics import metric_name

    table = Table(title=f"{metric_name(metric)} by group", title_justify="left")
    for column in ("group", "", "users", metric_name(metric)):
        table.add_column(column, justify="left" if column in ("group", "") else "right")
    for kind, labels in groups.items():
        for i, (label, values) in enumerate(labels.items()):
            name = kind.replace("_", " ") if i == 0 else ""
            table.add_row(Text(name), Text(label), f"{values['users']:,}", f"{values[metric]:.4f}")
    return table


def statistics_table(statistics: Mapping[str, Any], *, title: str) -> Table:
    """Table 2 of the paper for one data set, and what else a user should know of it."""
    table = Table(title=Text(title, style="table.title"), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")

    def add(name: str, value: str) -> None:
        table.add_row(Text(name), Text(value))

    for name in ("users", "items", "interactions"):
        add(name, f"{statistics[name]:,}")
    add("actions per user, per item", f"{statistics['actions_per_user']:.2f}, {statistics['actions_per_item']:.2f}")
    add("sparsity", f"{100 * statistics['sparsity']:.2f} %")
    add("test items at the time of the one before", f"{100 * statistics['tied_test_share']:.1f} %")
    add("order of ties", statistics["tie_order"])
    if "split" in statistics:  # older prepared versions know only leave-one-out
        asked = " and ".join(f"{count:,} users in {name}" for name, count in statistics["asked"].items())
        add("split", f"{statistics['split']}, {asked}")
    for kind, facts in statistics["features"].items():
        if facts is None:
            add(kind, "none")
        elif kind == "categories":
            add(kind, f"{facts['count']}")
        else:
            add(kind, f"width {facts['width']}, {facts['missing']:,} items without, from {facts['source']}")
    made = [f"{kind} {count}" for kind, count in statistics["clusters"].items() if count]
    add("clusters", ", ".join(made) or "none")
    add("version", statistics["version"])
    return table


def findings_table(findings: Sequence[Finding]) -> Table:
    """One row per finding of an audit: grade, what was found, what to do."""
    colours = {"ok": "green", "look": "yellow", "problem": "red"}
    table = Table(title="Findings", title_justify="left", show_lines=True)
    table.add_column("")
    table.add_column("finding", overflow="fold")
    for finding in findings:
        grade = finding["grade"]
        text = Text.assemble((finding["title"], "bold"), ": ", finding["fact"])
        if finding["advice"]:
            text.append("\n").append(finding["advice"], "dim")
        if finding["command"]:
            text.append("\n").append(finding["command"])
        table.add_row(Text(grade, colours[grade]), text)
    return table
