"""Ranks and metrics against a slow float64 twin on scores with ties, and against two other libraries without ties."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from fuzz_cases import MANY, fuzz
from hypothesis import strategies as st
from numpy.typing import NDArray

from athwe_core.evaluation.metrics import mean_metrics, per_user_metrics
from athwe_core.evaluation.ranking import target_ranks

KS = (1, 2, 3, 5, 10, 20, 50, 1000)
FEW_KS = (1, 5, 20)
Case = tuple[NDArray[np.float64], list[int], list[tuple[int, int]] | None]


@st.composite
def scored(draw: st.DrawFn) -> Case:
    """(scores with many ties, target of each row, pairs left out); some rows are all one value."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(2, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([1, 2, 3, 7, 1000]))
    values = rng.normal(size=levels) * 10.0 ** rng.integers(-30, 30, levels)
    if draw(st.booleans()):
        values[rng.integers(levels)] = draw(st.sampled_from([0.0, -0.0, np.inf, -np.inf, 1e-45, 3e38]))
    scores = values.astype(np.float32).astype(np.float64)[rng.integers(0, levels, (rows, columns))]
    targets = rng.integers(1, columns, rows).tolist()
    pairs = None
    if draw(st.booleans()):
        count = draw(st.integers(0, rows * columns))
        pairs = list(zip(rng.integers(0, rows, count).tolist(), rng.integers(0, columns, count).tolist(), strict=True))
    return scores, targets, pairs


def twin_ranks(scores: NDArray[np.float64], targets: list[int], excluded: list[tuple[int, int]] | None) -> list[float]:
    """Mean place of the target over all orders of the items that agree with the scores, one comparison at a time."""
    ranks = []
    for row, target in enumerate(targets):
        left_out = {column for other, column in excluded or () if other == row} - {target}
        items = [scores[row, column] for column in range(1, scores.shape[1]) if column not in left_out]
        ordered = sorted(items, reverse=True)
        places = [place for place, score in enumerate(ordered, start=1) if score == scores[row, target]]
        ranks.append(float(Fraction(sum(places), len(places))))
    return ranks


def twin_metrics(ranks: list[float], ks: tuple[int, ...]) -> dict[str, float]:
    """One user at a time, in Python's float64."""
    gains = {"ndcg": lambda r: 1 / math.log2(r + 1), "mrr": lambda r: 1 / r, "hit": lambda _: 1.0}
    return {
        f"{name}@{k}": math.fsum(gain(r) if r <= k else 0.0 for r in ranks) / len(ranks)
        for name, gain in gains.items()
        for k in ks
    }


def check_twin(case: Case) -> str:
    scores, targets, pairs = case
    expected = twin_ranks(scores, targets, pairs)
    excluded = None if pairs is None else tuple(torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T)
    for dtype in (torch.float32, torch.float64):
        ranks = target_ranks(torch.tensor(scores, dtype=dtype), torch.tensor(targets), excluded=excluded)
        assert ranks.tolist() == expected
    found = mean_metrics(ranks.double().numpy(), KS)
    wanted = twin_metrics(expected, KS)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-14, abs=0), name
    has_ties = any(rank % 1 for rank in expected)
    return f"{'ties' if has_ties else 'no half'}, {'all' if pairs is None else 'seen left out'}"


@pytest.mark.parametrize("cases", [300, pytest.param(MANY, marks=pytest.mark.slow)])
def test_numbers_metrics_equal_a_slow_float64_twin(cases: int) -> None:
    found = fuzz(check_twin, scored(), cases=cases)
    assert len(found) == 4
    assert min(found.values()) > cases / 20


