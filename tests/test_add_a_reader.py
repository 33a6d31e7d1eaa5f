"""The page `docs/add_a_reader.md` works: the table and the reader give the same records, and bad lines are reported."""

from pathlib import Path
from typing import Any

import pytest
from page_blocks import blocks_of

from athwe_core.data.options import PrepareOptions
from athwe_core.data.readers.detect import find_source, read_source
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.records import Records
from athwe_core.errors import DataError

SAMPLE, CONVERT, READER = (block.text for block in blocks_of("docs/add_a_reader.md") if block.language != "bash")


def read(path: Path, *, max_bad_lines: float = 0.0) -> Records:
    """What the reader of the page makes of a file."""
    names: dict[str, Any] = {}
    exec(READER, names)
    return names["read_visits"]([path], Reading([path], max_bad_lines))


def rows(records: Records) -> list[tuple[str, str, int]]:
    """User, item and time of each row."""
    users, items = records.user_tokens.to_list(), records.item_tokens.to_list()
    return list(zip(users, items, records.timestamps.tolist(), strict=True))


def test_both_ways_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("visits.log").write_text(SAMPLE)
    expected = [("u1", "tea", 1577836800), ("u1", "milk", 1577923200), ("u2", "milk", 1577836800)]
    assert rows(read(Path("visits.log"))) == expected
    exec(CONVERT, {})
    options = PrepareOptions()
    source = find_source("visits", data_dir=tmp_path, raw=[Path("visits.parquet")], options=options)
    assert rows(read_source(source, options, Reading(source.paths))) == expected


def test_a_bad_line_is_refused_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "visits.log"
    path.write_bytes(SAMPLE.encode() + b"u3 milk@1577836800\n" + b"u\xff\tmilk@1577836800\n")
    with pytest.raises(DataError, match=r"line 3 must be a user, a tab and item@time pairs"):
        read(path)
    records = read(path, max_bad_lines=0.5)
    assert len(records) == 3
    assert records.counts is not None
    assert records.counts.dropped == {"could not be read": 2}
    assert any("line 4 must be UTF-8 text" in note for note in records.notes)
