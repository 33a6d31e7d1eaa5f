"""Remedies of the commands beside `prepare`, and commands for other programs: typed as they stand, they get further."""

import ast
import bz2
import gzip
import io
import lzma
import re
import shlex
import shutil
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from cli_runner import SMALL, call, one_error_line
from typer.testing import Result

from athwe_core.analysis.pages.origin import origin
from athwe_core.runs.run import INTERRUPTED, RunFolder

ROOT = Path(__file__).parents[2]
CONSTANT = ("--set", "training.schedule.kind=constant")
DRY = ("train", "--dataset", "demo", "--dry-run", *SMALL)


@dataclass(frozen=True)
class Case:
    """A command that is refused, or that gives a hint.

    Attributes:
        arguments: Typed first.
        remedy: Pattern of the message; its group is typed: a whole command (`athwe ...`), options to add or change, or the
            right spelling of the last word.
        value: Typed behind it, where the remedy names an option without a value.
        is_error: The first command fails with one error line.
    """

    arguments: tuple[str, ...]
    remedy: str
    value: str = ""
    is_error: bool = True


CASES = {
    "an unknown run": Case(("evaluate", "--run", "frist"), r"Did you mean (first)"),
    "a run by preset and name": Case(("evaluate", "--run", "ahtwe/first"), r"Did you mean (athwe/first)"),
    "an unknown preset": Case((*DRY, "--preset", "hm4rs"), r"Did you mean (hm4sr)\?"),
    "an unknown key": Case((*DRY, "--set", "model.dropot=0.1"), r"Did you mean (model\.dropout)\?", "=0.1"),
    "an unknown data set": Case(("audit", "--dataset", "dmeo"), r"did you mean '(demo)'\?"),
    "a name that is taken": Case(
        ("train", "--dataset", "demo", "--name", "first", *SMALL), r"go on with (--resume \S+), or"
    ),
    "a run that is finished": Case(
        ("train", "--resume", "other"), r"To continue it: (athwe train --resume \S+ --epochs \d+)", is_error=False
    ),
    "a run whose learning rate has fallen": Case(
        ("train", "--resume", "first"), r"To train longer: (athwe train .* --epochs \d+)", "--dry-run", is_error=False
    ),
    "a form that looks ahead": Case(
        (*DRY, "--set", "model.wavelet.form=centred"), r"Use (--batching prefix), or --set model\.wavelet\.form=causal"
    ),
    "a form that looks ahead, changed": Case(
        (*DRY, "--set", "model.wavelet.form=centred"), r"or (--set model\.wavelet\.form=causal)$"
    ),
    "placeholders without times": Case(
        (*DRY, "--preset", "hm4sr", "--set", "model.temporal_moe.enabled=false"), r"Use (--set losses\.pcl\.weight=0)$"
    ),
    "diversity without sparse experts": Case(
        (*DRY, "--set", "losses.diversity.weight=0.1", "--set", "model.temporal_moe.kind=dense"),
        r"Use (--set losses\.diversity\.weight=0)$",
    ),
    "no user of a case study": Case(("case-study", "--run", "first", "--no-html"), r"Try (--random 1)$"),
    "an unknown user": Case(("case-study", "--run", "first", "--no-html", "--user", "?"), r"Try (--random 1)$"),
    "a user by comparison": Case(
        ("case-study", "--run", "first", "--no-html", "--pick", "improved"), r"Add (--against) RUN", "second"
    ),
    "runs that cannot be compared": Case(("compare", "first", "other"), r"or add (--force) to see"),
    "an export that is there": Case(
        ("prepare", "--dataset", "demo", "--export", "csv", "--to", "OUT"), r"Add (--overwrite) to replace"
    ),
    "raw files without a name": Case(("prepare", "--raw", "LOG"), r"(--dataset) must name", "log"),
    "an unknown version": Case(
        ("audit", "--dataset", "demo", "--version", "x"), r"Or run: (athwe prepare --dataset demo)"
    ),
}


@pytest.fixture(scope="module")
def remedy_world(world: Path) -> Path:
    """Also a second run of the same kind, a run that leaves seen items out, an export, and a log."""
    train = ("train", "--dataset", "demo", "--epochs", "1", *SMALL)
    for arguments in (
        (*train, "--name", "second", "--seed", "1"),
        (*train, "--name", "other", "--set", "evaluation.exclude_seen=true", *CONSTANT),
        ("prepare", "--dataset", "demo", "--export", "csv", "--to", str(world / "out")),
    ):
        done = call(world, *arguments)
        assert done.exit_code == 0, done.output
    rows = [f"u{user},i{(user + step) % 6},{1_400_000_001 + step}\n" for user in range(7) for step in range(6)]
    (world / "log.csv").write_text("user,item,time\n" + "".join(rows))
    return world


