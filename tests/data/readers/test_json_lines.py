import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athwe_core.data.readers import json_lines
from athwe_core.data.readers.json_lines import read_json_lines
from athwe_core.data.readers.reading import Reading

KEYS = ("a", "b")
VALUES = st.none() | st.text(st.characters(blacklist_categories=["Cs"])) | st.integers(-(2**53), 2**53) | st.booleans()
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "c", "é"]), VALUES | st.lists(VALUES, max_size=2))
LINES = OBJECTS.map(json.dumps) | st.sampled_from(
    ["{oops", "7", "[1]", "null", "", "  ", '{"a": 1} {"b": 2}', '{"a": "x"']
)


def naive(lines: list[str]) -> tuple[list[int], list[int]]:
    """Numbers of the lines that are objects, and of the other ones that are not blank."""
    good, bad = [], []
    for number, line in enumerate(lines, start=1):
        try:
            is_object = isinstance(json.loads(line), dict)
        except ValueError:
            is_object = False
        if line.strip():
            (good if is_object else bad).append(number)
    return good, bad


def read(path: Path) -> tuple[list[tuple[int, Any, Any]], list[int]]:
    bad: list[int] = []

    class Noted(Reading):
        def bad_line(self, path: Path, number: int, reason: str, text: str | bytes = "") -> None:
            bad.append(number)

    rows = [
        (line, *values)
        for part in read_json_lines(path, KEYS, Noted([path]))
        for line, values in zip(part.lines.tolist(), part.frame.rows(), strict=True)
    ]
    return rows, bad


@given(lines=st.lists(LINES, min_size=1, max_size=12), few=st.sampled_from([1, 3, 64]))
def test_any_mix_of_good_and_bad_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[str], few: int) -> None:
    path = tmp_path_factory.mktemp("json") / "a.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "_FEW_LINES", few)
        rows, bad = read(path)
    good, wrong = naive(lines)
    assert [line for line, _, _ in rows] == good
    assert bad == wrong
    for line, *values in rows:
        found = json.loads(lines[line - 1])
        for key, value in zip(KEYS, values, strict=True):
            expected = found.get(key)
            if isinstance(expected, str) or expected is None:
                assert value == expected
            elif not isinstance(expected, list):
                assert value == json.dumps(expected)


def test_numbers_are_written_alike_beside_a_bad_line(tmp_path: Path) -> None:
    line = '{"a": 1400000001.5, "b": 2.0}\n'
    (tmp_path / "good").write_text(line)
    (tmp_path / "bad").write_text(line + "oops\n")
    assert read(tmp_path / "good")[0] == read(tmp_path / "bad")[0] == [(1, "1400000001.5", "2")]


NUMBERS = st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: abs(number) >= 1e-3 or not number)
ODD_VALUES = (
    VALUES | NUMBERS | st.text() | st.sampled_from(["\ud800", "a\ud83d", "\0", 10**25, 1e300, -0.0, {"a": "b"}])
)
ODD_OBJECTS = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), ODD_VALUES), max_size=4)


@given(pairs=ODD_OBJECTS, ascii_only=st.booleans())
def test_a_line_means_the_same_whatever_is_beside_it(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, Any]], ascii_only: bool
) -> None:
    parts = (f'"{key}": {json.dumps(value, ensure_ascii=ascii_only)}' for key, value in pairs)
    line = ("{" + ", ".join(parts) + "}\n").encode("utf-8", "surrogatepass")
    folder = tmp_path_factory.mktemp("json")
    (folder / "alone").write_bytes(line)
    (folder / "beside").write_bytes(line + b"oops\n")
    rows, bad = read(folder / "alone")
    assert read(folder / "beside") == (rows, [*bad, 2])
    keys = [key for key, _ in pairs if key in KEYS]
    if len(set(keys)) < len(keys):
        assert (rows, bad) == ([], [1])


def test_the_reason_names_the_key_that_is_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1, "a": 2}\n{"c": 1, "c": 2, "a": 3}\n')
    reading = Reading([path], max_bad_lines=0.5)
    assert [part.frame.rows() for part in read_json_lines(path, KEYS, reading)] == [[("3", None)]]
    reading.finish(path)
    assert 'line 1 has the key a twice: {"a": 1, "a": 2}' in reading.notes[0]


@pytest.mark.parametrize("value", [b"\xed\xa0\x80", b"\xe9", b"\xff"])
def test_lines_that_are_no_utf8_are_no_json(tmp_path: Path, value: bytes) -> None:
    (tmp_path / "a").write_bytes(b'{"a": "x", "b": "' + value + b'"}\n{"a": "y"}\n')
    assert read(tmp_path / "a") == ([(2, "y", None)], [1])


@pytest.mark.parametrize("tail", ["", "\n{'user': '7', 'time': 5}"])
def test_values_of_mongodb_lose_their_types(tmp_path: Path, tail: str) -> None:
    """Read at once, and line by line where one line is no JSON."""
    lines = [
        '{"user": {"$oid": "5f5e"}, "time": {"$date": "2020-09-14T00:00:00Z"}}',
        '{"user": {"$numberLong": "7"}, "time": {"$date": {"$numberLong": "1600000000000"}}}',
        '{"user": {"other": "7"}, "time": {"$date": 5}}',
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines) + tail)
    frame = pl.concat([rows.frame for rows in read_json_lines(path, ["user", "time"], Reading([path]))])
    assert frame["user"].to_list()[:2] == ["5f5e", "7"]
    assert frame["user"][2].replace(" ", "") == '{"other":"7"}'
    assert frame["time"].to_list()[:3] == ["2020-09-14T00:00:00Z", "1600000000000", "5"]
