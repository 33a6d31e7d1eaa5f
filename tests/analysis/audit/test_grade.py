"""Grades on both sides of their bounds, and the advice that goes with them."""

import copy
from typing import Any

import analysis_cases as made
import pytest

from athwe_core.analysis.audit.grade import GRADES, findings


@pytest.mark.parametrize(
    ("path", "values", "title"),
    [
        (("statistics", "tied_test_share"), (0.0, 0.3, 0.7), "Equal times"),
        (("pairs", "repeated"), (0.0, 0.1, 0.5), "Repeated items"),
        (("leakage", "training_later"), (0.0, 0.1, 0.6), "Time leakage"),
        (("cold", "test_targets"), (0.0, 0.05, 0.3), "Cold items"),
        (("popularity", "gini"), (0.3, 0.75, 0.95), "Popularity"),
        (("features", "text", "duplicates"), (0.0, 0.1, 0.5), "Text duplicates"),
        (("features", "text", "mean_cosine"), (0.1, 0.6, 0.95), "Text spread"),
        (("features", "text", "norm_median"), (22.0, 80.0, 0.1), "Text scale"),
    ],
)
def test_grades(path: tuple[str, ...], values: tuple[float, ...], title: str) -> None:
    for value, grade in zip(values, ("ok", "look", "problem"), strict=True):
        changed = copy.deepcopy(made.audited())
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        found = next(f for f in findings(changed) if f["title"] == title)
        assert found["grade"] == grade
        assert bool(found["advice"]) == (grade != "ok")
        assert not found["command"] or grade != "ok"
        assert found["meaning"]


def test_features_that_are_missing_are_worth_a_look() -> None:
    (found,) = [finding for finding in findings(made.audited()) if finding["title"].startswith("Image")]
    assert (found["grade"], found["fact"]) == ("look", "none")
    assert found["command"] == (
        "athwe prepare --dataset Toys_and_Games --tie-order item --image-encoder openai/clip-vit-base-patch32"
    )


def test_the_worst_come_first() -> None:
    order = [GRADES.index(finding["grade"]) for finding in findings(made.audited())]
    assert order == sorted(order)


def test_commands_keep_the_options_of_the_version() -> None:
    facts: Any = made.audited()
    facts["options"]["keep_feature_scale"] = True
    commands = {found["title"]: found["command"] for found in findings(facts)}
    prepare = "athwe prepare --dataset Toys_and_Games --tie-order item"
    assert (
        commands["Time leakage"]
        == "athwe prepare --dataset Toys_and_Games --tie-order item --split global-time --keep-feature-scale"
    )
    assert commands["Text scale"] == prepare
    assert {found["title"]: found["command"] for found in findings(made.audited())}["Text scale"] == ""


def test_a_tie_order_that_is_not_known_is_left_out() -> None:
    fact = next(found["fact"] for found in findings(made.audited()) if found["title"] == "Effect of the tie order")
    assert fact.endswith("file 0.0270, item 0.0472")


@pytest.mark.parametrize(("users", "grade"), [(199, "problem"), (200, "look"), (1999, "look"), (2000, "ok")])
def test_size(users: int, grade: str) -> None:
    facts: Any = made.audited()
    facts["statistics"]["asked"]["test"] = users
    found = next(finding for finding in findings(facts) if finding["title"] == "Size")
    assert (found["grade"], found["fact"]) == (grade, f"{users:,} users have a test target")


def test_versions_before_splits_were_stored_go_by_their_users() -> None:
    facts: Any = made.audited()
    del facts["statistics"]["asked"]
    assert next(found["fact"] for found in findings(facts) if found["title"] == "Size").startswith("19,412 users")
