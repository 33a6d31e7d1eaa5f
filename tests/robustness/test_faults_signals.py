"""Signals, second processes and errors of libraries in workers: saved, refused, said; and nothing is left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_runs import DEMO, SMALL, call

from athwe_cli.training_display import TrainingDisplay
from athwe_core.data import prepare as preparing
from athwe_core.data.store.dataset import list_versions
from athwe_core.runs.checkpoint import load_state
from athwe_core.runs.find import RunFolder

NAME = "demo/hm4sr/run"
TRAIN = ("train", "--dataset", "demo", "--name", "run", "--json", *SMALL)
RESUME = ("train", "--resume", NAME, "--json")
CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
SIGNALLED_TWICE = """
import os, sys
from athwe_cli.training_display import TrainingDisplay
from athwe_core.runs import checkpoint
number, place = int(sys.argv.pop(1)), sys.argv.pop(1)
steps = []
real = checkpoint.save_file

def step_ends(*_):
    steps.append(1)
    if len(steps) == 3:
        os.kill(os.getpid(), number)
        if place == "step":
            os.kill(os.getpid(), number)

def save_file(*arguments):
    real(*arguments)
    if len(steps) == 3:
        os.kill(os.getpid(), number)

TrainingDisplay.step_ends = step_ends
checkpoint.save_file = save_file
from athwe_cli.__main__ import main
main()
"""
"""`athwe ARGUMENTS` that is signalled at its third step, and again there or while it saves because of the first."""
BREAKS_WORKERS = """
import sys
if "athwe_core.analysis.experiments.run_one" in sys.orig_argv:
    import torch
    def step(*_, **__):
        raise ZeroDivisionError("a library broke\\nin two lines")
    torch.optim.Adam.step = step
"""
"""A `sitecustomize.py`: in processes that train one run of an experiment, Adam fails."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data of 100 users."""
    folder = tmp_path_factory.mktemp("world")
    assert call(folder, "prepare", *DEMO).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def straight(world: Path) -> RunFolder:
    """A run that nothing interrupted; what it printed is in `printed.json`."""
    found = call(world, *TRAIN)
    assert found.exit_code == 0, found.output
    run = RunFolder(world / "runs" / NAME)
    (world / "printed.json").write_text(found.stdout)
    return run


def printed(world: Path) -> dict[str, Any]:
    found = json.loads((world / "printed.json").read_text())
    return {key: value for key, value in found.items() if key not in ("run", "seconds_per_epoch")}


def state(run: RunFolder) -> tuple[Any, ...]:
    """What must be the same to the bit."""
    records = [{k: v for k, v in record.items() if "seconds" not in k} for record in run.metrics()]
    files = [folder / "weights.safetensors" for folder in (run.best, run.last)]
    return records, [path.read_bytes() for path in files], run.per_user.read_bytes()


def require_same_end(found: Any, run: RunFolder, straight: RunFolder, world: Path) -> None:
    """The resumed run printed the same object, and left the same files."""
    assert found.exit_code == 0, found.output
    shown = json.loads(found.stdout)
    assert {key: value for key, value in shown.items() if key not in ("run", "seconds_per_epoch")} == printed(world)
    assert state(run) == state(straight)
    names = [{str(path.relative_to(each.path)) for path in each.path.rglob("*")} for each in (run, straight)]
    assert names[0] == names[1]


