"""The notebooks run from start to end, as Jupyter runs them, and show what their text announces."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"


def run(name: str, folder: Path) -> list[dict[str, Any]]:
    """The outputs of all cells, in order; fails at the first cell that raises."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def texts(outputs: list[dict[str, Any]]) -> str:
    """Everything that is shown as text, on stderr too."""
    shown = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return "\n".join(shown)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The kernel inherits the environment; its own files go to the folder of the test."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parents[1]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.mark.long
def test_from_a_csv_file_to_recommendations(tmp_path: Path) -> None:
    outputs = run("from_csv_to_recommendations.ipynb", tmp_path)
    shown = texts(outputs)
    assert "1 had no user or item id" in shown  # the broken rows are reported
    assert "<Run shop/sasrec/" in shown
    assert not [output for output in outputs if output.get("name") == "stderr"]
    found = dict(re.findall(r"│ (sasrec|popularity|last-item transition) +┆ ([\d.]+)", shown))
    assert float(found["sasrec"]) > float(found["last-item transition"]) > float(found["popularity"])
    assert "Honey no. 5" in shown  # after no. 3 and no. 4
    assert "shape: (2_000, 4)" in shown  # 5 products for each of 400 customers


@pytest.mark.long
def test_comparing_models_draws_three_figures(tmp_path: Path) -> None:
    outputs = run("comparing_models.ipynb", tmp_path)
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 3
    shown = texts(outputs)
    for column in ("p (Holm)", "seen items out"):
        assert column in shown
    assert not [output for output in outputs if output.get("name") == "stderr"]


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
