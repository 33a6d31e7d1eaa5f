"""Progress of `prepare` and `download`: a bar in a terminal, a line from time to time elsewhere."""

from __future__ import annotations

import time

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from athwe_cli.render import Output

_QUIET_SECONDS = 1.0  # shorter reading needs no bar
_SECONDS_BETWEEN_LINES = 20.0


class _Bar:
    """A bar that is shown while work goes on, in a terminal only."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._last_line = time.monotonic()

    def close(self) -> None:
        """Remove the bar."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = None

    def _open(self, what: str, *columns: ProgressColumn, done: int, total: int | None) -> None:
        shown = (TextColumn("{task.description}"), BarColumn(bar_width=24), *columns)
        self._progress = Progress(*shown, console=self.output.err, transient=True)
        self._task = self._progress.add_task(what, total=total, completed=done, rate="")
        self._progress.start()

    def _is_time_for_a_line(self) -> bool:
        now = time.monotonic()
        if now - self._last_line <= _SECONDS_BETWEEN_LINES:
            return False
        self._last_line = now
        return True


class ReadingDisplay(_Bar):
    """Progress of reading, in bytes on disk."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._began = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Show `done` of `total` bytes."""
        seconds = time.monotonic() - self._began
        if self._progress is not None:
            self._progress.update(self._task, completed=done)
        elif seconds < _QUIET_SECONDS:
            return
        elif self.output.err.is_terminal and done < total:
            self._open("reading", DownloadColumn(), TimeRemainingColumn(), done=done, total=total)
        elif done < total and self._is_time_for_a_line():
            left = seconds / max(done, 1) * (total - done)
            self.output.note(f"read {done / 1e6:,.0f} of {total / 1e6:,.0f} MB, {left:,.0f} s left")
        if done >= total:
            self.close()


class DownloadDisplay(_Bar):
    """Progress of a download, in bytes on disk, one file after another."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._name = ""

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show `done` of `total` bytes of a file; a total of 0 is unknown."""
        if name != self._name:
            self.close()
            self._name = name
            if self.output.err.is_terminal:
                columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
                self._open(name, *columns, done=done, total=total or None)
        if self._progress is not None:
            self._progress.update(self._task, completed=done)
        elif self._is_time_for_a_line():
            of = f" of {total / 1e6:,.1f}" if total else ""
            self.output.note(f"{name}: {done / 1e6:,.1f}{of} MB")
        if total and done == total:
            self.close()

    def close(self) -> None:
        """Remove the bar."""
        super().close()
        self._name = ""


class WorkDisplay(_Bar):
    """Progress of encoding, downloading and clustering, one after another."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self.has_worked = False
        self._what = ""

    def __call__(self, what: str, done: int, total: int, per_second: float) -> None:
        """Show `done` of `total` of `what`, `per_second` of them; a total of 0 is unknown."""
        if what != self._what:
            self._begin(what, total)
        rate = f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.1f}/s" if per_second else ""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, rate=rate)
        elif total and (done == total or self._is_time_for_a_line()):
            left = f", {(total - done) / per_second:,.0f} s left" if per_second and done < total else ""
            self.output.note(f"{what}: {done:,} of {total:,}{', ' if rate else ''}{rate}{left}")
        if total and done == total:
            self.close()

    def close(self) -> None:
        """Remove the bar."""
        super().close()
        self._what = ""

    def _begin(self, what: str, total: int) -> None:
        self.close()
        self._what, self._last_line, self.has_worked = what, time.monotonic(), True
        if self.output.err.is_terminal:
            columns = (MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[rate]}"))
            self._open(what, *columns, done=0, total=total or None)
        else:
            self.output.note(what)
