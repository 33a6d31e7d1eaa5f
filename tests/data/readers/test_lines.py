import gzip
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athwe_core.data.readers import lines
from athwe_core.data.readers.lines import Block, blocks, first_lines
from athwe_core.data.readers.reading import Reading
from athwe_core.errors import DataError


def write(folder: Path, content: bytes, name: str = "a.txt") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def read(path: Path, *, block_bytes: int = 8) -> list[tuple[int, bytes]]:
    return [line for block in blocks(path, Reading([path]), block_bytes=block_bytes) for line in block.lines()]


@given(
    texts=st.lists(st.binary(max_size=12).filter(lambda text: not set(text) & set(b"\r\n")), min_size=1, max_size=12),
    end=st.sampled_from([b"\n", b"\r\n"]),
    tail=st.integers(0, 3),
    block_bytes=st.integers(1, 40),
)
def test_blocks_hold_every_line_once_with_its_number(
    tmp_path_factory: pytest.TempPathFactory, texts: list[bytes], end: bytes, tail: int, block_bytes: int
) -> None:
    texts = [b"first", *texts]
    path = write(tmp_path_factory.mktemp("lines"), end.join(texts) + end * tail)
    while texts[-1] == b"":
        texts.pop()
    assert read(path, block_bytes=block_bytes) == list(enumerate(texts, start=1))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_gigantic_line_is_refused_with_its_number(
    tmp_path: Path, pack: type[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 2**20)
    path = write(tmp_path, pack(b"one\ntwo\n" + bytes(2**22)))
    with pytest.raises(DataError, match=r"a\.txt line 3 must be at most 1 MiB long"):
        read(path, block_bytes=2**16)


def test_progress_counts_bytes_on_disk_over_all_files(tmp_path: Path) -> None:
    paths = [write(tmp_path, gzip.compress(bytes([65 + i]) * 99 + b"\n"), name) for i, name in enumerate("ab")]
    said: list[tuple[int, int]] = []
    reading = Reading(paths, progress=lambda *counts: said.append(counts))
    for path in paths:
        assert len(list(blocks(path, reading))) == 1
    total = sum(path.stat().st_size for path in paths)
    assert said[-1] == (total, total)
    assert all(before <= after for (before, _), (after, _) in pairwise(said))


def test_bad_lines_within_the_share_are_a_note_above_it_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, b"x\n" * 100)
    reading = Reading([path], max_bad_lines=0.02)
    list(blocks(path, reading))
    reading.add_rows(path, 98, 98)
    for number in (7, 9):
        reading.bad_line(path, number, "is odd", b"text" * 50)
    reading.finish(path)
    assert reading.notes == [
        "a.txt: 2 of 100 lines could not be read and were dropped: "
        f"line 7 is odd: {'text' * 15}...; line 9 is odd: {'text' * 15}..."
    ]
    reading.bad_line(path, 11, "is odd")
    with pytest.raises(DataError, match=r"a\.txt may have at most 2 % lines that .*, got '3 of 100: line 7 is odd"):
        reading.finish(path)


def test_a_hopeless_file_is_given_up_half_way(tmp_path: Path) -> None:
    path = write(tmp_path, b"bad\n" * 100_000)
    reading, seen = Reading([path], max_bad_lines=0.01), 0
    with pytest.raises(DataError, match="may have at most 1 % lines"):  # noqa: PT012 - the loop is what stops
        for block in blocks(path, reading, block_bytes=4096):
            for number, _ in block.lines():
                reading.bad_line(path, number, "is bad")
                seen += 1
    assert seen < 5000


@given(st.lists(st.binary(max_size=5).filter(lambda text: b"\n" not in text), min_size=2, max_size=9))
def test_halves_are_the_block(texts: list[bytes]) -> None:
    block = Block(4, b"".join(text + b"\n" for text in texts))
    first, second = block.halves()
    assert first.content + second.content == block.content
    assert first.num_lines >= 1
    assert second.num_lines >= 1
    assert (first.first_line, second.first_line) == (4, 4 + first.num_lines)


def test_first_lines_of_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, b"".join(b"%d\n" % number for number in range(100)))
    assert first_lines(path) == [b"%d" % number for number in range(20)]
    assert first_lines(path, block_bytes=5) == [b"0", b"1"]
    assert first_lines(write(tmp_path, b"one\ntwo")) == [b"one", b"two"]
    assert first_lines(write(tmp_path, b"")) == []


@pytest.mark.parametrize("content", [b"a\n" + b"\n" * 300, b"a\n" + b"\n" * 300 + b"b\n", b"a\r\n" + b"\r\n" * 150])
def test_many_blank_lines_are_refused_for_what_they_are(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, content)
    assert [line for _, line in read(path) if line] == content.split()
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    with pytest.raises(DataError, match=r"a\.txt line 2 must not begin more than 0 MiB of blank lines\. Remove them"):
        read(path)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_other_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, "\ufeffa,b".encode(encoding))
    with pytest.raises(DataError, match=rf"is {encoding[:6].upper()} text, and must be UTF-8\. Convert it: iconv"):
        read(path)
