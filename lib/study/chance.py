"""Chance: streams of random numbers that share nothing, and the 95% intervals that chance leaves around a number.

One seed names a whole run. If weights, training z and evaluation z all began from it, they would be the same numbers:
G's first units would know the z that they are judged by. So each purpose draws from a stream of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats

if TYPE_CHECKING:  # the engine's room imports no torch
    from torch import Tensor


def stream(seed: int, *purpose: str | int) -> int:
    """Return the seed of the stream of random numbers that a purpose draws from: stream(0, "weights"), 32 bits.

    purpose: words, and numbers such as an epoch's or a draw's; another purpose or another seed is another, independent
    stream (numpy's SeedSequence). Hand it to a generator of torch, NumPy or scikit-learn.
    """
    parts = (part if isinstance(part, str) else int(part) for part in purpose)  # NumPy's numbers have another repr
    words = [zlib.crc32(repr(part).encode()) for part in parts]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0])


class Interval(NamedTuple):
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float


def interval_of_mean(values: Sequence[float] | np.ndarray | Tensor) -> Interval:
    """Return the mean of independent values (n,) with Student's interval. Raises ValueError for fewer than two."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        raise ValueError(f"an interval needs two values at least, not {len(values)}")
    mean, error = values.mean(), stats.sem(values)
    reach = error * stats.t.ppf(0.975, len(values) - 1)
    return Interval(float(mean), float(mean - reach), float(mean + reach))


def interval_of_difference(
    a: Sequence[float] | np.ndarray | Tensor, b: Sequence[float] | np.ndarray | Tensor
) -> Interval:
    """Return mean(a) - mean(b) of two independent samples (n,), (m,) with Welch's interval.

    Raises ValueError where one has fewer than two.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if min(len(a), len(b)) < 2:
        raise ValueError(f"an interval needs two values at least of each, not {len(a)} and {len(b)}")
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return Interval(float(a.mean() - b.mean()), float(low), float(high))


def interval_of_share(hits: Sequence[bool] | np.ndarray) -> Interval:
    """Return the share of hits (n,) with Wilson's interval. Raises ValueError for none."""
    hits = np.asarray(hits, dtype=bool)
    if not len(hits):
        raise ValueError("a share needs one trial at least")
    interval = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return Interval(float(hits.mean()), float(interval.low), float(interval.high))
