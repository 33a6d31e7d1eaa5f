"""Files as the world has them: what is odd about each, and what must come of it."""

import bz2
import codecs
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fuzz_inputs import GOOD_ITEM, GOOD_REVIEWS, ITEMS, ROWS, START, TITLES, json_lines, table

Row = tuple[str, str, int]


@dataclass(frozen=True)
class Read:
    """Accepted and read right.

    Attributes:
        rows: User, item and second of every interaction that is kept.
        says: Part of a note, empty where nothing odd is to be said.
        text: First element of each item's text vector, where there are some.
        missing: Items without a text vector.
        categories: Names, most frequent first; None = not looked at.
        titles: Of the items in the order of their ids; None = not looked at.
    """

    rows: Sequence[Row] = tuple(ROWS)
    says: str = ""
    text: Sequence[float] | None = None
    missing: int | None = None
    categories: Sequence[str] | None = None
    titles: Sequence[str] | None = None


@dataclass(frozen=True)
class Refused:
    """One error: patterns of where, of the rule that was broken, and of the remedy."""

    where: str
    rule: str
    remedy: str


@dataclass(frozen=True)
class Case:
    """Files of the data set `toy`, options of `prepare`, and what must come of them."""

    files: dict[str, bytes]
    expected: Read | Refused
    options: dict[str, Any] = field(default_factory=dict)


def inter(rows: Sequence[Sequence[Any]] = ROWS, header: str = "user_id:token\titem_id:token\ttimestamp:float") -> bytes:
    return table([tuple(row) for row in rows], header, "\t")


def csv(rows: Sequence[Sequence[Any]] = ROWS, header: str = "user,item,time", separator: str = ",") -> bytes:
    return table([tuple(row) for row in rows], header, separator)


def jsonl(rows: Sequence[Sequence[Any]] = ROWS) -> bytes:
    return json_lines([{"user": user, "item": item, "time": time} for user, item, time in rows])


def with_row(row: int, *cells: Any) -> list[Sequence[Any]]:
    """All rows, one of them replaced. Row 0 is line 2."""
    return [*ROWS[:row], cells, *ROWS[row + 1 :]]


def renamed(old: str, new: str) -> list[Row]:
    return [(new if user == old else user, new if item == old else item, time) for user, item, time in ROWS]


def without(*rows: int) -> Read:
    return Read([row for number, row in enumerate(ROWS) if number not in rows], says="could not be read")


def with_times(times: Sequence[Any]) -> list[tuple[str, str, Any]]:
    return [(user, item, time) for (user, item, _), time in zip(ROWS, times, strict=True)]


def zipped(content: bytes, name: str = "toy.inter") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


GOOD, GZIPPED = inter(), gzip.compress(inter(), mtime=0)
SECONDS = [time for _, _, time in ROWS]
SOME = {"max_bad_lines": 0.5, "max_missing_ids": 0.5}
LINE = "Repair or remove that line"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
LONG = "x" * 5000

