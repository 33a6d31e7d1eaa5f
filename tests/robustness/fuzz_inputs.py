"""Hostile input files: strategies that make them, and a guard that notices a case which hangs or eats memory."""

import bz2
import faulthandler
import gzip
import json
import lzma
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fuzz_cases import assert_told, mutated, time_limit
from hypothesis import strategies as st

from athwe_core.errors import AthweError

SECONDS, MEGABYTES = 20.0, 300
"""What one small file may take; the machine may be busy."""
USERS, ITEMS = 5, 6
START = 1_400_000_001
ROWS = [(f"u{u}", f"i{(u + k) % ITEMS}", START + 1000 * u + 2 * k) for u in range(USERS) for k in range(ITEMS)]
TITLES = ["red train", "blue doll & co", "red castle", "wooden puzzle", "toy é", "toy <b>b</b>"]


def peak_kilobytes() -> int:
    """Most memory that this process has held since `forget_peak`; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


@contextmanager
def guarded(seconds: float = SECONDS, megabytes: int = MEGABYTES) -> Iterator[None]:
    """Fail where the case takes longer or more memory. A hang in compiled code ends the process, with the stack shown."""
    faulthandler.dump_traceback_later(6 * seconds, exit=True, file=sys.__stderr__)
    forget_peak()
    before = peak_kilobytes()
    try:
        with time_limit(seconds) as rung:
            yield
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert not rung, "a case took too long"
    grown = (peak_kilobytes() - before) / 1024
    assert grown < megabytes, f"a case took {grown:.0f} MiB"


def assert_both(outcomes: Counter[str]) -> None:
    """A target whose cases all end alike tests little."""
    assert outcomes["accepted"] > 0
    assert outcomes["refused"] > 0


def outcome(read: Callable[[], str], *, place: str) -> str:
    """What `read` says, or `refused`; a refusal must be one short line with a place, a rule and a remedy."""
    try:
        with guarded():
            return read()
    except AthweError as error:
        assert_told(error, place=place)
        return "refused"


def table(rows: list[tuple[Any, ...]], header: str, separator: str) -> bytes:
    return "".join(line + "\n" for line in [header, *(separator.join(map(str, row)) for row in rows)]).encode()


INTER_HEADER = "user_id:token\titem_id:token\ttimestamp:float"
GOOD_INTER = table(ROWS, INTER_HEADER, "\t")
GOOD_ITEM = table(
    [(f"i{k}", title, f"toys|{k % 2}") for k, title in enumerate(TITLES)],
    "item_id:token\ttitle:token_seq\tcategories:token_seq",
    "\t",
)
GOOD_CSV = table(ROWS, "user,item,time", ",")
GOOD_ITEM_CSV = table(
    [(f"i{k}", f'"{title}"', f'"[""toys"", ""{k % 2}""]"') for k, title in enumerate(TITLES)], "item,title,tags", ","
)


def json_lines(objects: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(found) + "\n" for found in objects).encode()


GOOD_JSONL = json_lines([{"user": user, "item": item, "time": time} for user, item, time in ROWS])
GOOD_ITEM_JSONL = json_lines(
    [{"item": f"i{k}", "title": title, "tags": ["toys", str(k % 2)]} for k, title in enumerate(TITLES)]
)
GOOD_REVIEWS = json_lines(
    [{"reviewerID": user, "asin": item, "overall": 5.0, "unixReviewTime": time} for user, item, time in ROWS]
)
GOOD_REVIEWS_2023 = json_lines(
    [{"user_id": user, "parent_asin": item, "timestamp": 1000 * time} for user, item, time in ROWS]
)
GOOD_RATINGS = table([(user, item, 5.0, time) for user, item, time in ROWS], "u,i,1.0,5", ",")
GOOD_META = b"".join(
    (repr({"asin": f"i{k}", "title": title, "categories": [["toys", str(k % 2)]], "imUrl": "http://x/a.jpg"})).encode()
    + b"\n"
    for k, title in enumerate(TITLES)
) + json_lines([{"parent_asin": "i0", "title": "again", "images": [{"large": "http://x/b.jpg"}], "store": "x"}])

CELLS = st.sampled_from(
    [
        *("", " ", "u0", "i1", "0", "-1", "-0.0", "1e9", "1.4e9", "1E+9", "1e308", "-1e308", "1e400", "1e-400", "nan"),
        *("NaN", "inf", "-Infinity", "1_000", "0x10", "٣", "1400000001", "1400000001.999", "1400000001000", "9" * 25),
        *("9223372036854775807", "9223372036854775808", "2014-05-13", "2014-02-30", "2014-05-13T10:11:12Z"),
        *("0000-00-00", "9999-12-31 23:59:60", "2014-05-13T10:11:12+99:99", "null", "None", "true", "\\N"),
        *('"', '""', '"a', "a'b", "a,b", "a;b", "a|b", "a\tb", "a\rb", "a\0b", "\ufeff", "\u2028", "\x1b[31m", "\x7f"),
        *(
            "../../x",
            "/etc/passwd",
            "C:\\x",
            "CON",
            "x" * 300,
            "é",
            "😀",
            "e\u0301",
            "\u202e",
            "<script>alert(1)</script>",
        ),
        *("{}", "[]", "[[", '["a", null, 1]', '["\\ud800"]', "[" * 3000 + "]" * 3000, "__import__('os').abort()"),
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@st.composite
def tables(draw: st.DrawFn, columns: list[str], separators: str) -> bytes:
    """A table with odd headers and cells, mostly of whole rows."""
    names = draw(st.lists(st.sampled_from(columns) | CELLS, min_size=1, max_size=5)) if draw(st.booleans()) else columns
    separator = draw(st.sampled_from(separators))
    whole = st.lists(CELLS, min_size=len(names), max_size=len(names))
    rows = draw(st.lists(whole | whole | whole | st.lists(CELLS, max_size=6), max_size=12))
    end = draw(st.sampled_from(["\n", "\n", "\n", "\r\n", "\r", "\n\n"]))
    text = end.join(separator.join(row) for row in [names, *rows]) + draw(st.sampled_from([end, "", '"']))
    return encoded(draw, text)


def encoded(draw: st.DrawFn, text: str) -> bytes:
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-16-le"]))
    return text.encode(encoding, "replace")


VALUES = st.recursive(
    CELLS | st.none() | st.booleans() | st.integers() | st.floats() | st.just("\ud800") | st.just(10**30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELLS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def objects(draw: st.DrawFn, keys: list[str]) -> bytes:
    """Lines of JSON or Python literals with the keys and odd values, and lines that are neither."""
    lines = []
    for _ in range(draw(st.integers(0, 10))):
        pairs = [(key, draw(VALUES)) for key in draw(st.lists(st.sampled_from(keys), max_size=6))]
        kind = draw(st.sampled_from(["json", "json", "json", "ascii", "python", "other"]))
        if kind == "python":
            lines.append(repr(dict(pairs)))
        elif kind == "other":
            lines.append(draw(CELLS))
        else:
            one = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=kind == 'ascii')}" for key, value in pairs)
            lines.append("{" + ", ".join(one) + "}")
    text = "\n".join(lines) + draw(st.sampled_from(["\n", ""]))
    return (
        encoded(draw, text.encode("utf-8", "replace").decode())
        if draw(st.booleans())
        else text.encode("utf-8", "surrogatepass")
    )


PACKERS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@st.composite
def packed(draw: st.DrawFn, content: bytes) -> bytes:
    """Damaged archives: of the content, of two members, of nothing, with a tail."""
    pack = PACKERS[draw(st.sampled_from(sorted(PACKERS)))]
    half = len(content) // 2
    parts = draw(st.sampled_from([[content], [content[:half], content[half:]], [b"", content], [content, b""], [b""]]))
    whole = b"".join(pack(part) for part in parts) + draw(st.sampled_from([b"", b"", b"\0" * 9, b"tail"]))
    return draw(mutated(whole, most=3)) if draw(st.booleans()) else whole
