"""Ids and data set names that are paths or devices: they name what they name in tables, and never a file."""

from itertools import product
from pathlib import Path

import pytest
from PIL import Image
from trust_cases import NUM_USERS, SMALL, call, error_line, files_below, write_atomic

PATHS = ["../../x", "/ABSOLUTE", "..", ".", "a/../../../b", "C:\\x", "\\\\host\\share", "CON", "nul.txt", "/dev/zero"]
"""As they stand in a file; `/ABSOLUTE` becomes a path into the folder of the test."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained data set whose users and items are all paths, with pictures where those paths lead."""
    folder = tmp_path_factory.mktemp("names") / "deep" / "world"
    ids = [name.replace("/ABSOLUTE", str(folder.parent / "absolute")) for name in PATHS]
    items = {item: {"title": f"Title {number}"} for number, item in enumerate(ids)}
    users = [*ids, *(f"u{number}" for number in range(NUM_USERS))]
    images = write_atomic(folder / "data", "toy", items=items, users=users) / "images"
    images.mkdir()
    for path in (images / "../../x.png", folder.parent / "absolute.png", images / "../../../b.png"):
        Image.new("RGB", (8, 8), "red").save(path)
    assert call(folder, "prepare", "--dataset", "toy").exit_code == 0
    trained = call(folder, "train", "--dataset", "toy", "--epochs", "1", "--name", "first", *SMALL)
    assert trained.exit_code == 0, trained.output
    return folder


def of_test(world: Path, name: str) -> str:
    return name.replace("/ABSOLUTE", str(world.parent / "absolute"))


COMMANDS = {
    "prepare": ["prepare", "--dataset", "toy", "--clusters", "2"],
    "audit": ["audit", "--dataset", "toy", "--shuffles", "1"],
    "evaluate": ["evaluate", "--run", "first"],
    "csv": ["prepare", "--dataset", "toy", "--export", "csv", "--to", "exported"],
    "recbole": ["prepare", "--dataset", "toy", "--export", "recbole", "--to", "exported"],
    "report": ["report", "--dataset", "toy"],
}


def check_places(world: Path, before: set[str], *own: str) -> set[str]:
    """What is new below the folder two above `world` lies in places of the program's own, under names of its own."""
    new = files_below(world.parent.parent) - before
    assert new
    for path in new:
        assert path.startswith(tuple(f"deep/world/{place}/" for place in ("prepared", "runs", *own))), path
    return new


@pytest.mark.parametrize("command", COMMANDS)
def test_ids_that_are_paths_stay_in_the_tables(world: Path, command: str) -> None:
    place = "exported-" + command
    before = files_below(world.parent.parent) | {f"deep/world/{place}"}
    arguments = [str(world / place) if argument == "exported" else argument for argument in COMMANDS[command]]
    result = call(world, *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    if command != "evaluate":  # which writes the ranks anew where they lie
        check_places(world, before, place)
    if command in ("csv", "recbole"):
        table = next((world / place).rglob("toy.item" if command == "recbole" else "*items*.csv"))
        ids = {line.split("\t" if command == "recbole" else ",")[0] for line in table.read_text().splitlines()[1:]}
        assert ids == {of_test(world, name) for name in PATHS}


@pytest.mark.parametrize("name", PATHS)
def test_the_page_of_a_user_named_like_a_path(world: Path, name: str) -> None:
    """The page lies in the folder of pages, and shows no picture from where an item's id leads."""
    before = files_below(world.parent.parent)
    result = call(world, "case-study", "--run", "first", "--user", of_test(world, name))
    assert result.exit_code == 0, (result.output, result.exception)
    pages = [path for path in check_places(world, before) if path.endswith(".html")]
    assert len(pages) == 1
    assert Path(pages[0]).parent.as_posix() == "deep/world/runs/toy/case-studies"
    assert "data:image/" not in (world.parent.parent / pages[0]).read_text(encoding="utf-8")


NAMES = ["../x", "..", ".", "a/b", "a\\b", "/etc", ".hidden", "x\x1b[2J", "x\ny", "\u202ex", "x" * 300]
OTHERS = ["audit", "evaluate", "export", "ablate", "report"]


@pytest.mark.parametrize(
    ("command", "name"),
    [*product(("prepare", "train"), NAMES), *product(OTHERS, ("../x", "..", "/etc", "a\\b", "x\x1b[2J"))],
)
def test_a_data_set_name_that_is_no_plain_name_is_refused(tmp_path: Path, command: str, name: str) -> None:
    (tmp_path / "data" / "toy").mkdir(parents=True)
    write_atomic(tmp_path, "x")
    before = files_below(tmp_path)
    arguments = {"export": ["prepare", "--export", "csv", "--to", str(tmp_path)], "ablate": ["ablate", "--all"]}
    result = call(tmp_path, *arguments.get(command, [command]), "--dataset", name)
    line = error_line(result, 2, 3)
    assert line.isprintable()
    assert files_below(tmp_path) == before
