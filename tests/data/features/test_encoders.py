import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from athwe_core.data.features.encoders import find_model, load_encoder
from athwe_core.errors import ConfigError, DataError

SaveModel = Callable[..., Path]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def test_revision_of_a_folder_follows_its_content(bert: Path, tmp_path: Path) -> None:
    same = find_model(str(copy(bert, tmp_path / "bert")), option="text_encoder")
    assert same.identity() == find_model(str(bert), option="text_encoder").identity()
    (tmp_path / "bert" / "README.md").write_text("changes no vector")
    assert find_model(str(tmp_path / "bert"), option="text_encoder").revision == same.revision
    (tmp_path / "bert" / "tokenizer.json").write_text("changes them")
    assert find_model(str(tmp_path / "bert"), option="text_encoder").revision != same.revision


def test_without_the_library_one_line_says_what_to_install(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = (
        r"text_encoder needs the library transformers, which is not installed, got '.*'\. "
        r"Run: pip install 'athwe\[encoders\]'"
    )
    with pytest.raises(ConfigError, match=message):
        find_model(str(bert), option="text_encoder")


def test_pickled_weights_are_not_read(bert: Path, tmp_path: Path) -> None:
    folder = copy(bert, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        DataError, match=r"must hold config\.json and weights as \.safetensors, got '.*pickled'\. Pickled"
    ):
        find_model(str(folder), option="text_encoder")


@pytest.mark.parametrize("name", ["./absent", "/absent/model", "~/absent-model"])
def test_an_absent_folder(name: str) -> None:
    with pytest.raises(DataError, match=r"must be a folder or the name of a model, got .*There is no such folder"):
        find_model(name, option="text_encoder")


def test_weights_that_are_missing_are_not_drawn_at_random(bert: Path, tmp_path: Path) -> None:
    folder = copy(bert, tmp_path / "short")
    weights = load_file(folder / "model.safetensors")
    del weights["pooler.dense.weight"], weights["pooler.dense.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    files = find_model(str(folder), option="text_encoder")
    assert load_encoder(files, option="text_encoder", device="cpu").missing == (
        "pooler.dense.bias",
        "pooler.dense.weight",
    )
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        DataError, match=r"text_encoder short lacks 1 weights of a BertModel, .*got 'encoder\.layer\.1\.out"
    ):
        load_encoder(files, option="text_encoder", device="cpu")


def test_code_of_a_model_is_never_run(bert: Path, tmp_path: Path) -> None:
    folder = copy(bert, tmp_path / "custom")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    files = find_model(str(folder), option="text_encoder")
    with pytest.raises(DataError, match=r"text_encoder custom cannot be loaded from .*custom \("):
        load_encoder(files, option="text_encoder", device="cpu")
    assert not (tmp_path / "ran").exists()


def test_models_compute_in_float32_or_bfloat16_but_keep_float32_weights(bert: Path) -> None:
    encoder = load_encoder(find_model(str(bert), option="text_encoder"), option="text_encoder", precision="bf16")
    assert {parameter.dtype for parameter in encoder.model.parameters()} == {torch.float32}
    assert not encoder.model.training
    with encoder.computing():
        product = torch.ones(2, 2, device=encoder.device) @ torch.ones(2, 2, device=encoder.device)
    assert product.dtype == torch.bfloat16
    assert encoder.facts()["precision"] == "bfloat16"


def test_offline_the_cache_answers_and_what_it_lacks_is_one_line(bert: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--owner--small"
    copy(bert, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    code = (
        "from athwe_core.data.features.encoders import find_model\n"
        "from athwe_core.errors import DataError\n"
        "print(find_model('owner/small', option='text_encoder').identity())\n"
        f"print(find_model('owner/small@{COMMIT}', option='text_encoder').revision)\n"
        "try:\n"
        "    find_model('owner/absent', option='text_encoder')\n"
        "except DataError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    found, pinned, refused = done.stdout.splitlines()
    assert found == str({"id": "owner/small", "revision": COMMIT})
    assert pinned == COMMIT
    assert refused.startswith("text_encoder cannot be fetched (")
    assert refused.endswith(
        "got 'owner/absent'. Give a folder that holds the model, or a name as on huggingface.co; "
        "offline, fetch it before"
    )
    assert done.stderr == ""
