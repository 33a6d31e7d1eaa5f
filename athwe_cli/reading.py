"""How far the reading of source files is: a bar with bytes in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from athwe_cli.render import Output

_QUIET_SECONDS = 1.0  # what is read in less needs no bar
_SECONDS_BETWEEN_LINES = 15.0


class ReadingDisplay:
    """Listens to the reader: bytes read and in all, as they lie on disk."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._began = self._last_line = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Show `done` of `total` bytes."""
        now = time.monotonic()
        if self._progress is not None:
            self._progress.update(self._task, completed=done)
        elif now - self._began < _QUIET_SECONDS:
            return
        elif self.output.err.is_terminal and done < total:
            self._begin(done, total)
        elif now - self._last_line > _SECONDS_BETWEEN_LINES and done < total:
            self._last_line = now
            left = (now - self._began) / max(done, 1) * (total - done)
            self.output.note(f"read {done / 1e6:,.0f} of {total / 1e6:,.0f} MB, {left:,.0f} s left")
        if done >= total:
            self.close()

    def _begin(self, done: int, total: int) -> None:
        columns = (TextColumn("reading"), BarColumn(bar_width=24), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self.output.err, transient=True)
        self._task = self._progress.add_task("reading", total=total, completed=done)
        self._progress.start()

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = None
