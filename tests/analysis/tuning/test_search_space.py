from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from athwe_core.analysis.tuning import search_space
from athwe_core.analysis.tuning.search_space import (
    Choices,
    Range,
    combinations,
    draw,
    parse_space,
    read_space,
    with_values,
)
from athwe_core.errors import ConfigError
from athwe_core.models.registry import build_config

BASE = build_config("hm4sr")


def test_the_shipped_space_is_the_papers() -> None:
    tree = read_space(None, model="athwe")
    for preset in ("athwe", "hm4sr"):
        space = parse_space(tree, build_config(preset))
        assert combinations(space) == 5 * 5 * 6 * 6 * 6 * 5
    assert space["losses.pcl.mask_share"] == Range(0.1, 0.5, 0.1, log=False, whole=False)
    assert space["losses.pcl.weight"] == Choices((0.1, 0.3, 0.5, 0.7, 1.0, 1.5))


def test_every_shipped_space_fits_its_model() -> None:
    """No space is a preset, and each has only keys and values that the model's configuration allows."""
    spaces = [
        file.name.removesuffix(".yaml") for file in (resources.files("athwe_core") / "presets" / "search").iterdir()
    ]
    assert "athwe" in spaces
    for model in spaces:
        base = build_config(model)
        assert base.model.name == model
        parse_space(read_space(None, model=model), base)


def test_a_model_without_a_space_needs_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(search_space, "find_model", lambda _: SimpleNamespace(presets=tmp_path))
    with pytest.raises(ConfigError, match="--space must be given: model mine comes without a search space") as caught:
        read_space(None, model="mine")
    (tmp_path / "mine.yaml").write_text(caught.value.remedy.split(" such as: ")[1])
    assert parse_space(read_space(tmp_path / "mine.yaml", model="mine"), BASE)["training.lr"].count() is None


def test_numbers_are_of_the_type_of_the_present_value() -> None:
    tree = {
        "model.temporal_moe.num_experts": {"low": 2, "high": 12, "step": 2},
        "model.num_layers": {"low": 1.0, "high": 4},
        "model.dropout": {"low": 0, "high": "5e-1"},
        "training.lr": {"low": "1e-4", "high": "1e-2", "log": True},
        "losses.pcl.weight": {"choices": [0, 1, "5e-1"]},
    }
    space = parse_space(tree, BASE)
    assert list(space.values()) == [
        Range(2, 12, 2, log=False, whole=True),
        Range(1, 4, 1, log=False, whole=True),
        Range(0.0, 0.5, None, log=False, whole=False),
        Range(0.0001, 0.01, None, log=True, whole=False),
        Choices((0.0, 1.0, 0.5)),
    ]
    assert [part.count() for part in space.values()] == [6, 4, None, None, 3]
    assert combinations(space) is None


def test_draws_stay_inside_and_reach_every_step() -> None:
    tree = {
        "losses.pcl.mask_share": {"low": 0.1, "high": 0.5, "step": 0.1},
        "model.num_layers": {"low": 1, "high": 3},
        "model.inner_size": {"low": 8, "high": 512, "log": True},
        "training.lr": {"low": 0.001, "high": 0.1, "log": True},
        "model.dropout": {"low": 0.1, "high": 0.5},
    }
    space, rng = parse_space(tree, BASE), np.random.default_rng(0)
    drawn = [draw(space, rng) for _ in range(300)]
    assert {values["losses.pcl.mask_share"] for values in drawn} == {0.1, 0.2, 0.3, 0.4, 0.5}
    assert {values["model.num_layers"] for values in drawn} == {1, 2, 3}
    inner = [values["model.inner_size"] for values in drawn]
    assert 8 <= min(inner) < 12
    assert 400 < max(inner) <= 512
    assert 50 < np.median(inner) < 80  # sqrt(8 * 512) = 64
    assert all(isinstance(value, int) for value in inner)
    assert 0.007 < np.median([values["training.lr"] for values in drawn]) < 0.014
    assert 0.27 < np.median([values["model.dropout"] for values in drawn]) < 0.33
    assert with_values(BASE, drawn[0]).losses.pcl.mask_share == drawn[0]["losses.pcl.mask_share"]


@pytest.mark.parametrize("part", [Choices((["id"], ["id", "text"])), Choices((0.1, 3.0)), Choices((True, False))])
def test_choices_come_back_from_what_is_stored(part: Choices) -> None:
    assert [part.decode(part.encode(value)) for value in part.values] == list(part.values)


