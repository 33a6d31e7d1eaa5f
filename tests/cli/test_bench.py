"""`athwe bench`: what it measures, as one JSON object."""

import json
from pathlib import Path

import pytest
from cli_runner import call, one_error_line


def test_json_names_floor_ratio_and_settings(tmp_path: Path) -> None:
    size = ("--users", "60", "--items", "40", "--feature-width", "8", "--steps", "2")
    result = call(tmp_path, "bench", *size, "--set", "training.batch_targets=64", "--precision", "fp32", "--json")
    found = json.loads(result.stdout)
    assert found.keys() >= {"step_seconds", "targets_per_second", "tokens_per_second", "peak_memory_bytes"}
    assert found["ratio"] == pytest.approx(found["step_seconds"]["median"] / found["floor_seconds"]["fp32"])
    assert found["settings"]["rows"] == 41
    assert found["settings"]["preset"] == "hm4sr"


def test_on_a_prepared_data_set(world: Path) -> None:
    result = call(world, "bench", "--dataset", "demo", "--preset", "athwe-published", "--steps", "1", "--json")
    found = json.loads(result.stdout)
    assert found["dataset"] == "demo"
    assert found["settings"]["batching"] == "prefix"


@pytest.mark.parametrize("options", [("--models",), ("--only", "hm4sr")])
def test_what_is_of_a_suite_needs_it(options: tuple[str, ...], tmp_path: Path) -> None:
    line = one_error_line(call(tmp_path, "bench", *options))
    assert line == f"error: {options[0]} needs --suite, which measures several cases. Add --suite"


def test_a_suite_of_no_case_names_the_cases(tmp_path: Path) -> None:
    result = call(tmp_path, "bench", "--suite", "--device", "cpu", "--only", "no such case")
    line = one_error_line(result)
    assert line.startswith("error: --only must be part of one of: hm4sr padded fp32, 1,024 targets; ")
