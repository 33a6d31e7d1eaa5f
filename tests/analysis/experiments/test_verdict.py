"""The result of a comparison in sentences, by hand."""

from typing import Any

import pytest

from athwe_core.analysis.experiments.verdict import baseline_sentence, verdict


def row(label: str, mean: float, *, p: float | None = None, sd: float | None = None, base: float = 0.05) -> Any:
    return {
        "label": label,
        "metrics": {"ndcg@10": {"mean": mean, "sd": sd, "values": [mean]}},
        "seeds": [0] if sd is None else [0, 1, 2],
        "p_holm": p,
        "change_percent": None if label == "first" else 100 * (mean / base - 1),
    }


def compared(*rows: Any, best: str | None = None, comparable: bool = True) -> Any:
    return {"rows": list(rows), "metric": "ndcg@10", "comparable": comparable, "best": {"ndcg@10": best}}


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [row("first", 0.05)],
            "first reaches NDCG@10 0.0500 with one seed; how much the seed matters is not known.",
        ),
        ([row("first", 0.05, sd=0.001)], "first reaches NDCG@10 0.0500 ± 0.0010, the mean of 3 seeds."),
        (
            [row("first", 0.05), row("second", 0.051, p=0.43)],
            "second and first are level in NDCG@10: 0.0510 and 0.0500, p = 0.430.",
        ),
        (
            [row("first", 0.05), row("second", 0.06, p=0.0004)],
            "second is ahead of first in NDCG@10 by 20.0%: 0.0600 against 0.0500, p < 0.001.",
        ),
        (
            [row("first", 0.05), row("second", 0.04, p=0.01)],
            "first is ahead of second in NDCG@10 by 25.0%: 0.0500 against 0.0400, p = 0.010.",
        ),
        (
            [row("first", 0.02), row("second", 0.09, p=0.01)],
            "second is ahead of first in NDCG@10 by a factor of 4.5: 0.0900 against 0.0200, p = 0.010.",
        ),
        (
            [row("first", 0.05), row("second", 0.06)],
            "second and first were not tested against each other in NDCG@10: 0.0600 and 0.0500.",
        ),
        (
            [row("first", 0.0), row("second", 0.06, p=0.01)],
            "second is ahead of first in NDCG@10: 0.0600 against 0.0000, p = 0.010.",
        ),
    ],
)
def test_one_row_and_two(rows: list[Any], sentence: str) -> None:
    assert verdict(compared(*rows)) == sentence


def test_several_rows_are_grouped_against_the_first() -> None:
    rows = [row("first", 0.05), row("a", 0.06, p=0.0001), row("b", 0.0505, p=0.6), row("c", 0.04, p=0.02)]
    against = "Against first with 0.0500: ahead a (+20.0%, p < 0.001); level b (+1.0%, p = 0.600); "
    against += "behind c (−20.0%, p = 0.020)."
    assert verdict(compared(*rows, best="a")) == (
        f"a is ahead of all 3 others beyond chance, with NDCG@10 0.0600. {against}"
    )
    assert verdict(compared(*rows)) == (
        f"No model is ahead of all others beyond chance; a has the highest NDCG@10 0.0600. {against}"
    )
    assert verdict(compared(*rows[:3], best="a")).startswith("a is ahead of both others beyond chance")


def test_rows_of_other_rules_have_no_order() -> None:
    assert "no order among them" in verdict(compared(row("first", 0.05), row("b", 0.06), comparable=False))


def test_baselines_are_named_with_the_rows_that_are_not_above_them() -> None:
    baselines = {"popularity": {"ndcg@10": 0.01}, "last-item transition": {"ndcg@10": 0.05}}
    best = "the best baseline without training, last-item transition, with 0.0500"
    assert baseline_sentence(compared(row("a", 0.06)), baselines) == f"It is above {best}."
    assert baseline_sentence(compared(row("a", 0.06), row("b", 0.07)), baselines) == f"Both are above {best}."
    rows = [row("a", 0.06), row("b", 0.05), row("c", 0.04)]
    assert baseline_sentence(compared(*rows), baselines) == f"b and c are not above {best}."
    assert baseline_sentence(compared(*rows[:2]), baselines) == f"b is not above {best}."
