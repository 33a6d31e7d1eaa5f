import time
from collections.abc import Callable

import numpy as np
import pytest

from athwe_core.data.demo import generate as generate_module
from athwe_core.data.demo.catalogue import make_catalogue
from athwe_core.data.prepare import PreparedDataset


@pytest.fixture(scope="module")
def generated() -> generate_module.DemoData:
    return generate_module.generate(1000, 600, seed=0)


def test_same_seed_same_data_other_seed_other_data() -> None:
    first, again, other = (generate_module.generate(300, 200, seed=seed) for seed in (1, 1, 2))
    assert first.records.item_tokens.to_list() == again.records.item_tokens.to_list()
    assert first.records.item_tokens.to_list() != other.records.item_tokens.to_list()
    np.testing.assert_array_equal(first.records.timestamps, again.records.timestamps)
    np.testing.assert_array_equal(first.text, again.text)
    np.testing.assert_array_equal(first.image, again.image)


def test_prepared_demo_has_every_feature_and_about_the_size_asked(prepare_toy: Callable[..., PreparedDataset]) -> None:
    prepared = prepare_toy(name="demo")
    assert 970 <= prepared.num_users <= 1000
    assert 540 <= prepared.num_items <= 600
    assert 8 <= prepared.statistics["actions_per_user"] <= 12
    assert np.diff(prepared.offsets).min() >= 5
    assert "123" in prepared.user_tokens
    assert 0.2 < prepared.statistics["tied_test_share"] < 0.45
    facts = prepared.statistics["features"]
    assert facts["text"]["missing"] > 0
    assert facts["image"]["missing"] > 0
    assert facts["categories"]["count"] > 20
    assert prepared.statistics["clusters"] == {"text": 72, "image": 6}
    assert prepared.text_clusters is not None
    assert prepared.text_clusters[0] == -1
    assert "title" in prepared.item_table().columns


def test_other_sizes_and_seeds_are_other_versions(prepare_toy: Callable[..., PreparedDataset]) -> None:
    versions = {
        prepare_toy(name="demo", demo_users=users, demo_items=200, seed=seed).version
        for users, seed in ((300, 0), (400, 0), (300, 1))
    }
    assert len(versions) == 3


def test_features_follow_the_items(
    generated: generate_module.DemoData, prepare_toy: Callable[..., PreparedDataset]
) -> None:
    prepared = prepare_toy(name="demo")
    row_of = {token: row for row, token in enumerate(generated.order)}
    assert prepared.image_features is not None
    for item in (1, 17, prepared.num_items):
        np.testing.assert_array_equal(
            prepared.image_features[item], generated.image[row_of[prepared.item_tokens[item]]]
        )


def test_text_and_image_tell_different_things(generated: generate_module.DemoData) -> None:
    """Nearest class mean by vector: groups show in text, styles in images, and neither in the other."""

    def accuracy(vectors: np.ndarray, labels: np.ndarray) -> float:
        half = len(labels) // 2
        is_train = np.random.default_rng(0).permutation(len(labels)) < half
        means = np.stack([vectors[is_train & (labels == label)].mean(axis=0) for label in range(labels.max() + 1)])
        nearest = ((vectors[~is_train, None] - means) ** 2).sum(axis=2).argmin(axis=1)
        return float((nearest == labels[~is_train]).mean())

    groups, styles = generated.text_clusters // 4, generated.image_clusters
    assert accuracy(generated.text, groups) > 0.5
    assert accuracy(generated.image, styles) > 0.5
    assert accuracy(generated.text, styles) < 0.3
    assert accuracy(generated.image, groups) < accuracy(generated.text, groups) - 0.2


def test_planted_structure_is_there(generated: generate_module.DemoData) -> None:
    """A long gap changes the group; seasons and popularity are uneven; links beat chance."""
    row_of = {token: row for row, token in enumerate(generated.order)}
    items = np.array([row_of[token] for token in generated.records.item_tokens.to_list()])
    users = np.array(generated.records.user_tokens.to_list()).astype(int)
    groups = generated.text_clusters[items] // 4
    gaps = np.diff(generated.records.timestamps) / generate_module.DAY
    same_user = np.diff(users) == 0
    assert (gaps[same_user] >= 0).all()
    stays = np.diff(groups) == 0
    near, far = same_user & (gaps > 0) & (gaps < 10), same_user & (gaps > 150)
    assert stays[near].mean() > stays[far].mean() + 0.2
    counts = np.sort(np.bincount(items))[::-1]
    assert counts[: len(counts) // 10].sum() > 0.2 * counts.sum()
    links = make_catalogue(600, np.random.default_rng(0)).links  # the same draw as in `generated`
    is_link = (links[items[:-1]] == items[1:, None]).any(axis=1)
    assert is_link[same_user & (gaps == 0)].mean() > 0.1  # chance: 3 of 600
    angle = 2 * np.pi * (generated.records.timestamps / generate_module.DAY % 365.25) / 365.25
    concentration = np.array([abs(np.exp(1j * angle[items == item]).mean()) for item in range(200)])
    assert np.quantile(concentration, 0.75) > 0.5  # half of the items have a season
    assert np.quantile(concentration, 0.25) < 0.3


@pytest.mark.slow
def test_scales_to_a_hundred_thousand_users() -> None:
    start = time.perf_counter()
    generated = generate_module.generate(100_000, 20_000, seed=0)
    assert len(generated.records) > 800_000
    assert time.perf_counter() - start < 60
