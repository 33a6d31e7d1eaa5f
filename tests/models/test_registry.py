"""The registry: own models, models of other packages (tests/test_add_a_model.py installs one), presets, configurations."""

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint

import pytest

from athwe_core.errors import ConfigError
from athwe_core.models import registry
from athwe_core.models.protocol import Model, ModelSpec
from athwe_core.models.registry import build_config, find_model, model_names, preset_names, preset_tree


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


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[EntryPoint], None]]:
    """Sets what installed packages declare."""

    def declare(point: EntryPoint) -> None:
        monkeypatch.setattr(registry, "entry_points", lambda group: [point])
        registry._foreign.cache_clear()

    yield declare
    registry._foreign.cache_clear()


def test_a_model_of_another_package_that_fails_to_load_is_named(packages: Callable[[EntryPoint], None]) -> None:
    packages(EntryPoint("lost", "no_such_package.model:MODEL", registry.GROUP))
    assert "lost" in model_names()
    assert "athwe" in preset_names()  # the others still work
    text = r"model lost of the entry point no_such_package\.model:MODEL cannot be loaded \(ModuleNotFoundError: .*\)"
    with pytest.raises(ConfigError, match=text):
        find_model("lost")


@pytest.mark.parametrize(("value", "text"), [("json:loads", "must be a ModelSpec, got 'function'")])
def test_an_entry_point_must_name_a_model_spec(packages: Callable[[EntryPoint], None], value: str, text: str) -> None:
    packages(EntryPoint("odd", value, registry.GROUP))
    with pytest.raises(ConfigError, match=text):
        find_model("odd")


def test_a_model_must_offer_its_abstract_methods() -> None:
    assert Model.__abstractmethods__ == {"losses", "user_vectors", "item_table"}
