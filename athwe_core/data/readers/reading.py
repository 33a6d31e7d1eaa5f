"""How far the reading of some files has come, and what became of each of their rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from athwe_core.errors import DataError
from athwe_core.messages import brief

ByteProgress = Callable[[int, int], None]
"""Called with the bytes read so far and the bytes in all, both as they lie on disk."""
UNREADABLE = "could not be read"
"""Why a row was dropped, as `RowCounts.dropped` names it."""
_SHOWN = 3
_ENOUGH_TO_JUDGE = 1000  # bad lines, before a file is given up half-way


def ignore(*_: object) -> None:
    """Do nothing: the default of a callback."""


@dataclass(frozen=True)
class RowCounts:
    """What became of the rows of some files.

    Attributes:
        in_files: Rows in the files.
        read: Rows that were read.
        dropped: Reason -> rows that were dropped for it. `in_files` is `read` plus these.
    """

    in_files: int
    read: int
    dropped: dict[str, int] = field(default_factory=dict)

    def without(self, reason: str, count: int) -> RowCounts:
        """The counts after `count` rows that were read are dropped for `reason`."""
        dropped = {**self.dropped, reason: self.dropped.get(reason, 0) + count} if count else self.dropped
        return RowCounts(self.in_files, self.read - count, dropped)

    def sentence(self) -> str:
        """One line, e.g. `rows: 240 in the files, 236 read, 4 dropped: 4 could not be read`."""
        dropped = sum(self.dropped.values())
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
        end = f", {dropped:,} dropped: {reasons}" if dropped else ""
        return f"rows: {self.in_files:,} in the files, {self.read:,} read{end}"


@dataclass
class _FileCounts:
    """Counts of one file. Every line is part of a row, of a bad row, or neither (`num_other`: header, blank lines)."""

    position: int = 0
    num_lines: int = 0
    num_rows: int = 0
    num_row_lines: int = 0
    num_other: int = 0
    num_bad: int = 0
    num_bad_lines: int = 0
    num_dropped: Counter[str] = field(default_factory=Counter)
    shown: list[str] = field(default_factory=list)


@dataclass
class Reading:
    """Progress and row counts of some files, and the lines that could not be read.

    Attributes:
        paths: The files, in the order of reading.
        max_bad_lines: Largest share of a file's lines, in [0, 1], that may be unreadable and are then dropped.
        progress: Called as the reading goes on.
        notes: One sentence for each thing the user should know.
    """

    paths: Sequence[Path] = ()
    max_bad_lines: float = 0.0
    progress: ByteProgress = ignore
    notes: list[str] = field(default_factory=list)
    _files: dict[Path, _FileCounts] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Bytes of all files on disk."""
        return sum(path.stat().st_size for path in self.paths)

    def advance(self, path: Path, position: int, num_lines: int) -> None:
        """Record that `path` has been read up to a byte, and how many lines that were.

        Raises:
            DataError: So many lines were bad that the whole file cannot keep within `max_bad_lines` any more.
        """
        file = self._of(path)
        file.position, file.num_lines = position, num_lines
        self.progress(sum(found.position for found in self._files.values()), self.num_bytes)
        if file.num_bad_lines >= _ENOUGH_TO_JUDGE and position:
            self._refuse_above(path, self.max_bad_lines * num_lines * path.stat().st_size / position)

    def add_rows(self, path: Path, num_rows: int, num_lines: int) -> None:
        """Count rows that were split into fields, and the lines that they take up (more where a cell holds line ends)."""
        self._of(path).num_rows += num_rows
        self._of(path).num_row_lines += num_lines

    def skip_lines(self, path: Path, count: int = 1) -> None:
        """Count lines that hold no row: a header, blank lines."""
        self._of(path).num_other += count

    def bad_line(self, path: Path, number: int, reason: str, text: str | bytes = "", *, num_lines: int = 1) -> None:
        """Count a row that could not be split into fields, and is dropped.

        Args:
            path: Its file.
            number: Line it begins on, counted from 1.
            reason: What is wrong, as a phrase that continues `line N`.
            text: What is shown of it.
            num_lines: Lines that it takes up.
        """
        file = self._of(path)
        file.num_bad += 1
        file.num_bad_lines += num_lines
        self._show(file, number, reason, text)

    def bad_row(self, path: Path, number: int, reason: str, text: str = "") -> None:
        """Count a row, counted by `add_rows` before, whose values cannot be used, and which is dropped."""
        file = self._of(path)
        file.num_dropped[UNREADABLE] += 1
        file.num_bad_lines += 1
        file.num_row_lines -= 1
        self._show(file, number, reason, text)

    def drop(self, path: Path, reason: str, count: int) -> None:
        """Count rows, counted by `add_rows` before, that are dropped for another reason."""
        if count:
            self._of(path).num_dropped[reason] += count

    def finish(self, path: Path, *, are_rows_counted: bool = True) -> None:
        """Record that all rows of `path` have been looked at; bad lines become a note.

        Args:
            path: A file.
            are_rows_counted: Its rows were counted by `add_rows`; else lines may be skipped.
        Raises:
            DataError: More than the share `max_bad_lines` was bad, or lines are in no row that was read.
        """
        file = self._of(path)
        self._refuse_above(path, self.max_bad_lines * file.num_lines)
        num_known = file.num_row_lines + file.num_bad_lines + file.num_other
        if are_rows_counted and num_known != file.num_lines:
            rule = f"has {file.num_lines} lines, and the rows that were read account for {num_known}"
            remedy = "Are its quotes closed? Where quotes are ordinary characters, try: --quotes none"
            raise DataError(str(path), rule, remedy=remedy)
        if file.num_bad_lines:
            shown = "; ".join(file.shown)
            num_bad = file.num_bad_lines
            self.notes.append(
                f"{path.name}: {num_bad} of {file.num_lines} lines {UNREADABLE} and were dropped: {shown}"
            )

    def take_over(self, other: Reading) -> None:
        """Take over the counts and notes of files that were read elsewhere."""
        self._files |= other._files
        self.notes += other.notes

    def counts(self, paths: Iterable[Path]) -> RowCounts:
        """What became of the rows of `paths`."""
        files = [self._files[path] for path in dict.fromkeys(paths) if path in self._files]
        dropped: Counter[str] = Counter()
        for file in files:
            dropped.update({UNREADABLE: file.num_bad} if file.num_bad else {})
            dropped.update(file.num_dropped)
        in_files = sum(file.num_rows + file.num_bad for file in files)
        return RowCounts(in_files, in_files - dropped.total(), dict(dropped))

    def _of(self, path: Path) -> _FileCounts:
        return self._files.setdefault(path, _FileCounts())

    def _show(self, file: _FileCounts, number: int, reason: str, text: str | bytes) -> None:
        if len(file.shown) < _SHOWN:
            file.shown.append(f"line {number} {reason}" + (f": {brief(text)}" if text else ""))

    def _refuse_above(self, path: Path, most: float) -> None:
        file = self._of(path)
        if file.num_bad_lines > most:
            remedy = "Repair the file, or raise --max-bad-lines to drop such lines"
            if all("must be UTF-8 text" in reason for reason in file.shown):
                remedy = f"Is it of another encoding? Convert it: iconv -f WINDOWS-1252 -t UTF-8 {path.name}"
            raise DataError(
                str(path),
                f"may have at most {100 * self.max_bad_lines:g} % lines that cannot be read",
                f"{file.num_bad_lines} of {file.num_lines}: {'; '.join(file.shown)}",
                remedy,
            )
