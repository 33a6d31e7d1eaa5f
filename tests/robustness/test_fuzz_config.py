"""Whatever is written as a configuration: it is one, or the error names the place and the rule. Nothing else comes out."""

import copy
import json
import re
import resource
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz_cases import FEW, MANY, assert_told, few_and_many, fuzz, mutated, time_limit
from hypothesis import strategies as st

from athwe_core.batch import Catalogue, TimeRange
from athwe_core.config import MAX_YAML_LENGTH, Config, config_tree, parse_override, parse_yaml, read_yaml
from athwe_core.data.packing import pack
from athwe_core.data.rows import packed_rows
from athwe_core.errors import ConfigError
from athwe_core.models.athwe.model import Athwe
from athwe_core.models.protocol import ModelInputs
from athwe_core.models.registry import build_config, config_from_tree, preset_names, preset_tree, replace_in

PRESET_TEXTS = [
    resources.files("athwe_core").joinpath("presets", f"{name}.yaml").read_bytes() for name in sorted(preset_names())
]


def keys_of(tree: dict[str, Any], prefix: str = "") -> list[str]:
    """Every key of the tree, sections too."""
    return [
        key
        for name, value in tree.items()
        for key in (prefix + name, *(keys_of(value, f"{prefix}{name}.") if isinstance(value, dict) else ()))
    ]


KEYS = keys_of(preset_tree("athwe"))
TOKENS = (
    *"[]{}:,-?&*!|>'\"%@`#\n\t ~=<",
    *(": ", "- ", "? ", "\n  ", "&a ", "*a", "<<: ", "---\n", "...\n", "%YAML 9.9\n", "!!", "\\U", "\\x0", "\\uD800"),
    *(
        "!!int ",
        "!!float ",
        "!!bool ",
        "!!null ",
        "!!str ",
        "!!binary ",
        "!!timestamp ",
        "!!set ",
        "!!omap ",
        "!!merge ",
    ),
    *("!!python/object/apply:os.system ", "!!python/tuple ", "!<tag:yaml.org,2002:int> ", "!local "),
    *(
        "0x",
        "0b_",
        "0o7",
        "010",
        "1_000",
        "1e999",
        "1e-3",
        ".nan",
        "-.inf",
        "1:2:3",
        "1:2.5",
        "2001-99-99",
        "2001-01-01",
    ),
    *("9" * 39, "9" * 999, "9" * 5000, "true", "off", "null", "\x00", "\x1b[31m", "\ufeff", "\x85", "\u2028", "\ud800"),
    *("model", "training", "losses", "evaluation", "lr", "ks", "model: ", "training: {", "wavelet: ", "é", "🛒"),
)
token_soup = st.lists(st.sampled_from(TOKENS) | st.text(max_size=3), max_size=25).map("".join)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["id", "text", "haar"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.sampled_from(KEYS), inner),
    max_leaves=8,
)  # fmt: skip
SIZES = (0, 1, 2, 3, 4, 8, 30, 31, 64, 128, 2**31, 2**32, 2**32 + 1, 2**53, 2**64, 10**400)
REALS = (0.0, 0.1, 0.5, 1.0, 2.5, 1e-3, 1e-45, 1e-320, 1e6, 1e30, 1e39, 1e308)
WORDS = (
    "id",
    "text",
    "image",
    "haar",
    "db4",
    "harr",
    "causal",
    "centred",
    "dense",
    "sparse",
    "packed",
    "prefix",
    "cuda:0",
)
WORDS = (
    *WORDS,
    "cuda:9999999999999999999",
    "cuda:²",
    "cpu",
    "auto",
    "bf16",
    "days",
    "cos",
    "interval",
    "saturating",
    "",
)
numbers = st.sampled_from((*SIZES, *REALS)).flatmap(lambda number: st.sampled_from((number, number, -number)))
values = plain | numbers | st.lists(numbers, max_size=4)