@pytest.mark.parametrize("name", CASES)
def test_a_remedy_gets_further(remedy_world: Path, name: str) -> None:
    case = CASES[name]
    places = {"OUT": str(remedy_world / "out"), "LOG": str(remedy_world / "log.csv")}
    arguments = [places.get(word, word) for word in case.arguments]
    first = call(remedy_world, *arguments)
    message = one_error_line(first) if case.is_error else first.stderr
    assert (first.exit_code != 0) == case.is_error
    found = re.search(case.remedy, message)
    assert found, message
    again = typed(remedy_world, arguments, found[1], case.value)
    assert again.exit_code == 0, again.output


def typed(folder: Path, arguments: list[str], remedy: str, value: str) -> Result:
    """Do what the message says."""
    words = shlex.split(f"{remedy} {value}")
    if words[0] == "athwe":
        return call(folder, *words[1:])
    if words[0] == "--resume":
        return call(folder, "train", *words)
    if not words[0].startswith("--"):
        return call(folder, *arguments[:-1], remedy + value)
    if words[0] == "--set":
        key = words[1].split("=")[0]
        places = [n for n, word in enumerate(arguments) if word.startswith(f"{key}=")]
        arguments = [word for n, word in enumerate(arguments) if not {n, n + 1} & set(places)]
    if words[0] == "--random" and "--user" in arguments:
        arguments = arguments[: arguments.index("--user")]
    return call(folder, *arguments, *words)


def test_without_a_run_the_message_says_how_to_train_one(tmp_path: Path) -> None:
    message = one_error_line(call(tmp_path, "evaluate", "--dataset", "demo", "--run", "last"))
    command = re.search(r"Type: (athwe train --dataset demo)$", message)
    assert command, message
    prepared = call(tmp_path, "prepare", "--dataset", "demo", "--users", "150", "--items", "100")
    assert prepared.exit_code == 0, prepared.output
    trained = call(tmp_path, *command[1].split()[1:], "--epochs", "1", *SMALL)
    assert trained.exit_code == 0, trained.output
    assert call(tmp_path, "evaluate", "--dataset", "demo", "--run", "last").exit_code == 0


def test_lost_ranks_are_made_again(remedy_world: Path) -> None:
    ranks = remedy_world / "runs" / "demo" / "athwe" / "second" / "per_user.parquet"
    content = ranks.read_bytes()
    ranks.write_bytes(content[:-20])
    try:
        message = one_error_line(call(remedy_world, "compare", "first", "second"))
        command = re.search(r"Rank the users again: (athwe evaluate --run \S+ --split \w+)$", message)
        assert command, message
        assert call(remedy_world, *command[1].split()[1:]).exit_code == 0
        assert call(remedy_world, "compare", "first", "second").exit_code == 0
    finally:
        ranks.write_bytes(content)


def test_cluster_labels_are_made_for_the_term_that_is_off(remedy_world: Path) -> None:
    items = "item,title\n" + "".join(f"i{item},Toy {item} {'red' if item % 2 else 'blue'}\n" for item in range(6))
    (remedy_world / "goods.csv").write_text(items)
    files = ("--raw", str(remedy_world / "log.csv"), "--item-file", str(remedy_world / "goods.csv"))
    assert call(remedy_world, "prepare", "--dataset", "toys", *files).exit_code == 0
    train = ("train", "--dataset", "toys", "--dry-run", "--set", "losses.cluster.weight=1", *SMALL)
    shown = call(remedy_world, *train).stderr
    command = re.search(r"to have them: (athwe prepare --dataset toys --refresh clusters --clusters 100)", shown)
    assert command, shown
    made = call(remedy_world, *command[1].split()[1:])
    assert made.exit_code == 0, made.output
    assert "no cluster labels" not in call(remedy_world, *train).stderr


def test_an_unfinished_run_is_continued(remedy_world: Path) -> None:
    shutil.copytree(remedy_world / "runs/demo/athwe/second", remedy_world / "runs/demo/athwe/half")
    RunFolder(remedy_world / "runs/demo/athwe/half").update_manifest(status=INTERRUPTED)
    message = one_error_line(call(remedy_world, "compare", "first", "half"))
    command = re.search(r"Continue it with: (athwe train --resume \S+)$", message)
    assert command, message
    again = call(remedy_world, *command[1].split()[1:])
    assert again.exit_code == 0, again.output
    assert call(remedy_world, "compare", "first", "half").exit_code == 0


