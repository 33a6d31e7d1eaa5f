import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from athwe_core.config import Config, config_tree, flattened, parse_override, read_yaml
from athwe_core.config_schema import Section
from athwe_core.errors import AthweError, ConfigError
from athwe_core.models.registry import (
    ADDED_KEYS,
    ADDED_KEYS_OF_MODELS,
    build_config,
    config_from_tree,
    preset_names,
    preset_tree,
    replace_in,
)

# override, what its error says: name, rule, value and, where there is one, remedy
RULES = [
    ("model.hidden_size=0", "model.hidden_size must be positive, got 0"),
    ("model.inner_size=-1", "model.inner_size must be positive, got -1"),
    ("model.num_layers=0", "model.num_layers must be positive, got 0"),
    ("model.num_heads=0", "model.num_heads must be positive, got 0"),
    ("model.num_heads=3", "model.num_heads must divide model.hidden_size=128, got 3"),
    ("model.dropout=1", "model.dropout must be in [0, 1), got 1.0"),
    ("model.dropout=-0.1", "model.dropout must be in [0, 1), got -0.1"),
    ("model.dropout=.nan", "model.dropout must be finite, at most 3e+38 in size, got nan"),
    ("model.max_length=1", "model.max_length must be at least 2, got 1"),
    ("model.max_length=0", "model.max_length must be at least 2, got 0"),
    (
        "model.modalities=[text]",
        "model.modalities must be a subset of id, text, image that contains id, in this order, got ['text']",
    ),
    ("model.modalities=[id, sound]", "in this order, got ['id', 'sound']"),
    ("model.modalities=[text, id]", "in this order, got ['text', 'id']"),
    ("model.modalities=[id, id]", "in this order, got ['id', 'id']"),
    ("model.modalities=[]", "in this order, got []"),
    ("model.modalities=id", "model.modalities must be a list, got 'id'"),
    ("model.interactive_moe.num_experts=0", "model.interactive_moe.num_experts must be positive, got 0"),
    (
        "model.interactive_moe.alpha_init=[1, 2]",
        "model.interactive_moe.alpha_init must have 3 numbers, for id, text, image, got [1.0, 2.0]",
    ),
    ("model.interactive_moe.alpha_init=[0, 1, x]", "model.interactive_moe.alpha_init[2] must be a number, got 'x'"),
    ("model.wavelet.levels=0", "model.wavelet.levels must be positive, got 0"),
    ("model.wavelet.form=sideways", "model.wavelet.form must be one of causal, centred, got 'sideways'"),
    (
        "model.wavelet.weight_init=[1]",
        "model.wavelet.weight_init must have 3 numbers, for id, text, image, got [1.0]",
    ),
    (
        "model.wavelet.name=harr",
        "model.wavelet.name must be a discrete wavelet of PyWavelets, got 'harr'. Did you mean haar",
    ),
    (
        "model.wavelet.name=zzzz",
        "model.wavelet.name must be a discrete wavelet of PyWavelets, got 'zzzz'. Try haar or db4",
    ),
    ("model.temporal_moe.num_experts=0", "model.temporal_moe.num_experts must be positive, got 0"),
    ("model.temporal_moe.num_shared=-1", "model.temporal_moe.num_shared must not be negative, got -1"),
    ("model.temporal_moe.kind=thick", "model.temporal_moe.kind must be one of dense, sparse, got 'thick'"),
    ("model.time_encoding.kind=lunar", "model.time_encoding.kind must be one of interval, absolute, "),
    ("model.time_encoding.time_unit=weeks", "model.time_encoding.time_unit must be one of days, seconds, got 'weeks'"),
    ("model.time_encoding.buckets_per_log2=0", "model.time_encoding.buckets_per_log2 must be positive, got 0.0"),
    ("model.time_encoding.saturation_seconds=0", "model.time_encoding.saturation_seconds must be positive, got 0.0"),
    ("model.time_encoding.frequency=-1", "model.time_encoding.frequency must be positive, got -1.0"),
    ("model.time_encoding.num_buckets=0", "model.time_encoding.num_buckets must be positive, got 0"),
    ("losses.catalogue.kind=half", "losses.catalogue.kind must be one of full, sampled, got 'half'"),
    ("losses.cp.weight=-1", "losses.cp.weight must not be negative, got -1.0"),
    ("losses.cluster.weight=-2", "losses.cluster.weight must not be negative, got -2.0"),
    ("losses.diversity.weight=.inf", "losses.diversity.weight must be finite, at most 3e+38 in size, got inf"),
    ("losses.idcl.weight=.nan", "losses.idcl.weight must be finite, at most 3e+38 in size, got nan"),
    ("losses.idcl.temperature=0", "losses.idcl.temperature must be positive, got 0.0"),
    ("losses.pcl.weight=-1", "losses.pcl.weight must not be negative, got -1.0"),
    ("losses.pcl.temperature=-1", "losses.pcl.temperature must be positive, got -1.0"),
    ("losses.pcl.mask_share=1.5", "losses.pcl.mask_share must be in [0, 1], got 1.5"),
    (
        "losses.diversity.weight=1",
        "losses.diversity.weight must be 0 without sparse temporal experts, got 1.0. Use --set losses.diversity.weight=0",
    ),
    (
        "model.temporal_moe.enabled=false",
        "losses.pcl.weight must be 0 without model.temporal_moe, whose time encoding makes the placeholder, got 1.0. "
        "Use --set losses.pcl.weight=0",
    ),
    ("training.batching=loose", "training.batching must be one of packed, prefix, got 'loose'"),
    ("training.batch_targets=0", "training.batch_targets must be positive, got 0"),
    ("training.lr=0", "training.lr must be positive, got 0.0"),
    ("training.lr=.inf", "training.lr must be finite, at most 3e+38 in size, got inf"),
    ("training.epochs=0", "training.epochs must be positive, got 0"),
    ("training.patience=0", "training.patience must be positive, got 0"),
    ("training.seed=-1", "training.seed must be in 0..2^32-1, got -1"),
    ("training.precision=fp8", "training.precision must be one of auto, fp32, bf16, got 'fp8'"),
    ("training.device=tpu", "training.device must be auto, cpu, cuda, cuda:N or mps, got 'tpu'"),
    ("training.device=cuda:x", "training.device must be auto, cpu, cuda, cuda:N or mps, got 'cuda:x'"),
    ("evaluation.ks=[10, 5]", "evaluation.ks must be increasing positive numbers, got [10, 5]"),
    ("evaluation.ks=[]", "evaluation.ks must be increasing positive numbers, got []"),
    ("evaluation.ks=[5, 5]", "evaluation.ks must be increasing positive numbers, got [5, 5]"),
    # types
    ("model.num_layers=1.5", "model.num_layers must be a whole number, got 1.5"),
    ("model.num_layers=true", "model.num_layers must be a whole number, got True"),
    ("model.num_layers=null", "model.num_layers must be a whole number, got None"),
    ("model.dropout=much", "model.dropout must be a number, got 'much'"),
    ("model.dropout=true", "model.dropout must be a number, got True"),
    ("model.score_weights=1", "model.score_weights must be true or false, got 1"),
    ("training.device=3", "training.device must be text, got 3"),
    ("model.wavelet=haar", "model.wavelet must be a section of keys, got 'haar'"),
    # keys
    ("model.dropuot=0.1", "model.dropuot is no configuration key. Did you mean model.dropout?"),
    ("losses.plc.weight=1", "losses.plc is no configuration key. Did you mean losses.pcl?"),
    ("trainig.lr=1", "trainig is no configuration key. Did you mean training?"),
    ("zzz=1", "zzz is no configuration key. Known under the top: model, losses, training, evaluation"),
    ("losses.cp.zzz=1", "losses.cp.zzz is no configuration key. Known under losses.cp: weight"),
    # form
    ("model.dropout", "--set model.dropout must have the form a.b=value, got 'model.dropout'"),
    ("=3", "--set =3 must have the form a.b=value, got '=3'"),
    (
        "model.modalities=[id",
        "--set model.modalities must be readable YAML (expected ',' or ']', but got '<stream end>')",
    ),
]


