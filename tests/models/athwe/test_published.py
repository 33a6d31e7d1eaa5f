import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from athwe_core.errors import CheckpointError
from athwe_core.models.athwe.parity import golden_catalogue
from athwe_core.models.athwe.published import published_config, published_network, read_published_weights
from athwe_core.models.golden import Golden
from athwe_core.models.parity import parity_differences

GOLDEN = Path(__file__).parents[2] / "golden"
EXAMPLE = Path(__file__).parents[3] / "examples" / "check_published_parity.py"
NAMES = ("hm4sr", "athwe")


class Foreign:
    """A Python object, as RecBole puts one beside its state dict."""


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as archive:
        return dict(archive)


def tensors(name: str) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v) for k, v in golden(name).items()}


def file_of(name: str) -> Golden:
    return Golden.read(GOLDEN / f"{name}.npz")


def weights_of(name: str) -> dict[str, torch.Tensor]:
    return {k[2:]: v for k, v in tensors(name).items() if k.startswith("w.")}


@pytest.fixture
def run_example(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], int]:
    spec = importlib.util.spec_from_file_location("check_published_parity", EXAMPLE)
    assert spec is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)  # type: ignore[union-attr]

    def run(path: Path) -> int:
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(path)])
        return int(module.main())

    return run


# ---------------------------------------------------------------- parity


