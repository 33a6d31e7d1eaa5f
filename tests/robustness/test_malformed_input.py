"""Malformed files through the public entries: read right, or one error with place, rule and remedy, and nothing left."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_inputs import GOOD_ITEM, guarded
from malformed_cases import GOOD, META_CODE, TEXT_CASES, Case, Read, Refused
from malformed_features import FEATURE_CASES, Touches
from malformed_versions import PARQUET_CASES, VERSION_CASES

from athwe_core.data.prepare import PreparedDataset, PrepareOptions, open_prepared, prepare
from athwe_core.errors import AthweError, DataError

CASES = {**TEXT_CASES, **FEATURE_CASES, **PARQUET_CASES}


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where code in a file would leave `victim`."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_there_are_enough_cases_and_all_differ() -> None:
    num_cases = len(TEXT_CASES) + len(FEATURE_CASES) + len(PARQUET_CASES)
    assert len(CASES) == num_cases  # no name twice
    assert len({tuple(sorted(case.files.items())) for case in CASES.values()}) == num_cases
    assert num_cases + len(VERSION_CASES) >= 200


def assert_refused(error: AthweError, expected: Refused) -> None:
    text = str(error)
    assert re.search(expected.where, error.name), text
    assert re.search(expected.rule, text.removeprefix(error.name)), text
    assert re.search(expected.remedy, error.remedy), text
    assert text.isprintable(), ascii(text)  # one line, and nothing that a terminal would obey
    assert len(text) < 1000, len(text)


def history(prepared: PreparedDataset) -> set[tuple[str, str, int]]:
    users = [
        token for user, token in enumerate(prepared.user_tokens) for _ in range(*prepared.offsets[user : user + 2])
    ]
    items = [prepared.item_tokens[item] for item in prepared.item_ids]
    return set(zip(users, items, prepared.timestamps.tolist(), strict=True))


def assert_read(prepared: PreparedDataset, expected: Read) -> None:
    notes = prepared.manifest["notes"]
    assert history(prepared) == set(expected.rows)
    assert len(prepared.item_ids) == len(set(expected.rows))
    assert any(expected.says in note for note in notes), notes
    assert all(note.isprintable() for note in notes), notes
    if expected.text is not None:
        assert prepared.text_features is not None
        assert prepared.text_features[1:, 0].tolist() == list(expected.text)
        assert not prepared.text_features[0].any()
    if expected.missing is not None:
        assert prepared.statistics["features"]["text"]["missing"] == expected.missing
    if expected.categories is not None:
        assert prepared.manifest["category_names"] == list(expected.categories)
    if expected.titles is not None:
        by_item = dict(prepared.item_table().select("item_id", "title").rows())
        assert [by_item[f"i{number}"] for number in range(len(expected.titles))] == list(expected.titles)


@pytest.mark.parametrize("name", CASES)
def test_a_malformed_file_is_read_right_or_refused(tmp_path: Path, working_folder: Path, name: str) -> None:
    case: Case = CASES[name]
    (tmp_path / "data" / "toy").mkdir(parents=True)
    for file, content in case.files.items():
        (tmp_path / "data" / "toy" / file).write_bytes(content)
    places = {"data_dir": tmp_path / "data", "prepared_dir": tmp_path / "prepared"}
    options = PrepareOptions(min_interactions=3, text_width=2, keep_feature_scale=True, **case.options)
    if isinstance(case.expected, Refused):
        with pytest.raises(DataError) as found, guarded():
            prepare("toy", options=options, **places)
        assert_refused(found.value, case.expected)
        assert not list((tmp_path / "prepared").glob("**/*"))  # no version, no mark, nothing half-written
    else:
        with guarded():
            prepared = prepare("toy", options=options, **places)
        assert_read(prepared, case.expected)
        assert {path.name for path in prepared.path.parent.iterdir()} == {"current", prepared.version}
    assert {path.name: path.read_bytes() for path in (tmp_path / "data" / "toy").iterdir()} == case.files
    assert {path.name for path in tmp_path.iterdir()} <= {"data", "prepared", "work"}  # no id is a path
    assert not list(working_folder.iterdir())  # and no code was run


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("good")
    (place / "data" / "toy").mkdir(parents=True)
    (place / "data" / "toy" / "toy.inter").write_bytes(GOOD)
    (place / "data" / "toy" / "toy.item").write_bytes(GOOD_ITEM)
    options = PrepareOptions(min_interactions=3, text_width=2)
    prepare("toy", data_dir=place / "data", prepared_dir=place / "prepared", options=options)
    return place / "prepared"


def read_all(place: Path) -> PreparedDataset:
    prepared = open_prepared("toy", prepared_dir=place)
    assert len(prepared.user_tokens) == prepared.num_users
    assert len(prepared.item_tokens) == prepared.num_item_rows
    return prepared


@pytest.mark.parametrize("name", VERSION_CASES)
def test_a_damaged_version_is_refused(tmp_path: Path, good: Path, name: str) -> None:
    damage, rule = VERSION_CASES[name]
    place = shutil.copytree(good, tmp_path / "prepared")
    folder = read_all(place).path
    damage(folder)
    with pytest.raises(DataError) as found, guarded():
        read_all(place)
    expected = Refused("toy", rule, "athwe prepare --dataset toy")
    assert_refused(found.value, expected)


def test_code_in_these_files_would_be_noticed(working_folder: Path) -> None:
    """What is hostile in the cases does leave its mark where it is run."""
    subprocess.run([sys.executable, "-c", META_CODE], check=True, cwd=working_folder)
    assert (working_folder / "victim").exists()
    (working_folder / "victim").unlink()
    function, arguments = Touches().__reduce__()
    function(*arguments)
    assert (working_folder / "victim").exists()
