import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athwe_core.data.readers.text_cleaning import MAX_CHARACTERS, NAME_SEPARATOR, clean_text, is_text, join_names


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Toys &amp; Games", "Toys & Games"),
        ("caf&eacute; &#39;s", "café 's"),
        ("a <br/>b<BR>c</p >", "a b c"),
        ("&lt;b&gt;bold&lt;/b&gt;", "bold"),
        ("<a href='x' title=\"y\">link</a>", "link"),
        ("<script>var a = '<b>';\nrun()</script>toy", "toy"),
        ("<STYLE type=x>p {}</style >toy", "toy"),
        ("a<!-- hidden -->b", "a b"),
        ("5 < 6 and 7 > 2", "5 < 6 and 7 > 2"),
        ("i <3 toys", "i <3 toys"),
        (" many\n\t  blanks\u00a0and\u2028ends ", "many blanks and ends"),
        ("\x00con\x1ftrol\x7f", "con trol"),
        ("soft\u00adhyphen\u200b\ufeff", "softhyphen"),
        ("half \ud83d a character", "half \ufffd a character"),
        ("<script>a</script>b<script>c</script>d", "b d"),
        ("<script>a<style>b</script>c</style>d", "c d"),
        ("", ""),
        ("日本 語", "日本 語"),
    ],
)
def test_by_hand(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


@given(st.text())
def test_any_text_becomes_one_line_without_runs_of_blanks(text: str) -> None:
    cleaned = clean_text(text)
    assert cleaned == " ".join(cleaned.split())
    assert not set(cleaned) & set("\t\n\r\x00\x0b\x85")


@pytest.mark.parametrize("piece", ["<script>", "<", "&", "<a ", "<!--", "</script"])
def test_hostile_texts_are_cut_and_take_no_time(piece: str) -> None:
    start = time.perf_counter()
    assert len(clean_text(piece * 1_000_000)) <= MAX_CHARACTERS
    assert time.perf_counter() - start < 5


def test_names_are_cleaned_once_each_and_cannot_hold_the_separator() -> None:
    found = join_names(["Toys &amp; Games", "", "A|B", " Toys & Games", "Dolls"])
    assert found == NAME_SEPARATOR.join(["Toys & Games", "A/B", "Dolls"])


@pytest.mark.parametrize(
    "text",
    [
        "<script>" * 2500,
        "<style>x</style " * 1250,
        "<script>" * 1200 + "</scrip" * 1400,
        "<script>" * 2000 + "</style>",
    ],
)
def test_scripts_that_are_never_closed_cost_no_square(text: str) -> None:
    start = time.perf_counter()
    for _ in range(20):
        clean_text(text)
    assert time.perf_counter() - start < 3  # a square is 8 seconds


@pytest.mark.parametrize(("text", "is_one"), [("a", True), ("😀", True), ("a\0", False), ("\ud83d", False), ("", True)])
def test_what_utf8_cannot_hold_is_no_text(text: str, is_one: bool) -> None:
    assert is_text(text) == is_one
