"""Vectors of attributes by hand: one value, several values summed or averaged, none."""

from typing import Literal

import pytest
import torch

from athwe_core.batch import Attribute
from athwe_core.nn.attribute_embeddings import AttributeEmbeddings

CATEGORIES = Attribute(torch.tensor([[0, 0], [3, 1], [2, 0], [0, 0]]), 4)
BRAND = Attribute(torch.tensor([0, 2, 1, 0]), 3)


def embeddings(pooling: Literal["sum", "mean"] = "sum") -> AttributeEmbeddings:
    found = AttributeEmbeddings([CATEGORIES, BRAND], sizes=[1, 2], pooling=pooling)
    with torch.no_grad():
        found.tables[0].copy_(torch.tensor([[9.0], [10.0], [20.0], [30.0]]))
        found.tables[1].copy_(torch.tensor([[7.0, -7.0], [1.0, 2.0], [3.0, 4.0]]))
    return found


@pytest.mark.parametrize(("pooling", "expected"), [("sum", 40.0), ("mean", 20.0)])
def test_vectors_by_hand(pooling: Literal["sum", "mean"], expected: float) -> None:
    categories, brand = embeddings(pooling)(torch.tensor([1, 2, 3, 0, 1]))
    assert categories.flatten().tolist() == [expected, 20.0, 0.0, 0.0, expected]
    assert brand.tolist() == [[3, 4], [1, 2], [7, -7], [7, -7], [3, 4]]


def test_the_values_are_not_saved_and_the_table_of_no_category_is_not_trained() -> None:
    module = embeddings()
    assert list(module.state_dict()) == ["tables.0", "tables.1"]
    categories, brand = module(torch.tensor([1, 2, 3]))
    (categories.sum() + brand.sum()).backward()
    assert module.tables[0].grad.flatten().tolist() == [0, 1, 1, 1]
    assert module.tables[1].grad[:, 0].tolist() == [1, 1, 1]


def test_labels_as_zeros_and_ones() -> None:
    items = torch.tensor([1, 2, 3])
    assert CATEGORIES.multi_hot(items).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert BRAND.multi_hot(items).tolist() == [[0, 1], [1, 0], [0, 0]]
