"""Runs opened side by side, and ranks among scores."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from athwe_core.analysis.case_study.loaded_run import CaseRuns, open_runs, ranks, top_items
from athwe_core.errors import CheckpointError, ConfigError, DataError
from athwe_core.runs.find import RunFolder

NOTHING = torch.empty(0, dtype=torch.int64)


@pytest.fixture
def copied(tmp_path: Path, run_folders: dict[str, RunFolder]) -> Callable[[str], RunFolder]:
    def copy(name: str) -> RunFolder:
        target = tmp_path / "demo" / "athwe" / name
        shutil.copytree(run_folders["athwe"].path, target)
        return RunFolder(target)

    return copy


def test_runs_on_other_data_are_refused_and_both_are_named(
    case_folder: Path, run_folders: dict[str, RunFolder], copied: Callable[[str], RunFolder]
) -> None:
    other = copied("elsewhere")
    manifest = other.manifest()
    manifest["data"] |= {"name": "toys", "version": "0123456789ab", "content_hash": "f" * 64}
    (other.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError) as caught:
        open_runs([run_folders["athwe"], other], case_folder / "prepared")
    assert "run demo/athwe/elsewhere must be trained on the same data as demo/athwe/athwe" in str(caught.value)
    assert "toys version 0123456789ab" in str(caught.value)


def test_a_run_twice_and_a_run_without_weights_are_refused(
    case_folder: Path, run_folders: dict[str, RunFolder], copied: Callable[[str], RunFolder]
) -> None:
    with pytest.raises(ConfigError, match="--against must name another run, got 'demo/athwe/athwe'"):
        open_runs([run_folders["athwe"]] * 2, case_folder / "prepared")
    fresh = copied("fresh")
    shutil.rmtree(fresh.best)
    with pytest.raises(CheckpointError, match=r"must have finished an epoch\. athwe train --resume demo/athwe/fresh"):
        open_runs([fresh], case_folder / "prepared")


def test_scores_come_in_the_order_of_the_histories(opened: CaseRuns) -> None:
    run = opened.runs[0]
    histories = [([3, 8, 2], [10, 20, 30]), ([7], [5]), ([9, 9], [1, 90_000])]
    together = run.scores(histories)
    for history, scores in zip(histories, together, strict=True):
        torch.testing.assert_close(run.forward(history).scores, scores, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together[0], together[2])


@pytest.mark.parametrize("name", ["athwe", "two", "sasrec"])
def test_parts_sum_to_the_score(opened: CaseRuns, name: str) -> None:
    run = next(run for run in opened.runs if run.name.endswith(f"/{name}"))
    found = run.forward(([3, 8, 2], [10, 20, 30]))
    parts = run.by_modality(found, [5, 9])
    if name == "sasrec":
        assert parts == [{}, {}]
    else:
        assert [list(part) for part in parts] == [list(run.config.model.modalities)] * 2
        assert [sum(part.values()) for part in parts] == pytest.approx(found.scores[[5, 9]].tolist(), abs=1e-3)


def test_an_item_of_the_history_has_its_learned_term_as_a_part(opened: CaseRuns) -> None:
    run = next(run for run in opened.runs if run.config.model.repeat and run.name.endswith("/athwe"))
    found = run.forward(([3, 8, 2], [10, 20, 30]))
    seen, unseen = run.by_modality(found, [8, 9])
    assert seen["repeat"] != 0
    assert "repeat" not in unseen
    assert sum(seen.values()) == pytest.approx(float(found.scores[8]), abs=1e-3)


def test_a_bias_is_a_part_of_its_own(opened: CaseRuns) -> None:
    bias = torch.linspace(-1, 1, len(opened.runs[0].table))
    run = replace(opened.runs[0], bias=bias)
    found = run.forward(([3, 8, 2], [10, 20, 30]))
    torch.testing.assert_close(found.scores - opened.runs[0].forward(([3, 8, 2], [10, 20, 30])).scores, bias)
    (part,) = run.by_modality(found, [9])
    assert part["bias"] == pytest.approx(float(bias[9]))
    assert sum(part.values()) == pytest.approx(float(found.scores[9]), abs=1e-3)


def test_facts_name_the_metric_that_chose_the_best_epoch(opened: CaseRuns) -> None:
    assert opened.runs[0].facts() == {
        **{"preset": "athwe", "metric": "ndcg@20", "best_value": 0.25, "best_epoch": 3},
        "validation_ndcg@20": 0.25,
    }
    training = opened.runs[0].config.training.model_copy(update={"selection_metric": "hit@10"})
    config = opened.runs[0].config.model_copy(update={"training": training})
    facts = replace(opened.runs[0], config=config).facts()
    assert facts["metric"] == "hit@10"
    assert "validation_ndcg@20" not in facts


def test_ranks_share_ties_and_leave_out_what_is_excluded() -> None:
    scores = torch.tensor([[9.0, 1.0, 3.0, 3.0, 2.0], [9.0, 5.0, 4.0, 3.0, 2.0]])
    assert ranks(scores, 2, excluded=NOTHING) == [1.5, 2]
    assert ranks(scores, 4, excluded=torch.tensor([2, 1])) == [2, 2]
    assert [type(rank) for rank in ranks(scores, 2, excluded=NOTHING)] == [float, int]


def test_top_items_are_without_padding_and_excluded_ones_and_equal_ones_go_by_number() -> None:
    scores = torch.tensor([9.0, 1.0, 3.0, 5.0, 3.0])
    assert top_items(scores, k=3, excluded=NOTHING) == [3, 2, 4]
    assert top_items(scores, k=3, excluded=torch.tensor([3, 1])) == [2, 4]
    assert top_items(scores, k=3, excluded=torch.tensor([1, 2, 3, 4])) == []
