"""Every example runs as a user would run it."""

import subprocess
import sys
from pathlib import Path

import pytest

from athwe_core.data.prepare import prepare

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.long
def test_train_in_python_recommends_items(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, EXAMPLES / "train_in_python.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("; validation ndcg@20 ") == 2
    assert found.stdout.startswith("<Run demo/athwe/")
    assert found.stdout.count("shape: (6, 4)") == found.stdout.count("shape: (5, 4)") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_generated_data_can_be_prepared(tmp_path: Path, form: str) -> None:
    command = [
        sys.executable,
        EXAMPLES / "generate_large.py",
        "--interactions",
        "2000",
        "--format",
        form,
        "--to",
        "raw",
        *(["--parts", "2"] if form == "parquet" else []),
    ]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert len(found.stdout.splitlines()) == (3 if form == "parquet" else 2)
    folder = tmp_path / "raw"
    raw, items = (
        ([folder / "large-*.parquet"], folder / "large.items.parquet") if form == "parquet" else ([folder], None)
    )
    prepared = prepare("large", data_dir=tmp_path, prepared_dir=tmp_path, raw=raw, item_file=items)
    assert prepared.manifest["source"] == ("table" if form == "parquet" else "amazon-2023")
    assert prepared.statistics["interactions"] > 1500
    assert prepared.text_features is not None
    assert prepared.manifest["category_names"][0] == "Toys & Games"


@pytest.mark.long
def test_bench_encoder_compares_the_same_vectors(tmp_path: Path) -> None:
    sizes = ["--items", "100", "--width", "64", "--layers", "1", "--precision", "fp32"]
    found = subprocess.run(
        [sys.executable, EXAMPLES / "bench_encoder.py", *sizes],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    lines = found.stdout.splitlines()
    assert lines[0].startswith("small-bert in float32 on c")
    assert float(lines[-1].rsplit(" ", 1)[1]) < 1e-5
    assert list(tmp_path.iterdir()) == []