ATOMIC = {
    "utf-8 byte order mark": (codecs.BOM_UTF8 + GOOD, Read()),
    "crlf": (GOOD.replace(b"\n", b"\r\n"), Read()),
    "no last newline": (GOOD.rstrip(b"\n"), Read()),
    "blank lines at the end": (GOOD + b"\n\r\n\n", Read()),
    "some lines end with crlf": (GOOD.replace(b"\n", b"\r\n", 9), Read()),
    "lines of an old mac": (
        GOOD.replace(b"\n", b"\r"),
        Refused(r"toy\.inter line 1", "a carriage return stands in it", "tr "),
    ),
    "utf-16 little endian": (
        codecs.BOM_UTF16_LE + GOOD.decode().encode("utf-16-le"),
        Refused(r"toy\.inter", "is UTF-16 text", "iconv -f UTF-16"),
    ),
    "utf-16 big endian": (
        codecs.BOM_UTF16_BE + GOOD.decode().encode("utf-16-be"),
        Refused(r"toy\.inter", "is UTF-16 text", "iconv -f UTF-16"),
    ),
    "utf-16 without a mark": (
        GOOD.decode().encode("utf-16-le"),
        Refused(r"toy\.inter line 1", "without NUL bytes", "iconv -f UTF-16"),
    ),
    "utf-32": (GOOD.decode().encode("utf-32"), Refused(r"toy\.inter", "is UTF-32 text", "iconv -f UTF-32")),
    "one latin-1 byte": (
        inter(with_row(1, "u\xe9", "i1", START)).replace("u\xe9".encode(), b"u\xe9"),
        Refused(r"toy\.inter line 3", r"must be UTF-8 text, got b'\\xe9'", LINE),
    ),
    "a nul byte": (inter(with_row(2, "u\0", "i1", START)), Refused(r"toy\.inter line 4", "without NUL bytes", LINE)),
    "a quoted tab": (
        inter(with_row(2, '"u\t0"', "i1", START)),
        Refused(r"toy\.inter line 4", "must have 3 .* got 4", LINE),
    ),
    "quotes that mean nothing": (inter(renamed("u0", '"u0')), Read(renamed("u0", '"u0'))),
    "a field too few": (inter(with_row(3, "u0", "i3")), Refused(r"toy\.inter line 5", "must have 3 .* got 2", LINE)),
    "a field too many": (
        inter(with_row(3, "u0", "i3", 5, 6)),
        Refused(r"toy\.inter line 5", "must have 3 .* got 4", LINE),
    ),
    "a blank line between": (
        GOOD.replace(b"\n", b"\n\n", 2),
        Refused(r"toy\.inter line 2", "must have 3 .* got 1", LINE),
    ),
    "a name twice in the header": (
        inter(header="user_id:token\tuser_id:token\ttimestamp:float"),
        Refused(r"toy\.inter line 1", "must name each column once, got 'user_id'", "Rename"),
    ),
    "no types in the header": (
        inter(header="user_id\titem_id\ttimestamp"),
        Read(says="toy.inter: users user_id, items item_id, times timestamp in s"),
    ),
    "an unknown type": (
        inter(header="user_id:int\titem_id:token\ttimestamp:float"),
        Refused(r"toy\.inter line 1", "with a type of token, .* got 'user_id:int'", "Write the header as"),
    ),
    "no header": (
        GOOD.split(b"\n", 1)[1],
        Refused(r"toy\.inter line 1", "must name the columns, and holds values: u0, i0", "--columns user,item,time"),
    ),
    "no time": (
        inter([row[:2] for row in ROWS], "user_id:token\titem_id:token"),
        Refused(r"toy\.inter line 1", "has no column timestamp; its columns are user_id, item_id", "Add or rename it"),
    ),
    "a header and no rows": (inter([]), Refused(r"toy\.inter", "has a header but no rows", "complete")),
    "an empty file": (b"", Refused(r"toy\.inter", "is empty", "Expected a header line")),
    "blank lines only": (b"\n\n\r\n", Refused(r"toy\.inter", "is empty", "Expected a header line")),
    "times like 1.400000001E9": (inter(with_times([f"{time / 1e9:.9f}E9" for time in SECONDS])), Read()),
    "times with a part of a second": (inter(with_times([f"{time}.999999" for time in SECONDS])), Read()),
    "times in milliseconds": (
        inter(with_times([1000 * time for time in SECONDS])),
        Read(with_times([1000 * time for time in SECONDS]), says="milliseconds?"),
    ),
    "a time of 1e308": (inter(with_row(4, "u0", "i4", "1e308")), Refused(r"line 6: timestamp", "got '1e308'", LINE)),
    "a time of 1e400": (inter(with_row(4, "u0", "i4", "1e400")), Refused(r"line 6: timestamp", "got '1e400'", LINE)),
    "a time of 5000 digits": (
        inter(with_row(4, "u0", "i4", "9" * 5000)),
        Refused(r"line 6: timestamp", r"got '9{60}\.\.\.'", LINE),
    ),
    "a negative time": (
        inter(with_row(4, "u0", "i4", -5)),
        Refused(r"line 6: timestamp", "must be .* >= 0, got '-5'", LINE),
    ),
    "a time of NaN": (inter(with_row(4, "u0", "i4", "NaN")), Refused(r"line 6: timestamp", "got 'NaN'", LINE)),
    "an infinite time": (inter(with_row(4, "u0", "i4", "inf")), Refused(r"line 6: timestamp", "got 'inf'", LINE)),
    "an empty time": (inter(with_row(4, "u0", "i4", "")), Refused(r"line 6: timestamp", "got ''", LINE)),
    "a date for a time": (
        inter(with_row(4, "u0", "i4", "2014-05-13")),
        Refused(r"line 6: timestamp", "got '2014-05-13'", LINE),
    ),
    "commas within a time": (
        inter(with_row(4, "u0", "i4", "1,400,000,001")),
        Refused(r"line 6: timestamp", "got '1,400,000,001'", LINE),
    ),
    "swapped columns": (
        inter([(time, user, item) for user, item, time in ROWS]),
        Refused(r"toy\.inter line 2: timestamp", "must be a number of seconds >= 0, got 'i0'", LINE),
    ),
    "columns in another order": (
        inter(
            [(time, item, 5, user) for user, item, time in ROWS],
            "timestamp:float\titem_id:token\tx:float\tuser_id:token",
        ),
        Read(),
    ),
    "an empty id": (inter(with_row(5, "", "i5", 5)), Refused(r"line 7: user_id", "must not be empty", LINE)),
    "an id of 5000 characters": (inter(renamed("i2", LONG)), Read(renamed("i2", LONG))),
    "ids with control characters": (inter(renamed("u1", "\x1b[31mred\x07")), Read(renamed("u1", "\x1b[31mred\x07"))),
    "an id like a path": (inter(renamed("i2", "../../escaped")), Read(renamed("i2", "../../escaped"))),
    "an id like an absolute path": (inter(renamed("i2", "/tmp/escaped")), Read(renamed("i2", "/tmp/escaped"))),
    "an id like a device": (inter(renamed("i2", "CON")), Read(renamed("i2", "CON"))),
    "an id with blanks and emoji": (inter(renamed("i2", " \u2028😀\u0301 ")), Read(renamed("i2", "😀\u0301"))),
    "every row twice": (inter([*ROWS, *ROWS]), Read(says=f"{len(ROWS)} repeated rows")),
    "a web page instead": (
        b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n",
        Refused(r"toy\.inter line 1", "has no column that is surely the user; its columns are <!DOC", "--user-column"),
    ),
    "a pointer to large file storage": (
        LFS_POINTER,
        Refused(r"toy\.inter", "is a pointer to Git large file storage", "git lfs pull"),
    ),
}