def test_the_split_is_written_for_a_program_that_has_other_users(tmp_path: Path) -> None:
    assert call(tmp_path, "prepare", "--dataset", "demo", "--users", "100", "--items", "100").exit_code == 0
    assert call(tmp_path, "train", "--dataset", "demo", "--epochs", "1", "--name", "first", *SMALL).exit_code == 0
    ranks = tmp_path / "runs/demo/athwe/first/per_user.parquet"
    few = pl.read_parquet(ranks).filter(pl.col("split") == "test").head(3)
    few.select("user_id", "rank").write_csv(tmp_path / "few.csv")
    message = one_error_line(call(tmp_path, "compare", "first", "--ranks", str(tmp_path / "few.csv")))
    command = re.search(r"which this writes: (athwe prepare --dataset demo --export recbole --to FOLDER)$", message)
    assert command, message
    done = call(tmp_path, *command[1].replace("FOLDER", str(tmp_path / "split")).split()[1:])
    assert done.exit_code == 0, done.output
    users = next((tmp_path / "split").rglob("demo.test.inter")).read_text().splitlines()[1:]
    assert len(users) == len(pl.read_parquet(ranks).filter(pl.col("split") == "test"))


def test_what_comes_next_after_preparing_and_training(tmp_path: Path) -> None:
    made = call(tmp_path, "prepare", "--dataset", "demo", "--users", "150", "--items", "100").stderr
    found = re.search(r"^Next: (athwe audit .*)\nThen: (athwe train .*)$", made, re.MULTILINE)
    assert found, made
    audit, train = found.groups()
    assert call(tmp_path, *audit.split()[1:], "--shuffles", "1").exit_code == 0
    trained = call(tmp_path, *train.split()[1:], "--epochs", "1", *SMALL)
    assert trained.exit_code == 0, trained.output
    found = re.search(r"^Next: (athwe case-study .*)\nOr: (athwe recommend .*)$", trained.stderr, re.MULTILINE)
    assert found, trained.stderr
    for command in found.groups():
        done = call(tmp_path, *command.replace("best.parquet", str(tmp_path / "best.parquet")).split()[1:])
        assert done.exit_code == 0, done.output
    page = origin(tmp_path / "page.html", dataset="demo", runs_dir=tmp_path / "runs", command="")
    commands = {related.kind: related.command for related in page.related}
    for name in ("Report", "Case studies"):
        done = call(tmp_path, *commands[name].split()[1:])
        assert done.exit_code == 0, done.output


TYPED = {
    "athwe audit --dataset {}": test_what_comes_next_after_preparing_and_training,
    "athwe case-study --dataset {} --random 1": test_what_comes_next_after_preparing_and_training,
    "athwe case-study --run {} --random 1": test_what_comes_next_after_preparing_and_training,
    "athwe recommend --run {} --to best": test_what_comes_next_after_preparing_and_training,
    "athwe report --dataset {}": test_what_comes_next_after_preparing_and_training,
    "athwe train --dataset {}": test_without_a_run_the_message_says_how_to_train_one,
    "athwe train --dataset demo": test_without_a_run_the_message_says_how_to_train_one,
    "athwe train --resume {}": test_an_unfinished_run_is_continued,
    "athwe train --resume {} --epochs {}": test_a_remedy_gets_further,
    "athwe train --dataset {} --preset {} --epochs {}": test_a_remedy_gets_further,
    "athwe prepare --dataset {}": test_a_remedy_gets_further,
    "athwe prepare --dataset {} --refresh clusters --clusters 100": test_cluster_labels_are_made_for_the_term_that_is_off,
    "athwe evaluate --run {} --split {}": test_lost_ranks_are_made_again,
    "athwe prepare --dataset {} --export recbole --to FOLDER": (
        test_the_split_is_written_for_a_program_that_has_other_users
    ),
}
"""A whole command in a message -> the test that types it."""
NOT_TYPED = {
    "athwe train --dataset {} --preset {} --config {}": "a comment in the file that tune writes",
    "athwe train --resume": "names no run: the message is about a disk that is full",
    "athwe prepare --{}-encoder MODEL --{}-layers 0": "needs a model of Hugging Face",
    "athwe prepare --dataset {}{}": "tests/cli/test_download.py types it, behind athwe download",
    "athwe recommend --run hf:OWNER/NAME --histories visits": "text of a model card",
}
COMMAND = re.compile(r"athwe [a-z]+(?:-[a-z]+)? --[^;,'\"`()\n]*?(?=[.;,'\"`()\n]|$| shows | for )")


