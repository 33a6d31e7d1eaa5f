"""Escape codes, changes of direction and markup in names, ids and titles: shown as text, obeyed by no terminal."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from trust_cases import NUM_ITEMS, NUM_USERS, SMALL, call, error_line, write_atomic

from athwe_cli.render import (
    Output,
    SafeConsole,
    findings_table,
    groups_table,
    metrics_table,
    printable,
    statistics_table,
)

NASTY = {
    "title_of_the_window": "\x1b]0;pwned\x07",
    "colour": "\x1b[31mred",
    "clear": "\x1b[2J\x1b[H",
    "reset": "\x1bc",
    "link": "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "answer": "\x1b[6n\x1b[c",
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "private_string": "\x1bP1$r0m\x1b\\",
    "c1_csi": "\x9b31mred",
    "c1_osc": "\x9d0;pwned\x9c",
    "backspace": "safe\x08\x08\x08\x08evil",
    "delete": "a\x7fb",
    "bell": "ding\x07",
    "shift_out": "\x0ex\x0f",
    "override": "\u202egnp.exe",
    "isolate": "\u2066left\u2069",
    "mark": "\u200fright\u061c",
    "invisible": "a\u200bb\u2060c\ufeffd",
    "markup": "[red]x[/red][/][bold]",
    "markup_link": "[link=http://evil.example]here[/link]",
    "markup_broken": "[/] [/nothing] \\[",
    "emoji_code": ":bomb:",
}
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]")
"""What a terminal obeys or hides; line feeds aside."""
OF_RICH = re.compile("\x1b\\[[0-9;]*m|\x1b\\[\\?25[lh]|\x1b\\[[0-9]*[A-K]|\r")
"""Colours, the cursor's visibility and its way back to the start of a bar: rich's own."""


def shown(text: str) -> str:
    """What is left of a nasty text when it is shown."""
    return " ".join("".join(c for c in text if not CONTROLS.match(c)).split())


def refuse_controls(*texts: str, own: bool = False) -> None:
    """Fail where a terminal would obey; with `own`, rich's codes aside."""
    for text in texts:
        left = OF_RICH.sub("", text) if own else text
        found = CONTROLS.search(left)
        assert found is None, ascii(left[max(found.start() - 60, 0) : found.end() + 30])


@pytest.fixture(params=[False, True], ids=["pipe", "terminal"])
def console(request: pytest.FixtureRequest) -> SafeConsole:
    return SafeConsole(
        file=io.StringIO(), width=500, highlight=False, emoji=False, force_terminal=request.param, color_system=None
    )


