"""Feature files, arrays, weights and configurations that carry code: refused in one line, and nothing has run."""

import hashlib
import io
import json
import pickle
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from trust_cases import NUM_ITEMS, SMALL, Payload, call, error_line, write_atomic

from athwe_core.data.features.from_files import read_vectors
from athwe_core.data.features.resumable import Shards
from athwe_core.errors import CheckpointError, DataError
from athwe_core.models.athwe.published import read_published_weights

ROWS = torch.zeros(NUM_ITEMS + 1, 4)


@pytest.fixture
def payload(tmp_path: Path) -> Payload:
    return Payload(tmp_path / "ran")


def saved(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def npy(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def objects(payload: Payload) -> np.ndarray:
    found = np.empty((NUM_ITEMS + 1, 4), dtype=object)
    found[:] = 0.0
    found[0, 0] = payload
    return found


def scripted() -> bytes:
    """A TorchScript archive, which torch.load would hand to an interpreter of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def with_foreign_pickle(payload: Payload) -> bytes:
    """A sound archive of a tensor whose `data.pkl` is another pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(ROWS))) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickle.dumps(payload, 2) if name.endswith("data.pkl") else old.read(name))
    return buffer.getvalue()


FILES: dict[str, tuple[str, Callable[[Payload], bytes]]] = {
    "tensor_and_object": (".pt", lambda payload: saved({"txt_emb": ROWS, "more": payload})),
    "object": (".pt", saved),
    "old_form": (".pt", lambda payload: saved(payload, _use_new_zipfile_serialization=False)),
    "plain_pickle": (".pt", pickle.dumps),
    "pickle_of_protocol_5": (".pt", lambda payload: pickle.dumps([ROWS.tolist(), payload], 5)),
    "foreign_pickle_in_the_archive": (".pt", with_foreign_pickle),
    "torchscript": (".pt", lambda _: scripted()),
    "object_array": (".npy", lambda payload: npy(objects(payload), allow_pickle=True)),
    "pickle_named_npy": (".npy", pickle.dumps),
    "pickled_array": (".npy", lambda payload: pickle.dumps([np.zeros((NUM_ITEMS + 1, 4)), payload])),
    "pickle_named_safetensors": (".safetensors", pickle.dumps),
    "torch_named_safetensors": (".safetensors", lambda payload: saved({"txt_emb": ROWS, "more": payload})),
    "code_in_a_header": (
        ".safetensors",
        lambda payload: (
            struct.pack("<Q", len(text := f"__import__('pathlib').Path({str(payload.marker)!r}).touch()".encode()))
            + text
        ),
    ),
    "code_in_an_array_header": (
        ".npy",
        lambda payload: (
            b"\x93NUMPY\x01\x00"
            + struct.pack(
                "<H",
                len(text := f"{{'descr': open({str(payload.marker)!r}, 'w'), 'shape': (1,)}}\n".encode()),
            )
            + text
        ),
    ),
}


@pytest.mark.parametrize(
    ("kind", "stem"),
    [
        *((kind, "txt_emb") for kind in FILES),
        *product(("object", "object_array"), ("img_emb", "cat", "txt_clusters", "img_clusters")),
    ],
)
def test_a_feature_file_with_code_is_refused(tmp_path: Path, payload: Payload, kind: str, stem: str) -> None:
    suffix, make = FILES[kind]
    folder = write_atomic(tmp_path / "data", "toy")
    (folder / f"{stem}{suffix}").write_bytes(make(payload))
    line = error_line(call(tmp_path, "prepare", "--dataset", "toy"), 3)
    assert f"{stem}{suffix}" in line
    assert "weights_only" not in line  # no advice to unpickle
    assert not payload.has_run
    assert not list((tmp_path / "prepared").rglob("manifest.json"))


