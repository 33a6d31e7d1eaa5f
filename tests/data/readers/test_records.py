from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athwe_core.data.readers.reading import RowCounts
from athwe_core.data.readers.records import IdCoder, RawIds, RecordsBuilder, are_ids, split_sequence

TEXTS = st.lists(st.sampled_from(["b", "a", "c", "ä", "a longer text than twelve bytes", "A"]), max_size=40)


def test_numbers_follow_first_appearance() -> None:
    tokens = RawIds.of(["b", "a", "b", "c", "a"])
    assert tokens.numbers.tolist() == [0, 1, 0, 2, 1]
    assert tokens.numbers.dtype == np.int32
    assert tokens.names.to_list() == ["b", "a", "c"]
    assert tokens.to_list() == ["b", "a", "b", "c", "a"]


@given(texts=TEXTS, cuts=st.lists(st.integers(0, 40), max_size=4))
def test_texts_in_pieces_are_numbered_as_in_one(texts: list[str], cuts: list[int]) -> None:
    coder = IdCoder()
    edges = [0, *sorted(min(cut, len(texts)) for cut in cuts), len(texts)]
    for begin, end in pairwise(edges):
        coder.add(pl.Series(texts[begin:end], dtype=pl.String))
    assert coder.names().to_list() == list(dict.fromkeys(texts))
    found = coder.taken()
    assert found.to_list() == texts
    assert found.names.to_list() == list(dict.fromkeys(texts))


@given(texts=TEXTS, data=st.data())
def test_taken_rows_are_numbered_anew(texts: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, max(len(texts) - 1, 0)), max_size=10 * bool(texts)))
    chosen = [texts[row] for row in rows]
    found = RawIds.of(texts).take(np.array(rows, dtype=np.int64))
    assert len(found) == len(rows)
    assert found.to_list() == chosen
    assert found.names.to_list() == list(dict.fromkeys(chosen))


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("Toys & Games | Dolls", "name_seq", ["Toys & Games", "Dolls"]),
        ("red  blue", "token_seq", ["red", "blue"]),
        (" a toy ", "token", ["a toy"]),
        ("", "name_seq", []),
        ("", "token", []),
    ],
)
def test_cells_hold_several_values_by_their_type(text: str, kind: str, values: list[str]) -> None:
    assert split_sequence(text, kind) == values


def test_what_can_be_an_id_or_stand_for_none() -> None:
    texts = pl.Series(["a", "", None, "\0", "a\0b", " ", "\x1b"])
    assert are_ids(texts).to_list() == [True, True, True, False, False, True, True]


@pytest.mark.parametrize(("num_rows", "is_doubted"), [(80, True), (70, False)])
def test_a_user_with_ten_times_the_rows_of_others_is_questioned(num_rows: int, is_doubted: bool) -> None:
    builder = RecordsBuilder()
    users = ["anonymous"] * num_rows + [f"u{number}" for number in range(30) for _ in range(8)]
    builder.add(pl.Series(users), pl.Series(["i"] * len(users)), np.arange(len(users)))
    found = builder.build(RowCounts(len(users), len(users)), place="log.csv")
    question = f"user 'anonymous' has 80 of {len(users)} rows: does it stand for visitors without an id?"
    assert any(note.startswith(question) for note in found.notes) == is_doubted
