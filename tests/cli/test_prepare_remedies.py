"""Every remedy that a message of `athwe prepare` gives is typed as it stands, and gets further."""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from cli_runner import call, one_error_line

ROWS = [(f"u{user}", f"i{(user + step) % 6}", 1_400_000_001 + 90_000 * step) for user in range(7) for step in range(6)]
Write = Callable[[Path], object]


def lines(header: str, row: Callable[[int, tuple[str, str, int]], str]) -> str:
    return "\n".join([*([header] if header else []), *(row(number, found) for number, found in enumerate(ROWS))]) + "\n"


def text(name: str, header: str, row: Callable[[int, tuple[str, str, int]], str]) -> Write:
    return lambda folder: (folder / name).write_text(lines(header, row))


def plain(_: int, row: tuple[str, str, int]) -> str:
    return ",".join(map(str, row))


def several(folder: Path) -> None:
    for name in ("one.csv", "two.csv"):
        (folder / name).write_text(lines("user,item,time", plain))


def two_kinds(folder: Path) -> None:
    (folder / "a.csv").write_text(lines("user,item,time", plain))
    (folder / "b.inter").write_text(
        lines("user_id:token\titem_id:token\ttimestamp:float", lambda _, row: "\t".join(map(str, row)))
    )


def disorder(folder: Path) -> None:
    header = "user_id:token\titem_id:token\ttimestamp:float"
    for number, part in enumerate(("train", "valid", "test")):
        rows = "".join(f"{u}\t{i}\t{t}\n" for k, (u, i, t) in enumerate(ROWS) if k % 3 == (number + 1) % 3)
        (folder / f"log.{part}.inter").write_text(header + "\n" + rows)


def histories(folder: Path) -> None:
    """A file of RecBole's augmented form, and the log it was made from."""
    header = "user_id:token\titem_id_list:token_seq\titem_id:token"
    (folder / "log.inter").write_text(header + "\n" + "u0\ti0 i1\ti2\n" * 9)
    (folder / "plain.txt").write_text(lines("user,item,time", plain))


def vectors_of_unknown_order(folder: Path) -> None:
    (folder / "log.csv").write_text(lines("user,item,time", plain))
    np.save(folder / "image_feat.npy", np.ones((6, 4), dtype=np.float32))


def slashes(number: int, row: tuple[str, str, int]) -> str:
    return f"{row[0]},{row[1]},{1 + number % 6:02}/{1 + number % 5:02}/2020"


@dataclass(frozen=True)
class Case:
    """An input that is refused.

    Attributes:
        write: Makes its files in a folder.
        remedy: Pattern of the message; its group is typed, e.g. an option with its value.
        value: Typed behind it, where the remedy names an option without a value.
        arguments: Typed the first time already.
    """

    write: Write
    remedy: str
    value: str = ""
    arguments: tuple[str, ...] = ()


