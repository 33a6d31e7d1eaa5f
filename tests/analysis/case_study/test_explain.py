"""The why of a rank, each part recomputed by hand."""

from typing import Any

import pytest
import torch

from athwe_core.analysis.case_study.loaded_run import CaseRun, CaseRuns
from athwe_core.analysis.case_study.select_user import Case
from athwe_core.analysis.case_study.study import case_study
from athwe_core.data.packing import pack_histories
from athwe_core.nn.wavelet import causal_decompose, smoothing_filter

DAY = 86_400
ITEMS = [11, 52, 7, 52, 90]
TIMES = [1_300_000_000, 1_300_000_000, 1_301_000_001, 1_330_000_000, 1_330_090_000]
TARGET = 33
CASE = Case("x", "test", ITEMS, TIMES, (TARGET, TIMES[-1] + 5))


def by_hand(run: CaseRun, items: list[int], times: list[int]) -> tuple[float, float, list[int]]:
    """Score and rank of the target, and the best ten, of a history alone in its batch."""
    batch = pack_histories([(items, times)])
    with torch.inference_mode():
        scores = run.model.user_vectors(batch) @ run.model.item_table().T
        seen = run.model.seen_items(batch)
        scores = (scores if seen is None else seen.add_to(scores))[0, 1:]
    score = scores[TARGET - 1]
    return float(score), 1 + int((scores > score).sum()), [item + 1 for item in scores.topk(10).indices.tolist()]


@pytest.fixture(scope="module")
def why(opened: CaseRuns) -> dict[str, dict[str, Any]]:
    found = case_study(opened, CASE)["why"]
    return {name.split("/")[-1]: value for name, value in found.items()}


@pytest.fixture(scope="module")
def runs(opened: CaseRuns) -> dict[str, CaseRun]:
    return {run.name.split("/")[-1]: run for run in opened.runs}


EXPLAINED = ("athwe", "two", "centred", "plain")
"""Runs of a model that gives an inside view."""
EVERY = (*EXPLAINED, "sasrec")


@pytest.mark.parametrize("name", EVERY)
def test_influence_is_scoring_the_history_without_the_item(
    name: str, why: dict[str, dict[str, Any]], runs: dict[str, CaseRun], opened: CaseRuns
) -> None:
    run, found = runs[name], why[name]
    length = min(run.config.model.max_length, len(ITEMS))
    items, times = ITEMS[-length:], TIMES[-length:]
    score, rank, _ = by_hand(run, items, times)
    assert found["rank"] == rank
    assert [entry["position"] for entry in found["influence"]] == list(range(len(ITEMS) - length, len(ITEMS)))
    changes = []
    for i, entry in enumerate(found["influence"]):
        score_without, rank_without, _ = by_hand(run, items[:i] + items[i + 1 :], times[:i] + times[i + 1 :])
        assert entry["item_id"] == opened.prepared.item_tokens[items[i]]
        assert entry["rank_without"] == rank_without
        assert entry["rank_change"] == rank_without - rank
        assert entry["score_change"] == pytest.approx(score_without - score, abs=1e-3)
        changes.append(entry["score_change"])
    assert max(map(abs, changes)) > 0.05


@pytest.mark.parametrize("name", EVERY)
def test_another_gap_is_scoring_the_history_with_another_last_time(
    name: str, why: dict[str, dict[str, Any]], runs: dict[str, CaseRun], opened: CaseRuns
) -> None:
    run, tokens = runs[name], opened.prepared.item_tokens
    length = run.config.model.max_length
    gaps = {"as it was": 90_000, "one day": DAY, "one week": 7 * DAY, "one year": 365 * DAY}
    assert {entry["label"]: entry["gap_seconds"] for entry in why[name]["gaps"]} == gaps
    _, _, top = by_hand(run, ITEMS[-length:], TIMES[-length:])
    for entry in why[name]["gaps"]:
        times = [*TIMES[:-1], TIMES[-2] + entry["gap_seconds"]]
        score, rank, top_then = by_hand(run, ITEMS[-length:], times[-length:])
        assert entry["rank"] == rank
        assert entry["score"] == pytest.approx(score, abs=1e-3)
        assert entry["top"] == [tokens[item] for item in top_then]
        assert entry["kept"] == len(set(top) & set(top_then))
    scores = {round(entry["score"], 3) for entry in why[name]["gaps"]}
    assert (len(scores) == 1) == (name in ("plain", "sasrec"))


