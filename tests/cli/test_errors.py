"""Errors of a command: one line on stderr and an exit code, a traceback with --debug."""

from collections.abc import Iterator

import pytest
import typer

from athwe_cli import errors
from athwe_core.errors import ConfigError, DataError

FULL = OSError(28, "No space left on device", "runs/a")


def command(error: Exception) -> None:
    @errors.one_line_errors
    def fails() -> None:
        raise error

    fails()


@pytest.fixture
def debug() -> Iterator[None]:
    errors.debug["on"] = True
    yield
    errors.debug["on"] = False


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("--k", "must be at least 1", 0), 2, "error: --k must be at least 1, got 0"),
        (DataError("Toys.inter", "is empty"), 3, "error: Toys.inter is empty"),
        (FULL, 1, "error: runs/a cannot be used: No space left on device"),
        (OSError("refused"), 1, "error: the operating system reports an error: refused"),
        (ConfigError("\x1b[31mred\n", "is bad"), 2, "error: [31mred is bad"),
    ],
)
def test_one_line_and_the_exit_code(error: Exception, code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught:
        command(error)
    assert caught.value.exit_code == code
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize("error", [DataError("Toys.inter", "is empty"), FULL])
@pytest.mark.usefixtures("debug")
def test_debug_lets_the_error_through(error: Exception) -> None:
    with pytest.raises(type(error)):
        command(error)


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        command(ZeroDivisionError())


def test_the_process_is_named_under_torchrun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(typer.Exit):
        command(DataError("Toys.inter", "is empty"))
    assert capsys.readouterr().err == "[process 1] error: Toys.inter is empty\n"
