"""Means over seeds with confidence intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

import numpy as np
from scipy.stats import t as student

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds with its two-sided t-interval.

    Attributes:
        mean: over the seeds.
        half: half of the interval's width, t s / sqrt(n); `None` with one seed.
        count: number of seeds.
    """

    mean: float
    half: float | None
    count: int

    @property
    def low(self) -> float:
        """The lower end; the mean itself with one seed."""
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        """The upper end; the mean itself with one seed."""
        return self.mean + (self.half or 0.0)


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of one value a seed, with its 95% t-interval.

    Seeds are taken as independent draws of everything that is random in a case: split, shares,
    start and order of training.

    Args:
        values: one or more.

    Example:
        >>> found = interval([1.0, 2.0, 3.0])
        >>> found.mean, round(found.half, 3), found.count
        (2.0, 2.484, 3)
    """
    count = len(values)
    mean = fmean(values)
    if count < 2:
        return Interval(mean, None, count)
    error = np.std(values, ddof=1) / np.sqrt(count)
    return Interval(mean, float(_quantile(count) * error), count)


@cache
def _quantile(count: int) -> float:
    """Return the t-quantile of so many seeds; a report asks for some ten thousand intervals."""
    return float(student.ppf((1 + CONFIDENCE) / 2, count - 1))