def test_a_history_of_one_item_has_nothing_to_leave_out_or_move(opened: CaseRuns) -> None:
    for why in case_study(opened, Case("x", "test", [4], [1_300_000_000], (9, 1_300_000_001)))["why"].values():
        assert (why["influence"], why["gaps"]) == ([], [])
        for layers in why["attention"].values():
            assert layers == [[pytest.approx(1)]] * len(layers)


def test_a_model_that_shows_its_attention_alone_is_explained_by_scores_too(why: dict[str, dict[str, Any]]) -> None:
    found = why["sasrec"]
    assert (found["by_modality"], list(found["attention"])) == ({}, ["id"])
    assert found["temporal_gates"] is found["interactive_gates"] is found["wavelet_energy"] is None
    assert len(found["influence"]) == len(ITEMS)
    assert len(found["gaps"]) == 4


@pytest.mark.parametrize("name", EXPLAINED)
def test_gates_are_the_networks_at_every_position(
    name: str, why: dict[str, dict[str, Any]], runs: dict[str, CaseRun]
) -> None:
    run, found = runs[name], why[name]
    length = run.config.model.max_length
    with torch.inference_mode():
        outputs = run.model(pack_histories([(ITEMS[-length:], TIMES[-length:])]))
    assert (found["temporal_gates"] is None) == (name == "plain")
    assert (found["interactive_gates"] is None) == (name in ("plain", "centred"))
    if found["temporal_gates"] is not None:
        torch.testing.assert_close(torch.tensor(found["temporal_gates"]), outputs.temporal_gates)
    if found["interactive_gates"] is not None:
        assert tuple(found["interactive_gates"]) == run.config.model.modalities
        together = torch.tensor(list(found["interactive_gates"].values())).transpose(0, 1)
        torch.testing.assert_close(together, outputs.interactive_gates)


@pytest.mark.parametrize("name", EXPLAINED)
def test_attention_of_the_last_position_by_layer_is_the_mean_over_heads(
    name: str, why: dict[str, dict[str, Any]], runs: dict[str, CaseRun]
) -> None:
    run = runs[name]
    model, network = run.config.model, run.model
    length = min(model.max_length, len(ITEMS))
    with torch.inference_mode():
        outputs = network(pack_histories([(ITEMS[-length:], TIMES[-length:])]))
        every = (slice(0, len(model.modalities)),)
        x = network.input_norm(outputs.mixed.transpose(0, 1), every)
        layer = network.transformer.layers[0]
        qkv = x @ layer.qkv_weight + layer.qkv_bias
    for m, modality in enumerate(model.modalities):
        layers = why[name]["attention"][modality]
        assert len(layers) == model.num_layers
        assert [len(weights) for weights in layers] == [length] * model.num_layers
        assert [sum(weights) for weights in layers] == pytest.approx([1.0] * model.num_layers, abs=1e-5)
        query, key, _ = qkv[m].split(model.hidden_size, dim=1)
        heads = []
        for q, k in zip(query.chunk(model.num_heads, 1), key.chunk(model.num_heads, 1), strict=True):
            heads.append((q[-1] @ k.T / q.shape[1] ** 0.5).softmax(-1))
        torch.testing.assert_close(torch.tensor(layers[0]), torch.stack(heads).mean(0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["athwe", "centred"])
def test_wavelet_energy_is_shared_out_among_the_bands(name: str, why: dict[str, dict[str, Any]]) -> None:
    energy = why[name]["wavelet_energy"]
    assert energy["bands"] == ["low", *(f"high {level}" for level in range(len(energy["bands"]) - 1, 0, -1))]
    assert tuple(energy["share"]) == ("id", "text", "image")
    for shares in energy["share"].values():
        assert len(shares) == len(energy["bands"])
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert min(shares) >= 0


def test_wavelet_energy_of_the_causal_form_is_that_of_its_decomposition(
    why: dict[str, dict[str, Any]], runs: dict[str, CaseRun]
) -> None:
    section = runs["athwe"].config.model.wavelet
    with torch.inference_mode():
        x = runs["athwe"].model(pack_histories([(ITEMS, TIMES)])).wavelet_input
        for m, shares in enumerate(why["athwe"]["wavelet_energy"]["share"].values()):
            low, highs = causal_decompose(
                x[:, m], torch.arange(5), taps=smoothing_filter(section.name), levels=section.levels
            )
            energies = torch.stack([low.square().sum(), *(high.square().sum() for high in reversed(highs))])
            torch.testing.assert_close(torch.tensor(shares), energies / energies.sum(), atol=1e-5, rtol=1e-4)
    assert why["plain"]["wavelet_energy"] is why["two"]["wavelet_energy"] is None
