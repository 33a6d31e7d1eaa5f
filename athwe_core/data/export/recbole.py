"""RecBole's files of a data set that is split already, one line for each thing asked.

RecBole reads a split of one's own from `NAME.train.inter`, `NAME.valid.inter` and `NAME.test.inter`
(`benchmark_filename`), and its sequential models then take each line as it is: `item_id_list` is the history, `item_id`
the target. Plain rows of one interaction would not do: those models fail without the list column. RecBole's own
leave-one-out would not do either: it sorts by times rounded to float32, in steps of 128 s, so that close times become ties.

RecBole numbers items from 1 as they come in the `item_id` columns of the three files, then in `NAME.item`; the rows of
`txt_emb.pt`, `img_emb.pt` and `cat.pt` have that order, row 0 is the padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int64

from athwe_core.data.readers.atomic import read_parts, read_table
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.records import split_sequence
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import DataError

LIST_LENGTH = 50
"""Latest items of a history that are written, RecBole's MAX_ITEM_LIST_LENGTH: it would keep the earliest ones."""
HEADER = {
    "user_id": "token",
    "item_id_list": "token_seq",
    "item_id": "token",
    "timestamp_list": "float_seq",
    "timestamp": "float",
}
_ELEMENTS_AT_ONCE = 2_000_000
_NO_VALUE = (  # pandas reads these as missing
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
)


@dataclass(frozen=True)
class _Lines:
    """Lines of one file: line k asks user `users[k]` for row `targets[k]`, given the rows from `starts[k]` on."""

    users: Int64[np.ndarray, "n"]
    starts: Int64[np.ndarray, "n"]
    targets: Int64[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.targets)

    def cut(self, begin: int, end: int) -> _Lines:
        return _Lines(self.users[begin:end], self.starts[begin:end], self.targets[begin:end])

    def chunks(self) -> Iterator[_Lines]:
        """Pieces whose lists together have a bounded length."""
        total = np.cumsum(self.targets - self.starts)
        edges = np.searchsorted(total, np.arange(_ELEMENTS_AT_ONCE, total[-1] if len(total) else 0, _ELEMENTS_AT_ONCE))
        edges = np.unique([0, *edges, len(self)])
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            yield self.cut(begin, end)

    def list_rows(self) -> tuple[Int64[np.ndarray, "m"], Int64[np.ndarray, "m"]]:
        """The rows in all lists, and the line that each is in."""
        lengths = self.targets - self.starts
        line = np.repeat(np.arange(len(self)), lengths)
        return np.arange(len(line)) - np.repeat(np.cumsum(lengths) - lengths - self.starts, lengths), line


def write_recbole(prepared: PreparedDataset, folder: Path) -> tuple[Int64[np.ndarray, "V"], list[str]]:
    """Write the three parts, the item table and a configuration that reads them, and read the parts back.

    Returns:
        (V,) internal ids in the order of RecBole's numbering, 0 first; and what the user should know.
    Raises:
        DataError: RecBole cannot read an id, or a file differs from what was written.
    """
    users, items = pl.Series(prepared.user_tokens), pl.Series(prepared.item_tokens)
    _refuse_ids(users, "user", blanks=False)
    _refuse_ids(items[1:], "item", blanks=True)
    parts = _parts_of(prepared)
    for part, lines in parts.items():
        path = folder / f"{prepared.name}.{part}.inter"
        with path.open("wb") as file:
            file.write(("\t".join(f"{name}:{kind}" for name, kind in HEADER.items()) + "\n").encode())
            for chunk in lines.chunks():
                frame = _frame(prepared, chunk, users, items)
                frame.write_csv(file, separator="\t", include_header=False, quote_style="never")
        _check(prepared, path, lines, users, items)
    order = _numbering(prepared, parts)
    _write_items(prepared, folder, order)
    (folder / f"{prepared.name}.yaml").write_text(_configuration(), encoding="utf-8")
    cut = int(sum(np.count_nonzero(lines.starts > prepared.offsets[lines.users]) for lines in parts.values()))
    notes = (
        [f"{cut} histories are longer than {LIST_LENGTH} items: the latest {LIST_LENGTH} are written"] if cut else []
    )
    return order, notes


def _parts_of(prepared: PreparedDataset) -> dict[str, _Lines]:
    """Every training item but a user's first is a target once; then each held-out item."""
    split, offsets = prepared.split, np.asarray(prepared.offsets)
    counts = np.maximum(split.training_end - split.start - 1, 0)
    users = np.repeat(np.arange(len(counts)), counts)
    targets = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts - split.start - 1, counts)
    found = {"train": (users, targets)}
    for part, name in (("valid", "validation"), ("test", "test")):
        asked = split.users(name)
        found[part] = (asked, split.held_out(name)[asked])
    return {
        part: _Lines(users, np.maximum(targets - LIST_LENGTH, offsets[users]), targets)
        for part, (users, targets) in found.items()
    }


def _frame(prepared: PreparedDataset, lines: _Lines, users: pl.Series, items: pl.Series) -> pl.DataFrame:
    rows, line = lines.list_rows()
    lists = (
        pl.DataFrame({"line": line, "item": items.gather(prepared.item_ids[rows]), "time": prepared.timestamps[rows]})
        .group_by("line", maintain_order=True)
        .agg(pl.col("item").str.join(" "), pl.col("time").cast(pl.String).str.join(" "))
    )
    values = {
        "user_id": users.gather(lines.users),
        "item_id_list": lists["item"],
        "item_id": items.gather(prepared.item_ids[lines.targets]),
        "timestamp_list": lists["time"],
        "timestamp": prepared.timestamps[lines.targets],
    }
    return pl.DataFrame(values)