@pytest.mark.parametrize(("override", "text"), RULES, ids=[override for override, _ in RULES])
def test_each_rule_says_its_key_its_rule_and_the_value(override: str, text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)) as caught:
        replace_in(build_config("athwe"), [override])
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("top_k", [0, 9])
def test_top_k_of_sparse_experts_is_at_most_their_number(top_k: int) -> None:
    with pytest.raises(ConfigError, match=rf"model\.temporal_moe\.top_k must be in 1\.\.num_experts=8, got {top_k}"):
        replace_in(build_config("athwe-published"), [f"model.temporal_moe.top_k={top_k}"])


def test_dense_experts_have_no_top_k() -> None:
    assert replace_in(build_config("hm4sr"), ["model.temporal_moe.num_experts=2"]).model.temporal_moe.num_experts == 2


def test_the_centred_wavelet_names_the_way_out_of_packed_batching() -> None:
    text = (
        "training.batching must be prefix with model.wavelet.form: centred, which looks ahead, got 'packed'. "
        "Use --batching prefix, or --set model.wavelet.form=causal"
    )
    with pytest.raises(ConfigError, match=re.escape(text)):
        replace_in(build_config("athwe"), ["model.wavelet.form=centred"])
    legal = replace_in(build_config("hm4sr"), ["model.wavelet.form=centred"])
    assert not legal.model.wavelet.enabled


