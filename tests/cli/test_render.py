"""What the commands show: foreign text made harmless, tables that keep their numbers, results on stdout."""

import io
import json
import re

import pytest
from rich.table import Table
from rich.text import Text

from athwe_cli.render import Output, SafeConsole, fitting_parts, groups_table, metrics_table, printable

NUMBERS = {f"{metric}@{k}": 0.1234 + k / 1000 for metric in ("ndcg", "mrr", "hit") for k in (5, 10)}
ROWS = {
    "popularity": NUMBERS,
    "last-item transition": NUMBERS,
    "athwe": {key: value * 2 for key, value in NUMBERS.items()},
}
GROUPS = {"target_popularity": {"0 (cold)": {"users": 1234, "hit@10": 0.0429}, "1-4": {"users": 9, "hit@10": 0.25}}}


def shown(table: Table, width: int) -> str:
    """What a console of the given width writes."""
    file = io.StringIO()
    console = SafeConsole(file=file, width=width)
    for part in fitting_parts(table, console):
        console.print(part)
    return file.getvalue()


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
class TestNarrowTerminals:
    def test_every_metric_is_whole_and_beside_its_row(self, width: int) -> None:
        text = shown(metrics_table(ROWS, title="demo, test"), width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        assert sorted(re.findall(r"0\.\d+", text)) == sorted(
            f"{value:.4f}" for row in ROWS.values() for value in row.values()
        )
        assert text.count("demo, test") == 1
        for name in ("NDCG@5", "MRR@10", "Hit@10"):
            assert text.count(name) == 1

    def test_groups_keep_their_numbers(self, width: int) -> None:
        text = shown(groups_table(GROUPS, metric="hit@10"), width)
        assert max(map(len, text.splitlines())) <= width
        for number in ("1,234", "0.0429", "0.2500"):
            assert number in text
        assert "Hit@10 by group" in text


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_narrow_terminal_has_a_note_in_lines_of_whole_words_and_a_command_in_one(is_terminal: bool) -> None:
    output, file = Output(as_json=False), io.StringIO()
    output.err = SafeConsole(file=file, width=40, force_terminal=is_terminal, color_system=None, highlight=False)
    prose = "athwe reaches 0.5 with leave-one-out split; run a-data-set/a-preset/a-name-longer-than-a-line"
    command = "Next: athwe case-study --run demo/athwe/first --random 1"
    output.note(prose)
    output.note(command)
    *lines, last = file.getvalue().splitlines()
    assert " ".join(lines) == prose
    assert last == command
    assert len(lines) == (3 if is_terminal else 1)
    if is_terminal:
        assert all(len(line) <= 40 or " " not in line for line in lines)


def test_a_table_that_fits_stays_one() -> None:
    console = SafeConsole(file=io.StringIO(), width=80)
    table = metrics_table(ROWS, title="t")
    (part,) = fitting_parts(table, console)
    assert (part.title, part.row_count, len(part.columns)) == (table.title, 3, 7)


def test_cells_of_several_words_stay_whole() -> None:
    table = Table(box=None)
    for name in ("", "first", "second"):
        table.add_column(name)
    table.add_row("label", "#### 0.26", "#### 0.31")
    console = SafeConsole(file=io.StringIO(), width=24)
    parts = fitting_parts(table, console, num_labels=1)
    for part in parts:
        console.print(part)
    assert len(parts) == 2
    assert all(cell in console.file.getvalue() for cell in ("#### 0.26", "#### 0.31"))


def test_the_parts_share_the_labels_and_the_styles_of_rows() -> None:
    table = Table(title="t", caption="c")
    for name in ("run", *"abc"):
        table.add_column(name, justify="left" if name == "run" else "right")
    table.add_row("first", *["1234567890"] * 3, style="bold")
    parts = fitting_parts(table, SafeConsole(file=io.StringIO(), width=40))
    assert [[column.header for column in part.columns] for part in parts] == [["run", "a", "b"], ["run", "c"]]
    assert [(part.title, part.caption) for part in parts] == [("t", None), (None, "c")]
    assert [part.rows[0].style for part in parts] == ["bold", "bold"]


def test_a_table_of_words_is_not_cut() -> None:
    table = Table()
    for name in ("key", "values"):
        table.add_column(name)
    table.add_row("losses.pcl.weight", "a b c d e f g h i j k l m n o p q r s t u v w x y z")
    assert len(fitting_parts(table, SafeConsole(file=io.StringIO(), width=20))) == 1


def test_a_console_writes_no_escape_codes_of_others() -> None:
    file = io.StringIO()
    SafeConsole(file=file, width=60).print(Text("\x1b[31mred\x07 \u202eback"))
    assert file.getvalue() == "[31mred back\n"


@pytest.mark.parametrize(
    ("text", "expected"), [("a\n b\t", "a b"), ("\x1b[1m", "[1m"), ("\u202dabc\u2069", "abc"), (7, "7"), ("é", "é")]
)
def test_printable(text: object, expected: str) -> None:
    assert printable(text) == expected


def test_json_goes_to_stdout_and_tables_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.table(metrics_table(ROWS, title="demo"))
    output.json({"a": 1})
    written = capsys.readouterr()
    assert json.loads(written.out) == {"a": 1}
    assert "NDCG@5" in written.err


def test_a_silent_output_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True, is_silent=True)
    output.note("n")
    output.table(metrics_table(ROWS, title="demo"))
    output.json({"a": 1})
    assert capsys.readouterr() == ("", "")