def commands_in_messages() -> set[str]:
    """Commands with an option in the texts of the sources, `{}` for what a message fills in; docstrings and help left out."""
    found: set[str] = set()
    for path in sorted([*(ROOT / "athwe_core").rglob("*.py"), *(ROOT / "athwe_cli").rglob("*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            text = ""
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | parts:
                text = node.value
            found |= {command.strip() for command in COMMAND.findall(text)}
    return {command for command in found if not command.endswith(("--help", "--dry-run"))}


def test_every_command_in_a_message_is_typed_by_a_test_or_has_a_reason() -> None:
    assert commands_in_messages() == TYPED.keys() | NOT_TYPED.keys()


TEXT = "user,item,time\n" + "".join(f"u{u},i{(u + s) % 6},{1_400_000_001 + s}\n" for u in range(7) for s in range(6))
OBJECTS = (
    "["
    + ",".join(f'{{"user":"{u}","item":{i % 6},"time":{1_400_000_001 + i}}}' for u in range(7) for i in range(6))
    + "]"
)


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        info = tarfile.TarInfo("inner.csv")
        info.size = len(TEXT)
        archive.addfile(info, io.BytesIO(TEXT.encode()))
    return file.getvalue()


def parquet() -> bytes:
    file = io.BytesIO()
    pl.read_csv(io.StringIO(TEXT)).write_parquet(file)
    return file.getvalue()


PROGRAMS = {
    "utf-16": ("log.csv", TEXT.encode("utf-16"), "iconv"),
    "utf-32": ("log.csv", TEXT.encode("utf-32"), "iconv"),
    "latin-1": ("log.csv", TEXT.replace("\n", ",x\n").replace("time,x", "time,Größe").encode("latin-1"), "iconv"),
    "windows-1252": ("log.csv", TEXT.replace("u", "ü").replace("üser", "user").encode("cp1252"), "iconv"),
    "comments": ("log.csv", ("# a log\n# of today\n" + TEXT).encode(), "sed"),
    "a separator for spreadsheets": ("log.csv", ("sep=,\n" + TEXT).encode(), "sed"),
    "an old mac": ("log.csv", TEXT.replace("\n", "\r").encode(), "tr"),
    "a tar archive": ("log.tar.gz", tarred(), "tar"),
    "two files in a zip archive": ("log.zip", zipped("inner.csv", "other.txt"), "unzip"),
    "parquet in gzip": ("log.parquet.gz", gzip.compress(parquet()), "gzip"),
    "parquet in bzip2": ("log.parquet.bz2", bz2.compress(parquet()), "bzip2"),
    "parquet in xz": ("log.parquet.xz", lzma.compress(parquet()), "xz"),
    "a JSON array": ("log.json", OBJECTS.encode(), "jq"),
}
"""Name and content of a file, and the program that converts it."""
OUTPUTS = {"tar": "inner.csv", "unzip": "inner.csv", "gzip": "log.parquet", "bzip2": "log.parquet", "xz": "log.parquet"}
"""What a program leaves where it writes a file of its own; the others write to standard output."""


@pytest.mark.parametrize("name", [name for name, (_, _, program) in PROGRAMS.items() if shutil.which(program)])
def test_a_command_for_another_program_makes_a_file_that_is_read(tmp_path: Path, name: str) -> None:
    file, content, program = PROGRAMS[name]
    (tmp_path / file).write_bytes(content)
    message = one_error_line(call(tmp_path, "prepare", "--dataset", "log", "--raw", str(tmp_path / file)))
    found = re.search(rf": ({program} .*?)(?:, then name the files with --raw)?$", message)
    assert found, message
    command = found[1].replace("FILE", file).replace("< FILE > NEW", f"< {file}").replace(" > NEW", "")
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, check=True)
    made = tmp_path / OUTPUTS.get(program, "made.csv")
    if program not in OUTPUTS:
        made.write_bytes(done.stdout)
    read = call(tmp_path, "prepare", "--dataset", "log", "--raw", str(made))
    assert read.exit_code == 0, read.output
