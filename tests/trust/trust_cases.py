"""Folders of the tests' own, the command line in them, and content that wants more than to be read."""

import pickle
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner, Result

from athwe_cli.app import app

SMALL = [
    *("--set", "model.hidden_size=8", "--set", "model.inner_size=8", "--set", "model.num_layers=1"),
    *("--set", "model.max_length=8", "--set", "training.precision=fp32", "--set", "training.device=cpu"),
]
"""A network that learns in no time."""
NUM_USERS, NUM_ITEMS = 12, 9


def call(folder: Path, *arguments: str, **environment: str) -> Result:
    """Run `athwe ARGUMENTS` with data, prepared versions and runs under `folder`."""
    places = {f"ATHWE_{name}": str(folder / name.lower()) for name in ("DATA", "PREPARED", "RUNS")}
    runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1", "ATHWE_DATASET": "", **places, **environment})
    return runner.invoke(app, list(arguments))


def error_line(result: Result, *exit_codes: int) -> str:
    """The one line of a refusal; fails for a traceback, another exit code, or more lines."""
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code in exit_codes, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.output
    assert "Traceback" not in result.output
    return lines[0]


def write_atomic(
    folder: Path, name: str, *, items: dict[str, dict[str, str]] | None = None, users: list[str] | None = None
) -> Path:
    """A small data set as atomic files; every user takes every item in turn.

    Args:
        folder: of data sets.
        items: item id to column to text; None = ids only.
    Returns: its folder.
    """
    users = users or [f"u{number}" for number in range(NUM_USERS)]
    item_ids = list(items) if items else [f"i{number}" for number in range(NUM_ITEMS)]
    rows = [
        (user, item_ids[(number + step) % len(item_ids)], 1_400_000_001 + 1000 * number + 86_400 * step)
        for number, user in enumerate(users)
        for step in range(len(item_ids))
    ]
    target = folder / name
    target.mkdir(parents=True)
    lines = ["user_id:token\titem_id:token\ttimestamp:float", *("\t".join(map(str, row)) for row in rows)]
    (target / f"{name}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if items:
        columns = list(next(iter(items.values())))
        lines = ["\t".join(["item_id:token", *(f"{column}:token_seq" for column in columns)])]
        lines += ["\t".join([item, *(values[column] for column in columns)]) for item, values in items.items()]
        (target / f"{name}.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


@dataclass(frozen=True)
class Payload:
    """Unpickled, it writes `marker`; checked to do so when it is made."""

    marker: Path

    def __post_init__(self) -> None:
        pickle.loads(pickle.dumps(self))
        assert self.has_run
        self.marker.unlink()

    def __reduce__(self) -> tuple[object, tuple[Path, str]]:
        return Path.write_text, (self.marker, "ran")

    @property
    def has_run(self) -> bool:
        return self.marker.exists()


def files_below(folder: Path) -> set[str]:
    """Every file and folder, as paths relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
