"""The registry: own models, models of other packages, presets and configurations."""

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from athwe_core.errors import ConfigError
from athwe_core.models import registry
from athwe_core.models.protocol import Model, ModelSpec
from athwe_core.models.registry import build_config, find_model, model_names, preset_names, preset_tree

PACKAGE = Path(__file__).parent / "popularity_model"
"""A small package with a model of its own."""


@pytest.mark.parametrize("name", model_names())
def test_every_model_has_a_spec_under_its_name_and_a_preset(name: str) -> None:
    spec = find_model(name)
    assert isinstance(spec, ModelSpec)
    assert spec.name == name
    assert spec.summary
    presets = [preset for preset in preset_names() if preset_tree(preset)["model"]["name"] == name]
    assert presets
    for preset in presets:
        assert isinstance(build_config(preset), spec.config)


def test_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        ConfigError, match=r"model\.name is unknown, got 'sasrek'\. Did you mean sasrec\? Known: athwe, "
    ):
        find_model("sasrek")


def test_a_model_of_another_package_that_fails_to_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("lost", "no_such_package.model:MODEL", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    assert "lost" in model_names()
    assert "athwe" in preset_names()  # the others still work
    text = r"model lost of the entry point no_such_package\.model:MODEL cannot be loaded \(ModuleNotFoundError: .*\)"
    with pytest.raises(ConfigError, match=text):
        find_model("lost")


@pytest.mark.parametrize(("value", "text"), [("json:loads", "must be a ModelSpec, got 'function'")])
def test_an_entry_point_must_name_a_model_spec(monkeypatch: pytest.MonkeyPatch, value: str, text: str) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint("odd", value, registry.GROUP)])
    with pytest.raises(ConfigError, match=text):
        find_model("odd")


def test_a_model_must_offer_its_abstract_methods() -> None:
    assert Model.__abstractmethods__ == {"losses", "user_vectors", "item_table"}


def test_a_model_of_an_installed_package_trains_and_is_evaluated(tmp_path: Path) -> None:
    """A stranger's package: installed by pip, known by its entry point alone."""
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    copy = tmp_path / "source"
    subprocess.run(
        [sys.executable, "-c", f"import shutil; shutil.copytree({str(PACKAGE)!r}, {str(copy)!r})"], check=True
    )
    subprocess.run([*install, "--target", str(site), str(copy)], check=True, capture_output=True)
    paths = [str(site), str(Path(registry.__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}

    def athwe(*arguments: str) -> str:
        command = [sys.executable, "-m", "athwe_cli", *arguments]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    small = ("--epochs", "2", "--set", "training.batch_targets=512", "--name", "first", "--json")
    athwe("prepare", "--dataset", "demo", "--users", "200", "--items", "100", "--json")
    trained = json.loads(athwe("train", "--dataset", "demo", "--preset", "learned-popularity", *small))
    assert trained["epochs"] == 2
    ranked = json.loads(athwe("evaluate", "--run", "first", "--split", "validation", "--json"))
    assert 0 < ranked["metrics"]["ndcg@20"] < 1
