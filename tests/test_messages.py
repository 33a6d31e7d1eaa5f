import pytest

from athwe_core.messages import MAX_LISTED, MAX_SHOWN, brief, clipped, listed, reason


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a toy é", "a toy é"),
        ("\x1b[31m\ud800\n\u202e", r"\x1b[31m\ud800\n\u202e"),
        (b"caf\xe9", "caf\ufffd"),
        ("x" * MAX_SHOWN, "x" * MAX_SHOWN),
        ("x" * 10**6, "x" * MAX_SHOWN + "..."),
    ],
)
def test_brief_texts_are_short_and_printable(text: str | bytes, shown: str) -> None:
    assert brief(text) == shown
    assert brief(text).isprintable()


def test_clipped_texts_are_what_they_were() -> None:
    assert clipped("\n" * 99, most=2) == "\n\n..."
    assert clipped(b"ab", most=2) == "ab"


def test_long_lists_say_how_many() -> None:
    assert listed(["a", "b\t"]) == r"a, b\t"
    assert listed(["a"] * 10_000) == ", ".join(["a"] * MAX_LISTED) + ", ... (10,000 in all)"


def test_reasons_are_one_line_or_the_kind() -> None:
    assert reason(ValueError("one\ntwo")) == "one"
    assert reason(EOFError()) == "EOFError"
