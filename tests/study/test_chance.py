"""Intervals against the libraries' own."""

import zlib

import numpy as np
import pytest
from scipy import stats

from lib.study import chance


def test_mean_is_scipys_t_interval():
    values = np.array([1.0, 2, 4, 8])
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose(chance.interval_of_mean(values), (3.75, low, high))


def test_share_written_out():
    mean, low, high = chance.interval_of_share([True] * 8 + [False] * 2)
    assert mean == 0.8
    np.testing.assert_allclose((low, high), (0.4902, 0.9433), atol=1e-4)  # Wilson, as in Brown, Cai and DasGupta
    assert chance.interval_of_share([True] * 5).high == 1


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = [low <= 0 <= high for _, low, high in (chance.interval_of_mean(rng.normal(size=5)) for _ in range(1000))]
    assert 0.93 < np.mean(covered) < 0.97


def test_difference_written_out():
    mean, low, high = chance.interval_of_difference([1.0, 2, 3], [0.0, 0, 3])
    assert mean == 1
    np.testing.assert_allclose(
        (low, high), (-2.5482, 4.5482), atol=1e-4
    )  # Welch: error^2 = 1/3 + 1, 3.2 degrees of freedom


def test_errors():
    with pytest.raises(ValueError, match="two values at least, not 1"):
        chance.interval_of_mean([1.0])
    with pytest.raises(ValueError, match="two values at least of each, not 1 and 3"):
        chance.interval_of_difference([1.0], [0.0, 0, 1])
    with pytest.raises(ValueError, match="one trial at least"):
        chance.interval_of_share([])


def test_streams_of_one_seed_and_of_neighbouring_seeds_share_nothing():
    purposes = [("weights",), ("z",), ("draw", 0), ("draw", 1), ("draw", "1"), ("1", "draw")]
    seeds = [chance.stream(seed, *purpose) for seed in range(50) for purpose in purposes]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)
    drawn = np.stack([np.random.default_rng(seed).normal(size=2000) for seed in seeds[:60]])
    correlations = np.corrcoef(drawn)[np.triu_indices(len(drawn), 1)]
    assert abs(correlations).max() < 0.12, "five standard errors of independent rows"


def test_a_stream_is_the_same_on_every_machine():
    words = [zlib.crc32(b"'draw'"), zlib.crc32(b"3")]
    assert chance.stream(7, "draw", 3) == chance.stream(7, "draw", np.int64(3))
    assert chance.stream(7, "draw", 3) == np.random.SeedSequence([7, *words]).generate_state(1)[0]
