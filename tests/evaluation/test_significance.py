"""Paired tests against hand arithmetic and scipy; Holm's correction against its definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from athwe_core.errors import DataError
from athwe_core.evaluation.significance import holm, paired_test

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
