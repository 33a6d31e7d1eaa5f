import pytest
import torch

from athwe_core.nn.item_embeddings import ItemEmbeddings, table_and_items

V, D = 6, 4


def tables(compute_dtype: torch.dtype = torch.float32) -> tuple[ItemEmbeddings, dict[str, torch.Tensor]]:
    torch.manual_seed(2)
    features = {"text": torch.randn(V, 7), "image": torch.randn(V, 3)}
    layer = ItemEmbeddings(features, hidden_size=D, num_item_rows=V, compute_dtype=compute_dtype)
    torch.nn.init.normal_(layer.id.weight)
    return layer, features


def test_the_table_is_ids_then_projected_features_in_the_order_of_the_modalities() -> None:
    layer, features = tables()
    found = layer()
    assert found.shape == (V, 3 * D)
    torch.testing.assert_close(found[:, :D], layer.id.weight)
    for block, name in ((1, "text"), (2, "image")):
        expected = layer.projections[name](features[name])
        torch.testing.assert_close(found[:, block * D : (block + 1) * D], expected)


def test_without_features_the_table_is_the_id_embedding() -> None:
    layer = ItemEmbeddings({}, hidden_size=D, num_item_rows=V)
    torch.nn.init.normal_(layer.id.weight)
    assert torch.equal(layer(), layer.id.weight)


def test_features_are_neither_trained_nor_saved() -> None:
    layer, _ = tables()
    assert not any("features" in name for name in [*layer.state_dict(), *dict(layer.named_parameters())])


def test_an_item_without_a_feature_is_projected_to_the_bias() -> None:
    layer = ItemEmbeddings({"text": torch.zeros(V, 7)}, hidden_size=D, num_item_rows=V)
    torch.testing.assert_close(layer()[:, D:], layer.projections["text"].bias.expand(V, D))


def test_bfloat16_is_used_in_training_only_and_never_leaves_the_table() -> None:
    layer, _ = tables(torch.bfloat16)
    exact, _ = tables()
    exact.load_state_dict(layer.state_dict())
    training, evaluation = layer.train()(), layer.eval()()
    assert training.dtype == evaluation.dtype == torch.float32
    assert torch.equal(evaluation, exact())
    assert not torch.equal(training, evaluation)
    torch.testing.assert_close(training, evaluation, atol=0.05, rtol=0.02)
    training.sum().backward()
    assert layer.projections["text"].weight.grad.dtype == torch.float32


@pytest.mark.parametrize("reads", ["both", "table", "rows"])
def test_a_table_and_its_rows_have_the_gradients_of_plain_indexing(reads: str) -> None:
    torch.manual_seed(3)
    table, rows = torch.randn(7, 4, requires_grad=True), torch.tensor([2, 5, 2, 0])
    slope, row_slope = torch.randn(7, 4), torch.randn(4, 4)

    def loss(whole: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        terms = {"table": (whole * slope).sum(), "rows": (found * row_slope).sum()}
        return sum(terms.values()) if reads == "both" else terms[reads]  # type: ignore[return-value]

    whole, found = table_and_items(table, rows)
    assert torch.equal(found, table[rows])
    ours = torch.autograd.grad(loss(whole, found), table)[0]
    torch.testing.assert_close(ours, torch.autograd.grad(loss(table, table[rows]), table)[0])


@pytest.mark.parametrize("sparse", [False, True])
def test_new_items_and_those_taken_for_new_have_the_unknown_vector_as_id(sparse: bool) -> None:
    torch.manual_seed(4)
    is_new, as_new = torch.tensor([0, 0, 1, 0, 0, 0]).bool(), torch.tensor([0, 0, 0, 0, 1, 0]).bool()
    layer = ItemEmbeddings({"text": torch.randn(V, 7)}, hidden_size=D, num_item_rows=V, sparse=sparse, is_new=is_new)
    for parameter in (layer.id.weight, layer.unknown):
        torch.nn.init.normal_(parameter)
    expected = layer.id.weight.detach().clone()
    expected[2] = layer.unknown
    assert torch.equal(layer()[:, :D], expected)
    expected[4] = layer.unknown
    assert torch.equal(layer(None, as_new)[:, :D], expected)
    items = torch.tensor([1, 2, 4])
    torch.testing.assert_close(layer(items, as_new), layer(None, as_new)[items])
    layer(items, as_new)[:, :D].sum().backward()
    assert layer.unknown.grad.tolist() == [2.0] * D
    assert layer.id.weight.grad.to_dense().sum(1).tolist() == [0, D, 0, 0, 0, 0]
    assert "is_new" not in layer.state_dict()