def written(console: SafeConsole) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("kind", NASTY)
class TestEveryWayToTheTerminal:
    def test_one_line(self, kind: str) -> None:
        text = printable(f"a {NASTY[kind]}\n\tb")
        refuse_controls(text)
        assert text == f"a {shown(NASTY[kind])} b".replace("  ", " ")

    def test_texts_and_markup_of_a_console(self, console: SafeConsole, kind: str) -> None:
        console.print(Text(NASTY[kind]))
        console.print(NASTY[kind], markup=False)
        refuse_controls(written(console))
        assert written(console).count(shown(NASTY[kind])) == 2

    def test_tables(self, console: SafeConsole, kind: str) -> None:
        nasty = f"qq{NASTY[kind]}qq"
        metrics = {"ndcg@5": 0.5, "mrr@5": 0.5, "hit@5": 0.5}
        console.print(metrics_table({nasty: metrics}, title=nasty, ks=(5,)))
        console.print(groups_table({"history_length": {nasty: {"users": 3, "ndcg@10": 0.1}}}, metric="ndcg@10"))
        finding = dict.fromkeys(("title", "fact", "meaning", "advice", "command"), nasty)
        console.print(findings_table([{"grade": "look", **finding}]))
        facts = {"width": 3, "missing": 0, "source": nasty}
        statistics = {
            **{"users": 1, "items": 1, "interactions": 1, "actions_per_user": 1.0, "actions_per_item": 1.0},
            **{"sparsity": 0.5, "tied_test_share": 0.5, "tie_order": "file", "version": nasty},
            **{"features": {"text": facts, "image": None}, "clusters": {"text": 0}},
        }
        console.print(statistics_table(statistics, title=nasty))
        refuse_controls(written(console))
        assert written(console).count(shown(nasty)) == 10

    def test_notes_are_one_line(self, capsys: pytest.CaptureFixture[str], kind: str) -> None:
        Output(as_json=False).note(f"about {NASTY[kind]}\nerror: a line of its own")
        found = capsys.readouterr().err
        refuse_controls(found)
        assert found.count("\n") == 1
        assert found.startswith(f"about {shown(NASTY[kind])}".rstrip())

    def test_json_is_ascii(self, capsys: pytest.CaptureFixture[str], kind: str) -> None:
        Output(as_json=True).json({NASTY[kind]: NASTY[kind]})
        found = capsys.readouterr().out
        assert found.isascii()
        refuse_controls(found)
        assert json.loads(found) == {NASTY[kind]: NASTY[kind]}

    def test_errors(self, tmp_path: Path, kind: str) -> None:
        """The columns of a file that lacks one, by name; and a path."""
        folder = tmp_path / "data" / "toy"
        folder.mkdir(parents=True)
        (folder / "toy.inter").write_text(f"user_id:token\t{NASTY[kind]}:token\nu\ti\n", encoding="utf-8")
        result = call(tmp_path, "prepare", "--dataset", "toy")
        refuse_controls(error_line(result, 3), result.output)
        absent = call(tmp_path, "prepare", "--dataset", "toy", "--raw", str(tmp_path / NASTY[kind].replace("/", "|")))
        refuse_controls(error_line(absent, 3), absent.output)

    def test_a_line_that_cannot_be_read(self, tmp_path: Path, kind: str) -> None:
        rows = [
            f"u{user},i{(user + step) % NUM_ITEMS},{1_500_000_000 + step}" for user in range(9) for step in range(9)
        ]
        (tmp_path / "t.csv").write_text("\n".join(["user,item,time", *rows, f"{NASTY[kind]},i,never"]) + "\n")
        result = call(tmp_path, "prepare", "--dataset", "t", "--raw", str(tmp_path / "t.csv"), "--max-bad-lines", "0.5")
        assert result.exit_code == 0, result.output
        refuse_controls(result.output)
        assert "1 dropped: 1 could not be read" in result.stderr


def test_rich_keeps_its_own_codes_and_the_texts_their_styles() -> None:
    console = SafeConsole(file=io.StringIO(), force_terminal=True, color_system="standard", width=40)
    console.print(Text("\x1b[2Jred", "red"))
    console.show_cursor(False)
    table = Table(title=Text("a\tb"))
    table.add_row(Text("c\u202ed", "bold"))
    console.print(table)
    text = written(console)
    refuse_controls(text, own=True)
    assert "\x1b[31m[2Jred\x1b[0m" in text
    assert "\x1b[?25l" in text
    assert "\x1b[1mcd\x1b[0m" in text
    lines = list(console.render(Text("x\ny\x1b")))
    assert [segment.text for segment in lines if not segment.control] == [
        "x",
        "\n",
        "y",
        "\n",
    ] or Segment.line() in lines


ALL = "".join(NASTY.values())
USER, TITLED = f"user{NASTY['colour']}{NASTY['markup']}", "item0"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained data set whose ids, titles and categories are hostile; its name and its run's are markup."""
    folder = tmp_path_factory.mktemp("world")
    items = {
        f"item{number}{text}": {"title": f"Title {number} {text}", "brand": text, "categories": f"'{text}', 'b'"}
        for number, text in enumerate([*NASTY.values(), ALL])
    }
    users = [USER, *(f"{number}{ALL}" for number in range(NUM_USERS))]
    write_atomic(folder / "data", "[red]data", items=items, users=users)
    (folder / "data/[red]data/toy_note.txt").write_text("nothing")
    prepared = call(folder, "prepare", "--dataset", "[red]data")
    assert prepared.exit_code == 0, prepared.output
    (folder / "prepared.txt").write_text(prepared.output, encoding="utf-8")
    arguments = ["train", "--dataset", "[red]data", "--epochs", "1", "--batch-targets", "64", "--name"]
    for place, more in (("pipe", {}), ("terminal", {"FORCE_COLOR": "1", "TERM": "xterm-256color"})):
        trained = call(folder, *arguments, f"[bold]run-{place}", *SMALL, **more)
        assert trained.exit_code == 0, trained.output
        (folder / f"trained-{place}.txt").write_text(trained.output, encoding="utf-8", newline="")
    return folder


