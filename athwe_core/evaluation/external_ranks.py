"""Ranks of another program for the targets of a prepared data set, from a file of ranks or of recommendation lists.

    ranks    user, rank               one row for each user of the split; 1 = best
    lists    user, item, score        the best items of each user in any order, or all items; a larger score is better
             user, item, rank         the same with the places 1, 2, 3, ... in each list; a score takes precedence

Columns may also be called `user_id` and `item_id`. Ids are the raw ids of the data set. A column `target` (`target_item_id`)
is compared with the data set's targets. Other columns are not read. The file is CSV or the like, JSON lines, parquet or
Feather.

Split and seen-item rule must be those of the runs that the ranks stand beside. A file does not state them, so what
contradicts them is refused: other users, other targets, unknown items, a rank below the last item that is ranked for the
user, and with seen items taken out a list that holds one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from athwe_core.data.histories import item_numbers
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.table_file import HeaderMissingError, Table
from athwe_core.data.rows import items_before
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import DataError
from athwe_core.evaluation.groups import per_user_frame
from athwe_core.messages import brief

COLUMNS = {
    "user": ("user", "user_id"),
    "item": ("item", "item_id"),
    "rank": ("rank",),
    "score": ("score",),
    "target": ("target", "target_item_id"),
}
"""Names that each column may have in a file."""


@dataclass(frozen=True)
class ExternalRanks:
    """Ranks of the targets of a split by another program.

    Attributes:
        path: The file.
        frame: Lines of `per_user_frame`. The rank is infinite where the user's list does not hold the target.
        known_to: Larger ranks are not known, so neither are metrics at larger cut-offs; None = all ranks are known.
        notes: One sentence for each thing that the reader should know.
    """

    path: Path
    frame: pl.DataFrame
    known_to: int | None
    notes: tuple[str, ...]


def read_external_ranks(path: Path, data: PreparedDataset, *, split: str, exclude_seen: bool) -> ExternalRanks:
    """Read a file of ranks or of recommendation lists; the columns tell which it is.

    Ranks of a file are taken as they are, so they should follow the rule of this package: an item whose score equals the
    target's counts half, `rank = 1 + items above + others level / 2`. The rank in a list follows from its items by the same
    rule. Items that are not in a list count as below it.

    Args:
        path: The file.
        data: Data set of the runs that the ranks are compared with.
        split: `validation` or `test`.
        exclude_seen: The runs take items of the user's history out of the ranking, except the target.
    Raises:
        DataError: The file cannot be read, does not have the columns, or contradicts the data set, the split or the
            seen-item rule; the message names the first line that does.
        ConfigError: An unknown split.
    """
    columns, lines = _read(path)
    file = _File(path, lines, _Ranking(data, split, exclude_seen))
    users = file.users()
    file.check_targets(users)
    notes = [file.assumptions()]
    if "item" in columns:
        ranks, known_to, further = file.ranks_of_lists(users)
        notes += further
    else:
        ranks, known_to = file.ranks(users), None
    return ExternalRanks(path, per_user_frame(data, ranks, split=split), known_to, tuple(notes))


@dataclass(frozen=True, eq=False)
class _Ranking:
    """What is ranked for each of the E users of a split."""

    data: PreparedDataset
    split: str
    exclude_seen: bool

    @cached_property
    def users(self) -> Int64[np.ndarray, "E"]:
        return self.data.split.users(self.split)

    @cached_property
    def _rows(self) -> Int64[np.ndarray, "E"]:
        return np.asarray(self.data.split.held_out(self.split)[self.users])

    @cached_property
    def targets(self) -> Int64[np.ndarray, "E"]:
        return np.asarray(self.data.item_ids[self._rows], np.int64)

    @cached_property
    def user_ids(self) -> pl.Series:
        tokens = self.data.user_tokens
        return pl.Series([tokens[user] for user in self.users], dtype=pl.String)

    def cells(self, users: Int64[np.ndarray, "n"], items: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
        """One number for each pair of a user and an item."""
        return users * self.data.num_item_rows + items

    @cached_property
    def seen(self) -> Int64[np.ndarray, "P"]:
        """Cells of the items of each user's history, each once, without the target."""
        users, items = items_before(self.data, self.users, self._rows)
        is_other = items != self.targets[users]
        return np.unique(self.cells(users[is_other], items[is_other]))

    @cached_property
    def num_ranked(self) -> Int64[np.ndarray, "E"]:
        """How many items are ranked for each user, the target included."""
        count = np.full(len(self.users), self.data.num_items)
        if self.exclude_seen:
            count -= np.bincount(self.seen // self.data.num_item_rows, minlength=len(count))
        return count


@dataclass(frozen=True)
class _File:
    """The rows of a file: strings by the keys of `COLUMNS`, and the line of each."""

    path: Path
    lines: pl.DataFrame
    ranking: _Ranking

    @property
    def _users_of(self) -> str:
        data = self.ranking.data
        return f"of the {self.ranking.split} split of data set {data.name}"

    def assumptions(self) -> str:
        """What a file cannot state, as a sentence."""
        seen = "taken out" if self.ranking.exclude_seen else "left in"
        if "target" in self.lines.columns:
            targets = "its targets are those of the data set"
        else:
            targets = "its targets could not be checked, as it has no column target"
        return f"{self.path.name}: taken as ranked with seen items {seen}, as the runs are; {targets}"

    def users(self) -> Int64[np.ndarray, "n"]:
        """Index of each row's user among those of the split. Raises DataError."""
        known = self.ranking.user_ids.alias("user").to_frame().with_row_index("number")
        numbers = self.lines.join(known, on="user", how="left", maintain_order="left")["number"]
        self._refuse(numbers.is_null(), "user", f"must be a user {self._users_of}")
        found = numbers.to_numpy().astype(np.int64)
        is_missing = np.bincount(found, minlength=len(known)) == 0
        if is_missing.any():
            rule = f"must hold all {len(known):,} users {self._users_of} ({int(is_missing.sum()):,} missing)"
            first = self.ranking.user_ids[int(is_missing.argmax())]
            remedy = (
                "Let the other program rank the same split, which this writes: "
                f"athwe prepare --dataset {self.ranking.data.name} --export recbole --to FOLDER"
            )
            raise DataError(str(self.path), rule, first, remedy)
        return found

    def check_targets(self, users: Int64[np.ndarray, "n"]) -> None:
        """Compare the column of targets, where there is one. Raises DataError."""
        if "target" not in self.lines.columns:
            return
        tokens = self.ranking.data.item_tokens
        expected = pl.Series([tokens[target] for target in self.ranking.targets[users]], dtype=pl.String)
        is_other = ~self.lines["target"].eq_missing(expected)
        first = expected[int(is_other.arg_max() or 0)]
        remedy = f"The held-out item of that user is {brief(first)}. Split and tie order must be those of the data set"
        self._refuse(is_other, "target", f"must be the held-out item {self._users_of}", remedy)

    def ranks(self, users: Int64[np.ndarray, "n"]) -> Float64[np.ndarray, "E"]:
        """Ranks by user from one row for each. Raises DataError."""
        is_repeated = ~self.lines["user"].is_first_distinct()
        self._refuse(is_repeated, "user", "must have one row", "Rank each user once")
        ranks = self._numbers("rank")
        remedy = "Add 1 to ranks that begin at 0" if (ranks == 0).any() else ""
        self._refuse(ranks < 1, "rank", "must be at least 1 (1 = best)", remedy)
        self._refuse(2 * ranks % 1 != 0, "rank", "must be a whole number, or a half where items tie")
        most = self.ranking.num_ranked[users]
        is_above = ranks.to_numpy() > most
        first = int(most[int(is_above.argmax())])
        if first == self.ranking.data.num_items:
            rule, remedy = f"must be at most {first:,}, the number of items of the data set", "Are the items the same?"
        else:
            rule = f"must be at most {first:,}, the number of items that are ranked for the user without seen items"
            remedy = "Where the other program leaves seen items in, compare with runs that do so too"
        self._refuse(pl.Series(is_above), "rank", rule, remedy)
        found = np.empty(len(users))
        found[users] = ranks.to_numpy()
        return found

    def ranks_of_lists(self, users: Int64[np.ndarray, "n"]) -> tuple[Float64[np.ndarray, "E"], int | None, list[str]]:
        """Ranks by user from lists, the rank up to which all are known, and notes. Raises DataError."""
        data, ranking = self.ranking.data, self.ranking
        numbers = item_numbers(data, self.lines["item"])
        remedy = "Both programs must rank the same items"
        self._refuse(numbers.is_null(), "item", f"must be an item of data set {data.name}", remedy)
        items = numbers.to_numpy().astype(np.int64)
        cells = ranking.cells(users, items)
        is_repeated = ~pl.Series(cells).is_first_distinct()
        self._refuse(is_repeated, "item", "must occur once in the list of its user")
        is_seen = np.isin(cells, ranking.seen)
        if ranking.exclude_seen:
            remedy = "Take such items out of the lists, or compare with runs that leave them in"
            rule = "must not be in the history of its user, as the runs take seen items out"
            self._refuse(pl.Series(is_seen), "item", rule, remedy)
        values = self._numbers("score").to_numpy() if "score" in self.lines.columns else -self._places(users)
        ranks = _ranks_in_lists(users, values, items == ranking.targets[users], num_users=len(ranking.users))
        lengths = np.bincount(users)
        is_part = lengths < ranking.num_ranked
        known_to = int(lengths[is_part].min()) if is_part.any() else None
        notes = [] if known_to is None else [f"{self.path.name}: lists of items, known to rank {known_to:,} only"]
        if not (ranking.exclude_seen or is_seen.any()):
            notes.append(
                f"{self.path.name}: no list holds an item of its user's history. Where the other program takes seen "
                "items out, compare with runs that do so too"
            )
        return ranks, known_to, notes

    def _places(self, users: Int64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
        """The column rank of lists, which are 1, 2, 3, ... for each user."""
        places = self._numbers("rank").to_numpy()
        order = np.lexsort((places, users))
        is_first = np.diff(users[order], prepend=-1) > 0
        position = np.arange(len(order))
        expected = np.empty(len(order))
        expected[order] = 1 + position - np.maximum.accumulate(np.where(is_first, position, 0))
        remedy = "Where items tie, give a column score"
        self._refuse(pl.Series(places != expected), "rank", "must be 1, 2, 3, ... in the list of each user", remedy)
        return places

    def _numbers(self, column: str) -> pl.Series:
        """A column as float64, without NaN. Raises DataError."""
        found = self.lines[column].cast(pl.Float64, strict=False).fill_null(float("nan"))
        self._refuse(found.is_nan(), column, "must be a number")
        return found

    def _refuse(self, is_wrong: pl.Series, column: str, rule: str, remedy: str = "") -> None:
        """Raise a DataError that names the first wrong row, and how many there are."""
        count = int(is_wrong.sum())
        if not count:
            return
        row = int(is_wrong.arg_max() or 0)
        if count > 1:
            rule += f" ({count:,} of {len(is_wrong):,} rows are not)"
        value = self.lines[column][row]
        shown = None if value is None else brief(value)
        raise DataError(f"{self.path} line {self.lines['line'][row]}: {column}", rule, shown, remedy)


def _ranks_in_lists(
    users: Int64[np.ndarray, "n"],
    values: Float64[np.ndarray, "n"],
    is_target: NDArray[np.bool_],
    *,
    num_users: int,
) -> Float64[np.ndarray, "E"]:
    """1 + items above the target + others level with it / 2; infinite where a list does not hold it."""
    own = np.full(num_users, np.nan)  # nothing is above or level with NaN
    own[users[is_target]] = values[is_target]
    above, level = (
        np.bincount(users[chosen], minlength=num_users) for chosen in (values > own[users], values == own[users])
    )
    return np.where(np.isnan(own), np.inf, 1 + above + (level - 1) / 2)


def _read(path: Path) -> tuple[list[str], pl.DataFrame]:
    """The columns of a file by the keys of `COLUMNS`, as strings, and the line of each row."""
    if not path.is_file():
        raise DataError(str(path), "must be a file that exists", remedy="Check the path")
    reading = Reading([path])
    with _own_remedies():
        table = Table(path, reading)
        table.read_all_keys()
    found = {key: _column(table, names) for key, names in COLUMNS.items()}
    names = {key: name for key, name in found.items() if name is not None}
    is_list = "item" in names and ("score" in names or "rank" in names)
    if "user" not in names or not (is_list or ("item" not in names and "rank" in names)):
        rule = "must have the columns user and rank, or user, item and score (or rank)"
        raise DataError(table.header_place, rule, table.listed_columns, "Rename the columns")
    frames = [pl.DataFrame(schema=dict.fromkeys(names, pl.String) | {"line": pl.Int64})]
    with _own_remedies():
        for rows in table.rows(list(names.values())):
            renamed = rows.frame.select(pl.col(name).alias(key) for key, name in names.items())
            frames.append(renamed.with_columns(pl.Series("line", rows.lines)))
        reading.finish(path)
    return list(names), pl.concat(frames)


def _column(table: Table, names: tuple[str, ...]) -> str | None:
    """The column with one of these names; None without one. Raises DataError for two of them."""
    found = [name for name in table.columns if name in names]
    if len(found) > 1:
        raise DataError(table.header_place, f"must not have both columns {' and '.join(found)}", remedy="Rename one")
    return found[0] if found else None


@contextmanager
def _own_remedies() -> Iterator[None]:
    """Replace the remedies of the reader, which are options of `prepare`."""
    try:
        yield
    except HeaderMissingError as error:
        raise DataError(error.name, error.rule, remedy="Put a line with the names of the columns before it") from None
    except DataError as error:
        value = {} if error.value is None else {"value": error.value}
        raise DataError(error.name, error.rule, remedy="Repair the file, or write it again", **value) from None