ARCHIVES = {
    "gzip under a plain name": ("toy.inter", GZIPPED, Read()),
    "plain text under a gzip name": ("toy.inter.gz", GOOD, Read()),
    "bzip2 under a gzip name": ("toy.inter.gz", bz2.compress(GOOD), Read()),
    "two gzip members": ("toy.inter.gz", gzip.compress(GOOD[:99], mtime=0) + gzip.compress(GOOD[99:], mtime=0), Read()),
    "gzip with zeros behind": ("toy.inter.gz", GZIPPED + bytes(512), Read()),
    "truncated gzip": (
        "toy.inter.gz",
        GZIPPED[:-20],
        Refused(r"toy\.inter\.gz", "is not a complete gzip file", "Fetch it again"),
    ),
    "gzip with a wrong checksum": (
        "toy.inter.gz",
        GZIPPED[:-8] + b"\0\0\0\0" + GZIPPED[-4:],
        Refused(r"toy\.inter\.gz", r"is not a complete gzip file \(CRC check failed", "Fetch it again"),
    ),
    "gzip with a tail": (
        "toy.inter.gz",
        GZIPPED + b"tail",
        Refused(r"toy\.inter\.gz", "is not a complete gzip file", "Fetch"),
    ),
    "no gzip behind its first bytes": (
        "toy.inter.gz",
        b"\x1f\x8b\x08" + bytes(99),
        Refused(r"toy\.inter\.gz", "is not a complete gzip file", "Fetch it again"),
    ),
    "truncated bzip2": (
        "toy.inter",
        bz2.compress(GOOD)[:-9],
        Refused(r"toy\.inter", "is not a complete bzip2 file", "Fetch"),
    ),
    "truncated xz": (
        "toy.inter",
        lzma.compress(GOOD)[:-9],
        Refused(r"toy\.inter", "is not a complete xz file", "Fetch"),
    ),
    "zip under a gzip name": (
        "toy.inter.gz",
        zipped(GOOD),
        Read(),
    ),
    "zstd under a gzip name": (
        "toy.inter.gz",
        b"\x28\xb5\x2f\xfd" + bytes(20),
        Refused(r"toy\.inter\.gz", "is not a complete zstd file", "Fetch it again"),
    ),
    "a 7z archive": ("toy.inter", b"7z\xbc\xaf\x27\x1c" + bytes(20), Refused(r"toy\.inter", "is a 7z archive", "7z x")),
    "an old workbook named csv": (
        "toy.csv",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99),
        Refused(r"toy\.csv", "is an old Excel workbook", "Save it as CSV"),
    ),
    "a workbook named csv": (
        "toy.csv",
        zipped(b"<xml/>", "[Content_Types].xml"),
        Refused(r"toy\.csv", "is an Excel workbook", "Save it as CSV"),
    ),
}