def like(value: Any) -> st.SearchStrategy[Any]:
    """Values of the type of a preset's value, legal or not."""
    if isinstance(value, list):
        return st.lists(like(value[0]), max_size=4, unique=True).map(
            lambda drawn: sorted(drawn, key=WORDS.index if isinstance(value[0], str) else None)
        )
    kinds: dict[type, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.sampled_from(SIZES) | st.integers(-3, 70),
        float: st.sampled_from(REALS) | st.floats(),
        str: st.sampled_from(WORDS),
    }
    return kinds.get(type(value), st.none() | st.integers(0, 300))


def value_at(key: str) -> Any:
    value: Any = preset_tree("athwe")
    for name in key.split("."):
        value = value[name]
    return value


LEAVES = {key: value for key in KEYS if not isinstance(value := value_at(key), dict)}
likely = st.sampled_from(sorted(LEAVES)).flatmap(lambda key: st.tuples(st.just(key), like(LEAVES[key])))
"""A key and a value that it may have."""


def legal(config: Config) -> str:
    """A configuration that was taken is one: it comes back from what is written of it."""
    assert config_from_tree(json.loads(json.dumps(config_tree(config), allow_nan=False))) == config
    assert isinstance(hash(config), int)
    return "legal"


def outcome(make: Callable[[], Config]) -> str:
    try:
        return legal(make())
    except ConfigError as error:
        assert_told(error)
        return "refused"


@few_and_many
def test_fuzz_config_texts(cases: int, tmp_path: Path) -> None:
    """Any bytes as a configuration file."""
    path = tmp_path / "any.yaml"

    def check(content: bytes) -> str:
        path.write_bytes(content)
        return outcome(lambda: build_config("athwe", [read_yaml(path)]))

    soup = token_soup.map(lambda text: text.encode("utf-8", "surrogatepass"))
    found = fuzz(check, st.binary(max_size=60) | soup, cases=cases)
    assert found["refused"] > cases / 2


@few_and_many
def test_fuzz_config_mutated_presets(cases: int, tmp_path: Path) -> None:
    path = tmp_path / "mutated.yaml"

    def check(content: bytes) -> str:
        path.write_bytes(content)
        return outcome(lambda: config_from_tree(read_yaml(path)))

    found = fuzz(check, st.sampled_from(PRESET_TEXTS).flatmap(mutated), cases=cases)
    assert found["refused"] >= cases / 2
    if cases > FEW:
        assert found["legal"] >= cases / 100


@few_and_many
def test_fuzz_config_overrides(cases: int) -> None:
    """Any `--set` text: known and unknown keys, values of every kind."""
    config = build_config("athwe-published")
    keys = st.sampled_from(KEYS) | st.lists(st.sampled_from([*KEYS, "", ".", "x", "\x1b[2J"]), max_size=3).map(".".join)
    texts = values.map(lambda value: json.dumps(value, ensure_ascii=False)) | token_soup | st.text(max_size=20)
    near = likely.map(lambda pair: f"{pair[0]}={json.dumps(pair[1])}")
    pairs = near | st.tuples(keys, texts).map("=".join) | token_soup
    found = fuzz(lambda text: outcome(lambda: replace_in(config, [text])), pairs, cases=cases)
    assert min(found["legal"], found["refused"]) >= cases / 100


@few_and_many
def test_fuzz_config_trees(cases: int) -> None:
    """A complete tree with one or two parts replaced by any plain value, or taken away."""

    def check(changes: list[tuple[str, str, Any]]) -> str:
        tree = copy.deepcopy(preset_tree("athwe"))
        for key, what, value in changes:
            *sections, last = key.split(".")
            part = tree
            for name in sections:
                part = part.get(name, {}) if isinstance(part, dict) else {}
            if not isinstance(part, dict):
                continue
            if what == "take":
                part.pop(last, None)
            else:
                part[last if what == "replace" else value if isinstance(value, str | int | None) else "new"] = value
        return outcome(lambda: config_from_tree(tree))

    wild = st.tuples(st.sampled_from(KEYS), st.sampled_from(["replace", "take", "add"]), values)
    near = likely.map(lambda pair: (pair[0], "replace", pair[1]))
    found = fuzz(check, st.lists(near | near | wild, min_size=1, max_size=2), cases=cases)
    assert min(found["legal"], found["refused"]) >= cases / 100