@pytest.mark.parametrize("preset", preset_names())
def test_a_preset_is_a_complete_legal_tree_that_comes_back_as_it_was(preset: str) -> None:
    config = build_config(preset)
    assert config_from_tree(config_tree(config)) == config
    assert config_from_tree(yaml.safe_load(yaml.safe_dump(config_tree(config)))) == config
    assert replace_in(config, []) == config


def test_every_preset_file_is_listed() -> None:
    folder = Path(__file__).parents[1] / "athwe_core" / "presets"
    assert sorted(path.stem for path in folder.glob("*.yaml")) == sorted(preset_names())


def test_an_unknown_preset_names_the_known_ones() -> None:
    known = f"Known: {', '.join(preset_names())}"
    text = f"--preset is unknown, got 'hm4rs'. Did you mean hm4sr? {known}"
    with pytest.raises(ConfigError, match=re.escape(text)):
        preset_tree("hm4rs")
    with pytest.raises(ConfigError, match=re.escape(f"got 'xyz'. {known}")):
        build_config("xyz")


def leaves(tree: dict[str, Any], prefix: str = "") -> list[str]:
    nested = [leaves(v, f"{prefix}{k}.") if isinstance(v, dict) else [f"{prefix}{k}"] for k, v in tree.items()]
    return [key for keys in nested for key in keys]


YOUNGER = [".".join(path) for path in [*ADDED_KEYS, *ADDED_KEYS_OF_MODELS["athwe"]]]


@pytest.mark.parametrize(
    "key",
    [key for key in leaves(preset_tree("hm4sr")) if key != "model.name" and not key.startswith(tuple(YOUNGER))],
)
def test_no_key_has_a_silent_default(key: str) -> None:
    tree = copy.deepcopy(preset_tree("hm4sr"))
    *sections, last = key.split(".")
    section = tree
    for name in sections:
        section = section[name]
    del section[last]
    with pytest.raises(ConfigError, match=f"^{re.escape(key)} is missing from the configuration"):
        config_from_tree(tree)


def test_a_configuration_of_version_0_1_0_reads_as_athwe_without_what_came_later() -> None:
    tree = copy.deepcopy(preset_tree("hm4sr"))
    del tree["model"]["name"]
    for section, key in [*ADDED_KEYS, *ADDED_KEYS_OF_MODELS["athwe"]]:
        del tree[section][key]
    assert config_from_tree(tree) == build_config("hm4sr")


@pytest.mark.parametrize(("section", "key"), ADDED_KEYS)
def test_a_key_that_came_later_may_be_missing(section: str, key: str) -> None:
    tree = copy.deepcopy(preset_tree("sasrec"))
    del tree[section][key]
    assert config_from_tree(tree) == build_config("sasrec")


def test_tables_are_divided_only_where_a_step_needs_few_rows() -> None:
    change = [{"training": {"shard_tables": True}}]
    rule = (
        "training.shard_tables needs losses.catalogue.kind=sampled, got True. Use --set losses.catalogue.kind=sampled"
    )
    with pytest.raises(ConfigError, match=re.escape(rule)):
        build_config("hm4sr", change)
    rule = "training.shard_tables must be false with model tedrec, got True. Use --set training.shard_tables=false"
    with pytest.raises(ConfigError, match=re.escape(rule)):
        build_config("tedrec", change)
    config = build_config("sasrec", [*change, {"losses": {"catalogue": {"kind": "sampled"}}}])
    assert config.training.shard_tables


