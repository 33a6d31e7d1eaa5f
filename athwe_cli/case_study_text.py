"""A case study in a terminal. Titles come from the data, so only their printable characters are shown."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise

from rich.console import Console
from rich.table import Table
from rich.text import Text

from athwe_cli.render import fitting_parts, printable
from athwe_core.analysis.case_study import sentences
from athwe_core.analysis.case_study.result import BandEnergy, CaseStudy, HistoryItem, Named, Target, Why
from athwe_core.evaluation.metrics import metric_name

MOST_ITEMS, MOST_INFLUENCES = 20, 6
GATE_WIDTH, ATTENTION_WIDTH, PART_WIDTH = 9, 32, 6
STYLES = {"id": "cyan", "text": "magenta", "image": "yellow"}
_UP, _ALONG = "▁▂▃▄▅▆▇█", " ▏▎▍▌▋▊▉█"
_UP_ASCII, _ALONG_ASCII = "_.:-=+*#", " .......#"


class CaseText:
    """Prints case studies."""

    def __init__(self, console: Console) -> None:
        self.console = console
        is_ascii = console.options.ascii_only
        if is_ascii and isinstance(console.file, io.TextIOWrapper):
            console.file.reconfigure(errors="replace")  # a title may hold any character
        self.up, self.along = (_UP_ASCII, _ALONG_ASCII) if is_ascii else (_UP, _ALONG)

    def show(self, case: CaseStudy) -> None:
        """Print history, recommendations of each run, the why of the first and the findings of the others."""
        self._head(case)
        self._history(case)
        for run in case["recommendations"]:
            self._recommendations(case, run)
        first, *others = case["why"]
        self._why(case, first)
        for run in others:
            self._findings(case, run)

    def _line(self, text: object, style: str = "") -> None:
        self.console.print(Text(printable(text), style))

    def _title(self, text: object) -> None:
        self.console.print()
        self._line(text, "bold")

    def _head(self, case: CaseStudy) -> None:
        who = f"A new user of {case['dataset']}"
        if case["user"] is not None:
            rules = f"{case['split_rule']} split, ties in {case['tie_order']} order"
            who = f"User {case['user']} of {case['dataset']}, {case['split']}, {rules}"
        self._title(who)
        if case["picked"]:
            self._line(f"picked as {case['picked']}")

    def _history(self, case: CaseStudy) -> None:
        items, target = case["history"], case["target"]
        earlier = f", after {case['earlier_items']:,} that the network does not read" if case["earlier_items"] else ""
        self._title(f"History: {sentences.counted(len(items), 'item')}{earlier}")
        table = _plain(("", "right"), ("", "left"), ("later", "right"), fills=True)
        table.add_column("", ratio=3, no_wrap=True, overflow="ellipsis")
        table.add_column("", ratio=1, no_wrap=True, overflow="ellipsis", style="dim")
        if len(items) > MOST_ITEMS:
            table.add_row("...", "", "", _cell(f"{len(items) - MOST_ITEMS} more, see the page or --json"))
        for item in items[-MOST_ITEMS:]:
            table.add_row(str(item["position"] + 1), *_entry(item))
        if target is not None:
            table.add_row("next", *_entry(target), style="bold")
        self.console.print(table)
        if target is not None:
            self._line(f"The true next item has {sentences.ranks_by_run(target['ranks'])}.")

    def _recommendations(self, case: CaseStudy, run: str) -> None:
        rows, why = case["recommendations"][run], case["why"][run]
        names = list(why["by_modality"])
        facts = case["runs"][run]
        reached = f"validation {metric_name(facts['metric'])} {facts['best_value']:.4f}, epoch {facts['best_epoch']}"
        self._title(f"Top {len(rows)} of {sentences.run_label(run)} ({reached})")
        table = _plain(("", "right"), ("", "left"), fills=True)
        table.add_column("", ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column("score", justify="right", no_wrap=True)
        for name in names:
            table.add_column(Text(name, _style(name)), min_width=PART_WIDTH + 1, no_wrap=True)
        parts = [row["by_modality"] for row in rows] + [why["by_modality"]]
        largest = max((abs(value) for part in parts for value in part.values()), default=0.0)

        def add(item: Named, rank: float, score: float, part: Mapping[str, float], mark: str) -> None:
            bars = [Text(self._bar(part[name], largest), _style(name)) for name in names]
            style = "bold" if mark == "*" else ""
            table.add_row(sentences.rank_words(rank), mark, _name(item), f"{score:.2f}", *bars, style=style)

        for row in rows:
            mark = "*" if row["is_target"] else "o" if row["in_history"] else ""
            add(row, row["rank"], row["score"], row["by_modality"], mark)
        if why["subject"]["is_target"] and not any(row["is_target"] for row in rows):
            add(why["subject"], why["rank"], why["score"], why["by_modality"], "*")
        self.console.print(table)
        marks = {"*": case["target"] is not None, "o": any(row["in_history"] for row in rows)}
        words = {"*": "* the true next item", "o": "o already in the history"}
        legend = [words[mark] for mark, is_there in marks.items() if is_there]
        if legend:
            self._line(", ".join(legend), "dim")

    def _why(self, case: CaseStudy, run: str) -> None:
        why, history = case["why"][run], case["history"]
        window = history[why["first_position"] :]
        subject = "The true next item" if why["subject"]["is_target"] else "The first recommendation"
        self._title(f"Why {sentences.run_label(run)} has it at rank {sentences.rank_words(why['rank'])}")
        self._line(f"{subject}: {_name(why['subject'])}")
        self._line(sentences.score(why))
        if why["influence"]:
            self._influence(why, history)
        if why["gaps"]:
            self._gaps(why, case["k"])
        gates = {"time": why["temporal_gates"]} if why["temporal_gates"] else {}
        gates |= why["interactive_gates"] or {}
        drawn = {name: weights for name, weights in gates.items() if sentences.stands_out(weights)}
        if drawn:
            self._gates(drawn)
        if why["temporal_gates"]:
            self._line(f"Temporal gates: {sentences.temporal_gates(why['temporal_gates'], window)}")
        if why["interactive_gates"]:
            self._line(f"Interactive gates: {sentences.interactive_gates(why['interactive_gates'])}")
        if why["attention"]:
            self._attention("Attention of the last position", why["attention"], window)
            self._line(sentences.attention(why["attention"], window))
        if why["attention_parts"]:
            self._attention("Attention that each part alone would give", why["attention_parts"], window)
        if why["wavelet_energy"]:
            self._energy("Wavelet energy", why["wavelet_energy"])
        if why["frequency_energy"]:
            self._energy("Energy of each layer's input by frequency", why["frequency_energy"])

    def _influence(self, why: Why, history: Sequence[HistoryItem]) -> None:
        self._title("What mattered most: one item left out")
        table = _plain(("", "right"), fills=True)
        table.add_column("", ratio=1, no_wrap=True, overflow="ellipsis")
        for name in ("score", "rank"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", min_width=PART_WIDTH + 1, no_wrap=True)
        most = sorted(why["influence"], key=lambda entry: -abs(entry["score_change"]))[:MOST_INFLUENCES]
        largest = max(abs(entry["score_change"]) for entry in most)
        before = sentences.rank_words(why["rank"])
        for entry in most:
            after, position = sentences.rank_words(entry["rank_without"]), entry["position"]
            moved = f"{before} -> {after}" if after != before else "same"
            change = entry["score_change"]
            bar = self._bar(change, largest)
            table.add_row(str(position + 1), _name(history[position]), f"{change:+.2f}", moved, bar)
        self.console.print(table)

    def _gaps(self, why: Why, k: int) -> None:
        self._title("If the last item had come at another time after the one before")
        table = _plain(
            ("", "left"), ("after", "right"), ("rank", "right"), ("score", "right"), (f"top {k} kept", "right")
        )
        for gap in why["gaps"]:
            after, rank = sentences.gap_words(gap["gap_seconds"]), sentences.rank_words(gap["rank"])
            table.add_row(gap["label"], after, rank, f"{gap['score']:.2f}", f"{gap['kept']} of {len(gap['top'])}")
        self._numbers(table)

    def _gates(self, gates: Mapping[str, Sequence[Sequence[float]]]) -> None:
        self._title("Gates of the experts: oldest to latest item, and at the latest")
        most = max(len(steps[-1]) for steps in gates.values())
        table = _plain(("", "left"), *((f"expert {number}", "left") for number in range(1, most + 1)))
        for name, steps in gates.items():
            top = max(max(step) for step in steps)
            curves = [[step[number] for step in steps] for number in range(len(steps[-1]))]
            cells = [f"{self._curve(curve, top, GATE_WIDTH)} {curve[-1]:.2f}" for curve in curves]
            table.add_row(Text(name, _style(name)), *cells)
        self._numbers(table)

    def _attention(self, title: str, weights: Mapping[str, list[list[float]]], window: Sequence[HistoryItem]) -> None:
        self._title(f"{title}: oldest to latest item, and the most")
        table = _plain(("", "left"), ("", "left"), ("", "left"))
        table.columns[-1].no_wrap = False
        width = min(ATTENTION_WIDTH, max(8, self.console.width // 3))
        for name, layers in weights.items():
            mean = [sum(column) / len(layers) for column in zip(*layers, strict=True)]
            best = sorted(range(len(mean)), key=lambda at: -mean[at])[:3]
            top = ", ".join(f"item {sentences.item_number(window[at])} {mean[at]:.0%}" for at in best)
            table.add_row(Text(name, _style(name)), Text(self._curve(mean, max(mean), width), _style(name)), top)
        self.console.print(table)

    def _energy(self, title: str, energy: BandEnergy) -> None:
        self._title(f"{title}, from slow to fast change")
        table = _plain(("", "left"), *((band, "left") for band in energy["bands"]))
        for name, shares in energy["share"].items():
            bars = [f"{share:4.0%} {self._bar(share, 1.0, signed=False)}" for share in shares]
            table.add_row(Text(name, _style(name)), *bars)
        self._numbers(table)

    def _findings(self, case: CaseStudy, run: str) -> None:
        why, history = case["why"][run], case["history"]
        self._title(f"{sentences.run_label(run)} in short; the page and --json have the rest")
        self._line(sentences.score(why))
        self._line(sentences.influence(why, history))
        self._line(sentences.gaps(why, k=case["k"]))
        if why["temporal_gates"]:
            self._line(sentences.temporal_gates(why["temporal_gates"], history[why["first_position"] :]))

    def _numbers(self, table: Table) -> None:
        """Print a table whose first column is a label, in parts where the terminal is narrow."""
        for part in fitting_parts(table, self.console, num_labels=1):
            self.console.print(part)

    def _bar(self, value: float, largest: float, *, signed: bool = True) -> str:
        """A bar in eighths of a column, after a minus where the value has one."""
        eighths = round(abs(value) / (largest or 1) * PART_WIDTH * 8)
        bar = self.along[8] * (eighths // 8) + self.along[eighths % 8].strip()
        return f"{'-' if value < 0 else ' '}{bar}" if signed else bar

    def _curve(self, values: Sequence[float], top: float, width: int) -> str:
        """Heights from 0 to `top`; neighbours share a column as their mean where there are more than `width`."""
        columns = min(len(values), width)
        edges = [len(values) * i // columns for i in range(columns + 1)]
        means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
        return "".join(self.up[min(int(mean / (top or 1) * len(self.up)), len(self.up) - 1)] for mean in means)


def _plain(*columns: tuple[str, str], fills: bool = False) -> Table:
    """A table without lines; `fills` takes the whole width for the columns that are to come."""
    show_header = fills or any(name for name, _ in columns)
    padding = (0, 1 if fills else 2, 0, 0)
    table = Table(box=None, pad_edge=False, padding=padding, expand=fills, show_header=show_header)
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    return table


def _style(name: str) -> str:
    """The colour of a modality or another part."""
    return STYLES.get(name, "green")


def _cell(text: object) -> Text:
    return Text(printable(text))


def _name(item: Named) -> Text:
    return _cell(printable(item["title"]) or item["item_id"])


def _entry(item: HistoryItem | Target) -> tuple[str, str, Text, Text]:
    gap = "" if item["gap_seconds"] is None else sentences.gap_words(item["gap_seconds"])
    return item["date"], gap, _name(item), _cell(item["category"])
