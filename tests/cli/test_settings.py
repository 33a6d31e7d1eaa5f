"""Layers of a configuration, in order, and a data set that is opened or prepared."""

from pathlib import Path

import pytest

from athwe_cli.render import Output
from athwe_cli.settings import configure, open_or_prepare
from athwe_core.data.prepare import PreparedDataset, PrepareOptions, prepare
from athwe_core.errors import ConfigError, DataError


class Notes(Output):
    """Keeps the notes."""

    def __init__(self) -> None:
        super().__init__(as_json=False)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    folder = tmp_path_factory.mktemp("demo")
    options = PrepareOptions(demo_users=100, demo_items=100)
    return prepare("demo", data_dir=folder, prepared_dir=folder / "prepared", options=options)


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_layer_overrides_the_one_before(demo: PreparedDataset, working_folder: Path) -> None:
    output = Notes()
    (working_folder / "config").mkdir()
    (working_folder / "config" / "demo.yaml").write_text("training: {lr: 0.1, epochs: 1, patience: 1, seed: 1}\n")
    file = working_folder / "file.yaml"
    file.write_text("training: {lr: 0.2, epochs: 2, patience: 2}\n")
    flags = {"training.lr": 0.3, "training.epochs": 3, "training.batching": None}
    found = configure("hm4sr", "demo", file, flags, ["training.lr=0.4"], demo, output).training
    assert (found.lr, found.epochs, found.patience, found.seed, found.batching) == (0.4, 3, 2, 1, "packed")
    assert output.notes == ["using config/demo.yaml"]


def test_the_file_of_another_data_set_is_not_used(demo: PreparedDataset, working_folder: Path) -> None:
    (working_folder / "config").mkdir()
    (working_folder / "config" / "Toys.yaml").write_text("training: {lr: 0.1}\n")
    with_file = configure("hm4sr", "demo", None, {}, [], demo, Notes())
    assert with_file.training.lr != 0.1


def test_an_unknown_key_is_refused_with_the_nearest_one(demo: PreparedDataset) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean training\.lr\b"):
        configure("hm4sr", "demo", None, {}, ["training.lrr=1"], demo, Notes())


def test_a_data_set_without_a_version_is_prepared_once(working_folder: Path) -> None:
    (working_folder / "Tiny").mkdir()
    rows = [f"u{user}\ti{item}\t{1_400_000_000 + 86_400 * item}" for user in range(6) for item in range(6)]
    header = "user_id:token\titem_id:token\ttimestamp:float"
    (working_folder / "Tiny" / "Tiny.inter").write_text("\n".join([header, *rows]) + "\n")
    first, second = Notes(), Notes()
    made = open_or_prepare("Tiny", None, working_folder, working_folder / "prepared", first)
    assert "Tiny is not prepared yet: preparing it with the default options" in first.notes
    opened = open_or_prepare("Tiny", None, working_folder, working_folder / "prepared", second)
    assert second.notes == []
    assert opened.version == made.version
    with pytest.raises((ConfigError, DataError), match="0123456789ab"):
        open_or_prepare("Tiny", "0123456789ab", working_folder, working_folder / "prepared", second)
