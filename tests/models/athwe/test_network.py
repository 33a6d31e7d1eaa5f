from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from athwe_core.batch import Catalogue, PackedBatch
from athwe_core.config import Config
from athwe_core.data.packing import pack, pack_histories
from athwe_core.data.rows import packed_rows, prefix_rows
from athwe_core.models.athwe.network import Network, Outputs
from athwe_core.models.athwe.objective import loss_terms
from athwe_core.models.protocol import LossInputs, total_loss
from athwe_core.models.registry import replace_in

L = 6
SPARSE = (
    "model.temporal_moe.kind=sparse",
    "model.temporal_moe.top_k=2",
    "model.temporal_moe.num_shared=1",
    "losses.diversity.weight=0.5",
)
TIME_KINDS = ("interval", "absolute", "interval+absolute", "day", "day_of_year", "cos", "saturating")
BUCKETS = {"saturating": ("model.time_encoding.num_buckets=40",)}
CAUSAL = {
    "hm4sr": ("hm4sr", ()),
    "athwe": ("athwe", ("losses.cluster.weight=1",)),
    "id": ("athwe", ("model.modalities=[id]", "losses.cluster.weight=1")),
    "id and text": ("athwe", ("model.modalities=[id, text]",)),
    "id and image": ("hm4sr", ("model.modalities=[id, image]", *SPARSE)),
    "sparse": ("athwe", SPARSE),
    "db4": ("athwe", ("model.wavelet.name=db4", "model.wavelet.levels=2")),
    "score weights": ("hm4sr", ("model.score_weights=true",)),
    "unknown ids": ("athwe", ("model.unknown_id_dropout=0.5",)),
    "no experts": (
        "hm4sr",
        ("model.interactive_moe.enabled=false", "model.temporal_moe.enabled=false", "losses.pcl.weight=0"),
    ),
    "published, causal": ("athwe-published", ("model.wavelet.form=causal", "training.batching=packed")),
    **{kind: ("hm4sr", (f"model.time_encoding.kind={kind}", *BUCKETS.get(kind, ()))) for kind in TIME_KINDS},
}
EVERY = CAUSAL | {"athwe-published": ("athwe-published", ())}
TOKEN_OUTPUTS = ("items", "interactive_gates", "temporal_input", "temporal_gates", "time", "mixed")


@pytest.fixture(params=EVERY)
def config(request: pytest.FixtureRequest, make_config: Callable[..., Config]) -> Config:
    preset, overrides = EVERY[request.param]
    return make_config(preset, *overrides)


@pytest.fixture(params=CAUSAL)
def causal_config(request: pytest.FixtureRequest, make_config: Callable[..., Config]) -> Config:
    preset, overrides = CAUSAL[request.param]
    return make_config(preset, *overrides)


def every_position(data: object) -> PackedBatch:
    """Training items of users short enough for one window, in user order of their lengths: all tokens supervised."""
    rows = packed_rows(data.split, max_length=L)  # type: ignore[attr-defined]
    return pack(data, rows, np.arange(len(rows)), max_length=L)  # type: ignore[arg-type]


def by_token(outputs: Outputs) -> Iterator[tuple[str, Tensor]]:
    for name in TOKEN_OUTPUTS:
        value = getattr(outputs, name)
        if value is not None:
            yield name, value
    yield "states", outputs.states.transpose(0, 1)


@pytest.mark.parametrize("changed", ["items", "times"])
def test_no_output_changes_with_later_items_later_times_or_batch_mates(
    changed: str, causal_config: Config, make_network: Callable[..., Network], make_data: Callable
) -> None:
    network = make_network(causal_config, spread=0.5).eval()
    data = make_data([9, 8, 6, 5])
    position, user = 2, 1  # the third item of the second user, whose 5 inputs are tokens 9..13
    begin = int(data.offsets[user]) + position
    end = int(data.offsets[user + 1])
    items, times = data.item_ids.copy(), data.timestamps.copy()
    if changed == "items":
        items[begin:end] = items[begin:end] % 13 + 1
    else:
        times[begin:end] += 20_000_000
    before, after = every_position(data), every_position(replace(data, item_ids=items, timestamps=times))
    touched = (before.user_index[before.rows] == user) & (before.positions >= position)
    assert touched.sum() == 3
    assert torch.equal(before.target_index, torch.arange(before.num_tokens))
    with torch.no_grad():
        found = dict(by_token(network(after)))
        for name, value in by_token(network(before)):
            torch.testing.assert_close(found[name][~touched], value[~touched], atol=1e-6, rtol=0, msg=name)
            if name == "states" and (changed == "items" or causal_config.model.temporal_moe.enabled):
                assert not torch.allclose(found[name][touched], value[touched], atol=1e-4)