TABLES = {
    "csv with a byte order mark": ("toy.csv", codecs.BOM_UTF8 + csv(), Read()),
    "csv with crlf": ("toy.csv", csv().replace(b"\n", b"\r\n"), Read()),
    "csv with semicolons": ("toy.csv", csv(separator=";", header="user;item;time"), Read()),
    "tabs named csv": ("toy.csv", csv(separator="\t", header="user\titem\ttime"), Read()),
    "csv with quotes around all": ("toy.csv", csv([[f'"{cell}"' for cell in row] for row in ROWS]), Read()),
    "csv with a separator in quotes": ("toy.csv", csv(renamed("i2", '"i,2"')), Read(renamed("i2", "i,2"))),
    "csv with blank lines": ("toy.csv", csv().replace(b"\n", b"\n\n"), Read()),
    "csv like an old mac's": (
        "toy.csv",
        csv().replace(b"\n", b"\r"),
        Refused(r"toy\.csv line 1", "a carriage return", "tr "),
    ),
    "unicode text of a spreadsheet": (
        "toy.csv",
        csv().decode().encode("utf-16"),
        Refused(r"toy\.csv", "is UTF-16", "iconv"),
    ),
    "a quote that is never closed": (
        "toy.csv",
        csv([(*row, '"toy' if number == 7 else "toy") for number, row in enumerate(ROWS)], "user,item,time,title"),
        Refused(r"toy\.csv line 9", "a quote is open to the end of the file", "never closed"),
    ),
    "a quote in the header that is never closed": (
        "toy.csv",
        csv(header='"user,item,time'),
        Refused(r"toy\.csv line 1", "cannot be split into names", "never closed"),
    ),
    "one line of latin-1 in csv": ("toy.csv", csv().replace(b"u0,i3", b"u\xe9,i3"), without(3)),
    "a nul byte in csv": ("toy.csv", csv().replace(b"u0,i3", b"u\0,i3"), without(3)),
    "a name twice in the header of csv": (
        "toy.csv",
        csv([(*row, 0) for row in ROWS], "user,item,time,user"),
        Refused(r"toy\.csv line 1", "must name each column once; it names user, item, time, user", "Rename"),
    ),
    "csv without times": (
        "toy.csv",
        csv([row[:2] for row in ROWS], "user,item"),
        Refused(
            r"toy\.csv line 1", "has no column that is surely the time; its columns are user, item", "--time-column"
        ),
    ),
    "csv without a header": (
        "toy.csv",
        csv().split(b"\n", 1)[1],
        Refused(r"toy\.csv line 1", "must name the columns, and holds values: u0, i0", "--columns user,item,time"),
    ),
    "csv with a header only": ("toy.csv", csv([]), Refused(r"toy\.csv", "has no rows", "complete")),
    "csv that says its separator": (
        "toy.csv",
        b"sep=;\n" + csv(separator=";", header="user;item;time"),
        Refused(r"toy\.csv line 1", "tells spreadsheets the separator and names no columns", "sed 1d toy.csv"),
    ),
    "a negative time in csv": (
        "toy.csv",
        csv(with_row(4, "u0", "i4", -5)),
        Refused(r"toy\.csv line 6: time", "must not be before 1970, got '-5'", LINE),
    ),
    "milliseconds in csv": ("toy.csv", csv(with_times([1000 * time + 7 for time in SECONDS])), Read(says="time in ms")),
    "scientific milliseconds in csv": (
        "toy.csv",
        csv(with_times([f"{1000 * time:.12e}" for time in SECONDS])),
        Read(says="in ms"),
    ),
    "microseconds in csv": (
        "toy.csv",
        csv(with_times([10**6 * time + 7 for time in SECONDS])),
        Read(says="time in us"),
    ),
    "dates that do not exist": (
        "toy.csv",
        csv(with_times(["2014-02-30" if number in (2, 9) else "2014-02-28" for number in range(len(ROWS))])),
        Read(
            [(*row[:2], 1393545600) for number, row in enumerate(ROWS) if number not in (2, 9)],
            says="line 4 must have a user",
        ),
    ),
    "digits that are not ours": (
        "toy.csv",
        csv(with_times(["2014-05-13T10:11:12+०५:00"] * len(ROWS))),
        Refused(r"toy\.csv: column time", "must hold times", "--time-column"),
    ),
    "infinite times in csv": (
        "toy.csv",
        csv(with_times([("inf", "-inf")[number % 2] for number in range(len(ROWS))])),
        Refused(r"toy\.csv: column time", "must hold times", "--time-column"),
    ),
    "decimal commas": (
        "toy.csv",
        csv(with_times([f"{time},5" for time in SECONDS]), "user;item;time", ";"),
        Read(),
    ),
    "a table all of bad rows": (
        "toy.csv",
        csv([(user, item) for user, item, _ in ROWS]),
        Refused(r"toy\.csv", "may have at most 50 % lines that cannot be read", "--max-bad-lines"),
    ),
    "more columns than any table": (
        "toy.csv",
        b"," * 100_000 + b"\n" + csv(),
        Refused(r"toy\.csv line 1", "must name at most 10,000 columns, got 100001", "one row an interaction"),
    ),
    "a header of one long word": (
        "toy.csv",
        b"a" * 200_000 + b"\n" + csv(),
        Refused(r"toy\.csv line 1", "cannot be split into names", "never closed"),
    ),
    "a web page named csv": (
        "toy.csv",
        b"<!DOCTYPE html>\n<html></html>\n",
        Refused(
            r"toy\.csv line 1",
            "has no column that is surely the user; its columns are <!DOCTYPE html>",
            "--user-column",
        ),
    ),
    "a binary file named csv": (
        "toy.csv",
        bytes(range(256)) * 4,
        Refused(r"toy\.csv line 1", "without NUL bytes", "Is it UTF-16"),
    ),
    "one json array": (
        "toy.json",
        json.dumps([{"user": "u0"}]).encode(),
        Refused("line 1", "must be one JSON object", r"jq -c '\.\[\]'"),
    ),
    "json over several lines": (
        "toy.json",
        json.dumps({"user": "u0", "item": "i0", "time": 5}, indent=2).encode(),
        Refused(r"toy\.json line 1", "must be one JSON object, got '{'", "one object a line"),
    ),
    "json in single quotes": (
        "toy.json",
        "".join(f"{{'user': '{user}', 'item': '{item}', 'time': {time}}}\n" for user, item, time in ROWS).encode(),
        Read(),
    ),
    "json with a key twice": (
        "toy.jsonl",
        jsonl().replace(b'{"user": "u0", "item": "i3"', b'{"user": "u1", "user": "u0", "item": "i3"'),
        without(3),
    ),
    "json with a time of NaN": ("toy.jsonl", jsonl(with_row(3, "u0", "i3", float("nan"))), without(3)),
    "json with a time of 1e308": ("toy.jsonl", jsonl(with_row(3, "u0", "i3", 1e308)), without(3)),
    "json with a number of 5000 digits": (
        "toy.jsonl",
        jsonl().replace(b": 1400000007}", b": " + b"9" * 5000 + b"}", 1),
        without(3),
    ),
    "json with half a character": ("toy.jsonl", jsonl(with_row(3, "\ud800", "i3", 5)), without(3)),
    "json with half a character, beside a bad line": (
        "toy.jsonl",
        jsonl(with_row(3, "\ud800", "i3", 5)) + b"oops\n",
        without(3),
    ),
    "json with an escaped nul": ("toy.jsonl", jsonl(with_row(3, "u\0", "i3", 5)), without(3)),
    "json cut off in its last line": ("toy.jsonl", jsonl()[:-20], without(len(ROWS) - 1)),
    "json nested without end": (
        "toy.jsonl",
        jsonl().replace(b'{"user": "u0", "item": "i3"', b'{"x": ' + b"[" * 100_000 + b', "item": "i3"'),
        without(3),
    ),
    "two json objects on a line": (
        "toy.jsonl",
        jsonl().replace(b'}\n{"user": "u0", "item": "i4"', b'}{"user": "u0", "item": "i4"'),
        without(3, 4),
    ),
    "json that mixes numbers and texts": (
        "toy.jsonl",
        jsonl(with_times([str(time) if time % 3 else time for time in SECONDS])),
        Read(),
    ),
    "json with latin-1 bytes": (
        "toy.jsonl",
        jsonl().replace(b'"u0", "item": "i3"', b'"u\xe9", "item": "i3"'),
        without(3),
    ),
}

