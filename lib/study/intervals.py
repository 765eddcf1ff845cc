"""95% intervals, so that no number of the study stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats

if TYPE_CHECKING:  # the engine's room imports no torch
    from torch import Tensor


class Interval(NamedTuple):
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float


def of_mean(values: Sequence[float] | np.ndarray | Tensor) -> Interval:
    """Return the mean of independent values (n,) with Student's interval. Raises ValueError for fewer than two."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        raise ValueError(f"an interval needs two values at least, not {len(values)}")
    mean, error = values.mean(), stats.sem(values)
    reach = error * stats.t.ppf(0.975, len(values) - 1)
    return Interval(float(mean), float(mean - reach), float(mean + reach))


def of_difference(a: Sequence[float] | np.ndarray | Tensor, b: Sequence[float] | np.ndarray | Tensor) -> Interval:
    """Return mean(a) - mean(b) of two independent samples (n,), (m,) with Welch's interval."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return Interval(float(a.mean() - b.mean()), float(low), float(high))


def of_share(hits: Sequence[bool] | np.ndarray) -> Interval:
    """Return the share of hits (n,) with Wilson's interval. Raises ValueError for none."""
    hits = np.asarray(hits, dtype=bool)
    if not len(hits):
        raise ValueError("a share needs one trial at least")
    interval = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return Interval(float(hits.mean()), float(interval.low), float(interval.high))
