"""The ONNX graph gives what the model gives, for histories of 1 to 80 items and batches of any size."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from library_harness import TINY

import athwe_core as athwe
from athwe_core.batch import PackedBatch
from athwe_core.data.packing import pack_histories
from athwe_core.errors import ConfigError
from athwe_core.serving import onnx_model
from athwe_core.serving.export import export_run
from athwe_core.serving.onnx_model import dense_batch
from athwe_core.serving.trained_model import open_trained

PRESETS = ("athwe",)


@pytest.fixture(scope="module", params=PRESETS)
def exported(
    request: pytest.FixtureRequest, run: athwe.Run, tmp_path_factory: pytest.TempPathFactory
) -> tuple[athwe.Run, Path]:
    """A trained run and its graph, made in a process of its own: here every shape annotation is checked."""
    folder = tmp_path_factory.mktemp("onnx")
    own = (
        run
        if request.param == "sasrec"
        else athwe.train(run.data, preset=request.param, set=TINY | {"model.num_layers": 1}, runs_dir=folder / "runs")
    )
    command = [
        sys.executable,
        "-m",
        "athwe_cli",
        "export",
        "--run",
        str(own.folder.path),
        "--to",
        str(folder / "graph"),
    ]
    options = ["--format", "onnx", "--k", "7", "--prepared", str(run.data.path.parents[1])]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return own, folder / "graph"


def histories(num_items: int, lengths: list[int]) -> list[tuple[list[int], list[int]]]:
    rng = np.random.default_rng(len(lengths))
    return [
        (rng.integers(1, num_items + 1, n).tolist(), np.sort(rng.integers(1.5e9, 1.6e9, n)).tolist()) for n in lengths
    ]


@pytest.mark.long
def test_the_graph_agrees_with_the_model(exported: tuple[athwe.Run, Path]) -> None:
    import onnxruntime

    own, folder = exported
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    assert json.loads((folder / "item_ids.json").read_text()) == own.data.item_tokens
    model = own.model
    for lengths in (list(range(1, 81)), [3], [80, 1]):
        given = histories(own.data.num_items, lengths)
        width = max(lengths)
        items, times = np.full((len(given), width), 99_999), np.zeros((len(given), width), np.int64)
        for row, (ids, seconds) in enumerate(given):
            items[row, : len(ids)], times[row, : len(ids)] = ids, seconds
        items[items == 99_999] = 0
        inputs = {"item_numbers": items, "timestamps": times, "lengths": np.array(lengths, np.int64)}
        vectors, best, scores = session.run(None, {**inputs, "exclude_seen": np.array(True)})
        L = model.max_length
        with torch.inference_mode():
            batch = pack_histories([(ids[-L:], seconds[-L:]) for ids, seconds in given])
            expected = torch.empty(len(given), vectors.shape[1])
            expected[batch.user_index] = model.user_vectors(batch)
            every = torch.empty(len(given), len(model.item_table()))
            every[batch.user_index] = model.ranking_scores(batch, model.item_table(), None)
            every = every.numpy()
        assert np.abs(vectors - expected.numpy()).max() < 1e-4
        for row, (ids, _) in enumerate(given):
            kept = [item for item in range(1, every.shape[1]) if item not in ids]
            order = sorted(kept, key=lambda item: -every[row, item])[:7]
            is_item = np.isfinite(scores[row])
            assert is_item.sum() == min(7, len(kept))
            assert scores[row][is_item] == pytest.approx(every[row][order], abs=1e-4)
            assert every[row][best[row][is_item]] == pytest.approx(scores[row][is_item], abs=1e-4)
            assert not set(best[row][is_item].tolist()) & {0, *ids}
        _, best, scores = session.run(None, {**inputs, "exclude_seen": np.array(False)})
        assert scores[:, 0] == pytest.approx(every[:, 1:].max(1), abs=1e-4)


def test_a_dense_batch_gives_the_vectors_of_a_packed_one(run: athwe.Run) -> None:
    model, given = run.model, histories(run.data.num_items, [1, 6, 7, 2, 9])
    items, times = torch.zeros(5, 9, dtype=torch.int64), torch.zeros(5, 9, dtype=torch.int64)
    for row, (ids, seconds) in enumerate(given):
        items[row, : len(ids)], times[row, : len(ids)] = torch.tensor(ids), torch.tensor(seconds)
    L = model.max_length
    batch = dense_batch(items, times, torch.tensor([1, 6, 7, 2, 9]), max_length=L)
    assert isinstance(batch, PackedBatch)
    packed = pack_histories([(ids[-L:], seconds[-L:]) for ids, seconds in given])
    with torch.inference_mode():
        expected = torch.empty(5, model.item_table().shape[1])
        expected[packed.user_index] = model.user_vectors(packed)
        assert torch.allclose(model.user_vectors(batch), expected, atol=1e-5)
    assert batch.intervals.view(5, L)[:, 0].tolist() == [0] * 5
    assert batch.intervals.min() >= 0


@pytest.mark.long
def test_a_model_that_onnx_cannot_hold_is_a_one_line_error(run: athwe.Run, tmp_path: Path) -> None:
    lrurec = athwe.train(
        run.data, preset="lrurec", set={k: v for k, v in TINY.items() if k != "model.inner_size"}, runs_dir=tmp_path
    )
    with pytest.raises(
        ConfigError, match=r"^--format onnx: model LRURec cannot be exported: .* Use --format hub$"
    ) as error:
        onnx_model.write_onnx(open_trained(lrurec.folder, run.data), tmp_path, k=3)
    assert "\n" not in str(error.value)


def test_a_missing_library_is_named_with_the_extra(
    run: athwe.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name))
    with pytest.raises(
        ConfigError, match=r"^--format onnx needs onnxscript, not installed here\. Run: pip install 'athwe\[onnx\]'"
    ):
        export_run(run.folder, run.data, tmp_path / "graph", form="onnx")
    assert list(tmp_path.iterdir()) == []