META_CODE = "__import__('pathlib').Path('victim').touch()"
"""Leaves a file in the working folder where it is run."""


def literals(*lines: str) -> bytes:
    """Item metadata of 2014 for all but the first items, behind the lines."""
    rest = [repr({"asin": f"i{k}", "title": TITLES[k]}) for k in range(len(lines), ITEMS)]
    return gzip.compress("".join(line + "\n" for line in [*lines, *rest]).encode("utf-8", "surrogatepass"), mtime=0)


AMAZON = {
    "python literals with code in them": (
        literals(
            f"{{'asin': 'i0', 'title': {META_CODE}}}",
            f"{{'asin': 'i1', 'x': [{META_CODE} for _ in '1']}}",
            f"{META_CODE} # 'asin': 'i2'",
        ),
        Read(says="3 of 6 lines could not be read", titles=["", "", "", *TITLES[3:5], "toy b"]),
    ),
    "literals and json in turn": (
        literals(json.dumps({"asin": "i0", "title": "json", "title ": 1}), "{'asin': 'i1', 'title': 'li\\'teral'}"),
        Read(titles=["json", "li'teral", *TITLES[2:5], "toy b"]),
    ),
    "half a character in a title": (
        literals('{"asin": "i0", "title": "a \\ud83d b"}'),
        Read(titles=["a \ufffd b", *TITLES[1:5], "toy b"]),
    ),
    "a title of markup": (
        literals(json.dumps({"asin": "i0", "title": "<script>alert(1)</script>Doll\x1b[31m &lt;b&gt;x"})),
        Read(titles=["Doll [31m x", *TITLES[1:5], "toy b"]),
    ),
    "metadata all of garbage": (
        gzip.compress(b"{'asin': 'i0' oops\n" * 9, mtime=0),
        Refused(
            r"meta_toy\.json\.gz",
            "may have at most 50 % lines that cannot be read, got '9 of 9",
            "raise --max-bad-lines",
        ),
    ),
    "metadata of other items": (
        gzip.compress(b"{'asin': 'other', 'title': 'x'}\n", mtime=0),
        Refused(r"meta_toy\.json\.gz", "must describe items of the interactions, .* none of them", "another data set"),
    ),
    "truncated metadata": (
        literals()[:-9],
        Refused(r"meta_toy\.json\.gz", "is not a complete gzip file", "Fetch it again"),
    ),
}