def test_the_model_of_a_preset_cannot_be_changed() -> None:
    text = "model.name is athwe in the preset hm4sr and cannot be changed, got 'other'. Choose a preset of that model"
    with pytest.raises(ConfigError, match=re.escape(text)):
        build_config("hm4sr", [{"model": {"name": "other"}}])


def test_presets_are_found_in_any_case() -> None:
    assert build_config("HM4SR") == build_config("hm4sr")


def test_later_changes_win() -> None:
    changes = [{"training": {"lr": 0.1, "seed": 3}}, {"training": {"lr": 0.2}}]
    config = build_config("hm4sr", changes)
    assert (config.training.lr, config.training.seed) == (0.2, 3)
    assert preset_tree("hm4sr")["training"]["lr"] == 0.001


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=c", "c"),
        ("a.b=3", 3),
        ("a.b=[id, text]", ["id", "text"]),
        ("a.b=null", None),
        ("a.b=true", True),
        ("a.b=x=y", "x=y"),
        (" a.b =1", 1),
    ],
)
def test_overrides_are_read_as_yaml(text: str, value: object) -> None:
    assert parse_override(text) == {"a": {"b": value}}


def test_values_become_their_type() -> None:
    overrides = [
        "training.lr=1e-3",
        "model.dropout=0",
        "training.epochs=2.0e+1",
        "model.time_encoding.num_buckets=null",
    ]
    config = replace_in(build_config("hm4sr"), [*overrides, "evaluation.ks=[1, 3]", "model.modalities=[id, image]"])
    assert config.training.lr == 0.001
    assert config.model.dropout == 0.0
    assert isinstance(config.model.dropout, float)
    assert config.training.epochs == 20
    assert isinstance(config.training.epochs, int)
    assert config.model.time_encoding.num_buckets is None
    assert config.evaluation.ks == (1, 3)
    assert config.model.modalities == ("id", "image")


def sections(config: Section) -> list[Any]:
    nested = [value for _, value in config]
    return [config, *(s for n in nested if isinstance(n, Section) for s in sections(n))]


@pytest.mark.parametrize("section", sections(build_config("athwe")), ids=lambda s: type(s).__name__)
def test_a_configuration_cannot_be_changed_in_place(section: Any) -> None:
    name = next(iter(type(section).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(section, name, None)
    assert isinstance(hash(section), int)


def test_a_yaml_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("training: {lr: 0.01}\n", encoding="utf-8")
    assert build_config("hm4sr", [read_yaml(path)]).training.lr == 0.01
    path.write_text("", encoding="utf-8")
    assert read_yaml(path) == {}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"training:\n  lr: [1\nmodel: 3\n", "mine.yaml line 3 must be readable YAML"),
        (b"- 1\n- 2\n", "mine.yaml must be a mapping of configuration keys, got [1, 2]"),
        (b"\xff\xfe\xfa", "mine.yaml must be readable YAML"),
    ],
)
def test_a_bad_yaml_file_is_named_with_its_line(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(text)):
        read_yaml(path)


def test_a_missing_yaml_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml must be a file\. Check the path given to --config"):
        read_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize("tree", [None, [], 3])
def test_a_configuration_that_is_no_mapping_is_an_error(tree: Any) -> None:
    with pytest.raises(AthweError, match=f"configuration must be a section of keys, got {re.escape(repr(tree))}"):
        config_from_tree(tree)


def test_the_published_numbers() -> None:
    hm4sr, athwe = build_config("hm4sr"), build_config("athwe-published")
    assert isinstance(hm4sr, Config)
    assert hm4sr.model.interactive_moe.alpha_init == (0, 1, 1)
    assert (hm4sr.losses.idcl.temperature, hm4sr.losses.pcl.mask_share) == (0.2, 0.3)
    assert (athwe.model.wavelet.name, athwe.model.wavelet.levels, athwe.model.temporal_moe.top_k) == ("db4", 4, 6)
    assert (athwe.losses.idcl.temperature, athwe.losses.diversity.weight) == (0.1, 0.9)


def test_a_tree_is_flattened_to_keys_with_dots() -> None:
    assert flattened({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}
    assert flattened({}) == {}