CASES = {
    "no header": Case(
        text("log.tsv", "", lambda _, row: f"{row[0]}\t{row[1]}\t5\t{row[2]}"), r"e\.g\.: (--columns \S+)$"
    ),
    "no header, double colons": Case(
        text("log.dat", "", lambda _, row: f"{row[0]}::{row[1]}::{row[2]}"), r"e\.g\.: (--columns \S+)$"
    ),
    "wrong number of names": Case(
        text("log.csv", "", plain), r"(--columns) for", "user,item,time", ("--columns", "user,item")
    ),
    "unknown user": Case(text("log.csv", "who,item,time", plain), r"Name it with (--user-column)$", "who"),
    "unknown item": Case(text("log.csv", "user,what,time", plain), r"Name it with (--item-column)$", "what"),
    "unknown time": Case(text("log.csv", "user,item,when", plain), r"Name it with (--time-column)$", "when"),
    "a column that is not there": Case(
        text("log.csv", "user,item,time", plain), r"Name another with (--user-column)$", "user", ("--user-column", "x")
    ),
    "dates that fit two ways": Case(
        text("log.csv", "user,item,date", slashes), r"(--time-unit month/day/year) or --time-unit day/month/year$"
    ),
    "dates of an unknown form": Case(
        text("log.csv", "user,item,date", lambda n, row: f"{row[0]},{row[1]},{1 + n % 9}.2.2020 {n % 7}h"),
        r"or describe the dates with (--time-format), e\.g\.",
        "'%d.%m.%Y %Hh'",
    ),
    "a unit that cannot be": Case(
        text("log.csv", "user,item,time", plain), r"Name another (--time-unit),", "s", ("--time-unit", "days")
    ),
    "times of two units": Case(
        text(
            "log.csv",
            "user,item,time,at",
            lambda n, row: f"{row[0]},{row[1]},{row[2] * (1 if n < 20 else 1000)},{row[2]}",
        ),
        r"name another column with (--time-column)$",
        "at",
        ("--time-column", "time"),
    ),
    "placeholders": Case(
        text("log.csv", "user,item,time", lambda n, row: plain(n, row if n else ("nan", *row[1:]))),
        r"or raise (--max-missing-ids) to drop",
        "0.1",
    ),
    "bad lines": Case(
        text("log.csv", "user,item,time", lambda n, row: plain(n, row) + (",x" if n == 5 else "")),
        r"or raise (--max-bad-lines) to drop",
        "0.1",
    ),
    "a quote that is never closed": Case(
        text(
            "log.csv", "user,title,item,time", lambda n, row: f"{row[0]},{chr(34) if n == 9 else ''}x,{row[1]},{row[2]}"
        ),
        r"Where quotes are ordinary characters: (--quotes none)$",
    ),
    "two files of other names": Case(several, r"or all that belong together: (--raw \S+ --raw \S+)$"),
    "two files, one of them": Case(several, r"Name one: (--raw \S+), or all"),
    "two kinds": Case(two_kinds, r"Choose one: --source atomic or (--source table)$"),
    "two kinds, the other": Case(two_kinds, r"Choose one: (--source atomic) or"),
    "too few interactions": Case(
        text("log.csv", "user,item,time", plain), r"Lower (--min-interactions)", "3", ("--min-interactions", "50")
    ),
    "a given split without order": Case(disorder, r"Split the files anew: (--split leave-one-out)$"),
    "one moment for all": Case(
        text("log.csv", "user,item,time", lambda n, row: plain(n, (*row[:2], 1_400_000_001))),
        r"Use (--split leave-one-out)$",
        "",
        ("--split", "global-time"),
    ),
    "histories in rows": Case(histories, r"that they were made from: (--raw) FILE$", "files/plain.txt"),
    "vectors of unknown order": Case(
        vectors_of_unknown_order, r"Name the order: (--feature-rows) number", "appearance"
    ),
    "times cut to a few digits": Case(
        text("log.csv", "user,item,time,at", lambda _, row: f"{row[0]},{row[1]},{row[2]:.2E},{row[2]}"),
        r"or name another column with (--time-column)$",
        "at",
    ),
    "a format and a unit": Case(
        text("log.csv", "user,item,time", lambda n, row: f"{row[0]},{row[1]},2020-01-0{1 + n % 9}"),
        r"(--time-format) replaces --time-unit",
        "%Y-%m-%d",
        ("--time-format", "%Y-%m-%d", "--time-unit", "iso"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_remedy_gets_further(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case = CASES[name]
    (tmp_path / "files").mkdir()
    case.write(tmp_path / "files")
    start = ("prepare", "--dataset", "log")
    raw = ("--raw", str(tmp_path / "files"))
    refused = call(tmp_path, *start, *raw, *case.arguments)
    assert refused.exit_code in (2, 3), refused.output
    message = one_error_line(refused)
    found = re.search(case.remedy, message)
    assert found, message
    remedy = shlex.split(f"{found[1]} {case.value}")
    kept = () if remedy[0] in case.arguments else case.arguments
    again = call(tmp_path, *start, *(() if remedy[0] == "--raw" else raw), *kept, *remedy)
    assert again.exit_code == 0, again.output


def test_a_command_for_other_formats_writes_what_is_read(tmp_path: Path) -> None:
    place = tmp_path / "log.avro"
    pl.DataFrame(ROWS, schema=["user", "item", "time"], orient="row").write_avro(place)
    message = one_error_line(call(tmp_path, "prepare", "--dataset", "log", "--raw", str(place)))
    found = re.search(r'python -c "import polars as pl; pl\.(\w+)\(\'(.*)\'\)\.write_parquet\(\'(.*)\'\)"', message)
    assert found, message
    getattr(pl, found[1])(tmp_path / found[2]).write_parquet(tmp_path / found[3])
    assert call(tmp_path, "prepare", "--dataset", "log", "--raw", str(tmp_path / found[3])).exit_code == 0