def test_a_row_has_the_same_outputs_alone_as_among_others(
    config: Config, make_network: Callable[..., Network], make_data: Callable
) -> None:
    network = make_network(config, spread=0.3).eval()
    data = make_data([9, 4, 7, 8])
    rows = packed_rows(data.split, max_length=L)
    with torch.no_grad():
        together = every_position(data)
        all_outputs = dict(by_token(network(together)))
        for row in range(len(rows)):
            alone = pack(data, rows, np.array([row]), max_length=L)
            mine = together.user_index[together.rows] == rows.user_index[row]
            for name, value in by_token(network(alone)):
                torch.testing.assert_close(all_outputs[name][mine], value, atol=1e-4, rtol=1e-4, msg=name)


def test_a_packed_position_has_the_state_of_its_prefix_row(
    causal_config: Config, make_network: Callable[..., Network], make_data: Callable
) -> None:
    network = make_network(causal_config, spread=0.3).eval()
    data = make_data([9, 4, 7])
    packed = every_position(data)
    rows = prefix_rows(data.split, max_length=L)
    prefix = pack(data, rows, np.arange(len(rows)), max_length=L)

    def keyed(batch: PackedBatch) -> dict[tuple[int, int], Tensor]:
        states = network(batch).states.transpose(0, 1)
        users = batch.user_index[batch.rows[batch.target_index]].tolist()
        return dict(zip(zip(users, batch.positions[batch.target_index].tolist(), strict=True), states, strict=True))

    with torch.no_grad():
        ours, theirs = keyed(packed), keyed(prefix)
    assert ours.keys() == theirs.keys()
    for key, state in ours.items():
        torch.testing.assert_close(state, theirs[key], atol=1e-4, rtol=1e-4)


def test_a_given_table_replaces_the_networks_own(
    make_config: Callable, make_network: Callable, make_data: Callable
) -> None:
    network = make_network(make_config("hm4sr")).eval()
    batch = every_position(make_data([5, 6]))
    assert torch.equal(network(batch, network.tables()).states, network(batch).states)


def test_scores_are_the_sum_of_the_three_dot_products(make_config: Callable, make_network: Callable) -> None:
    for overrides, scale in ((), torch.ones(3)), (("model.score_weights=true",), None):
        network = make_network(make_config("hm4sr", *overrides), spread=0.5).eval()
        batch = pack_histories([([1, 2, 3], [10, 20, 30]), ([4], [5])])
        outputs = network(batch)
        weights = network.score_weights.softmax(0) if scale is None else scale
        tables = outputs.table.view(-1, 3, 8)
        expected = sum(weights[m] * outputs.states[m] @ tables[:, m].T for m in range(3))
        torch.testing.assert_close(network.score_vectors(outputs.states) @ outputs.table.T, expected)


def test_position_0_is_the_oldest_item_of_the_window(make_config: Callable, make_network: Callable) -> None:
    network = make_network(make_config("hm4sr"), spread=0.5).eval()
    batch = pack_histories([([5, 5, 5], [10, 10, 10])])
    nn.init.zeros_(network.interactive_moe.alpha)
    outputs = network(batch)
    found = outputs.temporal_input - outputs.items.view(-1, 3, 8)
    torch.testing.assert_close(found, network.position[:3, None].expand(3, 3, 8))


@pytest.mark.parametrize("modalities", [("id",), ("id", "text"), ("id", "image"), ("id", "text", "image")])
def test_modalities_are_stacked_in_their_fixed_order(
    modalities: tuple[str, ...], make_config: Callable, make_network: Callable, catalogue: Catalogue
) -> None:
    config = make_config("athwe", f"model.modalities=[{', '.join(modalities)}]", "model.wavelet.weight_init=[1, 2, 3]")
    network = make_network(config)
    table = network.tables().view(-1, len(modalities), 8)
    torch.testing.assert_close(table[:, 0], network.tables.id.weight)
    for m, name in list(enumerate(modalities))[1:]:
        torch.testing.assert_close(table[:, m], network.tables.projections[name](catalogue.features[name]))
    assert network.wavelet.weight.tolist() == [{"id": 1, "text": 2, "image": 3}[name] for name in modalities]
    assert network.interactive_moe.alpha.tolist() == [{"id": 0, "text": 1, "image": 1}[name] for name in modalities]


# ---------------------------------------------------------------- registration


def parameters_anywhere(root: object) -> set[int]:
    """Ids of every Parameter or gradient-requiring leaf reachable through attributes, lists, tuples and dicts."""
    found, seen, stack = set(), set(), [root]
    while stack:
        thing = stack.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, nn.Parameter) or (isinstance(thing, Tensor) and thing.requires_grad):
            found.add(id(thing))
        elif isinstance(thing, dict):
            stack.extend(thing.values())
        elif isinstance(thing, list | tuple | set):
            stack.extend(thing)
        elif isinstance(thing, nn.Module):
            stack.extend(vars(thing).values())
    return found