RUN = "[red]data/athwe/[bold]run-pipe"
COMMANDS = {
    "audit": ["audit", "--dataset", "[red]data", "--shuffles", "1"],
    "evaluate": ["evaluate", "--run", RUN],
    "compare": ["compare", "OF_PIPE", "last"],
    "case-study": ["case-study", "--run", RUN, "--user", USER, "--against", "[bold]run-terminal"],
    "report": ["report", "--dataset", "[red]data"],
    "ablate": ["ablate", "--dataset", "[red]data", "--remove", "PCL", "--seeds", "1", "--dry-run", *SMALL],
    "export": ["prepare", "--dataset", "[red]data", "--export", "csv", "--to", "TO"],
}


def test_the_rows_that_prepare_prints(world: Path) -> None:
    text = (world / "prepared.txt").read_text(encoding="utf-8")
    refuse_controls(text)
    assert "[red]data" in text


@pytest.mark.parametrize("place", ["pipe", "terminal"])
def test_training_with_bars_and_without(world: Path, place: str) -> None:
    with (world / f"trained-{place}.txt").open(encoding="utf-8", newline="") as file:
        text = file.read()
    refuse_controls(text, own=place == "terminal")
    assert "[red]data" in text
    assert f"[bold]run-{place}" in text


@pytest.mark.parametrize(
    ("command", "place"),
    [*((command, "pipe") for command in COMMANDS), ("audit", "terminal"), ("case-study", "terminal")],
)
def test_every_command(world: Path, tmp_path: Path, command: str, place: str) -> None:
    places = {
        "TO": str(tmp_path),
        "OF_PIPE": str(world / "runs" / RUN),
    }  # a name with a bracket is a pattern to compare
    arguments = [places.get(argument, argument) for argument in COMMANDS[command]]
    more = {"FORCE_COLOR": "1", "TERM": "xterm-256color"} if place == "terminal" else {}
    result = call(world, *arguments, **more)
    assert result.exit_code == 0, (result.output, result.exception)
    refuse_controls(result.output, own=place == "terminal")
    assert "[red]data" in OF_RICH.sub("", result.output)
    if command == "case-study":
        assert shown(USER).removeprefix("user")[:12] in OF_RICH.sub("", result.output)


def test_errors_that_name_what_is_near(world: Path, tmp_path: Path) -> None:
    unknown = call(world, "case-study", "--run", RUN, "--user", USER + "x")
    refuse_controls(error_line(unknown, 2, 3), unknown.output)
    (tmp_path / "history.csv").write_text(f'item_id,timestamp\n"{TITLED}",1500000000\n')
    item = call(world, "case-study", "--run", RUN, "--history", str(tmp_path / "history.csv"))
    refuse_controls(error_line(item, 3), item.output)
    run = call(world, "evaluate", "--run", "[bold]run-pip")
    refuse_controls(error_line(run, 2), run.output)


def test_an_item_named_in_an_error(world: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(world / "data", tmp_path / "data"))
    vectors = np.ones((len(NASTY) + 2, 3), np.float32)
    vectors[1] = np.nan
    np.save(copy / "[red]data" / "txt_emb.npy", vectors, allow_pickle=False)
    result = call(tmp_path, "prepare", "--dataset", "[red]data")
    line = error_line(result, 3)
    refuse_controls(line, result.output)
    assert "row 1 (item" in line
