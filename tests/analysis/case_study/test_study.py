"""The case study against what the network says when asked by hand."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from athwe_core.analysis.case_study.loaded_run import CaseRuns
from athwe_core.analysis.case_study.new_user import read_history
from athwe_core.analysis.case_study.select_user import Case, case_of_user
from athwe_core.analysis.case_study.study import case_study, utc_date
from athwe_core.data.packing import pack_histories
from athwe_core.errors import ConfigError, DataError
from athwe_core.evaluation.evaluate import rank_users

USERS = ("7", "60", "123", "150")
TOP = {
    "dataset",
    "data_version",
    "tie_order",
    "split_rule",
    "split",
    "user",
    "picked",
    "history",
    "earlier_items",
    "target",
} | {*("recommendations", "why", "runs", "k", "exclude_seen")}
ITEM = {"item_id", "title", "category"}
WHY = {"subject", "first_position", "by_modality", "score", "rank", "temporal_gates", "interactive_gates"} | {
    *("wavelet_energy", "frequency_energy", "attention", "attention_parts", "influence", "gaps")
}


@pytest.fixture(scope="module")
def study(opened: CaseRuns) -> Callable[..., dict[str, Any]]:
    def make(user: str, *, split: str = "test", **options: Any) -> dict[str, Any]:
        return case_study(opened, case_of_user(opened.prepared, user, split=split), **options)

    return make


def test_it_holds_what_readers_are_promised_and_is_json(study: Callable[..., dict[str, Any]], opened: CaseRuns) -> None:
    case = study("123", k=4)
    assert json.loads(json.dumps(case, allow_nan=False)) == case
    assert case.keys() == TOP
    assert case["target"].keys() == ITEM | {"date", "timestamp", "gap_seconds", "rank", "ranks"}
    for item in case["history"]:
        assert item.keys() == ITEM | {"position", "date", "timestamp", "gap_seconds"}
    names = [run.name for run in opened.runs]
    assert list(case["runs"]) == list(case["recommendations"]) == list(case["why"]) == names
    for name in names:
        assert case["runs"][name]["validation_ndcg@20"] == 0.25
        assert len(case["recommendations"][name]) == 4
        for row in case["recommendations"][name]:
            assert row.keys() == ITEM | {"rank", "score", "by_modality", "in_history", "is_target"}
        assert case["why"][name].keys() == WHY
    facts = {name: case[name] for name in ("user", "split", "picked", "k", "exclude_seen", "dataset", "tie_order")}
    assert facts == {
        **{"user": "123", "split": "test", "picked": None, "k": 4},
        **{"exclude_seen": False, "dataset": "demo", "tie_order": "file"},
    }


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_ranks_are_those_of_evaluation(
    study: Callable[..., dict[str, Any]], opened: CaseRuns, split: str, exclude_seen: bool
) -> None:
    data = opened.prepared
    cases = {user: study(user, split=split, exclude_seen=exclude_seen) for user in USERS}
    users = [data.user_tokens[user] for user in data.split.users(split)]
    for run in opened.runs:
        ranks = dict(zip(users, rank_users(run.model, data, split=split, exclude_seen=exclude_seen), strict=True))
        for user, case in cases.items():
            target = case["target"]
            assert target["ranks"][run.name] == ranks[user] == case["why"][run.name]["rank"]
            recommended = {row["item_id"]: row["rank"] for row in case["recommendations"][run.name]}
            assert (ranks[user] <= 10) == (target["item_id"] in recommended)
            assert recommended.get(target["item_id"], ranks[user]) == ranks[user]
    for case in cases.values():
        assert case["target"]["rank"] == case["target"]["ranks"][opened.runs[0].name]


def test_modalities_sum_to_the_score(study: Callable[..., dict[str, Any]], opened: CaseRuns) -> None:
    case = study("60")
    for run in opened.runs:
        for row in (*case["recommendations"][run.name], case["why"][run.name]):
            if run.name == "demo/sasrec/sasrec":
                assert row["by_modality"] == {}
                continue
            assert tuple(row["by_modality"]) == run.config.model.modalities
            assert sum(row["by_modality"].values()) == pytest.approx(row["score"], abs=1e-4)
            assert len({round(value, 6) for value in row["by_modality"].values()}) == len(row["by_modality"])


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_recommendations_are_the_best_scores(
    study: Callable[..., dict[str, Any]], opened: CaseRuns, exclude_seen: bool
) -> None:
    data = opened.prepared
    case = study("123", k=7, exclude_seen=exclude_seen)
    number = data.user_tokens.index("123")
    row = int(data.split.test[number])
    past, times = (array[data.offsets[number] : row].tolist() for array in (data.item_ids, data.timestamps))
    out = set(past) - {int(data.item_ids[row])} if exclude_seen else set()
    for run in opened.runs:
        length = run.config.model.max_length
        with torch.inference_mode():
            vector = run.model.user_vectors(pack_histories([(past[-length:], times[-length:])]))
            scores = (vector @ run.model.item_table().T)[0].tolist()
        best = sorted(
            (item for item in range(1, data.num_item_rows) if item not in out), key=lambda item: -scores[item]
        )
        found = case["recommendations"][run.name]
        assert [data.item_tokens.index(each["item_id"]) for each in found] == best[:7]
        assert [each["score"] for each in found] == pytest.approx([scores[item] for item in best[:7]], abs=1e-4)
        assert [each["rank"] for each in found] == [1, 2, 3, 4, 5, 6, 7]
        assert [each["in_history"] for each in found] == [item in past for item in best[:7]]


def test_the_history_is_the_longest_window_with_gaps_and_dates(
    study: Callable[..., dict[str, Any]], opened: CaseRuns
) -> None:
    data = opened.prepared
    number = int((data.offsets[1:] - data.offsets[:-1]).argmax())
    row, start = int(data.split.test[number]), int(data.offsets[number])
    case = study(data.user_tokens[number])
    assert case["earlier_items"] == row - start - 6 > 0
    assert [item["position"] for item in case["history"]] == list(range(6))
    texts = data.item_table()
    for item, at in zip((*case["history"], case["target"]), range(row - 6, row + 1), strict=True):
        seconds = int(data.timestamps[at])
        assert item["timestamp"] == seconds
        assert item["date"] == datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
        assert item["gap_seconds"] == seconds - int(data.timestamps[at - 1])
        line = texts.row(int(data.item_ids[at]), named=True)
        assert (item["item_id"], item["title"], item["category"]) == (
            line["item_id"],
            line["title"],
            line["categories"],
        )
    lengths = {name: (why["first_position"], len(why["influence"])) for name, why in case["why"].items()}
    assert lengths["demo/hm4sr/two"] == (2, 4)
    assert lengths["demo/athwe/athwe"] == (0, 6)


def test_the_first_item_of_a_user_has_no_gap(opened: CaseRuns) -> None:
    case = case_study(opened, Case(None, "test", [5, 9], [100, 4000]))
    assert [item["gap_seconds"] for item in case["history"]] == [None, 3900]


def test_a_new_user_with_a_users_history_gets_the_users_recommendations(
    study: Callable[..., dict[str, Any]], opened: CaseRuns, tmp_path: Path
) -> None:
    data = opened.prepared
    number = data.user_tokens.index("60")
    rows = range(int(data.offsets[number]), int(data.split.test[number]))
    lines = [f"{data.item_tokens[data.item_ids[row]]},{data.timestamps[row]}" for row in rows]
    (tmp_path / "h.csv").write_text("\n".join(["item_id,timestamp", *lines]))
    old, new = study("60"), case_study(opened, read_history(tmp_path / "h.csv", data))
    assert new["history"] == old["history"]
    assert (new["user"], new["target"]) == (None, None)
    for name, recommended in new["recommendations"].items():
        assert recommended == [row | {"is_target": False} for row in old["recommendations"][name]]
        assert new["why"][name]["subject"] == {
            "item_id": recommended[0]["item_id"],
            "title": recommended[0]["title"],
            "is_target": False,
        }
        assert new["why"][name]["rank"] == 1
        assert new["why"][name]["temporal_gates"] == old["why"][name]["temporal_gates"]


def test_a_catalogue_all_seen_and_a_k_of_0_are_refused(opened: CaseRuns) -> None:
    everything = list(range(1, opened.prepared.num_item_rows))
    with pytest.raises(DataError, match="holds every item"):
        case_study(opened, Case(None, "test", everything, everything), exclude_seen=True)
    with pytest.raises(ConfigError, match="--k must be positive, got 0"):
        case_study(opened, Case(None, "test", [1], [1]), k=0)


@pytest.mark.parametrize(
    ("seconds", "date"), [(0, "1970-01-01"), (1_393_632_000, "2014-03-01"), (1_393_631_999, "2014-02-28")]
)
def test_dates_are_utc(seconds: int, date: str) -> None:
    assert utc_date(seconds) == date