def training_loss(network: Network, config: Config, catalogue: Catalogue, batch: PackedBatch) -> Tensor:
    replaced = torch.arange(batch.num_tokens) % 2 == 0 if network.placeholders is not None else None
    terms = loss_terms(network, network(batch, replaced=replaced), batch, catalogue, config.losses, inputs=LossInputs())
    return total_loss(terms, network.loss_weights)


@pytest.mark.parametrize("trainable", [True, False])
def test_every_parameter_is_registered_has_a_gradient_moves_and_comes_back_from_a_file(
    trainable: bool,
    config: Config,
    make_network: Callable[..., Network],
    make_data: Callable,
    catalogue: Catalogue,
    tmp_path: object,
) -> None:
    config = replace_in(config, [f"model.temporal_moe.trainable={str(trainable).lower()}"])
    network = make_network(config)
    named = dict(network.named_parameters())
    assert parameters_anywhere(network) == {id(parameter) for parameter in named.values()}
    frozen = {name for name, parameter in named.items() if not parameter.requires_grad}
    expected = {"temporal_moe.experts", "temporal_moe.shared_experts"} & set(named)
    assert frozen == (set() if trainable else expected)

    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    batch = every_position(make_data([9, 8, 6, 7]))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(2):  # what alpha = 0 scales begins to move once alpha has moved
        optimizer.zero_grad()
        training_loss(network, config, catalogue, batch).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for n, p in named.items() if n not in frozen)
        optimizer.step()
    moved = {name for name, parameter in named.items() if not torch.equal(parameter, before[name])}
    empty = {name for name, parameter in named.items() if parameter.numel() == 0}
    assert moved == set(named) - frozen - empty

    path = f"{tmp_path}/weights.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    fresh = make_network(config, seed=99)
    assert {k: v.shape for k, v in fresh.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}
    fresh.load_state_dict(safetensors.torch.load_file(path))
    with torch.no_grad():
        assert torch.equal(fresh.eval()(batch).states, network.eval()(batch).states)


# ---------------------------------------------------------------- initial weights


def test_initial_weights_repeat_with_the_generator(config: Config, make_network: Callable[..., Network]) -> None:
    first, again, other = (make_network(config, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["tables.id.weight"], other["tables.id.weight"])


def test_initial_weights_have_the_documented_scales(config: Config, make_network: Callable[..., Network]) -> None:
    network = make_network(replace_in(config, ["model.hidden_size=32", "model.inner_size=64"]))
    for name, parameter in network.named_parameters():
        leaf = name.rsplit(".", 1)[-1]
        if leaf == "alpha":
            assert parameter.tolist() == list(network.interactive_moe.alpha_init)
        elif name == "wavelet.weight":
            torch.testing.assert_close(parameter.detach(), torch.tensor(network.wavelet.weight_init))
        elif leaf == "score_weights" or ("norm" in name and leaf == "weight"):
            assert (parameter == 1).all(), name
        elif "bias" in leaf:
            assert (parameter == 0).all(), name
        elif parameter.numel() >= 64:
            scale = 0.1 if leaf in ("experts", "shared_experts") else 0.02
            assert parameter.mean().abs().item() < 5 * scale / parameter.numel() ** 0.5, name
            assert parameter.std().item() == pytest.approx(scale, rel=4 / (2 * parameter.numel()) ** 0.5), name


def test_a_share_of_the_items_is_taken_for_new_in_training_and_the_padding_never(
    make_config: Callable[..., Config], make_network: Callable[..., Network], make_data: Callable[..., Any]
) -> None:
    network = make_network(make_config("athwe", "model.unknown_id_dropout=0.3"))
    batch = every_position(make_data([5, 6]))
    drawn = [network.draw(batch, lambda _, seed=seed: torch.Generator().manual_seed(seed)) for seed in range(400)]
    masks = torch.stack([each["as_new"] for each in drawn])
    assert not masks[:, 0].any()
    assert masks[:, 1:].float().mean().item() == pytest.approx(0.3, abs=0.02)
    plain, taken = network(batch).table, network(batch, as_new=masks[0]).table
    D = network.hidden_size
    changed = (plain[:, :D] != taken[:, :D]).any(1)
    assert changed.tolist() == [is_taken and item % 5 > 0 for item, is_taken in enumerate(masks[0].tolist())]
    assert torch.equal(plain[:, D:], taken[:, D:])


def test_without_the_option_there_is_no_unknown_vector(
    make_config: Callable[..., Config], make_network: Callable[..., Network], make_data: Callable[..., Any]
) -> None:
    network = make_network(make_config("athwe"))
    assert "tables.unknown" not in network.state_dict()
    drawn = network.draw(every_position(make_data([5, 6])), lambda _: torch.Generator().manual_seed(0))
    assert set(drawn) == {"replaced"}