SMALL = {
    "model.hidden_size": st.sampled_from([2, 4, 6, 8]),
    "model.inner_size": st.integers(1, 12),
    "model.num_layers": st.integers(1, 3),
    "model.num_heads": st.integers(1, 4),
    "model.max_length": st.integers(2, 7),
    "model.modalities": st.sampled_from([["id"], ["id", "text"], ["id", "image"], ["id", "text", "image"]]),
    "model.interactive_moe.num_experts": st.integers(1, 4),
    "model.wavelet.name": st.sampled_from(["haar", "db4", "bior2.4", "dmey"]),
    "model.wavelet.form": st.sampled_from(["causal", "centred"]),
    "model.wavelet.levels": st.integers(1, 31) | st.sampled_from([60, 64, 100]),
    "model.temporal_moe.kind": st.sampled_from(["dense", "sparse"]),
    "model.temporal_moe.num_experts": st.integers(1, 5),
    "model.temporal_moe.top_k": st.integers(1, 5),
    "model.temporal_moe.num_shared": st.integers(0, 2),
    "model.time_encoding.kind": st.sampled_from(
        ["interval", "absolute", "interval+absolute", "day", "day_of_year", "cos", "saturating"]
    ),
    "model.time_encoding.time_unit": st.sampled_from(["days", "seconds"]),
    "model.time_encoding.num_buckets": st.none() | st.integers(1, 300),
    "model.time_encoding.buckets_per_log2": st.sampled_from([1e-30, 0.5, 100.0, 1e4, 1e30]),
    "training.batching": st.sampled_from(["packed", "prefix"]),
    "losses.pcl.weight": st.sampled_from([0.0, 1.0]),
    "losses.diversity.weight": st.sampled_from([0.0, 1.0]),
}
"""Sizes that a test can build; every other key takes any value of its type that is legal."""
BASE = {"model.hidden_size": 8, "model.inner_size": 12, "model.max_length": 6, "training.batching": "prefix"}


@pytest.mark.parametrize("cases", [150, pytest.param(MANY, marks=pytest.mark.slow)])
def test_fuzz_config_that_is_taken_builds_a_network_that_reads_a_batch(
    cases: int, catalogue: Catalogue, time_range: TimeRange, make_data: Callable[..., Any]
) -> None:
    data = make_data([3, 4, 9])
    base = replace_in(build_config("athwe"), [f"{key}={value}" for key, value in BASE.items()])
    free = sorted(key for key in LEAVES if not key.startswith(("training.", "evaluation.")))
    drawn = st.sampled_from(sorted({*free, *SMALL})).flatmap(
        lambda key: st.tuples(st.just(key), SMALL.get(key, like(LEAVES[key])))
    )

    def check(changes: list[tuple[str, Any]]) -> str:
        try:
            config = replace_in(base, [f"{key}={json.dumps(value)}" for key, value in changes])
        except ConfigError as error:
            assert_told(error)
            return "refused"
        L = config.model.max_length
        rows = packed_rows(data.split, max_length=L)
        network = Athwe(config, ModelInputs(catalogue, time_range)).train()
        outputs = network(pack(data, rows, np.arange(len(rows)), max_length=L))
        assert outputs.states.shape[::2] == (len(config.model.modalities), config.model.hidden_size)
        return "builds"

    found = fuzz(check, st.lists(drawn, min_size=1, max_size=5), cases=cases)
    assert min(found["builds"], found["refused"]) > cases / 20


