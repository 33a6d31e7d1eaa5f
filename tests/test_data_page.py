"""The page `docs/data.md` is true: its commands run on files as it describes them, and it lists every option."""

import gzip
import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import typer.main
from typer.testing import CliRunner

from athwe_cli.app import app
from athwe_core.data.readers.columns import find_columns
from athwe_core.data.readers.ids import PLACEHOLDERS

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("athwe ")]
START, STEP = 1_600_000_000, 90_000
ROWS = [(user, (user + step) % 6, START + STEP * step) for user in range(8) for step in range(6)]


def table(header: str, row: Callable[[int, int, int], object], separator: str = ",") -> str:
    """A header line, where there is one, and a line for each of `ROWS`."""
    lines = [separator.join(map(str, row(*found))) for found in ROWS]  # type: ignore[call-overload]
    return "\n".join([*([header] if header else []), *lines]) + "\n"


def dated(pattern: str) -> Callable[[int, int, int], object]:
    """Times from 2020-09-03 to 2020-09-09: no day is above 12."""
    shift = 10 * 86_400
    return lambda user, item, time: (
        f"u{user}",
        f"i{item}",
        datetime.fromtimestamp(time - shift, UTC).strftime(pattern),
    )


def write_files(folder: Path) -> None:
    """The files that the commands of the page name."""

    def plain(user: int, item: int, time: int) -> object:
        return f"u{user}", f"i{item}", time

    texts = {
        "clicks.csv": table("visitor,sku,time", plain),
        "goods.csv": "sku,label,maker,kind\n" + "".join(f"i{item},Toy {item},ACME,A|B\n" for item in range(6)),
        "plays.txt": table("", lambda user, item, time: (user + 1, item + 1, 5, time), "\t"),
        "notes.csv": table("user,item,time,note", lambda *row: (*plain(*row), '"5 inches' if row[0] == 3 else "x")),  # type: ignore[misc]
        "web.csv": table("user,item,time", plain),
        "app.csv": table("user,item,time", lambda user, item, time: (f"a{user}", f"i{item}", time)),
        "orders.csv": table("user,item,date", dated("%d/%m/%Y")),
        "visits.csv": table("user,item,time", dated("%d.%m.%Y %Hh%M")),
        "guests.csv": table(
            "user,item,time", lambda user, item, time: (f"u{user}" if user else "nan", f"i{item}", time)
        ),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    for day in (1, 2):
        part = folder / "log" / f"day=2020-09-0{day}"
        part.mkdir(parents=True)
        (part / "x.csv.gz").write_bytes(gzip.compress(texts["web.csv"].replace("\nu", f"\n{day}u").encode()))
    films = folder / "dataset" / "films"
    films.mkdir(parents=True)
    (films / "films.csv").write_text(table("user,item,time", lambda user, item, time: (user, item + 1, time)))
    np.save(films / "image_feat.npy", np.ones((6, 4), dtype=np.float32))


def test_every_command_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    small = ["--set", "model.hidden_size=8", "--set", "model.inner_size=8", "--batch-targets", "64", "--device", "cpu"]
    assert len(COMMANDS) > 10
    for command in COMMANDS:
        arguments = shlex.split(command)[1:] + (small if command.startswith("athwe train") else [])
        done = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(app, arguments)
        assert done.exit_code == 0, f"{command}: {done.output}"


def test_the_commands_that_name_an_option_need_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the option athwe stops, and the message names it."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    for option in ("--columns", "--quotes", "--time-unit", "--time-format", "--max-missing-ids", "--feature-rows"):
        command = next(found for found in COMMANDS if f" {option} " in found)
        words = shlex.split(command)[1:]
        place = words.index(option)
        done = CliRunner(env={"COLUMNS": "100"}).invoke(app, [*words[:place], *words[place + 2 :]])
        assert done.exit_code in (2, 3), f"{command}: {done.output}"
        assert option in done.stderr, f"{command}: {done.stderr}"


def rows_of(heading: str) -> list[list[str]]:
    """Cells of the rows of the tables below a heading."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [line for line, after in zip(lines, [*lines[1:], ""], strict=True) if "|--" not in line + after[:3]]
    return [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]


def test_the_names_of_columns_are_recognised() -> None:
    checked = 0
    for role, names, *_ in rows_of("Columns"):
        for name in re.findall(r"`([^`]+)`", names):
            assert find_columns([name], role) == [name], (role, name)
            checked += 1
    assert checked > 40


def test_the_placeholders_are_those_of_the_page() -> None:
    text = PAGE.split("whose user or item is empty,", 1)[1].split("has no id", 1)[0]
    listed = {name.lower() for name in re.findall(r"`([^`]+)`", text)}
    assert listed <= PLACEHOLDERS
    assert {"nan", "null", "none", "na", "-1"} <= listed


def test_every_option_of_prepare_is_in_the_table_and_no_other() -> None:
    command = typer.main.get_command(app).commands["prepare"]  # type: ignore[attr-defined]
    options = {name for option in command.params for name in option.opts} - {"--help"}
    listed = {
        name for option, *_ in rows_of("All options of `prepare`") for name in re.findall(r"`(--[\w-]+)`", option)
    }
    assert listed == options