def _check(prepared: PreparedDataset, path: Path, lines: _Lines, users: pl.Series, items: pl.Series) -> None:
    """Read a part back and compare its histories, targets and times with the prepared arrays."""
    user_ids, item_ids = pl.Enum(users), pl.Enum(items)
    done = 0
    for rows, _ in read_parts(path, tuple(HEADER), Reading([path])) if len(lines) else ():
        wanted = lines.cut(done, done + len(rows.frame))
        done += len(rows.frame)
        in_lists, line = wanted.list_rows()
        lists = {name: rows.frame[name].str.split(" ") for name in ("item_id_list", "timestamp_list")}
        lengths = np.bincount(line, minlength=len(wanted))
        same = all(np.array_equal(values.list.len().to_numpy(), lengths) for values in lists.values()) and all(
            np.array_equal(found, expected)
            for found, expected in (
                (_numbers(rows.frame["user_id"], user_ids), wanted.users),
                (_numbers(rows.frame["item_id"], item_ids), prepared.item_ids[wanted.targets]),
                (_numbers(lists["item_id_list"].explode(), item_ids), prepared.item_ids[in_lists]),
                (rows.frame["timestamp"].cast(pl.Int64).to_numpy(), prepared.timestamps[wanted.targets]),
                (lists["timestamp_list"].explode().cast(pl.Int64).to_numpy(), prepared.timestamps[in_lists]),
            )
        )
        if not same:
            where, rule = f"{path.name} line {rows.lines[0]} and on", "does not hold what was written to it"
            raise DataError(where, rule, remedy="Is the disk full?")
    if done != len(lines):
        raise DataError(path.name, f"must have {len(lines)} rows", done, "Is the disk full?")


def _numbers(tokens: pl.Series, ids: pl.Enum) -> Any:
    return tokens.cast(ids, strict=False).to_physical().fill_null(2**32 - 1).to_numpy()


def _numbering(prepared: PreparedDataset, parts: dict[str, _Lines]) -> Int64[np.ndarray, "V"]:
    """Internal ids in the order in which RecBole meets them: as targets, then in the item table."""
    targets = [np.asarray(prepared.item_ids[lines.targets], np.int64) for lines in parts.values()]
    seen = np.concatenate([[0], *targets, np.arange(prepared.num_item_rows)])
    _, first = np.unique(seen, return_index=True)
    return seen[np.sort(first)]


def _write_items(prepared: PreparedDataset, folder: Path, order: Int64[np.ndarray, "V"]) -> None:
    table, kinds = prepared.item_table(), prepared.manifest.get("item_columns", {})
    frame, header = table.select(pl.col("item_id").gather(order[1:])), ["item_id:token"]
    for name in table.columns[1:]:
        texts, kind = table[name].gather(order[1:]), kinds.get(name, "token_seq")
        if kind == "name_seq":  # RecBole splits at blanks
            names = [" ".join("_".join(value.split()) for value in split_sequence(text, kind)) for text in texts]
            texts, kind = pl.Series(names, dtype=pl.String), "token_seq"
        texts = texts.str.replace_all(r"\s+", " ").str.replace(r'^"+', "''")  # pandas takes a leading quote for its own
        header.append(f"{name.replace(':', '_').replace(' ', '_')}:{kind}")
        frame = frame.with_columns(texts.alias(name))
    path = folder / f"{prepared.name}.item"
    with path.open("wb") as file:
        file.write(("\t".join(header) + "\n").encode())
        frame.write_csv(file, separator="\t", include_header=False, quote_style="never")
    if read_table(path, required=("item_id",)).frame["item_id"].to_list() != frame["item_id"].to_list():
        raise DataError(path.name, "does not hold what was written to it", remedy="Is the disk full?")


def _refuse_ids(ids: pl.Series, what: str, *, blanks: bool) -> None:
    is_bad = ids.is_in(_NO_VALUE) | ids.str.contains('^"|[\t\r\n]')
    if blanks:
        is_bad |= ids.str.contains(" ", literal=True)
    bad = ids.filter(is_bad)
    if len(bad):
        rule = "cannot be read by RecBole, as a blank, tab, line end or leading quote, or a word for nothing"
        raise DataError(f"{what} id {bad[0]!r}", f"{rule} ({len(bad)} such ids)", remedy="Export csv instead")


def _configuration() -> str:
    return f"""# The data part of a RecBole configuration: run_recbole(model=..., dataset=..., config_file_list=[this file])
# Models with loss_type CE, SASRec for one, want train_neg_sample_args: null beside it.
USER_ID_FIELD: user_id
ITEM_ID_FIELD: item_id
TIME_FIELD: timestamp
LIST_SUFFIX: _list
MAX_ITEM_LIST_LENGTH: {LIST_LENGTH}
load_col:
  inter: [{", ".join(HEADER)}]
  item: [item_id]
benchmark_filename: [train, valid, test]
alias_of_item_id: [item_id_list]
eval_args:
  group_by: user
  order: TO
  split: {{LS: valid_and_test}}
  mode: full
"""
