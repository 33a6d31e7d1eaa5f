from pathlib import Path

import pytest

from athwe_core.data.readers import literals
from athwe_core.data.readers.literals import parse_literal


def test_old_dumps_are_read() -> None:
    assert parse_literal(b"{u'a': u'd\\u00e9j\\xe0', 'b': [1, None, True]}\r\n") == {"a": "déjà", "b": [1, None, True]}
    assert parse_literal(rb"{'a': r'\d'}") == {"a": r"\d"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb"'odd \d escape \/'", "odd \\d escape \\/"),
        (rb"'a\\d'", "a\\d"),
        (rb"'a\\\d'", "a\\\\d"),
        (rb"'a\'b\x41\n\101'", "a'bA\nA"),
        ("'\\é'".encode(), "\\é"),
        (b"'a\\\nb'", "ab"),
    ],
)
def test_escapes_that_python_does_not_know_stay_and_warn_nobody(text: bytes, expected: str) -> None:
    assert parse_literal(text) == expected  # a warning would be an error here, and the line no literal


@pytest.mark.parametrize("line", [b"", b"{'a': }", b"(" * 5000, b"'\xff'", b"{[]: 1}", b"9**99", b"-" * 100_000])
def test_what_is_no_literal_is_none(line: bytes) -> None:
    assert parse_literal(line) is None


def test_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    assert parse_literal(f"{{'a': open({str(victim)!r}, 'w')}}".encode()) is None
    assert not victim.exists()
    monkeypatch.setattr(literals, "MAX_LITERAL_BYTES", 10)
    assert parse_literal(b"'123456789'") is None
