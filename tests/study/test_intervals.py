"""Intervals against the libraries' own."""

import numpy as np
import pytest
from scipy import stats

from lib.study import intervals


def test_mean_is_scipys_t_interval():
    values = np.array([1.0, 2, 4, 8])
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose(intervals.of_mean(values), (3.75, low, high))


def test_share_written_out():
    mean, low, high = intervals.of_share([True] * 8 + [False] * 2)
    assert mean == 0.8
    np.testing.assert_allclose((low, high), (0.4902, 0.9433), atol=1e-4)  # Wilson, as in Brown, Cai and DasGupta
    assert intervals.of_share([True] * 5).high == 1


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = [low <= 0 <= high for _, low, high in (intervals.of_mean(rng.normal(size=5)) for _ in range(1000))]
    assert 0.93 < np.mean(covered) < 0.97


def test_difference_written_out():
    mean, low, high = intervals.of_difference([1.0, 2, 3], [0.0, 0, 3])
    assert mean == 1
    np.testing.assert_allclose(
        (low, high), (-2.5482, 4.5482), atol=1e-4
    )  # Welch: error^2 = 1/3 + 1, 3.2 degrees of freedom


def test_errors():
    with pytest.raises(ValueError, match="two values at least, not 1"):
        intervals.of_mean([1.0])
    with pytest.raises(ValueError, match="one trial at least"):
        intervals.of_share([])
