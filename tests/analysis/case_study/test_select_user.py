"""Users by id, at random and by what changed between two runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from athwe_core.analysis.case_study import select_user
from athwe_core.analysis.case_study.select_user import case_of_user, near_ids, pick_user, random_users
from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.data.split import global_time
from athwe_core.errors import CheckpointError, ConfigError, DataError
from athwe_core.runs.find import RunFolder, create_run

MakeRanks = Callable[..., RunFolder]


@pytest.fixture
def ranked(tmp_path: Path, case_data: PreparedDataset, make_config: Callable[..., Config]) -> MakeRanks:
    """A run folder with the given ranks of users a, b, c, ... in the test split."""

    def make(name: str, ranks: list[float], *overrides: str) -> RunFolder:
        config = make_config("athwe", *overrides)
        run = create_run(tmp_path, config, case_data, preset="athwe", name=name, command="test")
        users = [chr(ord("a") + number) for number in range(len(ranks))]
        frame = pl.DataFrame({"user_id": users, "split": ["test"] * len(ranks), "rank": [float(r) for r in ranks]})
        others = {"target_item_id": "i", "history_length": 3, "target_popularity": 1, "same_day": False}
        frame.with_columns(**{name: pl.lit(value) for name, value in others.items()}).write_parquet(run.per_user)
        return run

    return make


class TestUsers:
    def test_a_case_is_everything_before_the_held_out_item(self, case_data: PreparedDataset) -> None:
        number = case_data.user_tokens.index("42")
        rows = slice(int(case_data.offsets[number]), int(case_data.offsets[number + 1]))
        items, times = case_data.item_ids[rows].tolist(), case_data.timestamps[rows].tolist()
        for split, last in (("test", -1), ("validation", -2)):
            case = case_of_user(case_data, "42", split=split, picked="why")
            assert (case.user, case.split, case.picked) == ("42", split, "why")
            assert (case.item_ids, case.timestamps) == (items[:last], times[:last])
            assert case.target == (items[last], times[last])

    def test_an_unknown_user_is_told_near_ids(self, case_data: PreparedDataset) -> None:
        with pytest.raises(
            DataError, match=r"one of the 150 users of demo, got '1423'\. Similar ids: '14'|'142'|'143'"
        ):
            case_of_user(case_data, "1423", split="test")
        with pytest.raises(DataError, match=r"got 'zzz'\. Try --random 1"):
            case_of_user(case_data, "zzz", split="test")

    def test_a_user_who_is_not_asked_is_told_where_they_are(self, case_data: PreparedDataset) -> None:
        times = sorted(case_data.timestamps.tolist())
        split = global_time(case_data.offsets, case_data.timestamps, validation_from=times[-400], test_from=times[-200])
        data = replace(
            case_data, training_ends=split.training_end, validation_rows=split.validation, test_rows=split.test
        )
        user = next(u for u in split.users("validation").tolist() if split.test[u] < 0)
        with pytest.raises(DataError, match=r"has no test item under the .* split\. Try --split validation"):
            case_of_user(data, data.user_tokens[user], split="test")
        assert case_of_user(data, data.user_tokens[user], split="validation").target is not None

    def test_random_users_are_different_and_repeatable(self, case_data: PreparedDataset) -> None:
        drawn = random_users(case_data, 20, split="test", seed=3)
        assert drawn == random_users(case_data, 20, split="test", seed=3)
        assert drawn != random_users(case_data, 20, split="test", seed=4)
        assert len(set(drawn)) == 20
        assert set(random_users(case_data, 150, split="test")) == set(case_data.user_tokens)

    @pytest.mark.parametrize("count", [0, 151])
    def test_too_many_random_users(self, case_data: PreparedDataset, count: int) -> None:
        with pytest.raises(
            ConfigError, match=rf"--random must be in 1\.\.150, the users with a test target, got {count}"
        ):
            random_users(case_data, count, split="test")

    def test_near_ids_of_many_look_at_those_that_begin_alike(self, monkeypatch: pytest.MonkeyPatch) -> None:
        known = ["AB123", "AB124", "XB125"]
        assert near_ids("AB125", known) == "Similar ids: 'XB125', 'AB124', 'AB123'"
        monkeypatch.setattr(select_user, "MOST_NAMES_COMPARED", 2)
        assert near_ids("AB125", known) == "Similar ids: 'AB124', 'AB123'"
        assert near_ids("QQ", known) == ""


class TestPicks:
    def test_improved_is_the_largest_gain_of_ndcg_then_of_rank(self, ranked: MakeRanks) -> None:
        run = ranked("new", [3, 1, 1, 500, 1])
        old = ranked("old", [900, 40, 312, 9000, 312])
        assert pick_user("improved", run, old, split="test") == (
            "c",
            "improved: rank 312 -> 1 against demo/athwe/old".replace("demo", run.name.split("/")[0]),
        )

    def test_failed_is_the_reverse(self, ranked: MakeRanks) -> None:
        run = ranked("new", [900, 40, 312, 9000, 312.5])
        old = ranked("old", [3, 1, 1, 500, 1])
        user, why = pick_user("failed", run, old, split="test")
        assert user == "e"
        assert why.startswith("failed: rank 1 -> 312.5 against ")

    def test_typical_is_nearest_the_median_the_first_of_equals(self, ranked: MakeRanks) -> None:
        user, why = pick_user("typical", ranked("new", [2, 90, 7, 10, 700, 8]), split="test")
        assert user == "d"  # the median is 9: 8 and 10 are as near, and d comes first
        assert "rank 10, the median of" in why
        assert why.endswith("is 9")

    @pytest.mark.parametrize("kind", ["improved", "failed"])
    def test_nobody_changed(self, kind: str, ranked: MakeRanks) -> None:
        run, old = ranked("new", [1, 50]), ranked("old", [1, 20])
        with pytest.raises(DataError, match=f"must have a user who {kind} in NDCG@10"):
            pick_user(kind, run, old, split="test")

    def test_mistakes(self, ranked: MakeRanks) -> None:
        run = ranked("new", [1])
        with pytest.raises(ConfigError, match="must be one of improved, failed, typical, got 'best'"):
            pick_user("best", run, split="test")
        with pytest.raises(ConfigError, match=r"improved needs a run to compare with\. Add --against RUN"):
            pick_user("improved", run, split="test")
        with pytest.raises(CheckpointError, match=r"ranks of the validation split.*athwe evaluate --run"):
            pick_user("typical", run, split="validation")
        with pytest.raises(DataError, match="must rank seen items as"):
            pick_user("improved", run, ranked("other", [1], "evaluation.exclude_seen=true"), split="test")
        with pytest.raises(DataError, match="'b' is missing"):
            pick_user("failed", ranked("more", [1, 2]), run, split="test")
        run.per_user.write_bytes(b"no parquet")
        with pytest.raises(CheckpointError, match="must be readable parquet"):
            pick_user("typical", run, split="test")
        run.per_user.unlink()
        with pytest.raises(CheckpointError, match="must be readable parquet"):
            pick_user("typical", run, split="test")
