"""What models with attributes share: settings for each attribute, prediction by hand, data sets that lack an attribute."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from model_cases import build, history, step_terms

from athwe_core.data.packing import pack_histories
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import ConfigError, DataError
from athwe_core.models.attribute_model import drop_attribute, one_for_each
from athwe_core.models.inputs import adapt_to_data, attribute, make_catalogue, meta_model
from athwe_core.models.registry import build_config, config_tree, replace_in

SMALL = ("model.inner_size=12", "model.num_layers=1", "model.num_heads=2", "model.attention_dropout=0")
BOTH = ("model.attributes=[categories,brand]", "losses.attributes.weights=[1,2]")


def test_values_are_one_for_each_attribute_or_one_for_all() -> None:
    assert one_for_each([3.0], ["a", "b"], "key") == [3.0, 3.0]
    assert one_for_each([3.0, 4.0], ["a", "b"], "key") == [3.0, 4.0]
    assert one_for_each([3.0], [], "key") == []
    rule = r"losses\.attributes\.weights must have one value for each of model\.attributes=\['categories'\], or one for all"
    with pytest.raises(ConfigError, match=rule):
        replace_in(build_config("nova"), ["losses.attributes.weights=[1,2]"])


def test_an_attribute_leaves_with_its_values() -> None:
    changes = ["model.attributes=[a,b,c]", "model.attribute_sizes=[4,8,12]", "losses.attributes.weights=[1]"]
    tree = config_tree(replace_in(build_config("dif-sr"), changes))
    drop_attribute(tree, "b")
    assert tree["model"]["attributes"] == ["a", "c"]
    assert tree["model"]["attribute_sizes"] == [4, 12]
    assert tree["losses"]["attributes"]["weights"] == [1]
    for name in ("a", "c"):
        drop_attribute(tree, name)
    assert tree["model"]["attribute_sizes"] == [12]


def test_no_attribute_is_named_twice() -> None:
    with pytest.raises(ConfigError, match=r"model\.attributes must name no attribute twice"):
        replace_in(build_config("nova"), ["model.attributes=[brand,brand]"])


@torch.no_grad()
def test_prediction_is_the_mean_binary_cross_entropy_of_the_next_items_values() -> None:
    model = build("nova", *SMALL, *BOTH)
    batch = pack_histories([history([1, 2]), history([3, 4, 5])], next_items=[6, 2])  # item 2 has no category
    terms, states = step_terms(model, batch), model.eval().user_vectors(batch)
    assert model.loss_weights == {"attr_categories": 1.0, "attr_brand": 2.0}
    for number, name in enumerate(("categories", "brand")):
        values = model.attributes.get_buffer(f"values_{number}")
        total = 0.0
        for state, target in zip(states, batch.target_ids.tolist(), strict=True):
            logits = model.predictors[number](state)
            for value in range(1, 5):
                chance = torch.sigmoid(logits[value - 1])
                is_label = value in values[target].flatten().tolist()
                total -= float((chance if is_label else 1 - chance).log())
        assert float(terms[f"attr_{name}"]) == pytest.approx(total / (2 * 4), rel=1e-5)


def test_tables_that_are_not_trained_are_standard_normal() -> None:
    model = build("nova", *SMALL, "model.hidden_size=64", "model.attributes_trainable=false", spread=None)
    (table,) = model.attributes.tables
    assert not table.requires_grad
    assert table.std().item() == pytest.approx(1, rel=0.1)
    (trained,) = build("nova", *SMALL, "model.hidden_size=64", spread=None).attributes.tables
    assert trained.requires_grad
    assert trained.std().item() == pytest.approx(0.02, rel=0.1)


def test_attributes_come_from_the_data_set(prepared: PreparedDataset) -> None:
    config = replace_in(build_config("nova"), BOTH)
    assert adapt_to_data(config, prepared) == (config, [])
    found = make_catalogue(prepared, config).attributes
    categories, brand = found["categories"], found["brand"]
    assert np.array_equal(categories.multi_hot(torch.arange(prepared.num_item_rows)), prepared.categories)
    texts = prepared.item_table()["brand"].to_list()
    numbers = brand.values.tolist()
    assert numbers[0] == 0
    assert len(set(zip(texts, numbers, strict=True))) == len(set(texts)) == brand.num_values
    counts = np.bincount(numbers[1:])[1:]
    assert (np.diff(counts) <= 0).all()  # the most frequent text is number 1
    assert meta_model(prepared, config) is not None


def test_an_attribute_that_the_data_set_lacks_is_left_out(prepared: PreparedDataset) -> None:
    bare = replace(prepared, categories=None, manifest=prepared.manifest | {"item_columns": {"item_id": "token"}})
    config, notes = adapt_to_data(replace_in(build_config("dif-sr"), [*BOTH, "model.attribute_sizes=[4,8]"]), bare)
    assert notes == [f"demo has no {name}: the attribute {name} is off" for name in ("categories", "brand")]
    tree: Any = config_tree(config)
    assert tree["model"]["attributes"] == []
    with pytest.raises(DataError, match="data set demo has no categories"):
        attribute(bare, "categories")


def test_a_column_that_is_missing_or_empty_is_named(prepared: PreparedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="item metadata of demo has no column colour; its columns are item_id, title, "):
        prepared.item_values("colour")
    table = prepared.item_table()
    empty = table.with_columns(table["brand"].str.replace_all(".", "").alias("brand"))
    monkeypatch.setattr(PreparedDataset, "item_table", lambda self: empty)
    with pytest.raises(DataError, match="item metadata of demo has no value in column brand"):
        prepared.item_values("brand")
