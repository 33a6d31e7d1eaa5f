"""A prepared version and a run that version 0.1.0 wrote can still be used."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from athwe_core.analysis.evaluate_run import evaluate_run
from athwe_core.data.prepare import PreparedDataset, open_prepared
from athwe_core.errors import CheckpointError, DataError
from athwe_core.runs.find import RunFolder, find_run

GOLDEN = Path(__file__).parents[1] / "golden" / "version_0_1_0"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN, tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture
def run(place: Path) -> RunFolder:
    return find_run(place / "trained", "last")


def opened(place: Path, *, check_all: bool = False) -> PreparedDataset:
    return open_prepared("toy", prepared_dir=place / "prepared_versions", check_all=check_all)


@pytest.mark.parametrize("check_all", [False, True])
def test_the_prepared_version_opens(place: Path, check_all: bool) -> None:
    prepared = opened(place, check_all=check_all)
    assert (prepared.num_users, prepared.num_items, len(prepared.item_ids)) == (7, 6, 42)
    assert prepared.user_tokens == [f"u{number}" for number in range(7)]
    assert sorted(prepared.item_tokens) == ["", *(f"i{number}" for number in range(6))]
    assert prepared.manifest["athwe_version"] == "0.1.0"


@pytest.mark.parametrize("stem", ["item_ids", "text_features", "timestamps"])
def test_an_edited_array_is_refused(place: Path, stem: str) -> None:
    path = opened(place).path / f"{stem}.npy"
    values = np.load(path)
    values.flat[-1] = values.flat[-2] + (stem != "item_ids")
    np.save(path, values)
    with pytest.raises(DataError, match=r"is damaged \(an array is not what was written\)"):
        opened(place)


def test_the_run_is_read_and_evaluated_to_the_results_it_had(place: Path, run: RunFolder) -> None:
    written = run.manifest()["results"]["test"]
    assert len(run.ranks("test")) == 7
    before = run.ranks("validation")
    found = evaluate_run(run, run.open_data(place / "prepared_versions"), split="test")
    assert found["metrics"] == pytest.approx(written, abs=1e-6)
    assert run.ranks("validation").equals(before)
    assert len(run.ranks("test")) == 7


def test_damaged_ranks_of_the_run_are_refused(run: RunFolder) -> None:
    content = bytearray(run.per_user.read_bytes())
    content[300] ^= 1
    run.per_user.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged: .* athwe evaluate --run toy/hm4sr/old --split test"):
        run.ranks("test")
