"""Values as written to configurations, their grid, and which one is the preset's own."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from athwe_core.analysis.experiments.plan import Experiment
from athwe_core.analysis.experiments.sweep import Varied, parse_varied, sweep
from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import ConfigError
from athwe_core.models.registry import build_config, replace_in

MakeConfig = Callable[..., Config]


@pytest.fixture
def vary(small: PreparedDataset, tiny_config: MakeConfig) -> Callable[..., Experiment]:
    def make(*texts: str, data: PreparedDataset = small, preset: str = "athwe", **settings: object) -> Experiment:
        return sweep(tiny_config(preset=preset), data, preset=preset, vary=texts, **settings)  # type: ignore[arg-type]

    return make


class TestParsing:
    @pytest.mark.parametrize(
        ("text", "key", "values"),
        [
            ("training.lr=1e-3, 3e-3", "training.lr", ("1e-3", "3e-3")),
            ("a.b=5", "a.b", ("5",)),
            ("model.modalities=[id],[id, text]", "model.modalities", ("[id]", "[id, text]")),
            ("a=[[1,2],[3]],{x: 1, y: 2}", "a", ("[[1,2],[3]]", "{x: 1, y: 2}")),
            ("a='x,y',z", "a", ("'x,y'", "z")),
            ("a=null,true", "a", ("null", "true")),
        ],
    )
    def test_commas_part_values_but_not_inside_brackets(self, text: str, key: str, values: tuple[str, ...]) -> None:
        assert parse_varied(text) == Varied(key, values)

    @pytest.mark.parametrize("text", ["training.lr", "=1,2", "a=", "a=1,", "a=,1"])
    def test_no_key_or_an_empty_value_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigError, match=r"--vary must have the form a\.b=value,value,\.\.\., got"):
            parse_varied(text)


def test_one_key(vary: Callable[..., Experiment]) -> None:
    found = vary("losses.pcl.weight=0.1,0.5,1")
    assert [variant.label for variant in found.variants] == ["0.1", "0.5", "1"]
    assert [variant.config.losses.pcl.weight for variant in found.variants] == [0.1, 0.5, 1.0]
    assert found.variants[0].values == {"losses.pcl.weight": 0.1}
    assert found.variants[0].changes == ("losses.pcl.weight=0.1",)
    assert found.variants[0].slug == "pcl.weight-0.1"
    assert (found.varied, found.split, found.kind) == (("losses.pcl.weight",), "validation", "sweep")
    assert found.reference == 2, "1 is the preset's"


def test_a_grid_with_the_last_key_fastest(vary: Callable[..., Experiment]) -> None:
    found = vary("model.modalities=[id, text],[id, text, image]", "training.lr=0.0015,0.01")
    assert [variant.label for variant in found.variants] == [
        "[id, text], 0.0015",
        "[id, text], 0.01",
        "[id, text, image], 0.0015",
        "[id, text, image], 0.01",
    ]
    assert found.variants[1].values == {"model.modalities": ["id", "text"], "training.lr": 0.01}
    assert found.variants[1].slug == "model.modalities-id-text-training.lr-0.01"
    assert found.reference == 2


def test_every_kind_of_time_encoding_of_the_paper(vary: Callable[..., Experiment]) -> None:
    kinds = "interval,absolute,interval+absolute,day,day_of_year,cos"
    found = vary(f"model.time_encoding.kind={kinds}")
    assert [variant.config.model.time_encoding.kind for variant in found.variants] == kinds.split(",")
    assert found.variants[2].slug == "time_encoding.kind-interval+absolute"
    assert found.reference == 2
    saturating = vary("model.time_encoding.kind=cos,saturating", preset="athwe-published")
    assert saturating.reference == 1


def test_without_the_presets_own_value_there_is_no_reference(vary: Callable[..., Experiment]) -> None:
    assert vary("losses.pcl.weight=0.1,0.5").reference is None


def test_a_quick_look_limits_every_variant_and_keeps_the_reference(vary: Callable[..., Experiment]) -> None:
    found = vary("losses.pcl.weight=0.5,1", quick_epochs=1)
    assert {variant.config.training.epochs for variant in found.variants} == {1}
    assert (found.quick_epochs, found.reference) == (1, 1)


def test_what_a_value_switches_off_is_said(vary: Callable[..., Experiment]) -> None:
    found = vary("model.modalities=[id],[id, text]")
    assert found.variants[0].config.losses.pcl.weight == 0
    assert found.notes == ("[id]: demo has no modality but id in use: the placeholder term (pcl) is off",)


def test_what_the_data_lacks_cannot_be_varied(vary: Callable[..., Experiment], small: PreparedDataset) -> None:
    bare = replace(small, categories=None)
    with pytest.raises(ConfigError, match=r"--vary losses\.cp\.weight=1 must fit the data set .* no categories"):
        vary("losses.cp.weight=0,1", data=bare)


@pytest.mark.parametrize(
    ("texts", "text"),
    [
        ((), r"--vary must be given at least once"),
        (("losses.pcl.wight=1,2",), r"losses\.pcl\.wight is no configuration key\. Did you mean losses\.pcl\.weight\?"),
        (("losses.pcl.weight=1,x",), r"losses\.pcl\.weight must be a number, got 'x'"),
        (("losses.pcl.weight=1,1.0",), r"--vary must give each value once: 1 is the same, got '1\.0'"),
        (("losses.pcl.weight=1,2", "losses.pcl.weight=3"), r"--vary must name each key once"),
        (("losses.pcl={weight: 1},{weight: 2}",), r"--vary losses\.pcl must be a single key, not a section"),
        (("training.seed=1,2",), r"--vary training\.seed cannot be varied: use --seeds"),
        (("training.device=cpu,cuda",), r"--vary training\.device must be the same for all"),
        (("evaluation.exclude_seen=true,false",), r"--vary evaluation\.exclude_seen must be the same for all"),
        (("model.num_heads=2,3",), r"model\.num_heads must divide model\.hidden_size"),
    ],
)
def test_what_makes_no_variants_is_refused(texts: tuple[str, ...], text: str, vary: Callable[..., Experiment]) -> None:
    with pytest.raises(ConfigError, match=text):
        vary(*texts)


def test_epochs_cannot_be_varied_and_limited(vary: Callable[..., Experiment]) -> None:
    assert [v.config.training.epochs for v in vary("training.epochs=1,2").variants] == [1, 2]
    with pytest.raises(ConfigError, match=r"--epochs must be left out where training\.epochs varies, got 3"):
        vary("training.epochs=1,2", quick_epochs=3)


def test_names_of_runs_stay_short_enough_for_a_file_system(vary: Callable[..., Experiment]) -> None:
    (found,) = vary(f"model.wavelet.weight_init=[0.123456789, 0.123456789, 0.{'1' * 90}]").variants
    assert len(found.slug) == 120


def test_on_a_configuration_at_its_full_size(small: PreparedDataset) -> None:
    config = build_config("athwe")
    found = sweep(config, small, preset="athwe", vary=["model.wavelet.levels=1,3"])
    assert found.variants[1].config == replace_in(config, ["model.wavelet.levels=3"])