def distinct_case(seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64] | None]:
    """(scores without ties, targets, seen items of each user or None) of up to 8 users over up to 120 items."""
    rng = np.random.default_rng(seed)
    users, items = int(rng.integers(1, 9)), int(rng.integers(2, 121))
    scores = 1.0 + np.argsort(rng.random((users, items + 1)), axis=1)  # whole numbers: exact in every library's float
    seen = rng.integers(1, items + 1, (users, int(rng.integers(0, 10)))) if rng.random() < 0.5 else None
    return scores, rng.integers(1, items + 1, users), seen


def ours(scores: NDArray[np.float64], targets: NDArray[np.int64], seen: NDArray[np.int64] | None) -> Any:
    excluded = None
    if seen is not None:
        rows = np.repeat(np.arange(len(seen)), seen.shape[1])
        excluded = torch.from_numpy(rows), torch.from_numpy(seen.ravel())
    ranks = target_ranks(torch.from_numpy(scores), torch.from_numpy(targets), excluded=excluded)
    return per_user_metrics(ranks.double().numpy(), KS)


def candidates(scores: NDArray[np.float64], target: int, seen: NDArray[np.int64]) -> dict[int, float]:
    """What the other library is given: the items that stand in the ranking, with their scores."""
    return {item: scores[item] for item in range(1, len(scores)) if item == target or item not in seen}


@pytest.mark.parametrize("cases", [100, pytest.param(MANY, marks=pytest.mark.slow)])
def test_numbers_metrics_equal_pytrec_eval(cases: int) -> None:
    import pytrec_eval

    names = {f"ndcg_cut.{k}" for k in KS} | {f"success.{k}" for k in KS} | {"recip_rank"}

    def check(seed: int) -> str:
        scores, targets, seen = distinct_case(seed)
        nothing = np.zeros(0, np.int64)
        run = {
            str(user): {
                str(item): score
                for item, score in candidates(scores[user], target, nothing if seen is None else seen[user]).items()
            }
            for user, target in enumerate(targets)
        }
        truth = {str(user): {str(target): 1} for user, target in enumerate(targets)}
        found = pytrec_eval.RelevanceEvaluator(truth, names).evaluate(run)
        for name, values in ours(scores, targets, seen).items():
            metric, k = name.split("@")
            for user, value in enumerate(values):
                theirs = found[str(user)]
                reciprocal = theirs["recip_rank"] * theirs[f"success_{k}"]  # it has no cut-off of its own
                expected = {"ndcg": theirs[f"ndcg_cut_{k}"], "hit": theirs[f"success_{k}"], "mrr": reciprocal}[metric]
                assert value == pytest.approx(expected, rel=1e-12, abs=0), (name, user)
        return "all" if seen is None else "seen left out"

    assert len(fuzz(check, st.integers(0, 2**32 - 1), cases=cases)) == 2


@pytest.mark.parametrize("cases", [20, pytest.param(MANY, marks=pytest.mark.slow)])
def test_numbers_metrics_equal_torchmetrics(cases: int) -> None:
    """It computes in float32, and NDCG as a difference of cumulative sums up to 30."""
    from torchmetrics.functional import retrieval

    functions = {
        "ndcg": retrieval.retrieval_normalized_dcg,
        "mrr": retrieval.retrieval_reciprocal_rank,
        "hit": retrieval.retrieval_hit_rate,
    }

    def check(seed: int) -> str:
        scores, targets, seen = distinct_case(seed)
        per_user = ours(scores, targets, seen)
        for user, target in enumerate(targets):
            found = candidates(scores[user], target, np.zeros(0, np.int64) if seen is None else seen[user])
            values, is_target = torch.tensor(list(found.values())), torch.tensor([item == target for item in found])
            for name, metric in per_user.items():
                function, k = name.split("@")
                if int(k) not in FEW_KS:
                    continue
                expected = functions[function](values, is_target.long(), top_k=int(k)).item()
                assert metric[user] == pytest.approx(expected, rel=1e-6, abs=5e-6), (name, user)
        return "all" if seen is None else "seen left out"

    assert len(fuzz(check, st.integers(0, 2**32 - 1), cases=cases)) == 2
