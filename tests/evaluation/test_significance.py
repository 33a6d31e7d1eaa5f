"""Paired tests against hand arithmetic and scipy; Holm's correction against its definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from athwe_core.errors import DataError
from athwe_core.evaluation.significance import holm, paired_test, paired_test_over_seeds

P_VALUES = st.lists(st.floats(0, 1), max_size=8)


class TestPairedTest:
    def test_by_hand(self) -> None:
        """d = 1, 2, 3: t = 2 / (1 / sqrt 3), and with 2 degrees of freedom P(|T| > t) = 1 - t / sqrt(t^2 + 2)."""
        t = 2 * math.sqrt(3)
        expected = 1 - t / math.sqrt(t * t + 2)
        assert paired_test(np.array([1.0, 3.0, 5.0]), np.array([0.0, 1.0, 2.0])) == pytest.approx(expected)

    def test_agrees_with_a_test_of_the_differences(self) -> None:
        rng = np.random.default_rng(0)
        a, b = rng.random(50), rng.random(50)
        assert paired_test(a, b) == pytest.approx(stats.ttest_1samp(a - b, 0).pvalue)

    def test_is_symmetric_and_depends_on_the_pairing(self) -> None:
        a, b = np.array([0.1, 0.5, 0.9, 0.3]), np.array([0.0, 0.45, 0.8, 0.25])
        assert paired_test(a, b) == paired_test(b, a)
        assert paired_test(a, b) < paired_test(a, b[::-1].copy())

    def test_equal_users_have_no_difference(self) -> None:
        values = np.array([0.0, 0.5, 1.0])
        assert paired_test(values, values) == 1.0

    def test_a_constant_difference_is_certain(self) -> None:
        values = np.array([0.1, 0.2, 0.7])
        assert paired_test(values + 0.1, values) == 0.0

    @pytest.mark.parametrize(("a", "b"), [(3, 2), (1, 1), (0, 0)])
    def test_unequal_or_too_few_users_are_refused(self, a: int, b: int) -> None:
        with pytest.raises(DataError, match=rf"must have the same two or more users on both sides, got \({a}, {b}\)"):
            paired_test(np.zeros(a), np.zeros(b))


class TestPairedTestOverSeeds:
    def test_by_hand_where_only_one_side_spreads_over_seeds(self) -> None:
        """d = 3, 3; v = 0 + 1 + 0: t = 3 with 1 degree of freedom, whose distribution is Cauchy's."""
        a, b = np.array([[3.0, 3.0], [5.0, 5.0]]), np.ones((3, 2))
        assert paired_test_over_seeds(a, b) == pytest.approx(1 - 2 * math.atan(3) / math.pi)

    def test_by_hand_where_users_and_seeds_spread_alike(self) -> None:
        """d = 1, 3; v = 1 + 0 + 1: t = sqrt 2 with 4 / (1 + 1) = 2 degrees of freedom."""
        a, b = np.array([[2.0, 4.0], [2.0, 4.0]]), np.array([[0.0, 0.0], [2.0, 2.0]])
        assert paired_test_over_seeds(a, b) == pytest.approx(1 - math.sqrt(2) / 2)

    def test_without_a_spread_over_seeds_it_is_the_paired_test(self) -> None:
        a, b = np.random.default_rng(0).random((2, 50))
        assert paired_test_over_seeds(np.stack([a] * 3), np.stack([b] * 2)) == pytest.approx(paired_test(a, b))

    def test_equal_values_have_no_difference_and_a_constant_one_is_certain(self) -> None:
        values = np.array([[0.1, 0.2, 0.7]] * 2)
        assert paired_test_over_seeds(values, values) == 1.0
        assert paired_test_over_seeds(values + 0.1, values) == 0.0

    def test_chance_of_the_seeds_is_no_difference(self) -> None:
        """Two models that differ by their seeds' luck alone: p < 0.05 is rare, and common in the test over users alone."""
        rng = np.random.default_rng(1)
        over_seeds, over_users = 0, 0
        for _ in range(300):
            users = rng.normal(size=100)
            a, b = (users + rng.normal(size=(3, 1)) + 0.5 * rng.normal(size=(3, 100)) for _ in range(2))
            over_seeds += paired_test_over_seeds(a, b) < 0.05
            over_users += paired_test(a.mean(axis=0), b.mean(axis=0)) < 0.05
        assert over_seeds <= 0.07 * 300
        assert over_users > 0.5 * 300

    def test_a_real_difference_is_found(self) -> None:
        rng = np.random.default_rng(2)
        users = rng.normal(size=500)
        a, b = (users + shift + 0.01 * rng.normal(size=(3, 1)) + rng.normal(size=(3, 500)) for shift in (0.6, 0.0))
        assert paired_test_over_seeds(a, b) < 0.001

    @pytest.mark.parametrize(("a", "b"), [((1, 5), (2, 5)), ((2, 5), (1, 5)), ((2, 1), (2, 1)), ((2, 5), (2, 4))])
    def test_too_few_seeds_or_other_users_are_refused(self, a: tuple[int, int], b: tuple[int, int]) -> None:
        with pytest.raises(DataError, match="paired test over seeds must have two or more seeds on both sides"):
            paired_test_over_seeds(np.zeros(a), np.zeros(b))


class TestHolm:
    def test_by_hand(self) -> None:
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_never_above_one_and_empty_is_empty(self) -> None:
        assert holm([0.6, 0.7]) == [1.0, 1.0]
        assert holm([]) == []

    @settings(deadline=None)
    @given(P_VALUES)
    def test_keeps_the_order_and_lies_between_p_and_bonferroni(self, p_values: list[float]) -> None:
        adjusted = holm(p_values)
        for p, q in zip(p_values, adjusted, strict=True):
            assert p <= q <= 1
        order = np.argsort(p_values, kind="stable")
        assert (np.diff(np.array(adjusted)[order]) >= 0).all()
        if p_values:
            assert min(adjusted) == min(1, len(p_values) * min(p_values))