REVIEWS = {
    "reviews with negative times": (
        "reviews_toy.json",
        GOOD_REVIEWS.replace(b": 1400000007}", b": -7}", 1),
        Read([row for number, row in enumerate(ROWS) if number != 3], says="1 had a negative time"),
    ),
    "ratings with a column twice": (
        "toy.csv",
        table([(u, i, 5, 1000 * t, 0) for u, i, t in ROWS], "user_id,parent_asin,rating,timestamp,timestamp", ","),
        Refused(r"toy\.csv line 1", "must name each column once", "Rename"),
    ),
    "ratings without times": (
        "toy.csv",
        table([(u, i, 5) for u, i, t in ROWS], "user_id,parent_asin,rating", ","),
        Refused(r"toy\.csv line 1", "has no column timestamp", "Add or rename it"),
    ),
    "reviews of 2023 in seconds": (
        "toy.jsonl",
        json_lines([{"user_id": u, "parent_asin": i, "timestamp": t} for u, i, t in ROWS]),
        Read([(u, i, t // 1000) for u, i, t in ROWS], says="another unit than ms?"),
    ),
}

LISTS = '["toys", "dolls"'
ITEM_FILES = {
    "an item table with a byte order mark": ("toy.item", codecs.BOM_UTF8 + GOOD_ITEM, Read(titles=TITLES)),
    "items of another data set": (
        "toy.item",
        GOOD_ITEM.replace(b"\ni", b"\nother"),
        Refused(r"toy\.item", "must describe items of the interactions, e.g. i0, .* got 'other0'", "another data set"),
    ),
    "items twice": ("toy.item", GOOD_ITEM + b"i0\tagain\tx\n", Read(says="1 rows repeat an item", titles=TITLES)),
    "items without an id column": (
        "toy.item",
        GOOD_ITEM.replace(b"item_id", b"iid"),
        Refused(r"toy\.item line 1", "has no column item_id; its columns are iid, title", "Add or rename it"),
    ),
    "an empty item table": ("toy.item", b"", Refused(r"toy\.item", "is empty", "Expected a header line")),
    "an item table without rows": (
        "toy.item",
        GOOD_ITEM.split(b"\n")[0],
        Refused(r"toy\.item", "has a header but no rows", "complete"),
    ),
    "an item without an id": (
        "toy.item",
        GOOD_ITEM + b"\tx\ty\n",
        Refused(r"toy\.item line 8: item_id", "must not be empty", LINE),
    ),
    "an item title in latin-1": (
        "toy.item",
        GOOD_ITEM + b"j\tcaf\xe9\ty\n",
        Refused(r"toy\.item line 8", "must be UTF-8 text", LINE),
    ),
    "categories that are blank": (
        "toy.item",
        GOOD_ITEM.replace(b"toys|0", b" ").replace(b"toys|1", b"  toys   dolls "),
        Read(categories=["dolls", "toys"]),
    ),
}
CSV_ITEMS = {
    "a csv of items without rows": (b"item,title\n", Refused(r"items\.csv", "has no rows", "leave it out")),
    "a csv of items without ids": (
        b"a,b\n1,2\n",
        Refused(r"items\.csv line 1", "has no column that is surely the item id", "--item-column"),
    ),
    "lists of categories that are broken": (
        csv([(f"i{k}", LISTS if k == 0 else '["dolls", null, 3]') for k in range(ITEMS)], "item\tcategories", "\t")
        .replace(b'i0\t["toys", "dolls"', b'i0\t"[""toys"", ""dolls"""')
        .replace(b'["dolls", null, 3]', b'"[""dolls"", null, 3]"'),
        Read(categories=["3", "dolls", LISTS]),
    ),
    "lists of categories nested without end": (
        csv(
            [(f"i{k}", "[" * 50_000 + "]" * 50_000 if k == 0 else "[1]") for k in range(ITEMS)],
            "item\tcategories",
            "\t",
        ),
        Read(categories=["1", "[" * 20_000]),
    ),
    "half a character in a category": (
        csv([(f"i{k}", r'"[""\ud800""]"') for k in range(ITEMS)], "item\tcategories", "\t"),
        Read(categories=["\ufffd"]),
    ),
}

TEXT_CASES = {
    **{name: Case({"toy.inter": content}, expected) for name, (content, expected) in ATOMIC.items()},
    **{name: Case({file: content}, expected) for name, (file, content, expected) in ARCHIVES.items()},
    **{name: Case({file: content}, expected, SOME) for name, (file, content, expected) in TABLES.items()},
    **{
        name: Case({"reviews_toy.json": GOOD_REVIEWS, "meta_toy.json.gz": content}, expected, SOME)
        for name, (content, expected) in AMAZON.items()
    },
    **{name: Case({file: content}, expected, SOME) for name, (file, content, expected) in REVIEWS.items()},
    **{
        name: Case({"toy.inter": GOOD, file: content}, expected)
        for name, (file, content, expected) in ITEM_FILES.items()
    },
    **{
        name: Case({"toy.csv": csv(), "items.csv": content}, expected)
        for name, (content, expected) in CSV_ITEMS.items()
    },
    "more bad lines than allowed": Case(
        {"toy.csv": csv([*ROWS, *[("u0", "i0", "soon")] * 9])},
        Refused(
            r"toy\.csv",
            "may have at most 20 % lines that cannot be read, got .9 of 40: line 32",
            "raise --max-bad-lines",
        ),
        {"max_bad_lines": 0.2},
    ),
    "one table in two files": Case(
        {"toy.inter": GOOD, "toy.inter.gz": GZIPPED},
        Refused("toy", r"holds both toy\.inter and toy\.inter\.gz", "Keep one of them"),
    ),
}