def test_a_value_that_only_goes_with_others_of_the_space_is_fine() -> None:
    tree = {"model.hidden_size": {"choices": [64, 60]}, "model.num_heads": {"choices": [2, 5]}}
    assert combinations(parse_space(tree, BASE)) == 4
    with pytest.raises(ConfigError, match=r"model.num_heads must divide model.hidden_size=64, got 5"):
        parse_space({"model.num_heads": {"choices": [2, 5]}}, BASE)


def test_descriptions() -> None:
    tree = {
        "losses.pcl.mask_share": {"low": 0.1, "high": 0.5, "step": 0.1},
        "training.lr": {"low": 0.001, "high": 0.1, "log": True},
        "model.num_layers": {"low": 1, "high": 3},
        "model.time_encoding.kind": {"choices": ["interval", "day"]},
    }
    assert [str(part) for part in parse_space(tree, BASE).values()] == [
        "0.1 to 0.5 in steps of 0.1",
        "0.001 to 0.1, log-uniform",
        "1 to 3",
        "interval, day",
    ]


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ({}, "search space must have at least one key, got {}"),
        ({"model.dropot": {"choices": [1]}}, r"model.dropot is no configuration key. Did you mean model.dropout\?"),
        ({"model.temporal_moe": {"choices": [1]}}, "must be one key and not a section. It has enabled, kind"),
        ({"model": {"dropout": {"choices": [0.1]}}}, "model must be one key and not a section"),
        ({"model.dropout": [0.1, 0.2]}, r"model.dropout must be \{choices: .*, got \[0.1, 0.2\]"),
        ({"model.dropout": {"low": 0.1}}, r"model.dropout must be .*got \{'low': 0.1\}"),
        ({"model.dropout": {"choices": [0.1], "low": 0}}, "and not both"),
        ({"model.dropout": {"chioces": [0.1]}}, r"model.dropout.chioces is unknown.*Did you mean choices\?"),
        ({"model.dropout": {"choices": []}}, r"must be a list of at least one value, got \[\]"),
        ({"model.dropout": {"choices": 0.1}}, "must be a list of at least one value, got 0.1"),
        ({"model.dropout": {"choices": [0.1, "1e-1"]}}, "must not repeat a value, got 0.1"),
        ({"model.dropout": {"choices": [0.1, 1.5]}}, r"model.dropout must be in \[0, 1\), got 1.5"),
        ({"model.dropout": {"choices": [0.1, "much"]}}, "model.dropout must be a number, got 'much'"),
        ({"model.dropout": {"low": 0.5, "high": 0.5}}, "model.dropout.low must be below high=0.5, got 0.5"),
        ({"model.dropout": {"low": 0.1, "high": 1.5}}, r"model.dropout must be in \[0, 1\), got 1.5"),
        ({"model.dropout": {"low": "a", "high": 1}}, "model.dropout.low must be a number, got 'a'"),
        ({"model.dropout": {"low": 0, "high": True}}, "model.dropout.high must be a number, got True"),
        ({"model.dropout": {"low": 0, "high": 0.5, "log": True}}, "low must be positive with log: true, got 0"),
        ({"model.dropout": {"low": 0.1, "high": 0.5, "log": "yes"}}, "log must be true or false, got 'yes'"),
        ({"model.dropout": {"low": 0.1, "high": 0.5, "log": True, "step": 0.1}}, "step must be left out .*got 0.1"),
        ({"model.dropout": {"low": 0.1, "high": 0.5, "step": 0}}, "step must be positive, got 0"),
        ({"model.dropout": {"low": 0.1, "high": 0.5, "step": 0.15}}, "must be reached.*got 0.5. Try 0.4"),
        ({"model.num_layers": {"low": 1, "high": 2.5}}, "model.num_layers.high must be a whole number, got 2.5"),
        ({"model.num_layers": {"low": 1, "high": 3, "step": 0.5}}, "step must be a whole number, got 0.5"),
        (
            {"model.wavelet.enabled": {"low": 0, "high": 1}},
            "must have choices: its value in the configuration, False, is no",
        ),
        (
            {"training.seed": {"low": 0, "high": 9}},
            "training.seed cannot be searched.*set it with --set training.seed=VALUE",
        ),
        ({"evaluation.exclude_seen": {"choices": [True]}}, "evaluation.exclude_seen cannot be searched"),
    ],
)
def test_mistakes_are_named(tree: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        parse_space(tree, BASE)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--space must be a file, got '.*absent\.yaml'"):
        read_space(tmp_path / "absent.yaml", model="athwe")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml line 1 must be readable YAML"):
        read_space(tmp_path / "broken.yaml", model="athwe")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(ConfigError, match="must be a mapping"):
        read_space(tmp_path / "list.yaml", model="athwe")
