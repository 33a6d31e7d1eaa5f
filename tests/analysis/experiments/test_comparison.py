"""Comparison of runs made by hand: four users whose ranks are known, so that every number can be worked out."""

import json
from collections.abc import Callable, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from safetensors.numpy import save_file
from scipy import stats

from athwe_core.analysis.experiments.comparison import compare_runs
from athwe_core.config import config_tree
from athwe_core.errors import CheckpointError, ConfigError
from athwe_core.evaluation.external_ranks import ExternalRanks
from athwe_core.evaluation.significance import paired_test_over_seeds
from athwe_core.models.registry import build_config, replace_in
from athwe_core.runs.find import RunFolder

MakeRun = Callable[..., RunFolder]
USERS = ("u0", "u1", "u2", "u3")


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A finished run on paper: `ranks` of the test split, 1 everywhere on validation."""

    def make(
        name: str,
        ranks: Sequence[float],
        /,
        *overrides: str,
        preset: str = "hm4sr",
        users: Sequence[str] = USERS,
        manifest: dict[str, Any] | None = None,
        **data: str,
    ) -> RunFolder:
        facts = {"name": "toy", "version": "v", "content_hash": "c" * 64, "tie_order": "file"} | data
        folder = tmp_path / facts["name"] / preset / name
        (folder / "checkpoints" / "best").mkdir(parents=True)
        tree = config_tree(replace_in(build_config(preset), overrides))
        (folder / "config.yaml").write_text(yaml.safe_dump(tree))
        tensors = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float32), "origin": np.zeros(1, np.int64)}
        save_file(tensors, folder / "checkpoints" / "best" / "weights.safetensors")
        results = {"epochs": 7, "best_epoch": 5, "seconds_per_epoch": 2.0}
        written = {"status": "finished", "preset": preset, "data": facts, "device": "cpu", "results": results}
        written |= {"command": "athwe train", "started": "2026-01-01", "versions": {}}
        (folder / "manifest.json").write_text(json.dumps(written | (manifest or {})))
        frames = [
            pl.DataFrame(
                {
                    "user_id": users,
                    "split": split,
                    "target_item_id": [f"i of {user}" for user in users],
                    "rank": np.asarray(found, np.float64),
                    "history_length": [3, 3, 6, 6][: len(users)],
                    "target_popularity": [0, 1, 1, 1][: len(users)],
                    "same_day": [True, False, False, False][: len(users)],
                }
            )
            for split, found in (("validation", [1.0] * len(users)), ("test", ranks))
        ]
        pl.concat(frames).write_parquet(folder / "per_user.parquet")
        return RunFolder(folder)

    return make


def test_seeds_of_one_configuration_are_one_row_by_hand(make_run: MakeRun) -> None:
    runs = [
        make_run("s0", [1, 3, 7, 99]),
        make_run("s1", [3, 3, 99, 99], "training.seed=1", "training.device=cpu"),
        make_run("s0", [1, 1, 1, 99], preset="athwe"),
    ]
    found = compare_runs(runs)
    assert (found["dataset"], found["split"], found["users"]) == ("toy", "test", 4)
    assert (found["comparable"], found["differences"]) == (True, [])
    assert (found["split_rule"], found["tie_order"], found["exclude_seen"]) == ("leave-one-out", "file", False)
    first, second = found["rows"]
    assert (first["label"], first["runs"], first["seeds"]) == ("hm4sr", ["toy/hm4sr/s0", "toy/hm4sr/s1"], [0, 1])
    # ndcg of rank 1, 3, 7: 1, 1/2, 1/3
    each = [(1 + 1 / 2 + 1 / 3) / 4, (1 / 2 + 1 / 2) / 4]
    ndcg = first["metrics"]["ndcg@10"]
    assert ndcg["values"] == pytest.approx(each)
    assert ndcg["mean"] == pytest.approx(sum(each) / 2)
    assert ndcg["sd"] == pytest.approx(abs(each[0] - each[1]) / sqrt(2))
    assert first["metrics"]["hit@5"]["values"] == pytest.approx([2 / 4, 2 / 4])
    assert second["metrics"]["ndcg@10"] == {"mean": 3 / 4, "sd": None, "values": [3 / 4]}
    assert (first["change_percent"], first["p_value"], first["p_holm"]) == (None, None, None)
    assert second["change_percent"] == pytest.approx(100 * (3 / 4 - sum(each) / 2) / (sum(each) / 2))
    assert (second["epochs"], second["seconds_per_epoch"], second["parameters"]) == ([7], 2.0, 2 * 3 + 4)


def test_with_one_seed_on_a_side_the_test_is_over_users_averaged_over_seeds(make_run: MakeRun) -> None:
    runs = [
        make_run("s0", [1, 3, 7, 99]),
        make_run("s1", [3, 3, 99, 99], "training.seed=1"),
        make_run("s0", [1, 1, 1, 99], preset="athwe"),
        make_run("other", [1, 1, 3, 3], "training.lr=0.1"),
    ]
    found = compare_runs(runs)
    rows = found["rows"]
    base = [3 / 4, 1 / 2, 1 / 6, 0]
    others = [[1, 1, 1, 0], [1, 1, 1 / 2, 1 / 2]]
    expected = [stats.ttest_rel(other, base).pvalue for other in others]
    assert [row["p_value"] for row in rows[1:]] == pytest.approx(expected)
    smaller, larger = sorted(expected)
    adjusted = {smaller: 2 * smaller, larger: max(larger, 2 * smaller)}
    assert [row["p_holm"] for row in rows[1:]] == pytest.approx([adjusted[p] for p in expected])
    assert [row["p_over"] for row in rows] == [None, "users", "users"]
    assert "leaves out the spread over seeds" in str(found["test"])


def test_with_several_seeds_on_both_sides_the_test_is_over_users_and_seeds(make_run: MakeRun) -> None:
    ranks = {"hm4sr": [[1, 3, 7, 99], [3, 3, 99, 99]], "athwe": [[1, 1, 1, 99], [1, 1, 3, 99]]}
    runs = [
        make_run(f"s{seed}", found, f"training.seed={seed}", preset=preset)
        for preset, of_preset in ranks.items()
        for seed, found in enumerate(of_preset)
    ]
    found = compare_runs(runs)
    # ndcg of rank 1, 3, 7: 1, 1/2, 1/3
    first = np.array([[1, 1 / 2, 1 / 3, 0], [1 / 2, 1 / 2, 0, 0]])
    second = np.array([[1, 1, 1, 0], [1, 1, 1 / 2, 0]])
    row = found["rows"][1]
    assert row["p_value"] == pytest.approx(paired_test_over_seeds(second, first))
    assert (row["p_holm"], row["p_over"]) == (row["p_value"], "users and seeds")
    assert found["test"] == "p is of a paired t-test over users and seeds, after Holm's correction"


def test_users_are_paired_by_id_whatever_the_order_of_the_file(make_run: MakeRun) -> None:
    straight, turned = make_run("a", [1, 3, 7, 9]), make_run("b", [2, 4, 8, 9], "training.lr=0.1")
    expected = compare_runs([straight, turned])["rows"][1]["p_value"]
    frame = pl.read_parquet(turned.per_user)
    frame.reverse().write_parquet(turned.per_user)
    assert compare_runs([straight, turned])["rows"][1]["p_value"] == expected
    assert 0 < expected < 1


def test_a_change_in_which_no_user_differs_has_p_1(make_run: MakeRun) -> None:
    rows = compare_runs([make_run("a", [1, 3, 7, 9]), make_run("b", [1, 3, 7, 9], "training.lr=0.1")])["rows"]
    assert (rows[1]["change_percent"], rows[1]["p_value"], rows[1]["p_holm"]) == (0.0, 1.0, 1.0)


def test_metric_and_split_are_a_choice(make_run: MakeRun) -> None:
    runs = [make_run("a", [1, 3, 7, 9]), make_run("b", [2, 2, 2, 2], "training.lr=0.1")]
    found = compare_runs(runs, metric="mrr@3")
    assert found["rows"][1]["change_percent"] == pytest.approx(100 * ((1 / 2) / ((1 + 1 / 3) / 4) - 1))
    assert compare_runs(runs, split="validation")["rows"][1]["change_percent"] == 0


def test_groups_by_hand(make_run: MakeRun) -> None:
    runs = [
        make_run("s0", [1, 3, 7, 99]),
        make_run("s1", [3, 3, 99, 99], "training.seed=1"),
        make_run("s0", [1, 1, 1, 3], preset="athwe"),
    ]
    assert compare_runs(runs)["groups"] == {
        "history_length": {
            "1-4": {"users": 2, "hm4sr": pytest.approx((3 / 4 + 1 / 2) / 2), "athwe": 1},
            "5-9": {"users": 2, "hm4sr": pytest.approx((1 / 6) / 2), "athwe": pytest.approx(3 / 4)},
        },
        "target_popularity": {
            "0 (cold)": {"users": 1, "hm4sr": pytest.approx(3 / 4), "athwe": 1},
            "1-4": {"users": 3, "hm4sr": pytest.approx((1 / 2 + 1 / 6) / 3), "athwe": pytest.approx(2.5 / 3)},
        },
        "same_day": {
            "later": {"users": 3, "hm4sr": pytest.approx((1 / 2 + 1 / 6) / 3), "athwe": pytest.approx(2.5 / 3)},
            "same day": {"users": 1, "hm4sr": pytest.approx(3 / 4), "athwe": 1},
        },
    }


def test_labels_are_unique(make_run: MakeRun) -> None:
    runs = [
        make_run("a", [1, 3, 7, 9]),
        make_run("b", [1, 3, 7, 9], "training.lr=0.1"),
        make_run("a", [1, 3, 7, 9], preset="athwe"),
        make_run("a", [1, 3, 7, 9], name="other"),
    ]
    labels = [row["label"] for row in compare_runs(runs, force=True)["rows"]]
    assert labels == ["toy/hm4sr/a", "hm4sr b", "athwe", "other/hm4sr/a"]


def test_a_run_given_twice_counts_once_and_a_repeated_seed_is_a_row_of_its_own(make_run: MakeRun) -> None:
    first, again = make_run("first", [1, 3, 7, 9]), make_run("again", [1, 3, 7, 8])
    rows = compare_runs([first, again, first])["rows"]
    assert [row["runs"] for row in rows] == [["toy/hm4sr/first"], ["toy/hm4sr/again"]]
    assert rows[0]["metrics"]["ndcg@10"]["sd"] is None


def test_runs_of_one_name_are_told_apart_by_their_paths(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("a", [1, 3, 7, 9])
    copied = tmp_path / "copy" / "toy" / "hm4sr" / "a"
    copied.parent.mkdir(parents=True)
    run.path.rename(copied)
    rows = compare_runs([make_run("a", [1, 3, 7, 8]), RunFolder(copied)])["rows"]
    assert [row["runs"] for row in rows] == [[str(run.path)], [str(copied)]]


def test_a_row_without_weights_or_hits_has_no_size_and_no_change(make_run: MakeRun) -> None:
    run = make_run("a", [99, 99, 99, 99])
    (run.best / "weights.safetensors").unlink()
    rows = compare_runs([run, make_run("b", [1, 3, 7, 9], "training.lr=0.1")])["rows"]
    assert rows[0]["parameters"] is None
    assert rows[1]["change_percent"] is None


class TestNotComparable:
    @pytest.mark.parametrize(
        ("difference", "text"),
        [
            ({"tie_order": "item"}, "tie_order is 'file' in toy/hm4sr/a and 'item' in toy/hm4sr/b"),
            ({"content_hash": "d" * 64}, "content_hash is 'cccccccccccc' in toy/hm4sr/a and 'dddddddddddd' in"),
            ({"split_rule": "global-time"}, "split_rule is 'leave-one-out' in toy/hm4sr/a and 'global-time' in"),
            ({"name": "other"}, "dataset is 'toy' in toy/hm4sr/a and 'other' in other/hm4sr/b"),
            ({"users": ("u0", "u1", "u2", "x")}, "held_out is '4 users, "),
        ],
    )
    def test_is_refused_naming_what_differs_where(
        self, difference: dict[str, Any], text: str, make_run: MakeRun
    ) -> None:
        runs = [make_run("a", [1, 3, 7, 9]), make_run("b", [1, 3, 7, 8], "training.lr=0.1", **difference)]
        with pytest.raises(ConfigError) as caught:
            compare_runs(runs)
        assert text in str(caught.value)
        assert "--force" in caught.value.remedy

    def test_seen_item_rule_is_read_from_the_configuration(self, make_run: MakeRun) -> None:
        runs = [make_run("a", [1, 3, 7, 9]), make_run("b", [1, 3, 7, 8], "evaluation.exclude_seen=true")]
        with pytest.raises(ConfigError, match="exclude_seen is False in toy/hm4sr/a and True in toy/hm4sr/b"):
            compare_runs(runs)

    def test_force_marks_and_tests_only_equal_held_out_items(self, make_run: MakeRun) -> None:
        runs = [
            make_run("a", [1, 3, 7, 9]),
            make_run("b", [1, 3, 7, 8], "training.lr=0.1", tie_order="item"),
            make_run("c", [1, 1, 1], "training.lr=0.2", users=USERS[:3]),
        ]
        found = compare_runs(runs, force=True)
        assert (found["comparable"], found["tie_order"], found["split_rule"]) == (False, None, "leave-one-out")
        names = ["toy/hm4sr/a", "toy/hm4sr/b", "toy/hm4sr/c"]
        ties, held_out = found["differences"]
        assert ties == {"what": "tie_order", "values": dict(zip(names, ("file", "item", "file"), strict=True))}
        assert held_out["what"] == "held_out"
        assert [value.split(",")[0] for value in held_out["values"].values()] == ["4 users", "4 users", "3 users"]
        assert [row["p_value"] is None for row in found["rows"]] == [True, False, True]
        assert found["rows"][1]["p_holm"] == found["rows"][1]["p_value"]
        assert found["rows"][2]["change_percent"] > 0

    def test_equal_configurations_on_other_data_are_rows_of_their_own(self, make_run: MakeRun) -> None:
        runs = [
            make_run("a", [1, 3, 7, 9]),
            make_run("b", [1, 3, 7, 8], "training.seed=1", content_hash="d" * 64),
        ]
        assert len(compare_runs(runs, force=True)["rows"]) == 2


def external(
    ranks: Sequence[float], *, name: str = "other.csv", known_to: int | None = None, users: Sequence[str] = USERS
) -> ExternalRanks:
    """A file of ranks of the test split, users in reverse order."""
    frame = pl.DataFrame(
        {
            "user_id": users,
            "target_item_id": [f"i of {user}" for user in users],
            "rank": np.asarray(ranks, np.float64),
            "history_length": [3, 3, 6, 6],
            "target_popularity": [0, 1, 1, 1],
            "same_day": [True, False, False, False],
        }
    )
    return ExternalRanks(Path("folder") / name, frame.reverse(), known_to, (f"{name}: a note",))


class TestFiles:
    """Ranks that another program made."""

    def test_a_file_is_a_row_with_metrics_change_test_and_groups(self, make_run: MakeRun) -> None:
        run = make_run("s0", [1, 3, 7, 99])
        found = compare_runs([run], files={"other": [external([3, 1, 1, np.inf])]})
        row = found["rows"][1]
        assert (row["label"], row["runs"], row["files"], row["preset"]) == ("other", [], ["folder/other.csv"], None)
        assert (row["seeds"], row["epochs"], row["devices"]) == ([], [], [])
        assert (row["seconds_per_epoch"], row["parameters"]) == (None, None)
        # ndcg of rank 1, 3, 7: 1, 1/2, 1/3
        assert row["metrics"]["ndcg@10"] == {"mean": 2.5 / 4, "sd": None, "values": [2.5 / 4]}
        assert row["metrics"]["hit@50"]["mean"] == 3 / 4
        base, other = [1, 1 / 2, 1 / 3, 0], [1 / 2, 1, 1, 0]
        assert row["change_percent"] == pytest.approx(100 * (sum(other) / sum(base) - 1))
        assert row["p_value"] == pytest.approx(stats.ttest_rel(other, base).pvalue)
        assert (row["p_holm"], row["p_over"]) == (row["p_value"], "users")
        assert found["groups"]["history_length"]["1-4"] == {"users": 2, "hm4sr": 3 / 4, "other": 3 / 4}
        assert found["notes"] == ["other.csv: a note"]
        assert found["rows"][0]["files"] == []

    def test_files_of_one_label_are_seeds(self, make_run: MakeRun) -> None:
        runs = [make_run("s0", [1, 3, 7, 99]), make_run("s1", [3, 3, 99, 99], "training.seed=1")]
        files = {"other": [external([1, 1, 1, 99], name="a.csv"), external([1, 1, 3, 99], name="b.csv")]}
        row = compare_runs(runs, files=files)["rows"][1]
        assert row["files"] == ["folder/a.csv", "folder/b.csv"]
        assert row["metrics"]["ndcg@10"]["values"] == pytest.approx([3 / 4, 2.5 / 4])
        first = np.array([[1, 1 / 2, 1 / 3, 0], [1 / 2, 1 / 2, 0, 0]])
        second = np.array([[1, 1, 1, 0], [1, 1, 1 / 2, 0]])
        assert row["p_value"] == pytest.approx(paired_test_over_seeds(second, first))
        assert row["p_over"] == "users and seeds"

    def test_cut_offs_beyond_the_known_ranks_are_left_out(self, make_run: MakeRun) -> None:
        run = make_run("s0", [1, 3, 7, 99])
        files = {"a": [external([1, 1, 1, np.inf], known_to=12)], "b": [external([1, 1, 1, 1], known_to=10)]}
        found = compare_runs([run], files=files)
        names = {f"{metric}@{k}" for metric in ("ndcg", "mrr", "hit") for k in (5, 10)}
        assert [set(row["metrics"]) for row in found["rows"]] == [names] * 3
        assert found["notes"][-1] == "metrics @20, @50 are left out: other.csv knows ranks to 10 only"
        rule = r"--metric must have a cut-off of at most 10, the ranks that folder/other.csv knows, got 20"
        with pytest.raises(ConfigError, match=rule):
            compare_runs([run], metric="ndcg@20", files=files)

    def test_longer_lists_than_any_cut_off_leave_nothing_out(self, make_run: MakeRun) -> None:
        found = compare_runs([make_run("s0", [1, 3, 7, 99])], files={"a": [external([1, 1, 1, 1], known_to=50)]})
        assert "ndcg@50" in found["rows"][1]["metrics"]
        assert found["notes"] == ["other.csv: a note"]

    def test_other_users_have_no_p_value(self, make_run: MakeRun) -> None:
        files = {"other": [external([1, 1, 1, 1], users=("v0", "v1", "v2", "v3"))]}
        row = compare_runs([make_run("s0", [1, 3, 7, 99])], files=files)["rows"][1]
        assert (row["p_value"], row["p_over"]) == (None, None)

    def test_a_label_of_a_run_is_taken(self, make_run: MakeRun) -> None:
        rule = r"must have a label that no row of runs has, got 'hm4sr'. Name it: --ranks 'other hm4sr=FILE'"
        with pytest.raises(ConfigError, match=rule):
            compare_runs([make_run("s0", [1, 3, 7, 99])], files={"hm4sr": [external([1, 1, 1, 1])]})


class TestMistakes:
    @pytest.mark.parametrize("metric", ["ndcg", "ndcg@0", "recall@10", "ndcg@10x"])
    def test_unknown_metric(self, metric: str, make_run: MakeRun) -> None:
        with pytest.raises(ConfigError, match=f"must be ndcg@k, mrr@k or hit@k, got '{metric}'"):
            compare_runs([make_run("a", [1, 3, 7, 9])], metric=metric)

    def test_unknown_split_and_no_run(self, make_run: MakeRun) -> None:
        with pytest.raises(ConfigError, match="must be validation or test, got 'dev'"):
            compare_runs([make_run("a", [1, 3, 7, 9])], split="dev")
        with pytest.raises(ConfigError, match="must name at least one run, got 0"):
            compare_runs([])

    @pytest.mark.parametrize("status", ["running", "interrupted", "pruned"])
    def test_a_run_that_is_not_finished(self, status: str, make_run: MakeRun) -> None:
        run = make_run("a", [1, 3, 7, 9], manifest={"status": status})
        with pytest.raises(
            CheckpointError, match=f"got '{status}'. Continue it with: athwe train --resume toy/hm4sr/a"
        ):
            compare_runs([run])

    def test_ranks_that_are_not_there(self, make_run: MakeRun) -> None:
        run = make_run("a", [1, 3, 7, 9])
        frame = pl.read_parquet(run.per_user)
        frame.filter(pl.col("split") == "validation").write_parquet(run.per_user)
        remedy = "athwe evaluate --run toy/hm4sr/a --split test"
        with pytest.raises(CheckpointError, match=f"must hold ranks of the test split.*{remedy}"):
            compare_runs([run])
        run.per_user.write_text("no parquet")
        with pytest.raises(CheckpointError, match=f"must be readable parquet.*{remedy}"):
            compare_runs([run])
        run.per_user.unlink()
        with pytest.raises(CheckpointError, match=remedy):
            compare_runs([run])

    def test_unreadable_weights(self, make_run: MakeRun) -> None:
        run = make_run("a", [1, 3, 7, 9])
        (run.best / "weights.safetensors").write_bytes(b"no safetensors")
        with pytest.raises(CheckpointError, match=r"weights\.safetensors must be a readable safetensors file"):
            compare_runs([run])


def test_best_is_ahead_of_every_other_row_beyond_chance(make_run: MakeRun) -> None:
    users = tuple(f"u{number}" for number in range(40))
    facts = {"history_length": [3] * 40, "target_popularity": [1] * 40, "same_day": [False] * 40}
    levels = {"worst": [99.0] * 39 + [3.0], "middle": [7.0] * 39 + [1.0], "best": [1.0] * 39 + [3.0]}
    runs = []
    for at, (name, ranks) in enumerate(levels.items()):
        run = make_run(name, [1, 1, 1, 1], f"training.lr={at + 1}")
        frame = pl.DataFrame({"user_id": users, "split": "test", "target_item_id": users, "rank": ranks, **facts})
        frame.write_parquet(run.path / "per_user.parquet")
        runs.append(run)
    found = compare_runs(runs)["best"]
    assert found["ndcg@5"] == found["ndcg@10"] == found["mrr@5"] == "hm4sr best"
    assert found["hit@10"] is None  # 40 of 40 users against 40 of 40
    assert set(compare_runs(runs[2:])["best"].values()) == {None}
    assert compare_runs([runs[2], runs[2]])["best"] == dict.fromkeys(found)


def test_nothing_is_best_where_runs_must_not_be_ranked(make_run: MakeRun) -> None:
    runs = [make_run("a", [1, 1, 1, 1]), make_run("b", [99, 99, 99, 98], tie_order="item", preset="athwe")]
    assert set(compare_runs(runs, force=True)["best"].values()) == {None}
