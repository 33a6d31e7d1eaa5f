from pathlib import Path

import pytest
from cli_runner import SMALL, call


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a demo data set of 200 users prepared and one finished run of two epochs, named `first`."""
    folder = tmp_path_factory.mktemp("world")
    prepared = call(folder, "prepare", "--dataset", "demo", "--users", "200", "--items", "150")
    assert prepared.exit_code == 0, prepared.output
    trained = call(folder, "train", "--dataset", "demo", "--epochs", "2", "--name", "first", "--json", *SMALL)
    assert trained.exit_code == 0, trained.output
    (folder / "first.json").write_text(trained.stdout)
    return folder
