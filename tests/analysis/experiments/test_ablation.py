"""What each removal changes in each preset, and what is refused."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from athwe_core.analysis.experiments.ablation import ablation, removable
from athwe_core.analysis.experiments.plan import Experiment
from athwe_core.config import Config
from athwe_core.data.packing import pack
from athwe_core.data.prepare import PreparedDataset
from athwe_core.data.rows import epoch_batches, training_rows
from athwe_core.errors import ConfigError
from athwe_core.models.inputs import adapt_to_data
from athwe_core.models.registry import find_model, replace_in
from athwe_core.training.build import build_setup
from athwe_core.training.optim import make_optimizer
from athwe_core.training.step import train_step

MakeConfig = Callable[..., Config]
HM4SR = ["IMoE", "TMoE", "CP", "IDCL", "PCL", "Text", "Image"]
PARTS = {
    "hm4sr": HM4SR,
    "athwe": [*HM4SR[:2], "DWT", *HM4SR[2:], "Repeat"],
    "athwe-published": ["TMoE", "DWT", "CP", "IDCL", "PCL", "Cluster", "Diversity", "Text", "Image"],
}
CHANGES = {
    "IMoE": {"model.interactive_moe.enabled": False},
    "TMoE": {"model.temporal_moe.enabled": False, "losses.pcl.weight": 0.0},
    "DWT": {"model.wavelet.enabled": False},
    "CP": {"losses.cp.weight": 0.0},
    "IDCL": {"losses.idcl.weight": 0.0},
    "PCL": {"losses.pcl.weight": 0.0},
    "Cluster": {"losses.cluster.weight": 0.0},
    "Diversity": {"losses.diversity.weight": 0.0},
    "Text": {"model.modalities": ["id", "image"]},
    "Image": {"model.modalities": ["id", "text"]},
    "Repeat": {"model.repeat": False},
}


@pytest.fixture(scope="session")
def whole(small: PreparedDataset) -> PreparedDataset:
    """The demo data set with cluster labels, so that nothing is missing."""
    labels = (np.arange(small.num_item_rows) % 5).astype(np.int32)
    return replace(small, text_clusters=labels, image_clusters=labels)


@pytest.fixture
def ablate(whole: PreparedDataset, make_config: MakeConfig) -> Callable[..., Experiment]:
    def make(*remove: str, preset: str = "athwe", data: PreparedDataset = whole, **settings: object) -> Experiment:
        config, _ = adapt_to_data(
            replace_in(make_config(preset), ["training.batch_targets=64", "model.num_layers=1"]), data
        )
        return ablation(config, data, preset=preset, remove=remove, **settings)  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize("preset", PARTS)
def test_all_of_a_preset(preset: str, ablate: Callable[..., Experiment]) -> None:
    found = ablate(preset=preset, remove_all=True)
    full, *variants = found.variants
    assert (full.label, full.slug, full.changes, full.values) == ("full", "full", (), {})
    assert [variant.label for variant in variants] == [f"-{name}" for name in PARTS[preset]]
    assert removable(full.config) == PARTS[preset]
    for name, variant in zip(PARTS[preset], variants, strict=True):
        expected = dict(CHANGES[name])
        if name == "TMoE" and preset == "athwe-published":
            expected["losses.diversity.weight"] = 0.0
        assert variant.values == expected
        assert replace_in(full.config, variant.changes) == variant.config
        assert name not in removable(variant.config)
        assert variant.slug == f"{name}-removed"


@pytest.mark.parametrize("preset", PARTS)
def test_every_variant_can_be_trained(preset: str, ablate: Callable[..., Experiment], whole: PreparedDataset) -> None:
    for variant in ablate("Text+Image", preset=preset, remove_all=True).variants:
        config = variant.config
        assert adapt_to_data(config, whole) == (config, [])
        setup = build_setup(config, whole)
        rows = training_rows(whole.split, batching=config.training.batching, max_length=config.model.max_length)
        chosen = epoch_batches(rows, batch_targets=64, rng=np.random.default_rng(0))[0]
        batch = pack(whole, rows, chosen, max_length=config.model.max_length)
        optimizer = make_optimizer(setup.model, lr=1e-3)
        terms = train_step(setup, optimizer, batch, config, epoch=0, step=0)
        weights = {name for name in ("cp", "idcl", "pcl", "cluster", "diversity") if name in terms}
        assert weights == {name.lower() for name in removable(config) if hasattr(config.losses, name.lower())}


def test_names_in_any_case_and_joined_by_plus(ablate: Callable[..., Experiment]) -> None:
    found = ablate("pcl", "cp + tmoe", "PCL")
    assert [variant.label for variant in found.variants] == ["full", "-PCL", "-TMoE+CP"]
    assert found.variants[2].slug == "TMoE-CP-removed"
    assert found.variants[2].values == CHANGES["TMoE"] | CHANGES["CP"]


def test_removing_tmoe_says_what_goes_with_it(ablate: Callable[..., Experiment]) -> None:
    pcl = "removing TMoE removes PCL too: its placeholders are made of time"
    assert ablate("TMoE").notes == (pcl,)
    assert ablate("TMoE", "TMoE+CP", preset="hm4sr").notes == (pcl,)
    assert ablate("TMoE+PCL").notes == ()
    diversity = "removing TMoE removes Diversity too: it is about the temporal experts"
    assert ablate("TMoE", preset="athwe-published").notes == (pcl, diversity)


def test_without_text_and_image_nothing_is_left_for_their_terms(ablate: Callable[..., Experiment]) -> None:
    found = ablate("text+image", preset="athwe-published")
    assert found.variants[1].values == {
        "model.modalities": ["id"],
        "losses.pcl.weight": 0.0,
        "losses.cluster.weight": 0.0,
    }
    assert found.variants[1].changes[0] == "model.modalities=[id]"
    assert len(found.notes) == 2
    assert found.notes[1].startswith(
        "-Text+Image: demo has no modality but id in use: the placeholder term (pcl) is off"
    )


def test_the_experiment_is_what_was_asked_for(ablate: Callable[..., Experiment]) -> None:
    found = ablate("PCL", seeds=range(2), metric="mrr@5", split="validation", quick_epochs=3)
    assert (found.kind, found.preset, found.reference, found.varied) == ("ablation", "athwe", 0, ())
    assert (found.seeds, found.metric, found.split, found.quick_epochs) == ((0, 1), "mrr@5", "validation", 3)
    assert {variant.config.training.epochs for variant in found.variants} == {3}
    assert found.variants[1].values == CHANGES["PCL"], "the limit of epochs is no part of the variant"


@pytest.mark.parametrize(
    ("remove", "text"),
    [
        ((), r"--remove must name a part, or be replaced by --all\. athwe on demo has IMoE, TMoE, DWT, CP, .* Image"),
        (("Cluster",), r"must be a part that athwe has on this data set: IMoE, .*Repeat, got 'Cluster'"),
        (("CP+Diversity",), r"got 'Diversity'"),
        (("IMOEE",), r"must be among IMoE, .* joined by \+, got 'IMOEE'\. Did you mean IMoE\?"),
        (("PCL+",), r"got ''"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(
    remove: tuple[str, ...], text: str, ablate: Callable[..., Experiment]
) -> None:
    with pytest.raises(ConfigError, match=text):
        ablate(*remove)


def test_what_the_data_lacks_cannot_be_removed(ablate: Callable[..., Experiment], small: PreparedDataset) -> None:
    bare = replace(small, image_features=None, categories=None)
    found = ablate(remove_all=True, data=bare)
    assert [variant.label for variant in found.variants[1:]] == [
        "-IMoE",
        "-TMoE",
        "-DWT",
        "-IDCL",
        "-PCL",
        "-Text",
        "-Repeat",
    ]
    assert found.variants[-2].values == {"model.modalities": ["id"], "losses.pcl.weight": 0.0}
    with pytest.raises(ConfigError, match="got 'Image'"):
        ablate("image", data=bare)


def test_a_limit_of_no_epochs_is_refused(ablate: Callable[..., Experiment]) -> None:
    with pytest.raises(ConfigError, match=r"training\.epochs must be positive, got 0"):
        ablate("PCL", quick_epochs=0)


def test_every_removal_is_in_some_preset() -> None:
    own = {removal.name for removal in find_model("athwe").removals}
    assert own | {"Repeat"} == set().union(*PARTS.values())