def athwe(folder: Path, *arguments: str, code: str | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """`athwe ARGUMENTS` in a process of its own, with its places under `folder`."""
    start = ["-m", "athwe_cli"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *start, *arguments],
        env=os.environ | places(folder) | more,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def places(folder: Path) -> dict[str, str]:
    return {f"ATHWE_{name}": str(folder / name.lower()) for name in ("DATA", "PREPARED", "RUNS")} | {"COLUMNS": "200"}


def at_step(monkeypatch: pytest.MonkeyPatch, wanted: int, act: Callable[[], object]) -> None:
    """Do something when the display hears of the step, counted from 1 over the whole command."""
    steps: list[int] = []

    def step_ends(*_: Any) -> None:
        steps.append(1)
        if len(steps) == wanted:
            act()

    monkeypatch.setattr(TrainingDisplay, "step_ends", step_ends)


def steps_an_epoch(straight: RunFolder) -> int:
    return int(straight.metrics()[0]["steps"])


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_ends_the_step_saves_and_the_resumed_run_prints_the_same(
    number: int, code: int, world: Path, straight: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / NAME)
    second = steps_an_epoch(straight) + 2
    with monkeypatch.context() as patched:
        at_step(patched, second, lambda: os.kill(os.getpid(), number))
        stopped = call(world, *TRAIN, runs=tmp_path)
    assert stopped.exit_code == code, stopped.output
    assert stopped.stdout == ""
    assert f"stopped and saved. Resume with: athwe train --resume {NAME}" in stopped.stderr
    progress = load_state(run.last)["progress"]
    assert (progress["epoch"], progress["step"]) == (1, 2), "the step was finished and saved"
    assert run.manifest()["status"] == "interrupted"
    require_same_end(call(world, *RESUME, runs=tmp_path), run, straight, world)


def test_epoch_records_are_cut_back_to_the_checkpoint(
    world: Path, straight: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a run was killed after an epoch's record was written and before its checkpoint was."""
    run = RunFolder(tmp_path / NAME)
    with monkeypatch.context() as patched:
        at_step(patched, steps_an_epoch(straight) + 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert call(world, *TRAIN, runs=tmp_path).exit_code == 143
    assert len(run.metrics()) == 1
    (run.path / "metrics.jsonl").write_bytes((straight.path / "metrics.jsonl").read_bytes())
    seen: list[int] = []
    with monkeypatch.context() as patched:
        at_step(patched, 1, lambda: seen.append(len(run.metrics())))
        found = call(world, *RESUME, runs=tmp_path)
    assert seen == [1]
    require_same_end(found, run, straight, world)


@pytest.mark.parametrize(
    ("number", "place"),
    [
        (signal.SIGTERM, "saving"),
        pytest.param(signal.SIGINT, "step", marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, "step", marks=pytest.mark.long),
        pytest.param(signal.SIGINT, "saving", marks=pytest.mark.long),
    ],
)
def test_a_second_signal_ends_it_at_once_and_harms_nothing(
    number: int, place: str, world: Path, straight: RunFolder, tmp_path: Path
) -> None:
    """Also in the middle of the save that the first one asked for."""
    (tmp_path / "prepared").symlink_to(world / "prepared")
    ended = athwe(tmp_path, str(number), place, *TRAIN, "--checkpoint-minutes", "1e-9", code=SIGNALLED_TWICE)
    assert ended.returncode == -number, ended.stderr
    run = RunFolder(tmp_path / "runs" / NAME)
    assert load_state(run.last)["progress"]["step"] == 2
    require_same_end(call(world, *RESUME, runs=tmp_path / "runs"), run, straight, world)


@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), CODES)
def test_the_program_itself_signalled_from_outside(
    number: int, code: int, world: Path, straight: RunFolder, tmp_path: Path
) -> None:
    (tmp_path / "prepared").symlink_to(world / "prepared")
    long = [argument if argument != "2" else "300" for argument in TRAIN]
    command = [sys.executable, "-m", "athwe_cli", *long]
    with subprocess.Popen(
        command, env=os.environ | places(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch   3" in line:
                break
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == code
    assert output == ""
    run = RunFolder(tmp_path / "runs" / NAME)
    epochs = load_state(run.last)["progress"]["epoch"]
    assert epochs >= 3
    assert [record["epoch"] for record in run.metrics()] == list(range(1, epochs + 1))
    ours, theirs = (each.metrics()[:2] for each in (run, straight))
    assert [record["losses"] for record in ours] == [record["losses"] for record in theirs]
    assert not (run.path / ".lock").exists()


def test_a_second_process_on_a_run_is_refused_with_owner_and_age(
    world: Path, straight: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prepared").symlink_to(world / "prepared")
    second: list[subprocess.CompletedProcess[str]] = []
    with monkeypatch.context() as patched:
        at_step(patched, 2, lambda: second.append(athwe(tmp_path, *RESUME)))
        first = call(world, *TRAIN, runs=tmp_path / "runs")
    (refused,) = second
    assert refused.returncode == 3
    rule = (
        rf"error: run {NAME} is being trained by process {os.getpid()}, for \d+ s \(since [-0-9: ]+ UTC\)\. Wait for it"
    )
    assert re.search(rule, refused.stderr), refused.stderr
    assert "Traceback" not in refused.stderr
    require_same_end(first, RunFolder(tmp_path / "runs" / NAME), straight, world)


def test_a_second_prepare_of_a_data_set_is_refused_with_owner_and_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second: list[subprocess.CompletedProcess[str]] = []
    real = preparing._write

    def write(*arguments: Any) -> Any:
        second.append(athwe(tmp_path, "prepare", *DEMO))
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(preparing, "_write", write)
        first = call(tmp_path, "prepare", *DEMO)
    assert first.exit_code == 0, first.output
    (refused,) = second
    assert refused.returncode == 3
    rule = rf"error: data set 'demo' is being prepared by process {os.getpid()}, for \d+ s \(since [-0-9: ]+ UTC\)\."
    assert re.search(rule, refused.stderr), refused.stderr
    assert len(list_versions("demo", prepared_dir=tmp_path / "prepared")) == 1
    names = {path.name for path in (tmp_path / "prepared" / "demo").iterdir()}
    assert not {name for name in names if name.startswith(".")}


@pytest.mark.long
def test_an_error_of_a_library_in_a_worker_shows_as_what_it_is_and_leaves_nothing(world: Path, tmp_path: Path) -> None:
    (tmp_path / "prepared").symlink_to(world / "prepared")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BREAKS_WORKERS)
    sizes = SMALL[: SMALL.index("--preset")]
    command = [sys.executable, "-m", "athwe_cli", "ablate", "--dataset", "demo", "--remove", "IDCL", "--seeds", "1"]
    sizes = [part for part in sizes if part not in ("--batch-targets", "200")]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with subprocess.Popen(
        [*command, "--epochs", "1", "--jobs", "2", *sizes],
        env=os.environ | places(tmp_path) | {"PYTHONPATH": str(tmp_path / "site"), "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        output, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert output == ""
    line = r"^error: run demo/athwe/\S+ was ended by ZeroDivisionError: a library broke\. athwe --debug shows where it arose$"
    assert re.search(line, errors, re.MULTILINE), errors
    assert "Traceback" not in errors
    require_gone(process.pid)
    left = [
        path for path in (tmp_path / "runs").rglob("*") if path.name.startswith(".") or path.suffix in (".new", ".old")
    ]
    assert left == []
    assert list(scratch.iterdir()) == []


def require_gone(group: int) -> None:
    """No process of the group runs any more; one that was told to end a moment ago may take that moment."""
    for _ in range(50):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a process is left")