BOMBS = {
    "billion laughs": "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)),
    "a list in itself": "training: &a [*a]",
    "merged into itself": "training: &a {<<: *a}",
    "merges": "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40)),
    "deep list": "[" * (MAX_YAML_LENGTH // 2),
    "deep mapping": "{a: " * (MAX_YAML_LENGTH // 5),
    "deep blocks": "- " * (MAX_YAML_LENGTH // 3),
    "questions": "? " * (MAX_YAML_LENGTH // 3),
    "deep by indentation": "".join(" " * n + "a:\n" for n in range(400)),
    "many keys": "\n".join(f"k{n}: 1" for n in range(9000)),
    "many documents": "---\n" * (MAX_YAML_LENGTH // 5),
    "long list": "training: [" + "1," * (MAX_YAML_LENGTH // 3) + "]",
    "long text": "training: " + "x" * (MAX_YAML_LENGTH - 20),
    "long key": "x" * (MAX_YAML_LENGTH - 20) + ": 1",
    "long number": "training: " + "9" * 50_000,
    "long number in base 60": "training: 1" + ":10" * 30_000,
    "long version": "%YAML 1." + "1" * 50_000 + "\n---\na: 1",
    "one gigabyte": "",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_fuzz_config_bombs_are_refused_by_limits(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(BOMBS[kind], encoding="utf-8")
    if kind == "one gigabyte":
        with path.open("wb") as file:
            file.truncate(2**30)  # sparse: it takes no room
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with time_limit(5), pytest.raises(ConfigError) as caught:
        build_config("athwe", [read_yaml(path)])
    assert_told(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_a_key_given_twice_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"mine line 3 must be readable YAML \(the key lr is there twice\)"):
        parse_yaml("training:\n  lr: 1\n  lr: 2\n", "mine")


def test_an_alias_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"mine line 2 .*an alias is not allowed: write the part out"):
        parse_yaml("a: &x [1]\nb: *x\n", "mine")


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!x {}"])
def test_a_tag_that_would_make_an_object_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"could not determine a constructor for the tag"):
        parse_override(f"training.device={text}")


def test_a_date_is_text_and_a_truth_value_is_none_of_text() -> None:
    assert parse_yaml("[2001-01-01, 2001-99-99, '1']", "mine") == ["2001-01-01", "2001-99-99", "1"]
    assert parse_yaml("[on, 1_000, 0x10]", "mine") == [True, 1000, 16]


def test_a_deep_key_is_refused_before_it_is_built() -> None:
    with pytest.raises(ConfigError, match=r"must have at most 10 parts, got 30001"):
        parse_override("model" + ".x" * 30_000 + "=1")


def test_keys_below_a_value_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.lr must be a value, not a section of keys"):
        replace_in(build_config("athwe"), ["training.lr.x.y=1"])


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("model.wavelet.weight_init=[.nan, 0, 0]", "weight_init[0] must be finite, at most 3e+38 in size, got nan"),
        ("model.interactive_moe.alpha_init=[0, 1e39, 0]", "alpha_init[1] must be finite, at most 3e+38 in size"),
        ("model.hidden_size=1.0e+300", "model.hidden_size must be finite, at most 4.29497e+09 in size"),
        ("model.wavelet.levels=31", "model.wavelet.levels must be at most 30, got 31"),
        ("model.time_encoding.buckets_per_log2=1e7", "buckets_per_log2 must be at most 1e+06, got 10000000.0"),
        ("training.device=cuda:²", "training.device must be auto, cpu, cuda, cuda:N or mps, got 'cuda:²'"),
        ("training.\x1b[2J=1", "training.'\\x1b[2J' is no configuration key"),
    ],
)
def test_values_that_no_network_could_use_are_refused(override: str, text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        replace_in(build_config("athwe"), [override])


@pytest.mark.parametrize("text", ["0b_", "!!int ''", "!!bool x", "!!float x", "9" * 5000, "1" + ":10" * 300 + ".5"])
def test_what_looks_like_a_number_and_is_none_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"mine line 2 must be readable YAML \(a number or truth value that cannot"):
        parse_yaml(f"a: 1\nb: {text}\n", "mine")
