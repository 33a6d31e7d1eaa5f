"""Benchmarks that come split: NAME.train.inter, NAME.valid.inter, NAME.test.inter."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from athwe_core.data.prepare import PreparedDataset, open_prepared
from athwe_core.data.split import given_split
from athwe_core.errors import DataError

HEADER = "user_id:token\titem_id:token\ttimestamp:float\n"
PARTS = ("train", "valid", "test")


@pytest.fixture
def write(data_dir: Path) -> Callable[..., None]:
    def to_files(**parts: list[tuple[str, str, int]]) -> None:
        (data_dir / "toy").mkdir(parents=True, exist_ok=True)
        for part, rows in parts.items():
            lines = "".join(f"{user}\t{item}\t{time}\n" for user, item, time in rows)
            (data_dir / "toy" / f"toy.{part}.inter").write_text(HEADER + lines)

    return to_files


def test_the_parts_are_the_split_and_nothing_is_filtered(
    write: Callable[..., None], prepare_toy: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    write(
        train=[("u", "a", 1), ("u", "b", 2), ("v", "a", 1), ("w", "c", 5)],
        valid=[("u", "c", 3), ("u", "d", 4), ("v", "b", 2)],
        test=[("u", "e", 9), ("v", "c", 2), ("x", "a", 1)],
    )
    prepare_toy()
    found = open_prepared("toy", prepared_dir=tmp_path / "prepared")
    assert found.split_rule == "given"
    assert len(found.item_ids) == 10
    held_out = {}
    for split in ("validation", "test"):
        rows = found.split.held_out(split)[found.split.users(split)]
        held_out[split] = [found.item_tokens[found.item_ids[row]] for row in rows]
    assert held_out == {"validation": ["c", "b"], "test": ["e", "c"]}
    assert found.statistics["split"] == found.manifest["options"]["split"] == "given"


def test_parts_that_are_not_in_the_order_of_time_are_refused(
    write: Callable[..., None], prepare_toy: Callable[..., PreparedDataset]
) -> None:
    write(
        train=[("u", "a", 9), ("u", "b", 9), ("v", "a", 1)], valid=[("u", "c", 3), ("v", "b", 2)], test=[("v", "c", 3)]
    )
    with pytest.raises(
        DataError, match=r"given split must be in the order of time.*got '1 of 2 users.*--split leave-one-out"
    ):
        prepare_toy()


def test_by_hand() -> None:
    split = given_split(np.array([0, 4, 5, 7, 8]), np.array([0, 0, 1, 2, 0, 1, 2, 2], dtype=np.int8))
    assert split.training_end.tolist() == [2, 5, 5, 7]
    assert split.validation.tolist() == [2, -1, -1, -1]
    assert split.test.tolist() == [3, -1, 6, -1]


@pytest.mark.parametrize("parts", [[0, 0, 2], [0, 0, 1], [0, 1, 2]])
def test_a_split_must_leave_something_to_learn_and_to_ask(parts: list[int]) -> None:
    with pytest.raises(DataError, match="given split must leave a user with"):
        given_split(np.array([0, 3]), np.array(parts, dtype=np.int8))