@pytest.mark.parametrize("name", NAMES)
def test_the_example_finds_parity_with_a_golden_file(name: str) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE, GOLDEN / f"{name}.npz"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = {key[4:] for key in golden(name) if key.startswith("out.")}
    compared = {line.split()[0] for line in done.stdout.splitlines()}
    assert compared == {key for key in expected if not key.endswith("as_coded") and key != "wavelet_input"}
    assert "above" not in done.stdout


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("hm4sr", "item_embedding.weight"),
        ("hm4sr", "position_embedding.weight"),
        ("hm4sr", "img_projection.bias"),
        ("hm4sr", "start_moe.weight"),
        ("hm4sr", "start_moe.expert.2.weight"),
        ("hm4sr", "start_moe.gate_txt.bias"),
        ("hm4sr", "time_moe.expert"),
        ("hm4sr", "time_moe.absolute_w.bias"),
        ("hm4sr", "txt_seq.layer.1.multi_head_attention.key.weight"),
        ("hm4sr", "img_ln.bias"),
        ("hm4sr", "cat_linear.weight"),
        ("hm4sr", "placeholder_img.weight"),
        ("athwe", "fusion_weights"),
        ("athwe", "time_moe.moe.shared_experts"),
        ("athwe", "time_moe.moe.router.gate.weight"),
        ("athwe", "time_moe.time_routing_proj.bias"),
        ("athwe", "time_moe.wavelet_aligner.low_g.txt.2.weight"),
        ("athwe", "time_moe.wavelet_aligner.high_g.img.3.0.weight"),
        ("athwe", "txt_classifier.weight"),
    ],
)
def test_a_perturbed_weight_is_found(
    name: str, weight: str, run_example: Callable[[Path], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = golden(name)
    value = changed[f"w.{weight}"]
    changed[f"w.{weight}"] = value + np.random.default_rng(0).normal(0, 0.2, value.shape).astype(np.float32)
    np.savez(tmp_path / "changed.npz", **changed)
    assert run_example(tmp_path / "changed.npz") == 1
    assert "above" in capsys.readouterr().out


def write_foreign(path: Path, kind: str) -> None:
    if kind == "text":
        path.write_text("item,user\n1,2\n", encoding="utf-8")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes((GOLDEN / "hm4sr.npz").read_bytes()[:5000])
    elif kind == "other arrays":
        np.savez(path, x=np.zeros(3))
    elif kind == "weights only":
        np.savez(path, **{k: v for k, v in golden("hm4sr").items() if k.startswith("w.")})
    elif kind == "nothing to compare":
        np.savez(path, **{k: v for k, v in golden("hm4sr").items() if not k.startswith("out.")})
    elif kind == "array file":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "folder":
        path.mkdir()


@pytest.mark.parametrize(
    "kind",
    [
        "text",
        "empty",
        "truncated",
        "other arrays",
        "weights only",
        "nothing to compare",
        "array file",
        "folder",
        "missing",
    ],
)
def test_a_foreign_file_ends_the_example_with_3_and_one_line(
    kind: str, run_example: Callable[[Path], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_foreign(tmp_path / "foreign.npz", kind)
    assert run_example(tmp_path / "foreign.npz") == 3
    error = capsys.readouterr().err
    assert re.fullmatch(r"error: .+\n", error)


def test_rows_of_any_length_are_prefixes_of_their_own() -> None:
    data = tensors("hm4sr")
    batch = file_of("hm4sr").batch()
    for row in range(batch.num_rows):
        user = int(batch.user_index[row])
        tokens = slice(int(batch.offsets[row]), int(batch.offsets[row + 1]))
        length = int(data["in.lengths"][user])
        assert torch.equal(batch.item_ids[tokens], data["in.item_seq"][user, :length])
        assert torch.equal(batch.timestamps[tokens], data["in.timestamps"][user, :length])
        assert batch.target_ids[row] == data["in.targets"][user]


def test_parity_differences_are_named_and_small() -> None:
    found = parity_differences(GOLDEN / "athwe.npz")
    assert {"scores", "loss_diversity", "wavelet_residual_img"} <= set(found)
    assert max(found.values()) < 1e-4


# ---------------------------------------------------------------- reading weights


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_pth_of_tensors_is_read(name: str, wrapped: bool, tmp_path: Path) -> None:
    weights = weights_of(name)
    torch.save({"state_dict": weights, "epoch": 3} if wrapped else weights, tmp_path / "weights.pth")
    found = read_published_weights(tmp_path / "weights.pth")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], weights[key]) for key in weights)


def test_an_npz_is_read_by_its_w_entries() -> None:
    found = read_published_weights(GOLDEN / "hm4sr.npz")
    assert found.keys() == weights_of("hm4sr").keys()


def test_pickled_objects_are_refused_with_the_lines_that_save_the_state_dict_again(tmp_path: Path) -> None:
    path = tmp_path / "recbole.pth"
    torch.save({"config": Foreign(), "state_dict": weights_of("hm4sr")}, path)
    with pytest.raises(CheckpointError, match="cannot be read as tensors only") as caught:
        read_published_weights(path)
    text = str(caught.value)
    for line in (
        "import torch",
        "torch.load('FILE.pth', weights_only=False)['state_dict']",
        "torch.save({k: v.cpu() for k, v in state.items()}, 'weights.pth')",
    ):
        assert line in text
    assert "\n" not in text


def test_what_holds_no_state_dict_is_refused(tmp_path: Path) -> None:
    for value in ({"a": 1}, {}, [1, 2], {"state_dict": {"a": 1}}):
        torch.save(value, tmp_path / "other.pth")
        with pytest.raises(CheckpointError, match="must hold a state dict of tensors"):
            read_published_weights(tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("hello", encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be read as tensors only"):
        read_published_weights(tmp_path / "text.pth")
    with pytest.raises(CheckpointError, match=r"none\.pth must be a file\. Check the path"):
        read_published_weights(tmp_path / "none.pth")


# ---------------------------------------------------------------- building the network


@pytest.mark.parametrize(
    ("name", "experts"),
    [("hm4sr", ["time_moe.expert"]), ("athwe", ["time_moe.moe.routed_experts", "time_moe.moe.shared_experts"])],
)
def test_temporal_experts_that_were_never_saved_must_be_asked_for(name: str, experts: list[str]) -> None:
    catalogue = golden_catalogue(file_of(name))
    saved = {k: v for k, v in weights_of(name).items() if k not in experts}
    with pytest.raises(CheckpointError, match=r"lack the temporal experts.*draw_missing_experts=True"):
        published_network(saved, catalogue)
    network, _ = published_network(saved, catalogue, draw_missing_experts=True)
    assert network.temporal_moe.experts.std().item() == pytest.approx(0.1, rel=0.2)
    whole, _ = published_network(weights_of(name), catalogue)
    ours, theirs = network.state_dict(), whole.state_dict()
    assert {key for key in ours if not torch.equal(ours[key], theirs[key])} == {
        key for key in ours if key.endswith("experts")
    }


@pytest.mark.parametrize(
    "missing", ["item_embedding.weight", "time_moe.gate.bias", "img_seq.layer.1.feed_forward.dense_2.bias"]
)
def test_a_missing_weight_is_named(missing: str) -> None:
    weights = {k: v for k, v in weights_of("hm4sr").items() if k != missing}
    with pytest.raises(CheckpointError, match=f"published weights lack {re.escape(missing)}"):
        published_network(weights, golden_catalogue(file_of("hm4sr")))


def test_features_of_another_width_are_named_with_both_shapes() -> None:
    catalogue = golden_catalogue(file_of("hm4sr"))
    narrow = replace(catalogue, features=catalogue.features | {"text": torch.zeros(27, 10)})
    text = r"must have shape \(64, 10\) as tables\.projections\.text\.weight, got \(64, 768\)"
    with pytest.raises(CheckpointError, match=text):
        published_network(weights_of("hm4sr"), narrow)


@pytest.mark.parametrize("name", NAMES)
def test_a_catalogue_without_categories_and_clusters_still_makes_a_network(name: str) -> None:
    bare = replace(golden_catalogue(file_of(name)), categories=None, clusters={})
    network, _ = published_network(weights_of(name), bare)
    assert network.category_head is None
    assert not network.training


def test_sizes_are_read_from_the_weights() -> None:
    hm4sr, athwe = (published_config(weights_of(name)) for name in NAMES)
    assert (hm4sr.model.time_encoding.num_buckets, hm4sr.model.interactive_moe.num_experts) == (2405, 4)
    assert (athwe.model.wavelet.levels, athwe.model.temporal_moe.num_experts) == (4, 8)
    assert (athwe.model.num_layers, athwe.model.inner_size, athwe.model.max_length) == (2, 256, 50)
    assert hm4sr.model.time_encoding.time_unit == "seconds"