def test_the_same_files_without_code_are_read(tmp_path: Path) -> None:
    for suffix, content in ((".pt", saved(ROWS)), (".npy", npy(ROWS.numpy()))):
        folder = tmp_path / suffix[1:]
        folder.mkdir()
        (folder / f"txt_emb{suffix}").write_bytes(content)
        assert read_vectors(folder, "txt_emb", ["", *(f"i{number}" for number in range(NUM_ITEMS))]) is not None


@pytest.mark.parametrize("kind", ["object", "old_form", "plain_pickle", "foreign_pickle_in_the_archive", "torchscript"])
def test_published_weights_with_code_are_refused(tmp_path: Path, payload: Payload, kind: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(FILES[kind][1](payload))
    with pytest.raises(CheckpointError, match=str(path)):
        read_published_weights(path)
    assert not payload.has_run


def test_published_archives_of_objects_are_refused(tmp_path: Path, payload: Payload) -> None:
    path = tmp_path / "weights.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.x.npy", npy(objects(payload), allow_pickle=True))
    with pytest.raises(CheckpointError, match=str(path)):
        read_published_weights(path)
    assert not payload.has_run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a prepared data set and a finished run named `first`."""
    folder = tmp_path_factory.mktemp("world")
    assert call(folder, "prepare", "--dataset", "demo", "--users", "200", "--items", "150").exit_code == 0
    trained = call(folder, "train", "--dataset", "demo", "--epochs", "1", "--name", "first", *SMALL)
    assert trained.exit_code == 0, trained.output
    return folder


@pytest.fixture
def own_world(world: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(world, tmp_path / "world"))


@pytest.mark.parametrize("stem", ["offsets", "item_ids", "timestamps", "text_features", "categories", "file_rows"])
@pytest.mark.parametrize("kind", ["object_array", "pickle_named_npy"])
def test_prepared_arrays_with_code_are_refused(own_world: Path, payload: Payload, stem: str, kind: str) -> None:
    (path,) = (own_world / "prepared").rglob(f"{stem}.npy")
    path.write_bytes(FILES[kind][1](payload))
    assert "damaged" in error_line(call(own_world, "audit", "--dataset", "demo"), 3)
    assert not payload.has_run


@pytest.mark.parametrize("kind", ["plain_pickle", "object", "old_form", "code_in_a_header"])
@pytest.mark.parametrize("name", ["weights", "optimizer"])
def test_checkpoints_with_code_are_refused_also_with_a_fitting_checksum(
    own_world: Path, payload: Payload, kind: str, name: str
) -> None:
    run = own_world / "runs/demo/athwe/first"
    for path in (run / "checkpoints").rglob(f"{name}.safetensors"):
        content = FILES[kind][1](payload)
        path.write_bytes(content)
        state = json.loads((path.parent / "state.json").read_text())
        state["files"][path.name] = hashlib.sha256(content).hexdigest()
        (path.parent / "state.json").write_text(json.dumps(state))
    manifest = json.loads((run / "manifest.json").read_text())
    if name == "optimizer":  # read where training goes on only
        (run / "manifest.json").write_text(json.dumps(manifest | {"status": "interrupted"}))
        state_path = run / "checkpoints" / "last" / "state.json"
        assert state_path.exists()
        result = call(own_world, "train", "--resume", "first")
    else:
        result = call(own_world, "evaluate", "--run", "first")
    error_line(result, 3)
    assert not payload.has_run


def test_unfinished_vectors_with_code_are_made_again(tmp_path: Path, payload: Payload) -> None:
    def compute(part: slice) -> list[np.ndarray]:
        return [np.ones((part.stop - part.start, 4), np.float32)]

    def rows() -> np.ndarray:
        return Shards.of(tmp_path, {"id": "model"}).rows(5, 4, compute, what="encoding")  # type: ignore[arg-type]

    rows()
    shards = list(tmp_path.rglob("*.npy"))
    assert shards
    for path in shards:
        path.write_bytes(FILES["object_array"][1](payload))
    assert rows().tolist() == [[1.0] * 4] * 5
    assert not payload.has_run


YAML = {
    "apply": "!!python/object/apply:os.mkdir ['{marker}']",
    "system": "!!python/object/apply:os.system ['touch {marker}']",
    "popen": "!!python/object/apply:subprocess.Popen [[touch, {marker}]]",
    "eval": "!!python/object/apply:eval [\"__import__('os').mkdir('{marker}')\"]",
    "new": "!!python/object/new:os.system ['touch {marker}']",
    "name": "!!python/name:os.system",
    "module": "!!python/module:antigravity",
    "tuple": "!!python/tuple [1, 2]",
    "own_tag": "!athwe {{run: 'touch {marker}'}}",
    "map": "!!python/object/new:tuple [!!python/object/new:map [!!python/name:os.mkdir , ['{marker}']]]",
}


@pytest.mark.parametrize("kind", ["apply", "system", "eval", "new", "map"])
def test_the_tags_would_run(tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "ran"
    yaml.unsafe_load(YAML[kind].format(marker=marker))
    assert marker.exists()


@pytest.mark.parametrize(
    "place", ["--config", "config/demo.yaml", "--set", "--vary", "--space", "config.yaml of a run"]
)
@pytest.mark.parametrize("kind", YAML)
def test_yaml_with_code_is_refused(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, kind: str
) -> None:
    marker, work = tmp_path / "ran", tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    value = YAML[kind].format(marker=marker)
    (work / "mine.yaml").write_text(f"training:\n  lr: {value}\n")
    command = ["train", "--dataset", "demo", "--dry-run"]
    if place == "--config":
        command += ["--config", "mine.yaml"]
    elif place == "config/demo.yaml":
        (work / "config").mkdir()
        (work / "mine.yaml").rename(work / "config" / "demo.yaml")
    elif place == "--set":
        command += ["--set", f"training.lr={value}"]
    elif place == "--vary":
        command = ["sweep", "--dataset", "demo", "--dry-run", "--vary", f"training.lr={value}"]
    elif place == "--space":
        (work / "space.yaml").write_text(f"training.lr: {{choices: [{value}]}}\n")
        command = ["tune", "--dataset", "demo", "--dry-run", "--space", "space.yaml"]
    else:
        run = Path(shutil.copytree(world / "runs/demo/athwe/first", work / "demo/athwe/first"))
        tree = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(tree + f"more: {value}\n")
        command = ["evaluate", "--run", str(run)]
    error_line(call(world, *command), 2, 3)
    assert not marker.exists()


@pytest.mark.parametrize(
    "text", ['\'__import__("os").system("touch {marker}")\'', "$(touch {marker})", "`touch {marker}`"]
)
def test_text_that_is_code_elsewhere_is_only_text(world: Path, tmp_path: Path, text: str) -> None:
    marker = tmp_path / "ran"
    result = call(
        world, "train", "--dataset", "demo", "--dry-run", "--set", f"training.lr={text.format(marker=marker)}"
    )
    error_line(result, 2)
    assert not marker.exists()


def test_a_table_whose_cells_are_code_is_only_read(tmp_path: Path, payload: Payload) -> None:
    code = f"open({str(payload.marker)!r}, 'w')"
    titles = [
        code,
        f"__import__('os').system('touch {payload.marker}')",
        f"{{{{ {code} }}}}",
        f"{{% {code} %}}",
        "${7*7}",
    ]
    items = {f"i{n}": {"title": titles[n % 5], "categories": f"['{code}']"} for n in range(NUM_ITEMS)}
    write_atomic(tmp_path / "data", "toy", items=items)
    assert call(tmp_path, "prepare", "--dataset", "toy").exit_code == 0
    assert not payload.has_run


def test_damaged_data_is_told_apart_from_code(tmp_path: Path) -> None:
    (tmp_path / "txt_emb.pt").write_bytes(saved(ROWS)[:-40])
    with pytest.raises(DataError, match=r"txt_emb\.pt"):
        read_vectors(tmp_path, "txt_emb", ["", *(f"i{number}" for number in range(NUM_ITEMS))])
