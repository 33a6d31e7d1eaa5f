"""Every example runs as a user would run it."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_train_in_python_recommends_items(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, EXAMPLES / "train_in_python.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("validation NDCG@10") == 4
    assert len(found.stdout.strip().splitlines()[-1].removeprefix("next: ").split()) == 5
    assert list(tmp_path.iterdir()) == []
